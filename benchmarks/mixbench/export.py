"""Write trained runs of a home as a sweep of MixBench: small tables that `cuvee fit` takes.

    python benchmarks/mixbench/export.py HOME --of 0.6M/500000 --to benchmarks/mixbench/sweeps/demo

`mixtures.csv` holds shares by run, `scores.csv` scores (bits per byte), `runs.csv` what else tells
runs apart: size, parameters, tokens, seed, phases. A run's shares are those of its tokens in all:
what a schedule or a controller changed on the way is in their mean alone.
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from cuvee.mixtures.errors import DataError
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.proxies.ladder import LADDER, VOCABULARY
from cuvee.tasks.store.results import Store


def main() -> None:
    """Write the three tables."""
    options = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    options.add_argument("home", type=Path)
    options.add_argument("--of", nargs="+", required=True, help="sizes and tokens: 0.6M/500000")
    options.add_argument("--phases", type=int, default=1, help="that the runs had")
    options.add_argument("--to", type=Path, required=True)
    given = options.parse_args()
    store = Store(str(given.home / "store"), read_only=True)
    runs = [
        run
        for run in store.outcomes()
        if isinstance(run, RunResult)
        and f"{run.spec.size}/{run.spec.tokens}" in given.of
        and len(run.spec.stages) == given.phases
    ]
    if len({run.spec.identities for run in runs}) != 1:
        raise DataError(f"{given.home} has no such runs, or runs of several corpora")
    write_sweep(sorted(runs, key=lambda run: run.spec.fingerprint), given.to)
    print(f"{len(runs)} runs written to {given.to}")


def write_sweep(runs: Sequence[RunResult], folder: Path) -> None:
    """The three tables of some runs."""
    folder.mkdir(parents=True, exist_ok=True)
    targets = sorted(set.intersection(*(set(run.scores) for run in runs)))
    ids = [run.spec.fingerprint[:8] for run in runs]
    shares, scores, others = [], [], []
    for run in runs:
        total = sum(run.tokens)
        drawn = [n / total for n in run.tokens] if total else list(run.spec.weights)
        shares.append([f"{share:.8f}" for share in drawn])
        scores.append([f"{run.scores[name].value:.6f}" for name in targets])
        size = LADDER[run.spec.size].law_parameters(VOCABULARY)
        phases = len(run.spec.stages)
        others.append([run.spec.size, size, run.spec.tokens, run.spec.seed, phases])
    columns = ("size", "parameters", "tokens", "seed", "phases")
    tables = {"mixtures": (runs[0].spec.domains, shares), "scores": (targets, scores)}
    for name, (header, rows) in (tables | {"runs": (columns, others)}).items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["run", *header])
            writer.writerows([run, *row] for run, row in zip(ids, rows, strict=True))


if __name__ == "__main__":
    main()
