"""How many proxies a law needs: every law on the published RegMix tables.

    python benchmarks/laws.py [--data FOLDER] [--laws NAME ...] [--seeds 5] [--rows 64 128 512]

Rows are drawn from the 512 training mixtures of the 1M models; a law fitted to them predicts the
13 losses of 256 other mixtures, at 1M and at 60M parameters. No row of a test table is seen by
any choice: hyper-parameters and deviations come from the drawn rows alone. Seconds are processor
time on one thread: waiting for a core does not enter, sharing its caches does (up to fourfold on a
crowded machine). The last line printed is JSON.

MixBench (`make mixbench`) judges by the same code on more tables, on far mixtures and by close
pairs, with intervals: what it says is not repeated here.
"""

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
from mixbench.contestants import checked, fitted, law_of
from mixbench.judge import Judge
from mixbench.tables import Table, regmix

from cuvee.mixtures.errors import CuveeError
from cuvee.mixtures.laws import Law, default
from cuvee.mixtures.registry import names

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
ROWS = (64, 128, 512)
SLOW = ("lightgbm", "stack")  # fitted to fewer draws, since their figures hardly move
HEADER = (
    "| law | rows | Spearman x 100, test 1m | test 60m | median error, % | 90 % coverage | "
    "regret of its pick, nats | fit, s |\n|---|---|---|---|---|---|---|---|"
)
KEYS = ("spearman_1m", "spearman_60m", "error", "coverage", "regret", "seconds")


def one_core() -> None:
    """Start again with one thread per library, which numpy reads when it is imported."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    if any(os.environ.get(name) != value for name, value in threads.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **threads})


def main() -> None:
    """Print the table and, on the last line, its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--data", type=Path, default=DATA, help="holds the folder regmix")
    parser.add_argument("--laws", nargs="*", default=list(names("law")), help="registered names")
    parser.add_argument("--seeds", type=int, default=5, help="draws of fewer than all rows")
    parser.add_argument("--rows", type=int, nargs="*", default=list(ROWS))
    options = parser.parse_args()
    table = regmix(options.data)
    print(
        f"{platform.machine()}, one core, numpy {np.__version__}, seconds of processor time; "
        f"{len(table.pool.W)} training rows, {len(table.tests['1m'].W)} test rows, "
        f"{len(table.targets)} losses; mean (sd) over draws\n{HEADER}"
    )
    laws = {
        name: found
        for name in options.laws
        if (found := measured(name, table, options.rows, options.seeds))
    }
    best = laws.get(default.NAME, {})
    summary: dict[str, Any] = {
        "default_law": default.NAME,
        "spearman": {
            n: {size: f[f"spearman_{size}"] for size in ("1m", "60m")} for n, f in best.items()
        },
        "coverage_90": {n: f["coverage"] for n, f in best.items()},
        "fit_seconds": {n: f["seconds"] for n, f in best.items()},
        "laws": laws,
    }
    print(json.dumps(summary))


def one(law: Law, judge: Judge, rows: int, seed: int) -> dict[str, float]:
    """What a law makes of one draw of rows, judged on both tests."""
    table = judge.table
    index = np.random.default_rng([seed, rows]).permutation(len(table.pool.W))[:rows]
    runs = table.pool.take(index)
    model, seconds = fitted(law, runs, [seed])
    found = {
        size: judge.figures(size, test, checked(model.predict(test.W)), runs.Y)
        for size, test in table.tests.items()
    }
    ranks = {f"spearman_{size}": figures["rank"] for size, figures in found.items()}
    small = {key: found["1m"][key] for key in ("error", "coverage", "regret")}
    return {**ranks, **small, "seconds": seconds}


def measured(name: str, table: Table, sizes: list[int], seeds: int) -> dict[int, dict[str, float]]:
    """A law's figures by the number of rows, printed as they come."""
    law, judge, found = law_of(name), Judge(table, np.zeros(len(table.targets))), {}
    for rows in sizes:
        if rows < law.rows(table.pool.W.shape[1]):
            continue
        count = 1 if rows >= len(table.pool.W) else min(seeds, 2) if name in SLOW else seeds
        draws = [one(law, judge, rows, seed) for seed in range(count)]
        row = {key: float(np.mean([draw[key] for draw in draws])) for key in KEYS}
        for key in KEYS[:2]:
            row[f"{key}_sd"] = float(np.std([draw[key] for draw in draws]))
        found[rows] = row | {"draws": count}
        print(
            f"| {name} | {rows} | {row['spearman_1m']:.2f} ({row['spearman_1m_sd']:.2f}) | "
            f"{row['spearman_60m']:.2f} ({row['spearman_60m_sd']:.2f}) | {row['error']:.3f} | "
            f"{row['coverage']:.1f} | {row['regret']:.4f} | {row['seconds']:.2f} |",
            flush=True,
        )
    return found


if __name__ == "__main__":
    one_core()
    try:
        main()
    except CuveeError as error:
        sys.exit(str(error))
