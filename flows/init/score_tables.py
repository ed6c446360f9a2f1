"""What CSV tables of runs hold: shares, scores, run ids, sizes of domains; which table is which.

Columns of shares are those that sum to 1 in every row, or to 100 where they are percents; scores
are the other numbers. What no recipe can say of a table (percents, no ids) is put right in a copy.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import DataError
from cuvee.tasks.study import table_columns, table_file
from cuvee.tasks.study.table_columns import IDS
from cuvee.tasks.study.table_file import CsvTable, first_names
from cuvee.tasks.study.tables import MOST_ROUNDING

HIGHER = re.compile(
    r"(?:^|[^a-z])(?:acc|accuracy|acc_norm|f1|bleu|rouge\w*|em|exact_match|score|pass@?\d*|wins?|win_?rate"
    r"|mcc|auc|recall|precision|hits?@?\d*)(?:$|[^a-z])"
)
LOWER = re.compile(
    r"loss|ppl|perplex|bpb|bits|nll|nats|entropy|error|(?:^|[^a-z])[cw]er(?:$|[^a-z])"
)
SETTINGS = re.compile(
    r"(?:^|[^a-z])(?:seeds?|steps?|tokens?|params?|parameters|flops|lr|learning_rate|batch\w*|width"
    r"|depth|layers?|epochs?|seconds|minutes|hours|time|gpus?|size|model_size|version|date|cost)"
    r"(?:$|[^a-z])"
)
LEAST_RUNS = 4  # rows of a table that are taken for runs
PERCENT = 100.0
WIDEST = 128  # columns among which every stretch is tried


@dataclass(frozen=True)
class RunTables:
    """Two tables of runs (or one that is both), and how they are read.

    Attributes:
        mixtures: the table of shares.
        scores: the table of scores.
        domains: columns of shares, in order.
        targets: columns of scores.
        higher: of these, those of which more is better by their name.
        unclear: those whose name says neither.
        key: the id column, where a recipe must name it.
        only: whether the columns of shares must be named, since there are other numbers beside.
        some: whether the columns of scores must be named.
        unmatched: runs that stand in one table only.
        sizes: tokens, or relative sizes, by domain.
        runs: rows of both.
        percents: whether shares are percents, so that a copy in shares is needed.
        numbered: whether the rows have no ids, so that a copy with ids is needed.
        notes: what else was found, a sentence each.
    """

    mixtures: Path
    scores: Path
    domains: tuple[str, ...]
    targets: tuple[str, ...]
    higher: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()
    key: str | None = None
    only: bool = False
    some: bool = False
    unmatched: int = 0
    sizes: Mapping[str, float] = field(default_factory=dict)
    runs: int = 0
    percents: bool = False
    numbered: bool = False
    notes: tuple[str, ...] = ()


def look_at_tables(paths: Sequence[Path]) -> RunTables:
    """How tables of runs are read.

    Args:
        paths: CSV files, or folders that hold them.

    Raises:
        DataError: no table of shares, no table of scores, or several of a kind; says what each
            file holds.
    """
    files = _csv_files(paths)
    read: list[CsvTable] = []
    said: list[str] = []
    for path in files:
        try:
            read.append(table_file.read_csv(path))
        except DataError as error:
            said.append(str(error))
    shares = {table.path: _shares(table) for table in read}
    mixed = [table for table in read if shares[table.path][0]]
    if len(mixed) != 1:
        raise DataError(_which(read, mixed, said, files))
    left = mixed[0]
    domains, percents = shares[left.path]
    others = [table for table in read if table is not left]
    scored = [(table, _targets(table, left, domains)) for table in (*others, left)]
    scored = [(table, found) for table, found in scored if found[0]]
    sizes, of = _sizes(others, domains)
    scored = [(table, found) for table, found in scored if table.path != of]
    if len(scored) > 1 and scored[-1][0] is left:
        scored.pop()  # numbers beside shares are settings where another table holds scores
    if len(scored) != 1:
        raise DataError(_no_scores(left, domains, [table for table, _ in scored], said))
    right, (targets, aside) = scored[0]
    notes = [f"not read: {said}" for said in said]
    notes += [f"sizes of domains are taken from {of.name}"] if of else []
    if aside:
        notes.append(
            f"not taken for scores in {right.path.name}: {first_names(aside)} (settings of runs, "
            "constant, or with empty cells); name them in tables.targets if they are"
        )
    made = RunTables(
        mixtures=left.path, scores=right.path, domains=domains, targets=targets,
        higher=tuple(name for name in targets if HIGHER.search(name.lower())),
        unclear=tuple(name for name in targets if not _direction(name)),
        only=_all_shares(left, right) != domains, some=bool(aside), sizes=sizes,
        percents=percents, notes=tuple(notes),
    )  # fmt: skip
    return _paired(made, left, right)


def _direction(name: str) -> bool:
    return bool(HIGHER.search(name.lower()) or LOWER.search(name.lower()))


def _csv_files(paths: Sequence[Path]) -> list[Path]:
    """The tables among paths, and in folders among them."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inner = sorted(p for p in path.iterdir() if is_table(p))
            if not inner:
                raise DataError(f"{path} holds no .csv or .tsv file: name the tables of runs")
            found += inner
        elif path.is_file():
            found.append(path)
        else:
            raise DataError(
                f"no file at {path}: give --from the CSV tables of runs, or their folder"
            )
    return list(dict.fromkeys(found))


def is_table(path: Path) -> bool:
    """Whether a file is a table by its name, and not hidden."""
    name = path.name.lower()
    for packing in (".gz", ".bz2", ".xz", ".zst"):
        name = name.removesuffix(packing)
    return name.endswith((".csv", ".tsv")) and name[0] != "." and path.is_file()


def _shares(table: CsvTable) -> tuple[tuple[str, ...], bool]:
    """The columns that sum to 1 (or to 100) in all rows, and whether to 100; none: ()."""
    if table.rows < LEAST_RUNS:
        return (), False
    for whole in (1.0, PERCENT):
        values = {name: table.numbers(name) / whole for name in table.columns}
        within = [name for name, column in values.items() if _within(column)]
        plain = [name for name in within if not SETTINGS.search(name.lower())]
        found = _summing(plain, values) or _summing(within, values)
        if found:
            return tuple(found), whole == PERCENT
    return (), False


def _within(column: Array) -> bool:
    """Whether all numbers are there and can be shares."""
    return not np.any(np.isnan(column)) and bool(np.all((column >= 0) & (column <= 1 + 1e-9)))


def _summing(names: Sequence[str], values: Mapping[str, Array]) -> list[str]:
    """Columns whose rows sum to 1: all, those of one prefix, or a stretch; the nearest, longest."""
    stretches = [list(names)]
    prefixes = dict.fromkeys(name[: at + 1] for name in names for at in _marks(name))
    stretches += [[name for name in names if name.startswith(prefix)] for prefix in prefixes]
    if len(names) <= WIDEST:
        spans = itertools.combinations(range(len(names) + 1), 2)
        stretches += [list(names[start:end]) for start, end in spans]
    off = []
    for columns in stretches:
        if len(columns) > 1:
            missed = np.abs(np.sum([values[name] for name in columns], axis=0) - 1)
            off.append((round(float(missed.mean()), 3), -len(columns), columns, missed.max()))
    good = [one for one in off if one[3] <= MOST_ROUNDING]
    return min(good)[2] if good else []


def _marks(name: str) -> list[int]:
    return [i for i, letter in enumerate(name[:-1]) if letter in "_./:- "]


def _targets(
    table: CsvTable, left: CsvTable, domains: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns of scores, and other columns of numbers that are none."""
    skip = set(domains) if table is left else set()
    try:
        names, _ = table_columns.score_columns(table, skip | set(IDS))
    except DataError:
        return (), ()
    good: list[str] = []
    aside: list[str] = []
    for name in names:
        values = table.numbers(name)
        setting = SETTINGS.search(name.lower()) and not _direction(name)
        poor = np.any(np.isnan(values)) or len(set(values.tolist())) < 2
        label = len(set(values.tolist())) == table.rows and np.all(values == np.round(values))
        (aside if setting or poor or label else good).append(name)
    return tuple(good), tuple(aside)


def _all_shares(left: CsvTable, right: CsvTable) -> tuple[str, ...]:
    """The columns that a recipe without `only` would take for shares."""
    try:
        key, _ = table_columns.id_columns(left, right, None)
        return tuple(table_columns.share_columns(left, key)[0])
    except DataError:
        return ()


def _sizes(
    tables: Sequence[CsvTable], domains: Sequence[str]
) -> tuple[dict[str, float], Path | None]:
    """Sizes of domains, if a table has a row for each; and the table."""
    for table in tables:
        for name, cells in table.columns.items():
            rows = {" ".join(cell.split()): i for i, cell in enumerate(cells)}
            if not set(domains) <= set(rows):
                continue
            for other in table.columns:
                values = table.numbers(other)[[rows[domain] for domain in domains]]
                if other != name and not np.any(np.isnan(values)) and np.all(values > 0):
                    return dict(zip(domains, map(float, values), strict=True)), table.path
    return {}, None


def _paired(made: RunTables, left: CsvTable, right: CsvTable) -> RunTables:
    """With the id column, if one must be named, and what has no partner."""
    named: str | None = None
    try:
        ours, theirs = table_columns.id_columns(left, right, None)
    except DataError:
        named = _common_key(left, right, (*made.domains, *made.targets))
        if named is None and left is not right:
            raise
        ours = theirs = named or ""
    if not ours:
        return replace(made, numbered=True, runs=left.rows)
    rows, partners = (
        {" ".join(c.split()) for c in t.columns[n]} for t, n in ((left, ours), (right, theirs))
    )
    if not rows & partners:
        raise DataError(
            f"{left.path} and {right.path} have no run in common by {ours!r}: "
            f"{first_names(sorted(rows))} against {first_names(sorted(partners))}"
        )
    found = replace(made, key=named, unmatched=len(rows ^ partners), runs=len(rows & partners))
    return replace(found, only=found.only or (named is not None and left is right))


def _common_key(left: CsvTable, right: CsvTable, taken: Sequence[str]) -> str | None:
    """A column of both tables whose cells are all there and all differ, and that they share."""
    found = []
    for name in left.columns:
        if name in right.columns and name not in taken:
            cells = [{" ".join(c.split()) for c in t.columns[name]} for t in (left, right)]
            whole = all(
                len(c) == t.rows and all(c) for c, t in zip(cells, (left, right), strict=True)
            )
            if whole and cells[0] & cells[1]:
                found.append((len(cells[0] & cells[1]), name))
    return max(found, key=lambda pair: pair[0])[1] if found else None


def _which(
    read: Sequence[CsvTable], mixed: Sequence[CsvTable], said: Sequence[str], files: Sequence[Path]
) -> str:
    if mixed:
        return (
            f"{len(mixed)} tables hold shares that sum to 1 "
            f"({first_names([t.path for t in mixed])}): name the two that belong "
            "together, as in `cuvee init --from mixtures.csv scores.csv`"
        )
    looked = first_names([table.path for table in read] or list(files))
    more = f"; not read: {'; '.join(said)}" if said else ""
    return (
        f"no table with shares of domains: in none of {looked} do columns sum to 1 (or 100) in "
        f"every one of {LEAST_RUNS} rows or more. Give a CSV with a row a run, a column `run`, "
        f"and a column of shares per domain, in which an empty cell is written as 0{more}"
    )


def _no_scores(
    left: CsvTable, domains: Sequence[str], found: Sequence[CsvTable], said: Sequence[str]
) -> str:
    if found:
        return (
            f"{len(found)} tables could hold the scores of the runs in {left.path} "
            f"({first_names([t.path for t in found])}): name the two that belong together, as in "
            "`cuvee init --from mixtures.csv scores.csv`"
        )
    more = f"; not read: {'; '.join(said)}" if said else ""
    return (
        f"{left.path} holds shares of {len(domains)} domains ({first_names(domains)}), and no "
        "table holds scores of its runs: give a CSV with the same column `run` and a column per "
        f"score{more}"
    )
