"""Whom tests send to knock: another local user, and a page of another site in a real browser."""

import contextlib
import http.client
import http.server
import os
import pickle
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

NOBODY = 65534
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def missing(what: str) -> None:
    """Skip a test for want of means; in CI, where they are installed, it fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI has no {what}")
    pytest.skip(f"needs {what}")


def as_nobody(work: Callable[[], Any]) -> Any:
    """What a function returns in a process of the user nobody (it needs no file of ours)."""
    if os.getuid() != 0:
        missing("root, to become another user")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            answer = work()
        except BaseException as error:
            answer = repr(error)
        os.write(writing, pickle.dumps(answer))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as told:
        raw = told.read()
    os.waitpid(child, 0)
    return pickle.loads(raw)


def ask(port: int, method: str, path: str, body: str = "{}", **headers: str) -> tuple[int, dict]:
    """Status and headers of one request to 127.0.0.1; `Host` may be given as another."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {"Content-Type": "application/json", **named})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}


def visit(folder: Path, page: str, *, host: str = "evil.example", at: str = "") -> str:
    """What Chromium shows after a page of another site has run its script, or of an address."""
    if CHROMIUM is None:
        missing("Chromium")
    (folder / "page.html").write_text(page)
    with _site(folder) as port:
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu"]
        command += ["--disable-background-networking", f"--user-data-dir={folder}/profile"]
        command += [f"--host-resolver-rules=MAP {host} 127.0.0.1", "--virtual-time-budget=15000"]
        command += ["--timeout=15000", "--dump-dom"]
        command += [at or f"http://{host}:{port}/page.html"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout


@contextlib.contextmanager
def _site(folder: Path) -> Iterator[int]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *words):
            super().__init__(*words, directory=str(folder))

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()
