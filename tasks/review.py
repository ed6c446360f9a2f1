"""Open the record of studies in a browser: MLflow's own server on 127.0.0.1, until Ctrl-C.

The server is a child process in a group of its own, so that Ctrl-C ends all of it and nothing
lingers; it serves one person, so it gets one worker.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mixtures.errors import ServiceError
from tasks.track import ARTIFACTS, DATABASE, SETTINGS, local_uri

HOST = "127.0.0.1"
PORT = 5000
PATIENCE = 120.0  # seconds; a first start on a busy machine takes 10 to 20
GRACE = 10.0  # seconds between asking a server to end and ending it


def command(folder: Path, port: int = PORT) -> list[str]:
    """The command that serves the record in a folder."""
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", local_uri(folder)),
        *("--artifacts-destination", (Path(folder).resolve() / ARTIFACTS).as_uri()),
        *("--host", HOST, "--port", str(port), "--workers", "1"),
    ]


def review(folder: Path, show: Callable[[str], None], *, port: int = PORT) -> None:
    """Serve the record until Ctrl-C; with `MLFLOW_TRACKING_URI`, only say where it is.

    Args:
        folder: holds the embedded record.
        show: is given the lines for people: the address once it answers.
        port: on 127.0.0.1.

    Raises:
        ServiceError: there is no record, the port is taken, or the server ends by itself.
    """
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    if server.startswith("http"):
        show(f"The record is kept by the server at {server}")
        return
    if not (Path(folder) / DATABASE).is_file():
        raise ServiceError(f"there is no record in {folder} yet; `cuvee run` a recipe first")
    _check(port)
    environment = {**SETTINGS, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}
    with _interruptible():
        _serve(command(folder, port), environment, port, show)


def _serve(
    line: list[str], environment: dict[str, str], port: int, show: Callable[[str], None]
) -> None:
    process = subprocess.Popen(
        line,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        _wait(process, port)
        show(f"The record is at http://{HOST}:{port} (Ctrl-C ends it)")
        process.wait()
        raise ServiceError(f"MLflow's server ended by itself with code {process.returncode}")
    except KeyboardInterrupt:
        show("The record is closed.")
    finally:
        _end(process)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM both end the server, also where a shell made the first be ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signs = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(sign, signal.default_int_handler) for sign in signs]
    try:
        yield
    finally:
        for sign, handler in zip(signs, before, strict=True):
            signal.signal(sign, handler)


def _check(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise ServiceError(
                f"port {port} on {HOST} cannot be used ({error}); "
                f"choose another one, such as {port + 1 if port < 65535 else PORT}"
            ) from error


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            raise ServiceError(
                f"MLflow's server ended at once with code {process.returncode}; to see why: "
                + " ".join(map(str, process.args if isinstance(process.args, list) else []))
            )
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ServiceError(f"MLflow's server did not answer on port {port} within {PATIENCE:.0f} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
        except ProcessLookupError:
            return
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue
