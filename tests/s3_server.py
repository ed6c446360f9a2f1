"""A real S3 API on 127.0.0.1: moto's server in a thread, which can be made to fail as stores do.

Requests are answered in turn, since moto looks for an object and then writes it: so a conditional
write is as exclusive as S3's own.
"""

import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from typing import Any

import moto.server
from werkzeug.serving import WSGIRequestHandler, make_server

KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}
RESET = 0  # a fault: the connection is closed without an answer
BODY = "<Error><Code>{}</Code><Message>Please reduce your request rate.</Message></Error>"
CODES = {
    403: "ExpiredToken",
    409: "ConditionalRequestConflict",
    429: "TooManyRequests",
    503: "SlowDown",
}
Fault = Callable[[str, str], int | None]  # method and path of a request to the status it gets


class _Quiet(WSGIRequestHandler):
    def log_request(self, *_: object) -> None:
        """Say nothing."""


class S3Server:
    """The server; `environment` is what a program needs to find it.

    Attributes:
        asked: (method, path with query) of every request that came, in order.
        fault: answers in the server's place where it gives a status; `after` lets the request be
            done first, so that only its answer is lost.
    """

    def __init__(self) -> None:
        self._app = moto.server.DomainDispatcherApplication(moto.server.create_backend_app)
        self._turn = threading.Lock()
        self.asked: list[tuple[str, str]] = []
        self.fault: Fault | None = None
        self.after = False
        self._server = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet
        )
        self.environment = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.port}"}
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, environ: dict[str, Any], start: Callable) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._turn:
            self.asked.append((method, f"{path}?{environ.get('QUERY_STRING', '')}"))
            status = self.fault(method, path) if self.fault else None
            if status is None or self.after:
                answer = list(self._app(environ, start if status is None else _unheard))
        if status is None:
            return answer
        if not self.after:  # else it was read
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if status == RESET:
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionError
        body = BODY.format(CODES[status]).encode() if method != "HEAD" else b""
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        start(f"{status} {CODES[status]}", headers)
        return [body]

    @contextmanager
    def failing(self, fault: Fault, *, after: bool = False) -> Any:
        """Within it, requests fail as `fault` says."""
        self.fault, self.after = fault, after
        try:
            yield
        finally:
            self.fault, self.after = None, False

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()


def _unheard(*_: object) -> Callable[[bytes], None]:
    return lambda _: None
