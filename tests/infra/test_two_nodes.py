"""Two Ray nodes that share nothing but an S3 store finish a study.

Each node is in a mount namespace of its own, in which the folder that holds homes, caches and
sessions is an empty disk in memory: a path of one node leads nowhere on the other.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_study

from cuvee.proxies.data.objects import ObjectFolder

BIN = Path(sys.executable).parent
MOUNT = 'set -e; mount -t tmpfs tmpfs "$0"; mkdir -p "$0/home"; cd "$0"; exec "$@"'
DEADLINE = 120.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("unshare") is None or sys.platform != "linux",
        reason="needs root and unshare, for mount namespaces",
    ),
]


def free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])


class Node:
    """A Ray node in a mount namespace of its own.

    Args:
        base: the folder that is empty there.
        address: of the node on this machine; the first one is the cluster's head.
        settings: environment.
    """

    def __init__(self, base: Path, address: str, head: str, settings: dict[str, str]) -> None:
        self.base, self.settings = base, settings
        where = [f"--address={head}"]
        if head.startswith(f"{address}:"):
            where = ["--head", f"--port={head.rpartition(':')[2]}", f"--temp-dir={base}/ray"]
            where += ["--include-dashboard=false"]
        size = ["--num-cpus=1", "--object-store-memory=100000000", "--block"]
        size += [f"--node-ip-address={address}"]
        self.log = base.parent / f"{address}.log"
        self.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", MOUNT, base, BIN / "ray", "start", *where, *size],
            env=settings,
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        until = time.monotonic() + DEADLINE
        while "runtime started" not in self.log.read_text():
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()
            time.sleep(0.2)

    def sees(self, path: Path) -> Path:
        """Where this process finds what the node has at a path."""
        return Path(f"/proc/{self.process.pid}/root{path}")

    def run(self, *command: str | Path, **changes: str) -> subprocess.CompletedProcess[str]:
        """A command on the node."""
        inside = ["nsenter", f"--mount=/proc/{self.process.pid}/ns/mnt", f"--wd={self.base}"]
        return subprocess.run(
            [*inside, *map(str, command)],
            check=False,
            env=self.settings | changes,
            capture_output=True,
            text=True,
            timeout=600,
        )

    def signal(self, number: int) -> None:
        """To the node and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


@pytest.fixture
def settings(s3, s3_server):
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {
        **kept,
        **s3_server.environment,
        "CUVEE_STORE": f"{s3}/team",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }


@pytest.fixture
def nodes(settings):
    base = Path(f"/tmp/nodes-{os.getpid()}")  # short: sockets lie under it
    base.mkdir()
    head = f"127.0.0.1:{free_port()}"
    started: list[Node] = []
    try:
        for address in ("127.0.0.1", "127.0.0.2"):
            own = settings | {"HOME": str(base / "home"), "RAY_ADDRESS": head}
            started.append(Node(base, address, head, own))
        yield started
    finally:
        for node in started:
            node.signal(signal.SIGTERM)
        for node in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                node.process.wait(5)
            node.signal(signal.SIGKILL)
            node.process.wait()
        shutil.rmtree(base, ignore_errors=True)
        for log in base.parent.glob("127.0.0.?.log"):
            log.unlink()


def write_study(node: Node, s3: str) -> Path:
    """The tiny study on a node: two domains and a benchmark in its own folder, one in the store."""
    text = node.sees(node.base) / "text"
    tiny_study.write_corpus(text)
    questions = [
        {"query": f"{n} squared is", "choices": [f" {n * n}", f" {n * n + 1}"], "gold": 0}
        for n in range(2, 12)
    ]
    (text / "squares.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    there = ObjectFolder(f"{s3}/text")
    there.upload(text / "code.jsonl", "code.jsonl")
    (text / "code.jsonl").unlink()
    custom = f"{{squares: {node.base}/text/squares.jsonl}}"
    recipe = tiny_study.recipe(
        node.base / "text",
        evaluation=f"{{suite: null, heldout_tokens: 2048, custom: {custom}}}",
    )
    recipe = recipe.replace(f"{node.base}/text/code.jsonl", f"{there.url}/code.jsonl")
    (text / "recipe.yaml").write_text(recipe)
    return node.base / "text" / "recipe.yaml"


def run_study(node: Node, recipe: Path) -> dict:
    done = node.run(BIN / "cuvee", "run", recipe, "--home", node.base / "cuvee")
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    summary = node.sees(node.base) / "cuvee/studies/tiny/summary.json"
    return dict(json.loads(summary.read_text()))


def test_two_nodes_that_share_nothing_but_the_store_finish_a_study(nodes, s3):
    """Catches any path that travels (of the corpus, of benchmarks, of checkpoints and models), and
    a study that another node, with an empty home, trains anew."""
    first, second = nodes
    found = run_study(first, write_study(first, s3))
    assert found["trained_now"] > 8
    for node in nodes:  # both have trained
        copies = node.sees(node.base) / "home/.cache/cuvee"
        names = sorted(path.name.split("-")[0] for path in copies.iterdir() if path.is_dir())
        assert names == ["benchmarks", "corpus"]
    assert not (second.sees(second.base) / "cuvee").exists()
    names = ObjectFolder(f"{s3}/team").all_names()
    assert {name.split("/")[0] for name in names} >= {"corpora", "benchmarks", "runs"}
    assert {name.split("/")[1] for name in names if name.startswith("checkpoints")} <= {
        "references"
    }
    again = run_study(second, write_study(second, s3))
    assert again["trained_now"] == 0 and again["weights"] == found["weights"]
