"""The call of a handoff: a webhook or a command, made at most once.

Before a call a claim is created in the store, which of several handoffs one alone can; after it
its outcome is kept. A handoff that is cut off in between leaves a claim without an outcome: whether
the receiver was reached is not known, so nothing is repeated until a person says so. Every attempt
carries one key (`Idempotency-Key`, `CUVEE_HANDOFF_KEY`), by which a receiver can drop a repeat.
"""

import datetime
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from mixtures.errors import HandoffError, RecipeError
from tasks.store import Store

FOLDER = "handoffs"
DONE, FAILED, UNSENT, UNKNOWN = "done", "failed", "unsent", "unknown"
BEARER = "CUVEE_WEBHOOK_TOKEN"
COMMANDS = "CUVEE_HANDOFF_COMMANDS"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
SHOWN = 300  # characters of an answer


@dataclass(frozen=True)
class Call:
    """What is called.

    Attributes:
        webhook: an http or https URL, or "".
        command: a program by its full path, and its arguments; or nothing.
        timeout: seconds.
    """

    webhook: str = ""
    command: tuple[str, ...] = ()
    timeout: float = 60


@dataclass(frozen=True)
class Outcome:
    """What came of a call.

    Attributes:
        state: "done"; "failed", when the receiver said no; "unsent", when it was not reached;
            "unknown", when it may or may not have acted.
        said: in words.
        at: when, ISO 8601, UTC.
        attempt: from 1.
    """

    state: str
    said: str
    at: str = ""
    attempt: int = 0


def check(webhook: str | None, command: Sequence[str]) -> None:
    """Refuse what cannot be called, or holds a secret.

    Raises:
        RecipeError: says what is wrong with the recipe's `handoff`.
    """
    if webhook and command:
        raise RecipeError("handoff calls either `webhook` or `command`, not both")
    if not webhook:
        return
    try:
        parts = urlsplit(webhook)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not webhook.isprintable() or " " in webhook:
        raise RecipeError(f"handoff.webhook must be an http or https URL; got {webhook!r}")
    if parts.username or parts.password:
        raise RecipeError(
            "handoff.webhook holds a user name or password: secrets do not stand in recipes; set "
            f"{BEARER} in the environment, which is sent as a bearer token"
        )


def last(store: Store, key: str) -> tuple[int, Outcome | None]:
    """The last attempt under a key and its outcome; 0 if there was none, None if not known."""
    attempt = 0
    while store.files.exists(_claim(store, key, attempt + 1)):
        attempt += 1
    values = store.recall(f"{FOLDER}/{key}", f"{attempt}.outcome") if attempt else None
    return attempt, Outcome(**values) if values else None


def once(
    call: Call, store: Store, key: str, message: Mapping[str, Any], *, again: bool = False
) -> Outcome:
    """Make a call unless it was made.

    Args:
        call: what is called.
        store: keeps claims and outcomes.
        key: of this handoff; equal for a repeat.
        message: JSON for the receiver.
        again: repeat a call that failed or whose outcome is not known; one that was done is not.

    Returns:
        The outcome: of this call, or of the one that was done before.

    Raises:
        HandoffError: it failed, or its outcome is not known; says what to do.
    """
    attempt, known = last(store, key)
    if known is not None and known.state == DONE:
        return known
    if attempt and not again and (known is None or known.state != UNSENT):
        raise HandoffError(_held(store, key, attempt, known))
    attempt += 1
    mark = {"host": socket.gethostname(), "process": os.getpid(), "at": _now(), "id": uuid4().hex}
    if not store.create(_claim(store, key, attempt), json.dumps(mark).encode()):
        raise HandoffError(_held(store, key, attempt, None))
    send = _send_command if call.command else _send_webhook
    found = send(call, key, json.dumps(dict(message), allow_nan=False).encode())
    outcome = Outcome(found.state, found.said[: 2 * SHOWN], _now(), attempt)
    store.remember(f"{FOLDER}/{key}", f"{attempt}.outcome", asdict(outcome))
    if outcome.state != DONE:
        raise HandoffError(_held(store, key, attempt, outcome))
    return outcome


def _held(store: Store, key: str, attempt: int, known: Outcome | None) -> str:
    """Why nothing is called now, and what a person can do."""
    repeat = f"`cuvee handoff RECIPE --again` repeats it under the same key {key[:12]}"
    if known is None:
        try:
            mark = dict(json.loads(store.files.cat_file(_claim(store, key, attempt))))
        except (OSError, ValueError, TypeError):
            mark = {}
        who = f"process {mark.get('process', '?')} on {mark.get('host', '?')}"
        return (
            f"call {attempt} of this handoff was begun by {who} at {mark.get('at', '?')}, and its "
            "outcome is unknown: it is under way, or was cut off. Ask the receiver; if it was not "
            f"reached, {repeat}"
        )
    if known.state == UNSENT:
        return f"the receiver was not reached: {known.said}. `cuvee handoff RECIPE` tries again"
    if known.state == UNKNOWN:
        return f"whether the receiver acted is unknown: {known.said}. Ask it; {repeat}"
    return f"the receiver refused: {known.said}. When that is mended, {repeat}"


def _claim(store: Store, key: str, attempt: int) -> str:
    return f"{store.root}/{FOLDER}/{key}/{attempt}.claim"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _send_webhook(call: Call, key: str, body: bytes) -> Outcome:
    parts = urlsplit(call.webhook)
    host = str(parts.hostname)
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, "User-Agent": "cuvee"}
    if token := os.environ.get(BEARER):
        if parts.scheme != "https" and host not in LOOPBACK:
            return Outcome(UNSENT, f"{BEARER} is set, and is not sent to {host} without https")
        headers["Authorization"] = f"Bearer {token}"
    secure = parts.scheme == "https"
    kind: Callable[..., http.client.HTTPConnection] = (
        http.client.HTTPSConnection if secure else http.client.HTTPConnection
    )
    connection = kind(host, parts.port, timeout=call.timeout)
    try:
        connection.connect()
    except (OSError, ssl.SSLError) as error:
        return Outcome(UNSENT, f"{host} does not answer ({error})")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", path, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read(SHOWN).decode(errors="replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        return Outcome(UNKNOWN, f"{host} was sent the call and gave no answer ({error!r})")
    finally:
        connection.close()
    said = f"{host} answered {answer.status} {answer.reason}: {' '.join(text.split())}"
    return Outcome(DONE if 200 <= answer.status < 300 else FAILED, said)  # no redirect is followed


def _send_command(call: Call, key: str, body: bytes) -> Outcome:
    program = call.command[0]
    allowed = [path for path in os.environ.get(COMMANDS, "").split(os.pathsep) if path]
    if program not in allowed or not os.path.isabs(program):
        return Outcome(
            UNSENT,
            f"{program} may not be run: a recipe alone runs nothing. Whoever operates this sets "
            f"{COMMANDS} in the environment to the full paths of programs that may be",
        )
    try:
        process = subprocess.Popen(
            list(call.command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "CUVEE_HANDOFF_KEY": key},
            start_new_session=True,
        )
    except OSError as error:
        return Outcome(UNSENT, f"{program} does not start ({error.strerror})")
    try:
        out, told = process.communicate(body, timeout=call.timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # and what it started
        process.wait()
        return Outcome(UNKNOWN, f"{program} was ended after {call.timeout:g} s")
    text = " ".join((told or out).decode(errors="replace").split())[-SHOWN:]
    if process.returncode < 0:
        return Outcome(UNKNOWN, f"{program} was killed by signal {-process.returncode}: {text}")
    return Outcome(
        FAILED if process.returncode else DONE, f"{program} ended with {process.returncode}: {text}"
    )
