"""Joining a cluster without a long wait, starting one without a trace in this process."""

import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Iterator

from mixtures.errors import ServiceError

REACH_SECONDS = 10
SIGACTION_ROOM = 256  # bytes; the structure has 152 on Linux and fewer elsewhere


def reach(address: str) -> None:
    """Look whether anyone listens at a cluster's address: Ray itself would try for minutes.

    Raises:
        ServiceError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto" and the like name no address
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise ServiceError(
            f"no Ray cluster answers at {address} ({error}): start it, correct RAY_ADDRESS, "
            "or unset it to use a local one"
        ) from error


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
