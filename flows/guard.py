"""The embedded Prefect API behind a guard: nobody gets in but who has this server's secret.

Prefect asks for its secret on most of its paths; a guard before all of it asks on every one, and
turns away what a web page of another origin sends, or what comes under another host's name (DNS
rebinding). Run as `python -P -m flows.guard SOCKET`, with the number of a bound socket, so that
nobody else can take the port in between, and the secret in the environment.
"""

import base64
import hmac
import os
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

HOST = "127.0.0.1"
SECRET = "PREFECT_SERVER_API_AUTH_STRING"  # noqa: S105 (a name)
OPEN = ("/api/health", "/api/ready")  # what anybody may GET: it says that the server is up
SIGN_IN, KEEP_OUT = 401, 403

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Guard:
    """An ASGI application that lets through to another one who may.

    Args:
        app: what is guarded.
        port: that it is served at.
        secret: "user:password", by which a client signs in.
    """

    def __init__(self, app: App, *, port: int, secret: str) -> None:
        if not secret:
            raise ValueError("a guard needs a secret")
        self._app = app
        self._hosts = {f"{name}:{port}".encode() for name in (HOST, "localhost")}
        self._origins = {b"http://" + host for host in self._hosts}
        self._expected = b"Basic " + base64.b64encode(secret.encode())

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        status = 0 if scope["type"] == "lifespan" else self._refusal(scope)
        if not status:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # unaccepted: the client gets 403
        else:
            headers = [(b"content-type", b"application/json")]
            if status == SIGN_IN:
                headers.append((b"www-authenticate", b'Basic realm="cuvee"'))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            body = b'{"exception_message":"Unauthorized"}'
            await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: Message) -> int:
        """The status by which a request is refused; 0 if it may pass."""
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        if [value for name, value in headers if name == b"host"][:1] not in (
            [host] for host in self._hosts
        ):
            return KEEP_OUT
        if any(name == b"origin" and value not in self._origins for name, value in headers):
            return KEEP_OUT
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"] in OPEN:
            return 0
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) == 1 and hmac.compare_digest(given[0], self._expected):
            return 0
        if scope["type"] == "websocket" and "prefect" in scope.get("subprotocols", ()):
            return 0  # Prefect's own protocol: the secret is asked for in its first message
        return SIGN_IN


def main() -> None:
    """Serve Prefect's API at the inherited socket that is named, until told to end."""
    import uvicorn
    from prefect.server.api.server import create_app

    with socket.socket(fileno=int(sys.argv[1])) as bound:
        app = Guard(create_app(), port=bound.getsockname()[1], secret=os.environ[SECRET])
        config = uvicorn.Config(app, log_level="error", lifespan="on", server_header=False)
        uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main()
