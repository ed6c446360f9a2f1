"""Two Ray nodes that share nothing but an S3 store finish a study of domains from four kinds of
places.

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
import textwrap
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import tiny_study

from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.prepared_corpus import Corpus
from tests.flows.test_own_tokens import encoded, megatron_pair
from tests.proxies.test_tokenizers import LLAMA, byte_level

BIN = Path(sys.executable).parent
MOUNT = 'set -e; mount -t tmpfs tmpfs "$0"; mkdir -p "$0/home"; cd "$0"; exec "$@"'
DEADLINE = 120.0
TOKENIZER = byte_level(LLAMA)
DOMAINS = {"rows": "[a-c]*.py", "set": "[d-f]*.py", "ids": "[g-i]*.py", "files": "[j-o]*.py"}
MOST = 30_000  # bytes of a document
CARD = "---\nconfigs:\n- {config_name: help, data_files: data/*.parquet}\n---\n"
READ_BY_WORKERS = """
from cuvee.flows.cli.main import app
from cuvee.flows.study import prepare
prepare.LITTLE_TEXT = 0  # this little text would be read without them
app()
"""

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


def write_text(folder: Path) -> None:
    """Four domains of programs, as rows."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, pattern in DOMAINS.items():
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            for path in sorted(tiny_study.STDLIB.glob(pattern)):
                if path.stat().st_size < MOST:
                    file.write(json.dumps({"text": path.read_text(encoding="utf-8")}) + "\n")


def rows(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def write_study(node: Node, s3: str) -> Path:
    """The study on a node: its domains lie in the store, in a data set, in token files and in a
    folder; all but the first, and the benchmark, in the node's own folder."""
    text = node.sees(node.base) / "text"
    write_text(text)
    questions = [
        {"query": f"{n} squared is", "choices": [f" {n * n}", f" {n * n + 1}"], "gold": 0}
        for n in range(2, 12)
    ]
    (text / "squares.jsonl").write_text("".join(json.dumps(q) + "\n" for q in questions))
    there = ObjectFolder(f"{s3}/text")
    there.upload(text / "rows.jsonl", "rows.jsonl")
    (text / "set/data").mkdir(parents=True)
    (text / "set/README.md").write_text(CARD)
    table = pyarrow.table({"body": rows(text / "set.jsonl")})
    pyarrow.parquet.write_table(table, text / "set/data/train.parquet")
    (text / "ours").mkdir()
    TOKENIZER.save(str(text / "ours/tokenizer.json"))
    megatron_pair(text / "ids", encoded(text, "ids", TOKENIZER))
    (text / "files").mkdir()
    for number, program in enumerate(rows(text / "files.jsonl")):
        (text / "files" / f"{number}.py").write_text(program, encoding="utf-8")
    for name in DOMAINS:
        (text / f"{name}.jsonl").unlink()
    here = node.base / "text"
    corpus = f"""
      tokenizer: {here}/ours
      end_of_text: </s>
      heldout_bytes: 8000
      min_tokens: 4096
      domains:
        rows: {{path: {there.url}/rows.jsonl}}
        set: {{dataset: {{name: {here}/set, config: help}}, field: body}}
        ids: {{path: {here}/ids.bin}}
        files: {{path: {here}/files, glob: ["*.py"]}}
    """
    custom = f"{{squares: {here}/squares.jsonl}}"
    recipe = tiny_study.recipe(
        here,
        corpus=textwrap.dedent(corpus),
        proxy="{size: 0.3M, tokens: 40960}",
        evaluation=f"{{suite: null, heldout_tokens: 512, custom: {custom}}}",
        method="{name: mixing_laws, runs: 8, seeds: 2, folds: 4, refits: 10}",
        objective="{name: mean, weights: {domain/set: 1}}",
        confirm="null",
    )
    (text / "recipe.yaml").write_text(recipe)
    return here / "recipe.yaml"


def run_study(node: Node, recipe: Path) -> dict:
    done = node.run(
        sys.executable, "-c", READ_BY_WORKERS, "run", recipe, "--home", node.base / "cuvee"
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    summary = node.sees(node.base) / "cuvee/studies/tiny/summary.json"
    return dict(json.loads(summary.read_text()))


def documents(corpus: Corpus, name: str) -> set[tuple[int, ...]]:
    """The ids of all documents of a prepared domain."""
    shards = corpus.train(name), corpus.valid(name)
    return {tuple(map(int, shard.document(i))) for shard in shards for i in range(len(shard))}


def test_two_nodes_that_share_nothing_but_the_store_finish_a_study(nodes, s3, tmp_path):
    """Catches any path that travels (of sources, of the corpus, of benchmarks, of checkpoints and
    models), text that is lost or read by another tokenizer on its way from where it lies, files of
    a preparation that stay in the store, and a study that another node, with an empty home, trains
    anew."""
    first, second = nodes
    found = run_study(first, write_study(first, s3))
    assert found["trained_now"] > 3
    for node in nodes:  # both have trained
        copies = node.sees(node.base) / "home/.cache/cuvee"
        names = sorted(path.name.split("-")[0] for path in copies.iterdir() if path.is_dir())
        assert names == ["benchmarks", "corpus"]
    write_text(tmp_path)
    (copy,) = copies.glob("corpus-*")  # of the second, on which none of the text lies
    for name in DOMAINS:
        there = documents(Corpus.open(copy, again=False), name)
        assert there == {*map(tuple, encoded(tmp_path, name, TOKENIZER))}
    assert not (second.sees(second.base) / "cuvee").exists()
    names = ObjectFolder(f"{s3}/team").all_names()
    assert not [name for name in names if ".partial" in name]
    assert {name.split("/")[0] for name in names} >= {"corpora", "benchmarks", "runs"}
    assert {name.split("/")[1] for name in names if name.startswith("checkpoints")} <= {
        "references"
    }
    again = run_study(second, write_study(second, s3))
    assert again["trained_now"] == 0 and again["weights"] == found["weights"]
