"""Tables of runs: RegMix, four Pile domains, AutoScale's and this project's, joined by their ids.

A table has a pool, of which laws see rows, and tests, which none sees; a table without tests is
judged on its own held-out folds. Shares are made of what a table records: tokens of a domain by
their sum where it records those (AutoScale's runs change their totals as well as their shares: laws
of shares cannot see that, and part of their error there is of it). Losses are in nats per token,
perplexities by their logarithm.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import DataError
from cuvee.mixtures.inference.diagnostics import pooled_deviation

Row = Mapping[str, str]
REGMIX_MAIN = "the_pile_pile_cc"  # the loss that RegMix's authors minimize


@dataclass(frozen=True, eq=False)
class Runs:
    """Runs as arrays.

    Attributes:
        ids: (N,) by which rows are joined.
        W: (N, K) shares of tokens.
        Y: (N, M) observed scores.
        truth: (N, M) what order and regret are judged by: the scores, or a world's without noise.
    """

    ids: tuple[str, ...]
    W: Array
    Y: Array
    truth: Array

    def take(self, rows: Iterable[int]) -> "Runs":
        index = np.asarray(list(rows), dtype=int)
        ids = tuple(self.ids[i] for i in index)
        return Runs(ids, self.W[index], self.Y[index], self.truth[index])


@dataclass(frozen=True, eq=False)
class Table:
    """A table of runs, and what it is judged on.

    Attributes:
        name: of the table.
        source: whose runs these are; tables of one source are left out together.
        targets: (M,) names of the scores.
        pool: rows that laws may be fitted to.
        tests: rows that none is fitted to, by name; empty: held-out folds of the pool.
        floor: (M,) noise floor where the table knows it, else None.
        elsewhere: tests of models of another size, whose level no law of mixtures knows: they are
            judged by order and regret alone.
        main: the target of most interest; empty: their mean.
        note: what was left out, or assumed.
    """

    name: str
    source: str
    targets: tuple[str, ...]
    pool: Runs
    tests: Mapping[str, Runs] = field(default_factory=dict)
    floor: Array | None = None
    elsewhere: tuple[str, ...] = ()
    main: str = ""
    note: str = ""

    def at(self, draw: int) -> "Table":
        """The table of a draw: of real runs always the same."""
        return self


def csv_rows(path: Path, key: str) -> dict[str, Row]:
    """Rows of a file by their id.

    Raises:
        DataError: the file is missing, or an id is missing or stands twice.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        raise DataError(
            f"no table {path}: say with --data where the tables lie, or leave it out by --tables"
        ) from None
    by_id: dict[str, Row] = {}
    for line, row in enumerate(rows, start=2):
        if not row.get(key):
            raise DataError(f"{path}:{line}: no {key}")
        if row[key] in by_id:
            raise DataError(f"{path}:{line}: {key} {row[key]} stands twice")
        by_id[row[key]] = row
    return by_id


def numbers(rows: Iterable[Row], columns: Iterable[str]) -> Array:
    """Values (N, n) of columns.

    Raises:
        DataError: one is no number.
    """
    names = list(columns)
    try:
        return np.array([[float(row[name]) for name in names] for row in rows])
    except (KeyError, ValueError) as error:
        raise DataError(f"a value is missing or no number: {error}") from error


def joined(mixtures: Path, scores: Path, key: str) -> tuple[Runs, tuple[str, ...]]:
    """Runs of two files, one of shares and one of scores, and the names of the scores.

    Raises:
        DataError: a row has no partner.
    """
    shares, values = csv_rows(mixtures, key), csv_rows(scores, key)
    alone = sorted(set(shares) ^ set(values))
    if alone:
        raise DataError(
            f"{len(alone)} rows of {mixtures} and {scores} have no partner; the first is "
            f"{key} {alone[0]}: take both files of one release"
        )
    domains = [name for name in next(iter(shares.values())) if name != key]
    targets = [name for name in next(iter(values.values())) if name != key]
    W = simplex.normalized(numbers(shares.values(), domains))
    Y = numbers([values[i] for i in shares], targets)
    return Runs(tuple(shares), W, Y, Y), tuple(targets)


def regmix(data: Path) -> Table:
    """RegMix: 512 mixtures at 1M, judged on 256 others at 1M and at 60M."""
    parts = {"pool": ("train", "1m"), "1m": ("test", "1m"), "60m": ("test", "60m")}
    runs, targets = {}, {}
    for name, (part, size) in parts.items():
        losses = data / "regmix" / f"{part}_pile_loss_{size}.csv"
        mixtures = data / "regmix" / f"{part}_mixture_{size}.csv"
        runs[name], targets[name] = joined(mixtures, losses, "index")
    if len(set(targets.values())) > 1:
        raise DataError("RegMix's tables name their losses differently: take those of one release")
    short = tuple(t.removeprefix("metric/").removesuffix("_val_loss") for t in targets["pool"])
    pool = runs.pop("pool")
    return Table("regmix-1m", "regmix", short, pool, runs, elsewhere=("60m",), main=REGMIX_MAIN)


def pile4_runs(data: Path) -> tuple[dict[str, Runs], tuple[str, ...], int]:
    """Runs on four Pile domains by "200M/8B", their targets, and how many rows have no losses."""
    path = data / "pile4_200M" / "runs.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        raise DataError(f"no table {path}: say with --data where the tables lie") from None
    domains = [name for name in rows[0] if name.startswith("weight_")]
    losses = [name for name in rows[0] if name.startswith("loss_")]
    full = [row for row in rows if all(row[name] for name in losses)]
    by_size: dict[str, dict[str, Row]] = {}
    for row in full:
        cell = by_size.setdefault(f"{row['params']}/{row['tokens']}", {})
        if row["mixture_id"] in cell:
            raise DataError(f"{path}: mixture {row['mixture_id']} stands twice at one size")
        cell[row["mixture_id"]] = row
    runs = {}
    for size, found in by_size.items():
        Y = numbers(found.values(), losses)
        W = simplex.normalized(numbers(found.values(), domains))
        runs[size] = Runs(tuple(found), W, Y, Y)
    return runs, tuple(t.removeprefix("loss_") for t in losses), len(rows) - len(full)


def pile4(size: str, *tests: str) -> Callable[[Path], Table]:
    """A loader of one size of the four Pile domains, with other sizes as tests."""

    def load(data: Path) -> Table:
        runs, targets, empty = pile4_runs(data)
        note = f"{empty} row without losses left out" if empty else ""
        judged = {name: runs[name] for name in tests}
        own = f"pile4-{size.replace('/', '-')}" + ("-transfer" if tests else "")
        return Table(own, "pile4", targets, runs[size], judged, elsewhere=tests, note=note)

    return load


def autoscale(data: Path) -> Table:
    """AutoScale's 15 runs; the base run has equal tokens of all domains, says its notebook."""
    rows = csv_rows(data / "autoscale_ddo" / "runs.csv", "run")
    columns = list(next(iter(rows.values())))
    factors = [name for name in columns if name.startswith("tokens_factor_")]
    ending = [f"perplexity_{name.removeprefix('tokens_factor_')}" for name in factors]
    W = simplex.normalized(numbers(rows.values(), factors))
    Y = np.log(numbers(rows.values(), ending))
    targets = tuple(name.removeprefix("perplexity_") for name in ending)
    note = "totals of tokens change with the shares, which laws of shares cannot see"
    return Table("autoscale", "autoscale", targets, Runs(tuple(rows), W, Y, Y), note=note)


TABLES: dict[str, Callable[[Path], Table]] = {
    "regmix-1m": regmix,
    "pile4-200M-8B": pile4("200M/8B"),
    "pile4-90M-6B": pile4("90M/6B"),
    "pile4-90M-6B-transfer": pile4("90M/6B", "200M/8B", "440M/6B", "440M/8B"),
    "pile4-200M-8B-transfer": pile4("200M/8B", "90M/3B", "90M/6B", "440M/6B", "440M/8B"),
    "autoscale": autoscale,
}


def repeats_floor(runs: Runs) -> Array | None:
    """Noise (M,) between runs of one mixture; None where no mixture was run twice."""
    deviation, degrees = pooled_deviation(runs.Y, simplex.group_rows(runs.W))
    return deviation if degrees else None


SWEEPS = Path(__file__).parent / "sweeps"
FEWEST = 10  # runs of one size that make a table


def sweep_sizes(folder: Path) -> dict[str, tuple[Runs, float, float]]:
    """Runs of a sweep by size, smallest first, with their parameters and tokens.

    Keys are sizes ("0.3M"); of a sweep of several numbers of tokens a size both ("0.3M/8M").
    """
    runs, _ = joined(folder / "mixtures.csv", folder / "scores.csv", "run")
    about = csv_rows(folder / "runs.csv", "run")
    found: dict[tuple[float, float, str], list[int]] = {}
    for i, run in enumerate(runs.ids):
        n, d = numbers([about[run]], ("parameters", "tokens"))[0].tolist()
        found.setdefault((n, d, about[run]["size"]), []).append(i)
    several = len({size for *_, size in found}) < len(found)
    return {
        f"{size}/{d / 1e6:g}M" if several else size: (runs.take(found[n, d, size]), n, d)
        for n, d, size in sorted(found)
    }


def sweeps() -> dict[str, Table]:
    """Tables of this project's own sweeps: one of each size that has enough runs."""
    tables = {}
    for folder in sorted(path.parent for path in SWEEPS.glob("*/runs.csv")):
        _, targets = joined(folder / "mixtures.csv", folder / "scores.csv", "run")
        for size, (runs, _, _) in sweep_sizes(folder).items():
            name = f"{folder.name}-{size}"
            if "/" not in size and len(runs.ids) >= FEWEST:
                tables[name] = Table(name, "sweeps", targets, runs)
    return tables | {table.name: table for table in scales_tables()}


def scales_tables() -> Iterator[Table]:
    """Two tables of the sweep of sizes and tokens: folds at one scale, and what larger ones say."""
    parts = {key: runs for key, (runs, _, _) in sweep_sizes(SWEEPS / "scales").items()}
    _, targets = joined(SWEEPS / "scales/mixtures.csv", SWEEPS / "scales/scores.csv", "run")
    yield Table("scales-0.3M-8M", "sweeps", targets, parts["0.3M/8M"])
    small = "0.3M/4M"
    tests = {key: runs for key, runs in parts.items() if key.endswith("/4M") and key != small}
    yield Table(
        "scales-0.3M-transfer", "sweeps", targets, parts[small], tests, elsewhere=tuple(tests)
    )
