"""A real Ray cluster of several nodes on this machine, each with what a test gives it."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from cuvee.flows.execution.ray_executor import wait_for_clusters

WITHIN = 300.0  # seconds for a program to get somewhere on a busy machine
PLAIN = ("--num-cpus=1", "--num-gpus=0")


def until(condition, what: str):
    """What a condition gives once it is true."""
    end = time.monotonic() + WITHIN
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def ray_nodes(monkeypatch, folder: Path, *sizes: Sequence[str]) -> Iterator[None]:
    """A cluster to which this process is told to go, a node for each size in words of Ray's."""
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{asked.getsockname()[1]}"
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    for name, value in {**token, "RAY_ADDRESS": address}.items():
        monkeypatch.setenv(name, value)
    settings = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    shared = tempfile.mkdtemp(prefix="cuvee-")  # sockets need a short path
    head = ["--head", f"--port={address.rpartition(':')[2]}", f"--temp-dir={shared}"]
    nodes = []
    try:
        for k, size in enumerate(sizes):
            words = [f"--address={address}"] if k else [*head, "--include-dashboard=false"]
            words += ["--object-store-memory=100000000", "--block"]
            words += [f"--node-ip-address=127.0.0.{k + 1}", *size]
            log = folder / f"node-{k}.log"
            with log.open("w") as out:
                nodes.append(
                    subprocess.Popen(
                        [Path(sys.executable).with_name("ray"), "start", *words],
                        env=settings, stdout=out, stderr=out, start_new_session=True,
                    )
                )  # fmt: skip
            until(lambda log=log: "runtime started" in log.read_text(), f"node {k}")
        yield
    finally:
        wait_for_clusters()
        for node in nodes:
            with contextlib.suppress(psutil.Error):
                for process in (*psutil.Process(node.pid).children(recursive=True), node):
                    with contextlib.suppress(psutil.Error):
                        process.kill()
            node.wait(30)
        shutil.rmtree(shared, ignore_errors=True)
