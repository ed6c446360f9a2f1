"""How many proxies a law needs: every law on the published RegMix tables.

    python benchmarks/laws.py [--data FOLDER] [--laws NAME ...] [--seeds 5] [--worlds]

Rows are drawn from the 512 training mixtures of the 1M models; a law fitted to them predicts the
13 losses of 256 other mixtures, at 1M and at 60M parameters. No row of a test table is seen by
any choice: hyper-parameters and deviations come from the drawn rows alone. Seconds are processor
time on one thread: waiting for a core does not enter, sharing its caches does (up to fourfold on a
crowded machine). The last line printed is JSON.
With `--worlds`, also the regret of a recommendation against the runs it rests on, on synthetic
worlds with a known optimum.
"""

import argparse
import csv
import json
import os
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cuvee.mixtures import worlds
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import CuveeError, DataError
from cuvee.mixtures.inference.diagnostics import spearman
from cuvee.mixtures.laws import Law, calibration, default
from cuvee.mixtures.registry import build, names

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data" / "regmix"
ROWS = (64, 128, 512)
SLOW = ("lightgbm", "stack")  # fitted to fewer draws, since their figures hardly move


@dataclass(frozen=True)
class Table:
    """Mixtures W (N, K) and losses Y (N, M) in nats per token, with the names of the losses."""

    W: Array
    Y: Array
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Draw:
    """What a law made of one draw of rows."""

    spearman_1m: float
    spearman_60m: float
    error: float
    coverage: float
    rank: float
    seconds: float


def one_core() -> None:
    """Start again with one thread per library, which numpy reads when it is imported."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    if any(os.environ.get(name) != value for name, value in threads.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **threads})


def main() -> None:
    """Print the table and, on the last line, its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the RegMix tables")
    parser.add_argument("--laws", nargs="*", default=list(names("law")), help="registered names")
    parser.add_argument("--seeds", type=int, default=5, help="draws of 64 and 128 rows")
    parser.add_argument("--rows", type=int, nargs="*", default=list(ROWS))
    parser.add_argument("--worlds", action="store_true", help="also regret on synthetic worlds")
    options = parser.parse_args()
    try:
        train = table(options.data, "train", "1m")
        tests = table(options.data, "test", "1m"), table(options.data, "test", "60m")
    except DataError as error:
        sys.exit(str(error))
    print(
        f"{platform.machine()}, one core, numpy {np.__version__}, seconds of processor time; "
        f"{len(train.W)} training rows, "
        f"{len(tests[0].W)} test rows, {len(train.targets)} losses; mean (sd) over draws"
    )
    print(HEADER)
    laws = {
        name: row
        for name in options.laws
        if (row := measured(name, train, tests, options.rows, options.seeds))
    }
    if options.worlds:
        regrets()
    print(json.dumps(summary(laws)))


def table(folder: Path, part: str, size: str) -> Table:
    """The mixtures and losses of a part ("train" or "test"), joined by their index.

    Raises:
        DataError: a file or a row is missing or doubled, or a value is no number.
    """
    mixtures, _ = read(folder / f"{part}_mixture_{size}.csv")
    losses, targets = read(folder / f"{part}_pile_loss_{size}.csv")
    missing = sorted(set(mixtures) ^ set(losses))
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} rows of the {part} {size} tables have no partner; "
            f"the first is index {missing[0]}: fetch both files of the same release"
        )
    W = np.array([mixtures[i] for i in mixtures])
    return Table(W / W.sum(axis=1, keepdims=True), np.array([losses[i] for i in mixtures]), targets)


def read(path: Path) -> tuple[dict[str, list[float]], tuple[str, ...]]:
    """Rows of a table by their index, and the names of its columns."""
    try:
        with path.open(newline="") as file:
            header, *rows = csv.reader(file)
    except OSError:
        raise DataError(
            f"no table {path}; fetch the folder data/ of github.com/sail-sg/regmix and name it "
            "with --data"
        ) from None
    found: dict[str, list[float]] = {}
    for line, row in enumerate(rows, start=2):
        if row[0] in found:
            raise DataError(f"{path}:{line}: index {row[0]} stands twice")
        try:
            found[row[0]] = [float(x) for x in row[1:]]
        except ValueError as error:
            raise DataError(f"{path}:{line}: {error}") from error
    return found, tuple(header[1:])


def drawn(total: int, rows: int, seed: int) -> np.ndarray:
    """Row numbers of a draw."""
    return np.random.default_rng([seed, rows]).permutation(total)[:rows]


def one(law: Law, train: Table, tests: tuple[Table, Table], index: np.ndarray, seed: int) -> Draw:
    """Fit a law to rows of the training table and judge it on both test tables."""
    small, large = tests
    noise = np.zeros(len(train.targets))
    begin = time.process_time()  # on one thread: the clock's seconds, but for waiting for a core
    fitted = law.fit(train.W[index], train.Y[index], noise, np.random.default_rng(seed))
    seconds = time.process_time() - begin
    found = fitted.predict(small.W)
    at_large = found.mean if np.array_equal(small.W, large.W) else fitted.predict(large.W).mean
    inside = np.abs(found.mean - small.Y) <= calibration.NORMAL_90 * found.sd
    picks = found.mean.argmin(axis=0)
    columns = range(len(train.targets))
    ranks = [1 + int(np.sum(small.Y[:, m] < small.Y[picks[m], m])) for m in columns]
    return Draw(
        spearman_1m=100
        * float(np.mean([spearman(small.Y[:, m], found.mean[:, m]) for m in columns])),
        spearman_60m=100
        * float(np.mean([spearman(large.Y[:, m], at_large[:, m]) for m in columns])),
        error=float(np.median(np.abs(found.mean - small.Y))),
        coverage=100 * float(inside.mean()),
        rank=float(np.mean(ranks)),
        seconds=seconds,
    )


def ranked(observed: Array, predicted: Array) -> float:
    """Mean rank correlation x 100 over the targets."""
    pairs = zip(observed.T, predicted.T, strict=True)
    return 100 * float(np.mean([spearman(a, b) for a, b in pairs]))


HEADER = (
    "| law | rows | Spearman x 100, test 1m | test 60m | median error, nats | 90 % coverage | "
    "true rank of its pick | fit, s |\n|---|---|---|---|---|---|---|---|"
)


def measured(
    name: str, train: Table, tests: tuple[Table, Table], sizes: list[int], seeds: int
) -> dict[int, dict[str, float]]:
    """A law's figures by the number of rows, printed as they come."""
    law, found = build("law", name), {}
    for rows in sizes:
        if rows < law.rows(train.W.shape[1]):
            continue
        count = 1 if rows >= len(train.W) else min(seeds, 2) if name in SLOW else seeds
        draws = [one(law, train, tests, drawn(len(train.W), rows, s), s) for s in range(count)]
        found[rows] = {
            key: float(np.mean([getattr(d, key) for d in draws])) for key in vars(draws[0])
        }
        found[rows]["draws"] = count
        found[rows]["spearman_1m_sd"] = float(np.std([d.spearman_1m for d in draws]))
        found[rows]["spearman_60m_sd"] = float(np.std([d.spearman_60m for d in draws]))
        print(line(name, rows, found[rows]), flush=True)
    return found


def line(name: str, rows: int, f: dict[str, float]) -> str:
    """One row of the printed table."""
    return (
        f"| {name} | {rows} | {f['spearman_1m']:.2f} ({f['spearman_1m_sd']:.2f}) | "
        f"{f['spearman_60m']:.2f} ({f['spearman_60m_sd']:.2f}) | {f['error']:.4f} | "
        f"{f['coverage']:.1f} | {f['rank']:.1f} | {f['seconds']:.2f} |"
    )


def summary(laws: dict[str, dict[int, dict[str, float]]]) -> dict[str, object]:
    """The figures as plain JSON values."""
    best = laws.get(default.NAME, {})
    return {
        "default_law": default.NAME,
        "spearman": {
            str(n): {"1m": f["spearman_1m"], "60m": f["spearman_60m"]} for n, f in best.items()
        },
        "coverage_90": {str(n): f["coverage"] for n, f in best.items()},
        "fit_seconds": {str(n): f["seconds"] for n, f in best.items()},
        "laws": {name: {str(n): f for n, f in rows.items()} for name, rows in laws.items()},
    }


def regrets(sizes: tuple[int, ...] = (16, 32, 64), seeds: int = 8) -> None:
    """Print the regret of the best predicted mixture against runs, on a noisy synthetic world.

    The best under the law of 20 000 Dirichlet draws at several concentrations, in the mean of the
    targets; regret is how much worse that mixture truly is than the world's optimum. "best draw" is
    the floor that this search sets, "best run" what one has without a law.
    """
    print("| law | runs | regret, mean (standard error) over draws |\n|---|---|---|")
    for name in ("best draw", "best run", "linear", "log_linear", "saturating_power", default.NAME):
        for rows in sizes:
            found = [regret(name, rows, seed) for seed in range(seeds)]
            error = np.std(found, ddof=1) / np.sqrt(seeds)
            print(f"| {name} | {rows} | {np.mean(found):.4f} ({error:.4f}) |", flush=True)


def regret(name: str, rows: int, seed: int, sd: float = 0.01) -> float:
    """Regret of what a law picks after so many runs of a world; draws depend on the seed alone."""
    world = worlds.Noisy(world=worlds.Interacting(world=worlds.Additive(size=6, count=3)), sd=sd)
    problem = worlds.world_problem(world)
    rng = np.random.default_rng([seed, 0])
    W = rng.dirichlet(np.ones(6), size=128)[:rows]
    noise = sd * rng.standard_normal((128, 3))[:rows]
    draws = np.concatenate([rng.dirichlet(np.full(6, a), size=5_000) for a in (0.3, 1, 3, 10)])
    Y = world.truth(W, W) + noise
    if name == "best run":
        draws, scores = W, Y
    elif name == "best draw":
        scores = world.truth(draws, draws)
    else:
        fitted = build("law", name).fit(W, Y, np.full(3, sd), np.random.default_rng(seed))
        scores = fitted.predict(draws).mean
    value = problem.objective.value(scores, problem.targets, Y.mean(axis=0))
    return float(world.regret(problem, draws[value.argmin()]))


if __name__ == "__main__":
    one_core()
    try:
        main()
    except CuveeError as error:
        sys.exit(str(error))
