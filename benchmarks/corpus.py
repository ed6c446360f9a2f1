"""Is text read, cleaned and tokenized as fast as the machine allows, in bounded memory?

    python benchmarks/corpus.py                       all of it, an hour and more, 12 GB of disk
    python benchmarks/corpus.py --parts speed,demo    some of it

`speed`: megabytes of text per second of processor time, one thread, on original text (the
quickstart's 72 MB as rows of JSON, out of the page cache): the pipeline whole, against (a)
`encode_batch` of whole documents with the same tokenizer, in batches of 1,000 as datatrove takes
them, and (b) datatrove's steps, in a venv of its own, with its filter of 13 words and without it:
`against_datatrove` is the smaller. `workers`: wall seconds of one worker over those of two, on
recombined text; and the same of processor time, of the driver and its busiest worker, which means
something on a machine with neighbors. `memory`: the most that all processes hold (PSS), above a Ray
session that waits, at 2 and 4 GB of recombined text. `domains`: `cuvee plan` and one proxy by
`cuvee checkpoint` on 1,000 domains, and the most files that a process had open. `demo`: the corpus
of the quickstart from its archives, all cores, and tokens a byte of what it holds out.

Contestants take turns, each in a process of its own; figures are medians over rounds, ratios are of
one run. The last line is JSON.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import corpus_text
from corpus_scale import many_domains, peak_memory, worker_seconds

from cuvee.proxies.data.sources.text_files import Files
from cuvee.proxies.data.tokenizer import TokenizerFile, load_tokenizer
from cuvee.tasks.corpus.corpus_settings import DEFAULT, CorpusSettings
from cuvee.tasks.corpus.prepare import prepare_corpus

PINNED = ("datatrove==0.10.1", "orjson", "regex", "spacy", "xxhash<4")
ONE_THREAD = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
BATCH = 1000  # documents that are encoded together by the others


def pipeline(text: Path, out: Path, settings: CorpusSettings = DEFAULT) -> dict[str, float]:
    """The pipeline on the text of a folder, with its tokenizer given."""
    texts = json.loads((text / "benchmarks.json").read_text())
    sources = {one.name: Files(str(one)) for one in sorted((text / "rows").iterdir())}
    given = TokenizerFile(text / "tokenizer.json")
    began = time.process_time()
    prepared = prepare_corpus(sources, out, benchmarks=texts, settings=settings, tokenizer=given)
    seconds = time.process_time() - began
    shards = [split(x.name) for x in prepared.domains for split in (prepared.train, prepared.valid)]
    return {"cpu": seconds, "tokens": sum(len(one.tokens) - len(one) for one in shards)}


def encode_batch(text: Path, _: Path) -> dict[str, float]:
    """Whole documents by the library alone; reading them is not counted."""
    tokenizer = load_tokenizer(text / "tokenizer.json")
    files = sorted((text / "rows").rglob("*.jsonl"))
    documents = [json.loads(row)["text"] for file in files for row in file.open(encoding="utf-8")]
    began, tokens = time.process_time(), 0
    for start in range(0, len(documents), BATCH):
        encoded = tokenizer.encode_batch(documents[start : start + BATCH])
        tokens += sum(len(one.ids) for one in encoded)
    return {"cpu": time.process_time() - began, "tokens": tokens}


def demo(text: Path, out: Path) -> dict[str, float]:
    """The quickstart's corpus, from its archives to shards, tokenizer and all."""
    from cuvee.proxies.data.sources.quickstart_text import quickstart

    found = corpus_text.archives(text / "archives")
    texts = json.loads((text / "benchmarks.json").read_text())
    wall, cpu = time.perf_counter(), time.process_time()
    corpus = prepare_corpus(quickstart(found), out, benchmarks=texts)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    held = [corpus.valid(one.name) for one in corpus.domains]
    tokens = sum(len(shard.tokens) - len(shard) for shard in held)
    per_byte = tokens / sum(int(shard.bytes.sum()) for shard in held)
    return {"wall": wall, "cpu": cpu, "tokens_per_byte": per_byte}


CHILDREN: dict[str, Callable[[Path, Path], dict[str, float]]] = {
    "pipeline": pipeline, "encode_batch": encode_batch, "demo": demo,
    "worker_seconds": worker_seconds, "peak_memory": peak_memory,
}  # fmt: skip


def child(command: Sequence[str], *, threads: bool = False) -> dict[str, float]:
    """What a program prints on its last line."""
    environment = {**os.environ, **({} if threads else ONE_THREAD)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def ours(name: str, text: Path, work: Path, *more: str, threads: bool = False) -> dict[str, float]:
    """One contestant of this program in a process of its own, its text out of the page cache."""
    corpus_text.forget(text)
    out = work / name
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, __file__, "--child", name, str(text), str(out), *more]
    return child(command, threads=threads)


def datatrove(venv: Path, text: Path, work: Path, *texts: str) -> dict[str, float]:
    """Datatrove's steps in its own venv."""
    corpus_text.forget(text)
    out = work / "datatrove"
    shutil.rmtree(out, ignore_errors=True)
    program = str(Path(__file__).with_name("datatrove_steps.py"))
    command = [str(venv / "bin" / "python"), program, str(text / "rows")]
    return child([*command, str(text / "tokenizer.json"), str(out), *texts])


def datatrove_venv(folder: Path) -> Path | None:
    """A venv with datatrove, made now where it is not there; None where it cannot be had."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"making a venv with {PINNED[0]} in {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        wanted = [*PINNED, f"tokenizers=={version('tokenizers')}"]
        install = [str(python), "-m", "pip", "install", "-q", *wanted]
        done = subprocess.run(install, capture_output=True, text=True, check=False)
        if done.returncode:
            shutil.rmtree(folder)
            print(f"datatrove cannot be had, so it is left out: {done.stderr[-500:]}", flush=True)
            return None
    return folder


def write_text(text: Path, most: int) -> float:
    """Original text, its benchmarks, and a tokenizer trained on it; returns megabytes of text."""
    found = corpus_text.archives(text / "archives")
    benchmarks = corpus_text.benchmark_texts(found, text / "benchmarks")
    (text / "benchmarks.json").write_text(json.dumps(benchmarks))
    shutil.rmtree(text / "rows", ignore_errors=True)
    documents = corpus_text.original(found, most)
    rows = {n: corpus_text.write_rows(text / "rows" / n, each) for n, each in documents.items()}
    sources = {name: Files(str(text / "rows" / name)) for name in rows}
    made = prepare_corpus(sources, text / "trained", benchmarks=benchmarks)
    shutil.copyfile(made.tokenizer_path, text / "tokenizer.json")
    return sum(rows.values()) / 1e6


def speed(text: Path, work: Path, venv: Path | None, rounds: int, size: float) -> dict[str, float]:
    """Megabytes a second and core of each contestant, and the ratios."""
    seen: dict[str, list[float]] = {}
    texts = str(text / "benchmarks.json")
    for number in range(rounds):
        turns: dict[str, Callable[[], dict[str, float]]] = {
            "pipeline": lambda: ours("pipeline", text, work),
            "encode_batch": lambda: ours("encode_batch", text, work),
        }
        if venv is not None:
            turns["datatrove without its filter"] = lambda: datatrove(venv, text, work)
            if number == 0:  # minutes, and far from the others
                turns["datatrove"] = lambda: datatrove(venv, text, work, texts)
        for name, turn in turns.items():
            found = turn()
            seen.setdefault(name, []).append(size / found["cpu"])
            print(f"  {name}: {size / found['cpu']:.2f} MB/s, {found['tokens']:,.0f} tokens",
                  flush=True)  # fmt: skip
    middle = {name: statistics.median(each) for name, each in seen.items()}
    result = {
        "mb_s_core": middle["pipeline"],
        "of_tokenizers_alone": middle["pipeline"] / middle["encode_batch"],
    }
    if venv is not None:
        ratios = [middle["pipeline"] / middle[n] for n in middle if n.startswith("datatrove")]
        result |= {"against_datatrove": min(ratios), "against_datatrove_same_steps": max(ratios)}
    return result


def two_workers(text: Path, work: Path, rounds: int, size: int) -> dict[str, float]:
    """Wall seconds of one worker over those of two, and what processors did, likewise."""
    rows = recombined_rows(text, work / "two", size)
    seen: dict[str, list[dict[str, float]]] = {"1": [], "2": []}
    for _ in range(rounds):
        for workers, each in seen.items():
            each.append(ours("worker_seconds", rows, work, workers))
            told = ", ".join(f"{name} {value:.1f} s" for name, value in each[-1].items())
            print(f"  {workers} workers: {told}, load {os.getloadavg()[0]:.1f}", flush=True)
    shutil.rmtree(rows)
    one, two = (
        {name: statistics.median(x[name] for x in each) for name in ("wall", "chain")}
        for each in seen.values()
    )
    return {"two_workers": one["wall"] / two["wall"],
            "two_workers_by_processor_time": one["chain"] / two["chain"]}  # fmt: skip


def memory(text: Path, work: Path, sizes: Sequence[int]) -> dict[str, float]:
    """The most memory of all processes above an idle Ray session, in GB."""
    result = {}
    for size in sizes:
        rows = recombined_rows(text, work / "memory", size)
        found = ours("peak_memory", rows, work)
        print(f"  {size / 1e9:g} GB of text: {found['peak'] / 1e9:.3f} GB above the "
              f"{found['idle'] / 1e9:.3f} GB of an idle session, {found['wall']:.0f} s, "
              f"{found['documents']:,.0f} documents", flush=True)  # fmt: skip
        result[f"memory_gb_{size / 1e9:g}"] = found["peak"] / 1e9
        shutil.rmtree(rows)
    return result


def recombined_rows(text: Path, folder: Path, size: int) -> Path:
    """A folder of recombined text with the tokenizer and benchmarks of the original."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("benchmarks.json", "tokenizer.json"):
        shutil.copyfile(text / name, folder / name)
    files = sorted((text / "rows").rglob("*.jsonl"))
    documents = [json.loads(row)["text"] for file in files for row in file.open(encoding="utf-8")]
    made = corpus_text.recombined(documents, size, seed=size)
    corpus_text.write_rows(folder / "rows" / "one", made, max(size // 16, 1_000_000))
    return folder


def run(given: argparse.Namespace) -> dict[str, Any]:
    """All parts that are wanted."""
    work = given.work.resolve()
    text = work / "text"
    (text / "archives").mkdir(parents=True, exist_ok=True)
    for path in given.archives.glob("*.*") if given.archives else ():
        shutil.copyfile(path, text / "archives" / path.name)
    size = write_text(text, given.text)
    print(f"{size:.1f} MB of original text", flush=True)
    result: dict[str, Any] = {}
    parts = given.parts.split(",")
    if "speed" in parts:
        venv = datatrove_venv(given.datatrove or work / "datatrove-venv") if given.others else None
        result |= speed(text, work, venv, given.rounds, size)
    if "demo" in parts:
        turns = [ours("demo", text, work, threads=True) for _ in range(given.rounds)]
        middle = sorted(turns, key=lambda one: one["wall"])[len(turns) // 2]
        print(f"  demo: {turns}", flush=True)
        result |= {"seconds_demo": middle["wall"], "cpu_demo": middle["cpu"]}
        result["tokens_per_byte"] = middle["tokens_per_byte"]
    if "workers" in parts:
        result |= two_workers(text, work, given.rounds, given.two)
    if "domains" in parts:
        result |= many_domains(text, work / "domains", given.domains)
    if "memory" in parts:
        result |= memory(text, work, given.memory)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="speed,demo,workers,domains,memory")
    parser.add_argument("--work", type=Path, default=Path(".cuvee/bench-corpus"))
    parser.add_argument("--archives", type=Path, help="folder that has the quickstart's archives")
    parser.add_argument("--datatrove", type=Path, help="venv with datatrove; made where it is not")
    parser.add_argument("--no-others", dest="others", action="store_false")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--text", type=int, default=10**9, help="bytes of each original domain")
    parser.add_argument("--two", type=int, default=10**9, help="bytes of text for the workers")
    parser.add_argument("--domains", type=int, default=1000)
    parser.add_argument("--memory", type=int, nargs="+", default=[2 * 10**9, 4 * 10**9])
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        name, text, out, *more = given.child
        print(json.dumps(CHILDREN[name](Path(text), Path(out), *more)))
        return
    names = ("tokenizers", "ray", "pyarrow", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    print(f"{processor()}, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f} at "
          f"the start, Python {platform.python_version()}, {versions}", flush=True)  # fmt: skip
    result = run(given)
    print(f"load {os.getloadavg()[0]:.1f} at the end")
    print(json.dumps({key: round(value, 3) for key, value in result.items()}))


def processor() -> str:
    """The processor by name, and the widest instructions it has."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split("\t:", 1) for line in text.splitlines()[::-1] if "\t:" in line)
    wide = next((one for one in ("avx512f", "avx2", "sse4_2") if one in lines.get("flags", "")), "")
    return f"{lines.get('model name', platform.machine()).strip()} {wide}".strip()


if __name__ == "__main__":
    main()
