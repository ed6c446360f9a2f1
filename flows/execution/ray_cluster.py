"""Joins a Ray cluster without a long wait, or starts one without a trace in this process."""

import contextlib
import ctypes
import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray

from cuvee.mixtures.errors import ServiceError
from cuvee.proxies.data.objects import is_remote
from cuvee.proxies.train.device import WORKER_ENVIRONMENT, this_device
from cuvee.tasks.process import usable_cores

ATTEMPTS = 3  # to start or join Ray
INHERITED = ("HF_HOME", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")  # by workers on any node
PATHS = ("HF_HOME",)  # of these, what a node that shares a home alone can use
LOOPBACK = "127.0.0.1"
REACH_SECONDS = 10
SOCKET_PATH_ROOM = 40  # of the 107 characters that a socket's path may have, what the home may take
SETTINGS = b"\4"  # the kind of frame by which both sides of HTTP/2 begin, after its header's length
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + SETTINGS + bytes(5)
SIGACTION_ROOM = 256  # bytes; the structure has 152 on Linux and fewer elsewhere


class _Nothing(list[str]):
    """Folders that Ray adds to its workers' path, before all others: none.

    It would add the one that the user is in, and run a `numpy.py` there in place of the package.
    """

    def extend(self, _: Any) -> None:
        """Add nothing."""


def start_cluster(folder: Path | None, cores: int | None) -> None:
    """Join the cluster of RAY_ADDRESS, or start a local one.

    Args:
        folder: for a local cluster's files, from `sockets_folder`.
        cores: of a local cluster; None takes all that this process may use.

    Raises:
        ServiceError: it does not answer or does not start.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address:
        check_address(address)
    job = ray.job_config.JobConfig()
    job._py_driver_sys_path = _Nothing()  # Ray has no public way
    settings: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
    variables: dict[str, str] = {}
    if address:
        apart = is_remote(os.environ.get("CUVEE_STORE", ""))  # nodes have folders of their own
        names = [name for name in INHERITED if not apart or name not in PATHS]
        inherited = {name: os.environ[name] for name in names if name in os.environ}
        variables["RAY_BACKEND_LOG_LEVEL"] = "fatal"  # our own sentence says what is wrong
        settings["runtime_env"] = {"env_vars": {**WORKER_ENVIRONMENT, **inherited}}
    else:
        # A local cluster's workers inherit the environment that they are started in. Whoever
        # has the token runs code there, so it is new each time, and nowhere else.
        variables = {**WORKER_ENVIRONMENT, "RAY_AUTH_MODE": "token"}
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        settings |= {"_temp_dir": str(folder), "include_dashboard": False}
        settings["num_cpus"] = cores or usable_cores()
        settings |= {"object_store_memory": 128 * 2**20, "_node_ip_address": LOOPBACK}
        settings["_memory"] = this_device("cpu").memory  # Ray would take what others left just now
    for attempt in range(ATTEMPTS):
        try:
            with environment(variables), own_signals(), local_listening(not address):
                ray.init(address=address, job_config=job, **settings)
            return
        except (Exception, SystemExit) as error:  # Ray raises both, of no common kind
            ray.shutdown()
            if attempt + 1 < ATTEMPTS:
                continue  # on a busy machine it gives up on itself after 30 s
            where = f"the Ray cluster at {address}" if address else "a local Ray"
            raise ServiceError(f"cannot start or join {where}: {error}") from error


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


@contextlib.contextmanager
def local_listening(local: bool) -> Iterator[None]:
    """Has Ray read how it signs in anew, and a local cluster listen on this machine alone.

    Ray takes 127.0.0.1 for another address of the machine, except where it cannot form clusters.
    """
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = before and not local
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before
