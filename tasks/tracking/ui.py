"""The record of studies in a browser: MLflow's own server on 127.0.0.1, until Ctrl-C.

The server is a child process in a group of its own, so that Ctrl-C ends all of it and nothing
lingers. It serves one person, who signs in by the link that is printed.
"""

import base64
import http.client
import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import IO

from cuvee.mixtures.errors import ServiceError
from cuvee.tasks.tracking.guard import HOST, LINK, SECRET, guarded_command
from cuvee.tasks.tracking.mlflow import ARTIFACTS, DATABASE, EXPERIMENT, SETTINGS, local_uri
from cuvee.tasks.tracking.views import STUDIES

PORT = 5000
VIEW = "viewStateShareKey"  # of an address: which saved view is opened
PATIENCE = 120.0  # seconds; a first start on a busy machine takes 10 to 20
GRACE = 10.0  # seconds between asking a server to end and ending it


def server_environment(folder: Path, secret: str) -> dict[str, str]:
    """What the server of the record in a folder is told: as `mlflow server` tells its own."""
    return {
        **SETTINGS,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **os.environ,
        "_MLFLOW_SERVER_FILE_STORE": local_uri(folder),
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": (Path(folder).resolve() / ARTIFACTS).as_uri(),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
        SECRET: secret,
    }


def unsafe_approvals(folder: Path) -> str:
    """Why what the record says cannot be believed to come from whom it names; "" if it can.

    The embedded record is a file: others must not reach it but by the pages that `review` serves.
    A server must refuse who does not sign in.
    """
    server = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not server:
        home = Path(folder).resolve().parent
        seen = home.stat()
        if seen.st_uid == os.getuid() and not seen.st_mode & 0o077:
            return ""
        return f"others can enter {home} (chmod 700 it, or use another --home)"
    if not server.lower().startswith(("http://", "https://")):
        return "whoever can write its database could have said so"
    address = "MLFLOW_TRACKING_URI"
    try:
        parts = urllib.parse.urlsplit(server)
        address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        asked = f"{address}/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}"
        with urllib.request.urlopen(asked, timeout=20):  # noqa: S310 (checked above)
            return f"the server at {address} answers without sign-in"
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            return ""
        return f"the server at {address} does not ask for sign-in (it answers {error.code})"
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"whether the server at {address} asks for sign-in cannot be seen ({error})"


def serve_review(folder: Path, show: Callable[[str], None], *, port: int = PORT) -> None:
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
    require_record(folder)
    secret = secrets.token_urlsafe(24)
    with _bound(port) as bound, _interruptible():
        _serve(bound, server_environment(folder, f"cuvee:{secret}"), secret, show)


def require_record(folder: Path) -> None:
    """Refuse to show a record that is not there; one of a server is left to it.

    Raises:
        ServiceError: the folder holds none.
    """
    server = os.environ.get("MLFLOW_TRACKING_URI", "").startswith("http")
    if not server and not (Path(folder) / DATABASE).is_file():
        raise ServiceError(
            f"there is no record in {folder} yet: `cuvee run` a recipe first, or give --home"
        )


def _serve(
    bound: socket.socket, environment: dict[str, str], secret: str, show: Callable[[str], None]
) -> None:
    port = bound.getsockname()[1]
    with tempfile.TemporaryFile() as said:  # what the server says; told if it ends by itself
        process = subprocess.Popen(
            guarded_command(bound, "mlflow.server.fastapi_app:app", "/health"),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=[bound.fileno()],
            start_new_session=True,
        )
        bound.close()
        try:
            _wait(process, port, said)
            page = f"http://{HOST}:{port}/?{LINK}={secret}{_runs_page(port, secret)}"
            show(f"The record is at {page} (Ctrl-C ends it)")
            show("Whoever has this link can approve in your name: it is for your browser alone.")
            process.wait()
            raise ServiceError(f"MLflow's server ended by itself with code {process.returncode}")
        except KeyboardInterrupt:
            show("The record is closed.")
        finally:
            _end(process)


def _runs_page(port: int, secret: str) -> str:
    """MLflow's list of the runs of all studies, as the end of an address; "" if it is not found."""
    path = f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}"
    signed = "Basic " + base64.b64encode(f"cuvee:{secret}".encode()).decode()
    server = http.client.HTTPConnection(HOST, port, timeout=20)
    with closing(server), suppress(OSError, ValueError, KeyError, http.client.HTTPException):
        server.request("GET", path, headers={"Authorization": signed})
        experiment = json.load(server.getresponse())["experiment"]["experiment_id"]
        return f"#/experiments/{experiment}/runs?workflowType=machine_learning&{VIEW}={STUDIES}"
    return ""


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


@contextmanager
def _bound(port: int) -> Iterator[socket.socket]:
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind((HOST, port))
            bound.listen()  # until a socket listens, others can take its port from under it
        except (OSError, OverflowError) as error:
            raise ServiceError(
                f"port {port} on {HOST} cannot be used ({error}); "
                f"choose another one, such as {port + 1 if port < 65535 else PORT}"
            ) from error
        yield bound


def _wait(process: subprocess.Popen[bytes], port: int, said: IO[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines()
            raise ServiceError(
                f"MLflow's server ended at once with code {process.returncode}; its last words: "
                f"{words[-1][:500] if words else 'none'}"
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
