"""Whether the servers and stores that the environment names answer, within a few seconds."""

import concurrent.futures
import email.utils
import http.client
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

from cuvee.flows.upkeep.machine import OK, PROBLEM, WARNING, Finding
from cuvee.mixtures.errors import CuveeError
from cuvee.proxies.data.objects import PROBE, ObjectFolder
from cuvee.tasks.escape import without_secrets

SECONDS = 3.0  # for an answer
STORE_SECONDS = 10.0  # for a store, whose library tries several times
ASKEW = 60.0  # seconds by which clocks may differ: leases are counted in minutes


def examine_servers() -> Iterator[Finding]:
    """A finding for each server that the environment names, and for those that are embedded."""
    looks: dict[str, Callable[[str], Iterator[Finding]]] = {
        "PREFECT_API_URL": _prefect,
        "MLFLOW_TRACKING_URI": _mlflow,
        "RAY_ADDRESS": _ray,
        "CUVEE_STORE": _store,
    }
    embedded = [name for name in looks if not os.environ.get(name)]
    for name, look in looks.items():
        if name not in embedded:
            yield from _named(name, os.environ[name], look)
    if embedded:
        said = f"not set: {', '.join(embedded)}; what they would name is kept in the home"
        yield Finding(OK, "servers", said)
    yield _hub()


def _named(name: str, url: str, look: Callable[[str], Iterator[Finding]]) -> Iterator[Finding]:
    """What is found at an address, or that it is none."""
    try:
        urlsplit(url)
    except ValueError as error:
        said = f"{without_secrets(url)} is no address ({_why(error)}): correct it, or unset {name}"
        yield Finding(PROBLEM, name, said)
    else:
        yield from look(url)


def _prefect(url: str) -> Iterator[Finding]:
    hint = "" if urlsplit(url).path.rstrip("/").endswith("/api") else "; it usually ends in /api"
    yield from _answers("PREFECT_API_URL", url, "health", hint=hint)


def _mlflow(url: str) -> Iterator[Finding]:
    if urlsplit(url).scheme in ("http", "https"):
        yield from _answers("MLFLOW_TRACKING_URI", url, "health")
    else:
        yield Finding(OK, "MLFLOW_TRACKING_URI", f"{without_secrets(url)}, which is no server")


def _ray(address: str) -> Iterator[Finding]:
    plain = address.removeprefix("ray://")
    host, _, port = plain.rpartition(":")
    if not host or not port.isdigit():
        said = f"{without_secrets(address)} is not looked for: it is no host:port"
        yield Finding(WARNING, "RAY_ADDRESS", said)
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=SECONDS):
            yield Finding(OK, "RAY_ADDRESS", f"{without_secrets(address)} takes connections")
    except (OSError, ValueError, OverflowError) as error:
        yield Finding(
            PROBLEM,
            "RAY_ADDRESS",
            f"{without_secrets(address)} does not answer ({_why(error)}): start the cluster (`ray "
            "start --head`), or unset RAY_ADDRESS for a local Ray",
        )


def _store(url: str) -> Iterator[Finding]:
    shown = without_secrets(url)
    found: concurrent.futures.Future[str] = concurrent.futures.Future()
    # a thread that nobody waits for: a library may try for minutes, and cannot be stopped
    threading.Thread(target=_look_for_store, args=(url, found), daemon=True).start()
    try:
        there = found.result(timeout=STORE_SECONDS)
    except concurrent.futures.TimeoutError:
        said = f"{shown} does not answer within {STORE_SECONDS:.0f} s: check address and network"
        yield Finding(PROBLEM, "CUVEE_STORE", said)
    except CuveeError as error:
        yield Finding(PROBLEM, "CUVEE_STORE", without_secrets(str(error)))
    except Exception as error:  # each kind of store has errors of its own
        why = f"{type(error).__name__}: {_why(error)}"
        said = f"{shown} cannot be read ({why}): check address and keys"
        yield Finding(PROBLEM, "CUVEE_STORE", said)
    else:
        state = WARNING if "cannot be shared" in there else OK
        yield Finding(state, "CUVEE_STORE", f"{shown} {there}")


def _look_for_store(url: str, found: "concurrent.futures.Future[str]") -> None:
    """What there is to say of a store; nothing is written into it."""
    try:
        place = ObjectFolder(url)
        if not place.files.exists(place.root):
            found.set_result("is not there yet; the first study makes it")
            return
        tried = place.read(PROBE) if place.remote else None
        shared = {
            b"yes": ", and sweeps can share it: of two that create one object, one succeeds",
            b"no": ", but cannot be shared: of two that create one object both succeed, so that "
            "one sweep at a time runs on it",
        }
        found.set_result(f"is there{shared.get(tried or b'', '')}")
    except Exception as error:
        found.set_exception(error)


def _answers(name: str, url: str, path: str, *, hint: str = "") -> Iterator[Finding]:
    """Whether a server of the web says that it is well, and whether its clock is ours."""
    shown = without_secrets(url)
    try:
        request = urllib.request.Request(f"{_plain(url)}/{path}")  # noqa: S310  what is named
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            date = answer.headers.get("Date", "")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            yield Finding(OK, name, f"{shown} answers, and asks who is there")
            return
        said = f"{shown} answers {error.code} at /{path}{hint}: check the address"
        yield Finding(PROBLEM, name, said)
        return
    except http.client.HTTPException as error:  # what is said there is no HTTP, or no address
        why = f"{type(error).__name__}: {_why(error)}"
        said = f"{shown} is no server of the web ({why}){hint}: check the address, or unset {name}"
        yield Finding(PROBLEM, name, said)
        return
    except (OSError, ValueError) as error:
        said = f"{shown} does not answer ({_why(error)}){hint}: start the server, or unset {name}"
        yield Finding(PROBLEM, name, said)
        return
    yield Finding(OK, name, f"{shown} answers")
    if date:
        yield from _clock(shown, date)


def _clock(shown: str, date: str) -> Iterator[Finding]:
    """Whether a server's clock is ours, by the date of its answer."""
    try:
        away = abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):
        said = f"{shown} tells a time that cannot be read ({date[:40]!r}): look at its clock"
        yield Finding(WARNING, "clock", said)
        return
    if away > ASKEW:
        yield Finding(
            WARNING,
            "clock",
            f"{shown} is {away:,.0f} s away from this machine's clock: leases "
            "and heartbeats of machines that share a store go by it; set both by NTP",
        )


def _plain(url: str) -> str:
    """An address without its user, password and query: who answers 401 is there, too."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))


def _why(error: BaseException) -> str:
    """An error in a few words, without secrets."""
    reason = getattr(error, "reason", error)
    text = getattr(reason, "strerror", None) or str(reason) or type(error).__name__
    return without_secrets(" ".join(str(text).split())[:200])


def _hub() -> Finding:
    """Whether Hugging Face is asked, which only tasks of lm-eval itself need."""
    offline = [
        n for n in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE") if os.environ.get(n, "0") != "0"
    ]
    keys = "a token is set" if os.environ.get("HF_TOKEN") else "no token is set"
    if offline:
        said = f"kept off by {' and '.join(offline)}: tasks of lm-eval itself come from its cache"
    else:
        said = (
            f"asked for the data of tasks of lm-eval itself alone ({keys}); suites need none of it"
        )
    return Finding(OK, "Hugging Face", said)
