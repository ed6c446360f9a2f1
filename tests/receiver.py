"""A real HTTP server on 127.0.0.1 that remembers what it was sent."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Receiver:
    """What came, and what is answered."""

    url: str = ""
    status: int = 200
    before: Callable[[dict[str, Any]], None] = lambda message: None
    messages: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """A server while the context lasts."""
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            message = json.loads(body)
            kept.messages.append(message)
            kept.headers.append(dict(self.headers))
            kept.paths.append(self.path)
            kept.before(message)
            self.send_response(kept.status)
            if kept.status == 302:
                self.send_header("Location", f"{kept.url}/elsewhere")
            self.end_headers()
            self.wfile.write(b"told")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None
    kept.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
