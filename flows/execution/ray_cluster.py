"""Joining a cluster without a long wait, starting one without a trace in this process."""

import contextlib
import ctypes
import os
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cuvee.mixtures.errors import ServiceError

REACH_SECONDS = 10
SOCKET_PATH_ROOM = 40  # of the 107 characters that a socket's path may have, what the home may take
SETTINGS = b"\4"  # the kind of frame by which both sides of HTTP/2 begin, after its header's length
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + SETTINGS + bytes(5)
QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds in each of so many, or "max"
SIGACTION_ROOM = 256  # bytes; the structure has 152 on Linux and fewer elsewhere


def check_address(address: str) -> None:
    """Look whether a cluster listens at an address: Ray itself would try for minutes, aloud.

    Raises:
        ServiceError: nobody does, or something that does not speak HTTP/2, as Ray's servers do.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto" and the like name no address
    try:
        place = (host.strip("[]"), int(port))
        with socket.create_connection(place, timeout=REACH_SECONDS) as asked:
            if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
                return  # it takes no greeting in the clear
            asked.sendall(GREETING)
            if asked.recv(16)[3:4] != SETTINGS:
                raise OSError("something else listens there")
    except OSError as error:
        raise ServiceError(
            f"no Ray cluster answers at {address} ({error}): start it, correct RAY_ADDRESS, "
            "or unset it to use a local one"
        ) from error


def usable_cores() -> int | None:
    """Cores that this process may use, where the system says so; Ray counts all there are.

    By its affinity, and by the quota of its container (cgroup v2), which affinity does not know.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):  # no quota: "max" is no number
        quota, period = QUOTA.read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores


def sockets_folder(home: Path) -> Path:
    """A folder for a local cluster's files: in the home, or a new private one where it cannot be.

    Sockets need a short path, and Ray one of plain characters. Nobody can have made the new one
    before, or enter it (Ray opens its own folder to everybody, so that lies one deeper); whoever
    ends the cluster removes it.
    """
    folder = home / "ray"
    if len(str(folder)) <= SOCKET_PATH_ROOM and str(folder).isascii():
        return folder
    shared = tempfile.gettempdir()
    if len(shared) > SOCKET_PATH_ROOM - 20 or not shared.isascii():
        shared = "/tmp"  # noqa: S108 (what is made in it is new and private)
    return Path(tempfile.mkdtemp(prefix="cuvee-", dir=shared)) / "ray"


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Keep this process's reaction to SIGTERM: Ray would replace it by one that aborts.

    By the C library, because Python sets handlers in the main thread only, and Ray is not there.
    """
    libc = ctypes.CDLL(None)
    kept = ctypes.create_string_buffer(SIGACTION_ROOM)
    libc.sigaction(signal.SIGTERM, None, kept)
    try:
        yield
    finally:
        libc.sigaction(signal.SIGTERM, kept, None)


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables that what is started here inherits, and put them back as they were."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
