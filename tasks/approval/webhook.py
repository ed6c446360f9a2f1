"""The call of a handoff: a webhook or a command, made at most once.

Before a call a claim is created in the store, which of several handoffs one alone can; after it
its outcome is kept. A handoff that is cut off in between leaves a claim without an outcome: whether
the receiver was reached is not known, so nothing is repeated until a person says so. Every attempt
carries one key (`Idempotency-Key`, `CUVEE_HANDOFF_KEY`), by which a receiver can drop a repeat.

A recipe is copied into reports and records, so that no part of a webhook's URL that may be a secret
stands in it: the URL is then in the environment, and the recipe names the variable.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit
from uuid import uuid4

from cuvee.mixtures.errors import HandoffError, RecipeError, StorageError
from cuvee.mixtures.runs.run_records import revive
from cuvee.tasks.approval.approve import utc_now
from cuvee.tasks.process import outer_environment
from cuvee.tasks.store.results import Store

FOLDER = "handoffs"
DONE, FAILED, UNSENT, UNKNOWN = "done", "failed", "unsent", "unknown"
BEARER = "CUVEE_WEBHOOK_TOKEN"
HOSTS = "CUVEE_HANDOFF_HOSTS"
COMMANDS = "CUVEE_HANDOFF_COMMANDS"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
VARIABLE = re.compile(r"\$\{?(CUVEE_WEBHOOK_(?!TOKEN\b)[A-Z0-9_]+)\}?")  # that holds the URL
PLAIN = re.compile(r"/?([a-z][a-z-]{0,11}/?)?")  # a path that is no secret: one short word at most
SHOWN = 300  # characters of what a command says


@dataclass(frozen=True)
class HandoffCall:
    """What is called.

    Attributes:
        webhook: an http or https URL, a variable that holds one (`$CUVEE_WEBHOOK_URL`), or "".
        command: a program by its full path, and its arguments; or nothing.
        timeout: seconds for all of it.
    """

    webhook: str = ""
    command: tuple[str, ...] = ()
    timeout: float = 60


@dataclass(frozen=True)
class CallOutcome:
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


def check_handoff(webhook: str | None, command: Sequence[str], to: str = "") -> None:
    """Refuse what cannot be called, or may hold a secret; a secret is not repeated.

    Raises:
        RecipeError: says what is wrong with the recipe's `handoff`.
    """
    if webhook and command:
        raise RecipeError("handoff calls either `webhook` or `command`, not both")
    if _credentials(to):
        raise RecipeError(
            "handoff.to holds a password or a query: secrets do not stand in recipes; fsspec finds "
            "credentials in the environment"
        )
    if not webhook or VARIABLE.fullmatch(webhook):
        return
    parts = _parts(webhook)
    if parts is None:
        raise RecipeError(
            "handoff.webhook must be an http or https URL, or name a variable of the environment "
            "that holds one (`$CUVEE_WEBHOOK_URL`)"
        )
    secrets = {
        "a user name or password": parts.username or parts.password,
        "a query": parts.query,
        "a fragment": parts.fragment,
        "a path of more than one short word": not PLAIN.fullmatch(parts.path),
    }
    if any(secrets.values()):
        raise RecipeError(
            f"handoff.webhook, to {parts.hostname}, has "
            f"{' and '.join(name for name, held in secrets.items() if held)}, which may be a "
            "secret, and recipes are copied into reports and records: set the variable "
            "CUVEE_WEBHOOK_URL in the environment to the whole URL, and write "
            f"`webhook: $CUVEE_WEBHOOK_URL` ({BEARER} is sent as a bearer token)"
        )


def _parts(url: str) -> SplitResult | None:
    """A URL that can be called, or None."""
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        return parts if named and url.isascii() and url.isprintable() and " " not in url else None
    return None


def _credentials(url: str) -> bool:
    try:
        links = [urlsplit(link) for link in url.split("::")]  # fsspec chains them
    except ValueError:
        return False
    return any("://" in url and (link.password or link.query) for link in links)


def last_call(store: Store, key: str) -> tuple[int, CallOutcome | None]:
    """The last attempt under a key and its outcome; 0 if there was none, None if not known."""
    attempt = 0
    while store.objects.files.exists(store.objects.path(_claim(key, attempt + 1))):
        attempt += 1
    values = store.recall(f"{FOLDER}/{key}", f"{attempt}.outcome") if attempt else None
    states = (DONE, FAILED, UNSENT, UNKNOWN)  # a later version may know others, which we do not
    if not isinstance(values, Mapping) or values.get("state") not in states:
        return attempt, None
    return attempt, revive(CallOutcome, {"said": "", **values})


def call_once(
    call: HandoffCall, store: Store, key: str, message: Mapping[str, Any], *, again: bool = False
) -> CallOutcome:
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
    attempt, known = last_call(store, key)
    if known is not None and known.state == DONE:
        return known
    if attempt and not again and (known is None or known.state != UNSENT):
        raise HandoffError(_held(store, key, attempt, known))
    attempt += 1
    mark = {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "at": utc_now(),
        "id": uuid4().hex,
    }
    if not store.objects.create(_claim(key, attempt), json.dumps(mark).encode()):
        raise HandoffError(_held(store, key, attempt, None))
    send = _send_command if call.command else _send_webhook
    found = send(call, key, json.dumps(dict(message), allow_nan=False).encode())
    outcome = CallOutcome(found.state, found.said[: 2 * SHOWN], utc_now(), attempt)
    store.remember(f"{FOLDER}/{key}", f"{attempt}.outcome", asdict(outcome))
    if outcome.state != DONE:
        raise HandoffError(_held(store, key, attempt, outcome))
    return outcome


def _held(store: Store, key: str, attempt: int, known: CallOutcome | None) -> str:
    """Why nothing is called now, and what a person can do."""
    repeat = f"`cuvee handoff RECIPE --again` repeats it under the same key {key[:12]}"
    if known is None:
        try:
            mark = dict(json.loads(store.objects.read(_claim(key, attempt)) or b""))
        except (StorageError, OSError, ValueError, TypeError):
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


def _claim(key: str, attempt: int) -> str:
    return f"{FOLDER}/{key}/{attempt}.claim"


def _send_webhook(call: HandoffCall, key: str, body: bytes) -> CallOutcome:
    named = VARIABLE.fullmatch(call.webhook)
    parts = _parts(os.environ.get(named[1], "").strip() if named else call.webhook)
    if parts is None or parts.username or parts.password:
        return CallOutcome(
            UNSENT,
            f"{named[1] if named else 'handoff.webhook'} in the environment is not set to an http "
            "or https URL (without a user name)",
        )
    host, token, without = str(parts.hostname), os.environ.get(BEARER), ""
    headers = {"Content-Type": "application/json", "Idempotency-Key": key, "User-Agent": "cuvee"}
    if token and parts.scheme != "https" and host not in LOOPBACK:
        return CallOutcome(UNSENT, f"{BEARER} is set, and is not sent to {host} without https")
    if token and _allowed(parts):
        headers["Authorization"] = f"Bearer {token}"
    elif token:
        without = f"; {BEARER} was not sent, since {HOSTS} in the environment does not name it"
    secure = parts.scheme == "https"
    kind: Callable[..., http.client.HTTPConnection] = (
        http.client.HTTPSConnection if secure else http.client.HTTPConnection
    )
    connection = kind(host, _port(parts), timeout=call.timeout)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    post = ("POST", path, body, headers)
    found = _exchange(connection, post, call.timeout)
    return CallOutcome(
        found.state, f"{host} {found.said}{without if found.state != UNSENT else ''}"
    )


def _allowed(parts: SplitResult) -> bool:
    """Whether the operator lets a token go to a host, which is named with a port or without."""
    for entry in os.environ.get(HOSTS, "").replace(",", " ").split():
        with contextlib.suppress(ValueError):
            named = urlsplit(f"//{entry}")
            if named.hostname == parts.hostname and named.port in (None, _port(parts)):
                return True
    return False


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def _exchange(
    connection: http.client.HTTPConnection,
    post: tuple[str, str, bytes, dict[str, str]],
    wait: float,
) -> CallOutcome:
    """One request and the status of its answer, in a thread that may be left behind.

    So one deadline holds for all of it: names that are not resolved and answers that come byte by
    byte included. The answer's text is not read: it may be an internal service's.
    """
    lock, over = threading.Lock(), threading.Event()
    known = [CallOutcome(UNSENT, f"does not answer within {wait:g} s")]  # the last is what is known

    def talk() -> None:
        try:
            connection.connect()
        except (OSError, ValueError) as error:
            known.append(CallOutcome(UNSENT, f"does not answer ({error})"))
            return
        sent = "was sent the call and gave no answer"
        with lock:
            if over.is_set():
                return
            known.append(CallOutcome(UNKNOWN, f"{sent} within {wait:g} s"))
        try:
            connection.request(*post)
            status = connection.getresponse().status  # no redirect is followed
        except (OSError, ValueError, http.client.HTTPException) as error:
            name = type(error).__name__  # its text may hold bytes of the answer
            known.append(CallOutcome(UNKNOWN, f"{sent} ({name})"))
            return
        finally:
            connection.close()
        state = DONE if 200 <= status < 300 else FAILED
        known.append(CallOutcome(state, f"answered {status}"))

    thread = threading.Thread(target=talk, name="webhook", daemon=True)
    thread.start()
    thread.join(wait)
    with lock:
        over.set()
        outcome = known[-1]
    with contextlib.suppress(OSError):
        if connection.sock:
            connection.sock.shutdown(socket.SHUT_RDWR)
    return outcome


def _send_command(call: HandoffCall, key: str, body: bytes) -> CallOutcome:
    program = call.command[0]
    allowed = [path for path in os.environ.get(COMMANDS, "").split(os.pathsep) if path]
    if program not in allowed or not os.path.isabs(program):
        return CallOutcome(
            UNSENT,
            f"{program} may not be run: a recipe alone runs nothing. Whoever operates this sets "
            f"{COMMANDS} in the environment to the full paths of programs that may be",
        )
    # Files, not pipes: a launcher is done when it exits, also where what it started holds its
    # output, and that goes on writing when nobody reads any more.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as output:
        given.write(body)
        given.seek(0)
        try:
            process = subprocess.Popen(
                list(call.command),
                stdin=given,
                stdout=output,
                stderr=output,
                env={**outer_environment(), "CUVEE_HANDOFF_KEY": key},
                start_new_session=True,
            )
        except OSError as error:
            return CallOutcome(UNSENT, f"{program} does not start ({error.strerror})")
        try:
            code = process.wait(timeout=call.timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # and what it started
            process.wait()
            return CallOutcome(UNKNOWN, f"{program} was ended after {call.timeout:g} s")
        output.seek(max(0, output.seek(0, os.SEEK_END) - 4 * SHOWN))
        text = " ".join(output.read(4 * SHOWN).decode(errors="replace").split())[-SHOWN:]
    if code < 0:
        return CallOutcome(UNKNOWN, f"{program} was killed by signal {-code}: {text}")
    return CallOutcome(FAILED if code else DONE, f"{program} ended with {code}: {text}")
