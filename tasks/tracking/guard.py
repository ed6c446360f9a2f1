"""A guard before a server that is started here: nobody gets in but who has its secret.

The servers of Prefect and MLflow ask for nothing, or on most of their paths; a guard before all of
it asks on every one, and turns away what a web page of another origin sends, or what comes under
another host's name (DNS rebinding). A program gives the secret as a user and a password; a browser
by a link, once, that sets a cookie. Run as `python -P -m cuvee.tasks.tracking.guard SOCKET
MODULE:APP [OPEN ...]`, with the number of a bound socket, so that nobody else can take the port
in between, and the secret in the environment.
"""

import base64
import hmac
import inspect
import os
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from urllib.parse import parse_qs

HOST = "127.0.0.1"
SECRET = "CUVEE_GUARD_SECRET"  # noqa: S105 (a name)
LINK = "sign-in"  # the field of a link that holds the password
SIGNED_IN, SIGN_IN, KEEP_OUT = 303, 401, 403

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
        free: paths that anybody may GET: they say that the server is up.
    """

    def __init__(self, app: App, *, port: int, secret: str, free: Sequence[str] = ()) -> None:
        if not secret:
            raise ValueError("a guard needs a secret")
        self._app, self._free = app, free
        self._hosts = {f"{name}:{port}".encode() for name in (HOST, "localhost")}
        self._origins = {b"http://" + host for host in self._hosts}
        self._password = secret.partition(":")[2].encode()
        self._basic = b"Basic " + base64.b64encode(secret.encode())
        self._cookie = f"cuvee-{port}=".encode() + self._password

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        status = 0 if scope["type"] == "lifespan" else self._refusal(scope)
        if not status:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # unaccepted: the client gets 403
        else:
            headers = [(b"cache-control", b"no-store"), (b"content-type", b"text/plain")]
            if status == SIGN_IN:
                headers.append((b"www-authenticate", b'Basic realm="cuvee"'))
            if status == SIGNED_IN:
                headers.append((b"location", b"/"))
                kept = self._cookie + b"; Path=/; HttpOnly; SameSite=Strict"
                headers.append((b"set-cookie", kept))
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b"sign in\n"})

    def _refusal(self, scope: Message) -> int:
        """The status by which a request is refused; 0 if it may pass."""
        headers = [(name.lower(), value) for name, value in scope["headers"]]
        if [value for name, value in headers if name == b"host"][:1] not in (
            [host] for host in self._hosts
        ):
            return KEEP_OUT
        if any(name == b"origin" and value not in self._origins for name, value in headers):
            return KEEP_OUT
        if scope["type"] == "http" and scope["method"] == "GET":
            if scope["path"] in self._free:
                return 0
            told = parse_qs(scope["query_string"]).get(LINK.encode(), [b""])[0]
            if hmac.compare_digest(told, self._password):
                return SIGNED_IN
        given = [value for name, value in headers if name == b"authorization"]
        cookies = [
            one for name, value in headers if name == b"cookie" for one in value.split(b"; ")
        ]
        if [1 for one in given if hmac.compare_digest(one, self._basic)] or [
            1 for one in cookies if hmac.compare_digest(one, self._cookie)
        ]:
            return 0
        if scope["type"] == "websocket" and "prefect" in scope.get("subprotocols", ()):
            return 0  # Prefect's own protocol: the secret is asked for in its first message
        return SIGN_IN


def guarded_command(bound: socket.socket, app: str, *free: str) -> list[str]:
    """The command that serves `MODULE:APP` behind a guard at a socket that it inherits.

    Args:
        bound: the socket; pass it on, and the secret under `SECRET` in the environment.
        app: what is guarded.
        free: paths that anybody may GET.
    """
    module = "cuvee.tasks.tracking.guard"
    return [sys.executable, "-P", "-m", module, str(bound.fileno()), app, *free]


def main() -> None:
    """Serve an application at the inherited socket that is named, until told to end."""
    import uvicorn
    from uvicorn.importer import import_from_string

    number, name, *free = sys.argv[1:]
    made = import_from_string(name)
    with socket.socket(fileno=int(number)) as bound:
        inner = made() if inspect.isfunction(made) else made
        secret, port = os.environ.pop(SECRET), bound.getsockname()[1]
        app = Guard(inner, port=port, secret=secret, free=free)
        config = uvicorn.Config(app, log_level="error", lifespan="on", server_header=False)
        uvicorn.Server(config).run(sockets=[bound])


if __name__ == "__main__":
    main()
