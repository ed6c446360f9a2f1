"""Workers, memory and a thousand domains, for `corpus.py`."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import corpus_text

from cuvee.flows.execution.ray_executor import RayExecutor
from cuvee.flows.workspace import QUIET
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.proxies.data.sources.text_files import Files
from cuvee.proxies.data.tokenizer import TokenizerFile
from cuvee.tasks.corpus.pipeline.task_pool import TaskPool
from cuvee.tasks.corpus.prepare import prepare_corpus

SAMPLED = 0.1  # seconds between two looks at memory or at open files
DOMAIN = 100_000  # bytes of text of each of many domains
RECIPE = """\
name: many
seed: 1
corpus:
  vocabulary: 1024
  heldout_bytes: 5000
  min_tokens: 1000
  domains:
{domains}
proxy: {{size: 0.3M, tokens: 100k, device: cpu}}
evaluation: {{suite: null, heldout_tokens: 1024}}
objective: {{name: mean, weights: {{domain/d0000: 1, domain/d0001: 1}}}}
full_scale: {{tokens: 1M}}
method: {{name: static, choose: natural, trials: 2}}
"""


@contextmanager
def cluster(out: Path, workers: int) -> Iterator[TaskPool]:
    """A local Ray cluster whose workers have started and have done something."""
    out.mkdir(parents=True)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with RayExecutor(out, device="cpu", cores=workers) as executor:
        pool = executor.pool(None)
        for _ in pool.map(time.sleep, [0.5] * workers):
            pass
        yield pool


def _prepare(text: Path, out: Path, pool: TaskPool) -> Corpus:
    sources = {one.name: Files(str(one)) for one in sorted((text / "rows").iterdir())}
    texts = json.loads((text / "benchmarks.json").read_text())
    given = TokenizerFile(text / "tokenizer.json")
    return prepare_corpus(sources, out, benchmarks=texts, tokenizer=given, pool=pool)


def worker_seconds(text: Path, out: Path, workers: str) -> dict[str, float]:
    """Wall seconds of so many workers; and what the longest chain of processes computed.

    That is this process and the busiest of its workers, in seconds of processor time, of which
    others on the machine take none away.
    """
    with cluster(out, int(workers)) as pool:
        before = worker_times(os.getpid())
        began, cpu = time.perf_counter(), time.process_time()
        _prepare(text, out / "corpora", pool)
        wall, cpu = time.perf_counter() - began, time.process_time() - cpu
        after = worker_times(os.getpid())
    own = [seconds - before.get(one, 0.0) for one, seconds in after.items()]
    return {"wall": wall, "chain": cpu + max(own), "driver": cpu}


def worker_times(process: int) -> dict[int, float]:
    """Seconds of processor time of each worker of Ray that a process started."""
    found = {}
    for one in descendants(process):
        try:
            stat = Path(f"/proc/{one}/stat").read_text()
        except OSError:
            continue
        if stat.split("(", 1)[1].startswith("ray::"):
            user, system = stat.rsplit(")", 1)[1].split()[11:13]
            found[one] = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return found


def peak_memory(text: Path, out: Path) -> dict[str, float]:
    """Bytes that this process and all it started hold at most, above what they hold when idle."""
    with cluster(out, 2) as pool:
        time.sleep(2)
        idle = peak = proportional_size(os.getpid())
        ended = threading.Event()

        def look() -> None:
            nonlocal peak
            while not ended.wait(SAMPLED):
                peak = max(peak, proportional_size(os.getpid()))

        watcher = threading.Thread(target=look)
        watcher.start()
        began = time.perf_counter()
        try:
            made = _prepare(text, out / "corpora", pool)
        finally:
            ended.set()
            watcher.join()
        wall = time.perf_counter() - began
    documents = sum(one.documents for one in made.domains)
    shutil.rmtree(out)
    return {"idle": idle, "peak": peak - idle, "wall": wall, "documents": documents}


def descendants(process: int) -> list[int]:
    """A process and all that it started."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(entry.parent.name))
    found = [process]
    for one in found:
        found += children.get(one, [])
    return found


def proportional_size(process: int) -> int:
    """Bytes of memory of a process and all that it started, what they share counted once (PSS)."""
    total = 0
    for one in descendants(process):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def many_domains(text: Path, folder: Path, count: int) -> dict[str, float]:
    """Seconds of `cuvee plan`, which prepares, and of one proxy; the most open files."""
    shutil.rmtree(folder, ignore_errors=True)
    files = sorted((text / "rows").rglob("*.jsonl"))
    pool = [json.loads(row)["text"] for file in files for row in file.open(encoding="utf-8")]
    names = [f"d{i:04}" for i in range(count)]
    for i, name in enumerate(names):
        corpus_text.write_rows(folder / name, corpus_text.recombined(pool, DOMAIN, seed=i))
    recipe, home = folder / "many.yaml", folder / "home"
    domains = "\n".join(f"    {name}: {{path: {folder / name}}}" for name in names)
    recipe.write_text(RECIPE.format(domains=domains))
    seconds, most = {}, 0
    for command, more in (("plan", []), ("checkpoint", ["--to", str(folder / "proxy")])):
        words = [sys.executable, "-m", "cuvee.flows", command, str(recipe), "--home", str(home)]
        began = time.perf_counter()
        with (folder / f"{command}.log").open("w") as log:
            running = subprocess.Popen([*words, *more], stdout=log, stderr=log)
            while running.poll() is None:
                most = max(most, *map(open_files, descendants(running.pid)))
                time.sleep(SAMPLED)
        seconds[command] = time.perf_counter() - began
        if running.returncode:
            raise SystemExit((folder / f"{command}.log").read_text()[-4000:])
    print(f"  {count:,} domains: {seconds}, at most {most} open files in a process", flush=True)
    return {f"seconds_{count}_domains": sum(seconds.values()), "open_files": most}


def open_files(process: int) -> int:
    """Files that a process has open; 0 where it has ended."""
    try:
        return len(os.listdir(f"/proc/{process}/fd"))
    except OSError:
        return 0
