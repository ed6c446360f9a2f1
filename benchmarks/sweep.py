"""What a study costs beside training and scoring, and what 512 finished proxies cost.

Two studies go through the command line, each as a process of its own, imports and the start of
every server included:

* 64 proxies of the smallest size, confirmation included, from raw text to report. The overhead is
  `1 - (seconds of training and scoring, summed over proxies) / (wall seconds x cores)`. Seconds of
  training are wall time in the workers, so what the flow's own process takes from them is hidden
  there; everything else (imports, workers that start, corpus, record, fits, report, cores that
  wait) counts as overhead.
* 512 proxies whose results are in the store: synthetic scores of the real specs. The first run
  makes the record and the fits; `finished_512_seconds` is that of the same command again.

Usage: python benchmarks/sweep.py. The last line is JSON.
"""

import argparse
import json
import os
import platform
import pydoc_data.topics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cuvee.flows.recipe import load
from cuvee.flows.study import prepare as preparing
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.mixtures.worlds import Additive
from cuvee.tasks.store.results import Store

STANDARD_LIBRARY = Path(pydoc_data.topics.__file__).parent.parent
SIZE, TOKENS = "0.3M", 300_000
PROXIES, FINISHED, SEEDS = 64, 512, 3
ANCHORS = ("natural", "uniform")
PAIRS = 2  # seeds of the confirmation
CONFIRMED = PAIRS * (2 + len(ANCHORS))  # recommended, best observed unless it is that, baselines
POINTS = 64  # of a loss curve, as the trainer makes them
RECIPE = """\
name: {name}
seed: 1
corpus:
  vocabulary: 4096
  heldout_bytes: 100000
  domains:
    code: {{path: {folder}/code.jsonl}}
    tests: {{path: {folder}/tests.jsonl}}
    manual: {{path: {folder}/manual.jsonl}}
    figures: {{path: {folder}/figures.jsonl}}
proxy: {{size: {size}, tokens: {tokens}, device: cpu}}
evaluation: {{suite: null}}
objective: {{name: mean, weights: {{domain/manual: 2, domain/code: 1}}}}
full_scale: {{tokens: 10M}}
method: {{name: regmix, runs: {runs}, laws: [kriging, log_linear], search: auto, seeds: {seeds}}}
"""


def write_corpus(folder: Path) -> None:
    """Four domains of text that every Python brings along."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = ("asyncio", "email", "json", "logging", "multiprocessing", "unittest", "xml")
    plain = sorted(STANDARD_LIBRARY.glob("*.py"))
    nested = sorted(path for name in packages for path in (STANDARD_LIBRARY / name).rglob("*.py"))
    figures = (
        "\n".join(f"{i} squared is {i * i}; {i} cubed is {i**3}." for i in range(k, k + 40))
        for k in range(0, 16_000, 40)
    )
    texts = {
        "code": [path.read_text(encoding="utf-8", errors="replace") for path in plain],
        "tests": [path.read_text(encoding="utf-8", errors="replace") for path in nested],
        "manual": list(pydoc_data.topics.topics.values()),
        "figures": list(figures),
    }
    for name, documents in texts.items():
        rows = "\n".join(json.dumps({"text": text}) for text in documents)
        (folder / f"{name}.jsonl").write_text(rows + "\n", encoding="utf-8")


def write_recipe(folder: Path, name: str, runs: int, *, confirm: bool) -> Path:
    """A recipe over the corpus in a folder; returns its path."""
    text = RECIPE.format(name=name, folder=folder, size=SIZE, tokens=TOKENS, runs=runs, seeds=SEEDS)
    path = folder / f"{name}.yaml"
    path.write_text(text + (f"confirm: {{seeds: {PAIRS}}}\n" if confirm else ""), encoding="utf-8")
    return path


def run(recipe: Path, home: Path) -> float:
    """Wall seconds of `cuvee run`, a process of its own; prints where they went."""
    command = [sys.executable, "-m", "cuvee.flows", "run", str(recipe), "--home", str(home)]
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"the study failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    steps = [line for line in done.stdout.splitlines() if ": 100% in " in line]
    print(f"{recipe.stem}: {seconds:.1f} s", *steps, sep="\n  ", flush=True)
    return seconds


def synthetic(problem: Problem, specs: Sequence[RunSpec]) -> list[RunResult]:
    """Results as real runs leave them, with the scores of a world."""
    world = Additive(size=len(problem.domains), count=len(problem.targets))
    W = np.array([spec.weights for spec in specs])
    truth = world.truth(W, np.zeros_like(W))
    rng = np.random.default_rng(0)
    Y = truth + 0.01 * rng.standard_normal(truth.shape)
    steps = np.linspace(0, TOKENS, POINTS + 1)[1:].astype(int)
    curve = tuple((int(step), float(3 + 5 * np.exp(-step / 50_000))) for step in steps)
    return [
        RunResult(
            spec=spec,
            scores={
                t: Score(float(y), 0.01, 100) for t, y in zip(problem.targets, row, strict=True)
            },
            curve=curve,
            tokens=tuple(int(w * TOKENS) for w in spec.weights),
            epochs=tuple(map(float, problem.domains.epochs(spec.weights, TOKENS))),
            flops=1e12,
            seconds=5.0,
        )
        for spec, row in zip(specs, Y, strict=True)
    ]


def fill(recipe: Path, home: Workspace) -> int:
    """Put a result of every spec of a study's design into its store; returns how many."""
    given, _ = load.load_recipe(recipe)
    problem = preparing.pose_problem(given, preparing.prepare(given, home))
    specs = given.build_method().ask(problem, (), loop.generator(given.seed, 0))
    store = Store(home.store)
    for result in synthetic(problem, specs):
        store.put(result)
    return len(specs)


def sweep(folder: Path, proxies: int) -> dict[str, float]:
    """The share of a study's time that is neither training nor scoring."""
    runs = proxies - CONFIRMED - len(ANCHORS) * SEEDS
    home, cores = Workspace(folder / "home"), os.cpu_count() or 1
    wall = run(write_recipe(folder, "sweep", runs, confirm=True), home.root)
    done = [o for o in Store(home.store).outcomes() if isinstance(o, RunResult)]
    if len(done) not in (proxies - PAIRS, proxies):
        raise SystemExit(f"{len(done)} of {proxies} proxies finished")
    training = sum(result.seconds for result in done)
    scoring = sum(result.scoring_seconds for result in done)
    return {
        "overhead_share": 1 - (training + scoring) / (wall * cores),
        "proxies": len(done),
        "wall_seconds": wall,
        "cores": cores,
        "training_seconds": training,
        "scoring_seconds": scoring,
        "overhead_seconds": wall - (training + scoring) / cores,
    }


def finished(folder: Path, proxies: int) -> dict[str, float]:
    """Seconds of a study whose proxies are all in the store, the first time and again."""
    home = Workspace(folder / "home")
    recipe = write_recipe(folder, "finished", proxies - len(ANCHORS) * SEEDS, confirm=False)
    count = fill(recipe, home)
    if count != proxies:
        raise SystemExit(f"the design has {count} proxies, not {proxies}")
    first, again = (run(recipe, home.root) for _ in range(2))
    return {f"finished_{count}_seconds": again, f"finished_{count}_first_seconds": first}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxies", type=int, default=PROXIES)
    parser.add_argument("--finished", type=int, default=FINISHED)
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, CPU only")
    print(f"proxies of {SIZE}, {TOKENS:,} tokens, vocabulary 4096, held-out text as the only score")
    result: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="cuvee-sweep-") as name:
        folder = Path(name)
        write_corpus(folder)
        if given.proxies:
            result |= sweep(folder, given.proxies)
        if given.finished:
            result |= finished(folder, given.finished)
    for key, value in result.items():
        print(f"{key:28}{value:10.3f}")
    print(json.dumps({key: round(value, 3) for key, value in result.items()}))


if __name__ == "__main__":
    main()
