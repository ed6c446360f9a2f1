"""The embedded Prefect API: used when PREFECT_API_URL names no server.

Prefect can start such a server by itself, but in the caller's process group: Ctrl-C then ends the
server before the flow could say that it was cancelled, and the client waits minutes for it; a
SIGKILL leaves it behind. So it is started here, in a session of its own, and asked of the kernel to
end with its parent. Each server has a secret of its own, which stands in its environment and in the
settings of its clients alone (`tasks.tracking.guard`).
"""

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from cuvee.mixtures.errors import ServiceError
from cuvee.tasks.tracking.guard import HOST, SECRET, guarded_command

START_SECONDS = 120
PR_SET_PDEATHSIG = 1
PREFECT_SECRETS = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")
EMBEDDED = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}
SCHEDULING = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
    "PREFECT_SERVER_SERVICES_SCHEDULER_DEPLOYMENT_BATCH_SIZE": "100",
    "PREFECT__SERVER_FINAL": "1",
}


class PrefectApi:
    """An API to run flows against: PREFECT_API_URL if set, else an embedded server.

    Args:
        folder: where an embedded server writes its log; its database lies under PREFECT_HOME.
        schedules: whether an embedded server makes the runs of schedules, and has the UI.

    Attributes:
        url: of the API. The server is started on construction; `wait` returns once it answers, so
            that a program can import its heavy parts in the meantime.
        secret: of an embedded server, "user:password"; "" where the environment names a server,
            for which it holds what clients need.
    """

    def __init__(self, folder: Path, *, schedules: bool = False) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.secret = ""
        given = os.environ.get("PREFECT_API_URL")
        if given:
            self.url = given
            return
        with socket.socket() as bound:
            bound.bind((HOST, 0))
            origin = f"http://{HOST}:{bound.getsockname()[1]}"
            self.url, self.secret = f"{origin}/api", f"cuvee:{secrets.token_urlsafe(32)}"
            own = dict.fromkeys((SECRET, *PREFECT_SECRETS), self.secret)
            own |= {"PREFECT_UI_API_URL": self.url, "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin}
            settings = SCHEDULING if schedules else EMBEDDED
            self._process = _start(bound, folder, {**settings, **own})

    def __enter__(self) -> "PrefectApi":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait(self) -> str:
        """The URL, once the API answers.

        Raises:
            ServiceError: it does not answer.
        """
        seconds = START_SECONDS if self._process else 15
        deadline = time.monotonic() + seconds
        with httpx.Client(timeout=5) as client:  # one: each reads all certificates as it is made
            while time.monotonic() < deadline:
                with contextlib.suppress(httpx.HTTPError):
                    if client.get(f"{self.url}/health").status_code == 200:
                        return self.url
                if self._process is not None and self._process.poll() is not None:
                    raise ServiceError(
                        f"the embedded Prefect API ended with code {self._process.returncode}; "
                        "its last words are in prefect-api/server.log under the home folder"
                    )
                time.sleep(0.1)
        hint = "" if self.url.rstrip("/").endswith("/api") else " (it usually ends in /api)"
        raise ServiceError(
            f"no Prefect API answers at {self.url}{hint} within {seconds} s: start the server, "
            "correct PREFECT_API_URL, or unset it to use the embedded one"
        )


def _start(
    bound: socket.socket, folder: Path, settings: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def end_with_parent() -> None:
        if libc is not None:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    app = "prefect.server.api.server:create_app"
    with open(folder / "server.log", "ab") as log:
        return subprocess.Popen(
            guarded_command(bound, app, "/api/health", "/api/ready"),
            env={**os.environ, **settings},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[bound.fileno()],
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 (started before any thread)
        )
