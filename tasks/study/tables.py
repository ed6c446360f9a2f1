"""Runs that were trained elsewhere: a table of mixtures and a table of scores, joined by run id.

Rows are paired by their id, never by their position. An id that is missing from one table, or
stands twice, is named; so is every cell without a number. Scores of which more is better are read
with their sign turned, so that less is better in everything that comes after.

Shares that were written with few digits are divided by their sum, as far as rounding explains it.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.evaluation.suites import BETWEEN
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import DataError, EvidenceError, closest_name
from cuvee.mixtures.laws.bounds import Limits
from cuvee.tasks.study import table_columns, table_file
from cuvee.tasks.study.table_file import CsvTable, first_names

ROUNDING = 1e-3  # a row of shares may miss 1 by this much without more being said
MOST_ROUNDING = 0.02  # and by this much where so few digits were written that rounding explains it
NOTHING = 1e-5  # shares of other domains that sum to no more are a table's rounding
COUNTS = 1000  # sizes that sum to more are counts of tokens, to less relative sizes


@dataclass(frozen=True)
class TableReading:
    """What to read of two tables.

    Attributes:
        key: name of the id column; the first of `table_columns.IDS` that both tables have if None.
        targets: columns of scores to read; all if empty.
        higher_is_better: columns whose scores are turned round.
        families: (name, columns) pairs; the columns of each are replaced by their plain mean.
        bounds: (column, least, most) of scores that can be no less or no more.
        common: leave out runs that stand in one table only, instead of refusing them.
        only: domains to read; runs on any other are set aside, and the others' columns left out.
        every: of those, runs in which each of these domains has a share.
    """

    key: str | None = None
    targets: tuple[str, ...] = ()
    higher_is_better: tuple[str, ...] = ()
    families: tuple[tuple[str, tuple[str, ...]], ...] = ()
    bounds: Limits = ()
    common: bool = False
    only: tuple[str, ...] = ()
    every: bool = False


READ_ALL = TableReading()


@dataclass(frozen=True)
class JoinedTables:
    """Two tables, joined.

    Attributes:
        ids: of the N runs, in the order of the mixtures.
        domains: names of the K domains.
        targets: names of the M targets.
        W: (N, K) shares of tokens.
        Y: (N, M) scores.
        rescaled: rows of shares that did not sum to 1 to the last digit and were divided by their
            sum.
        left_out: ids of runs that stood in one table only.
        aside: ids of runs on other domains than those to read.
        unread: columns that hold no number in any row.
        missed: by how much a row of shares missed the sum 1, at most.
        limits: (target, least, most) of those whose scores are bounded, by declaration or by name.
    """

    ids: tuple[str, ...]
    domains: tuple[str, ...]
    targets: tuple[str, ...]
    W: Array
    Y: Array
    rescaled: int
    left_out: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    missed: float = 0.0
    limits: Limits = ()


def read_tables(mixtures: Path, scores: Path, reading: TableReading = READ_ALL) -> JoinedTables:
    """Read and join.

    Args:
        mixtures: CSV with an id column and a column of shares per domain.
        scores: CSV with the same id column and a column per target.
        reading: what of them.

    Raises:
        DataError: a table that cannot be read, a cell that is no number (run and column named), or
            a column that does not exist.
        EvidenceError: ids that are doubled, or in one table only.
    """
    return join_tables(table_file.read_csv(mixtures), table_file.read_csv(scores), reading)


def join_tables(left: CsvTable, right: CsvTable, reading: TableReading = READ_ALL) -> JoinedTables:
    """Join a table of mixtures and one of scores, wherever they come from; as `read_tables`."""
    mixtures, scores = left.path, right.path
    keys = table_columns.id_columns(left, right, reading.key)
    rows = [_rows(table, key) for table, key in zip((left, right), keys, strict=True)]
    left_out = _alone(rows[0], rows[1], (mixtures, scores), reading.common)
    ids = [run for run in rows[0] if run not in left_out]
    at = [rows[0][run] for run in ids]
    domains, unread = table_columns.share_columns(left, keys[0], reading.only)
    W = np.stack([table_columns.numbers_of_runs(left, name, ids, at) for name in domains], axis=1)
    missed = _missed(left, domains, W, ids, reading)
    columns = list(range(len(dict.fromkeys(reading.only)) or len(domains)))  # `only` come first
    on = _on(W, columns, reading, mixtures)
    kept = [run for run, stays in zip(ids, on, strict=True) if stays]
    Y, targets, silent, limits = _scores(
        right, reading, kept, [rows[1][run] for run in kept],
        skip={keys[1], *(domains[k] for k in columns if mixtures == scores)},
    )  # fmt: skip
    W = W[on][:, columns]
    return JoinedTables(
        ids=tuple(kept),
        domains=tuple(domains[k] for k in columns),
        targets=targets,
        W=np.asarray(W / W.sum(axis=1, keepdims=True)),
        Y=Y,
        rescaled=int(np.sum(missed[on] > 1e-9)),
        left_out=left_out,
        aside=tuple(run for run, stays in zip(ids, on, strict=True) if not stays),
        unread=tuple(dict.fromkeys((*unread, *silent))),
        missed=float(missed[on].max()),
        limits=limits,
    )


def _missed(
    table: CsvTable, domains: list[str], W: Array, ids: Sequence[str], reading: TableReading
) -> Array:
    """By how much rows (N,) of shares miss the sum 1.

    Raises:
        DataError: shares below 0, or that miss 1 by more than rounding explains.
    """
    total = W.sum(axis=1)
    if reading.only:  # what else the table holds counts where it makes up the rest of a mixture
        W = W[:, : len(set(reading.only))]
        total = np.where(np.abs(W.sum(axis=1) - 1) <= ROUNDING, W.sum(axis=1), total)
    digits = max(
        len(c.strip().partition(table.decimal)[2]) for n in domains for c in table.columns[n]
    )
    allowed = max(ROUNDING + 1e-9, min(MOST_ROUNDING, W.shape[1] * 0.5 * 10.0**-digits))
    missed = np.abs(total - 1)
    bad = [int(i) for i in np.flatnonzero((missed > allowed) | np.any(W < 0, axis=1))]
    if bad:
        shown = first_names([f"{ids[i]} ({total[i]:.4g})" for i in bad])
        hint = "; are these percent? Divide by 100" if np.median(total) > 50 else ""
        raise DataError(
            f"{table.path}: shares must be >= 0 and sum to 1; they do not in {shown}. Read as "
            f"domains: {first_names(domains)}; tables.only names those that are{hint}"
        )
    return np.asarray(missed)


def _on(
    W: Array, columns: list[int], reading: TableReading, path: Path
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which runs (N,) are on the domains to read alone."""
    own = W[:, columns].sum(axis=1)
    others = W.sum(axis=1) - own
    mixture = np.abs(W.sum(axis=1) - 1) <= MOST_ROUNDING
    on = np.where(mixture, others <= NOTHING, np.abs(own - 1) <= ROUNDING)
    if reading.every:
        on &= np.all(W[:, columns] > 0, axis=1)
    if not on.any():
        each = "all of " if reading.every else ""
        raise EvidenceError(
            f"{path}: none of {len(W)} runs is on {each}{first_names(reading.only)} and no other "
            "domain"
        )
    return np.asarray(on)


def score_names(scores: Path) -> tuple[str, ...]:
    """Names of the columns of a table that may hold scores.

    Raises:
        DataError: a table that cannot be read.
    """
    return table_columns.score_columns(table_file.read_csv(scores))[0]


def _rows(table: CsvTable, key: str) -> dict[str, int]:
    """Where each run stands."""
    ids = [" ".join(cell.split()) for cell in table.columns[key]]
    empty = [number for number, run in enumerate(ids, start=2) if not run]
    if empty:
        others = [name for name in table.columns if table_columns.identifies_runs(table, name)]
        raise DataError(
            f"{table.path}: the id column {key!r} is empty in "
            f"{f'all {len(ids)} rows' if len(empty) == len(ids) else f'row {first_names(empty)}'}; "
            f"fill it in, or name one in tables.id that is not ({first_names(others) or 'none'})"
        )
    doubled = sorted(run for run, times in Counter(ids).items() if times > 1)
    if doubled:
        raise EvidenceError(f"{table.path}: runs that stand more than once: {first_names(doubled)}")
    return {run: row for row, run in enumerate(ids)}


def _alone(
    left: Mapping[str, int], right: Mapping[str, int], paths: tuple[Path, Path], allowed: bool
) -> tuple[str, ...]:
    """Ids in one table only, in order."""
    found: list[str] = []
    for path, ours, theirs in ((paths[1], left, right), (paths[0], right, left)):
        missing = sorted(set(ours) - set(theirs))
        if missing and not allowed:
            raise EvidenceError(
                f"{path} has no row for {len(missing)} runs of the other table: "
                f"{first_names(missing)}; add them there or remove them here"
            )
        found += missing
    if len(found) == len(left) + len(right):
        raise EvidenceError(
            f"{paths[0]} and {paths[1]} have no run in common: {first_names(list(left))} against "
            f"{first_names(list(right))}"
        )
    return tuple(found)


def _scores(
    table: CsvTable, reading: TableReading, ids: list[str], at: list[int], *, skip: set[str]
) -> tuple[Array, tuple[str, ...], tuple[str, ...], Limits]:
    """Scores (N, M), lower is better, names of the M targets, what holds no number, and limits."""
    known = [name for name in table.columns if name not in skip]
    members = [name for _, names in reading.families for name in names]
    bounded = [name for name, _, _ in reading.bounds]
    for name in (*reading.targets, *reading.higher_is_better, *bounded, *members):
        if name not in known:
            close = closest_name(name, known)
            hint = f"did you mean {close!r}?" if close else f"it has: {first_names(known)}"
            raise DataError(f"{table.path} has no column of scores {name!r}; {hint}")
    found, silent = table_columns.score_columns(table, skip)
    names = list(dict.fromkeys((*(reading.targets or found), *members)))
    if not names:
        raise DataError(
            f"{table.path} has no columns of numbers beside its ids; it has: {first_names(known)}"
        )
    values = {name: table_columns.numbers_of_runs(table, name, ids, at) for name in names}
    turned = {n: -v if n in reading.higher_is_better else v for n, v in values.items()}
    columns = {name: column for name, column in turned.items() if name not in members}
    for family, parts in reading.families:
        columns[family] = np.mean([turned[part] for part in parts], axis=0)
    unread = () if reading.targets else tuple(silent)
    limits = _limits(table, reading, values, ids)
    for family, parts in reading.families:
        if all(part in limits for part in parts):
            low, high = np.mean([limits[part] for part in parts], axis=0)
            limits[family] = (float(low), float(high))
    held = tuple((name, *limits[name]) for name in columns if name in limits)
    return np.stack(list(columns.values()), axis=1), tuple(columns), unread, held


def _limits(
    table: CsvTable, reading: TableReading, values: Mapping[str, Array], ids: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """What columns' scores can be, turned as the scores are.

    Declared, or known of the metric that a column's name ends in, where all its scores keep to it:
    an accuracy in percent is not one between 0 and 1.

    Raises:
        DataError: a score that lies outside of what was declared.
    """
    found = {}
    for name, low, high in reading.bounds:
        out = [i for i, y in enumerate(values.get(name, ())) if not low <= y <= high]
        if out:
            raise DataError(
                f"{table.path}: {name!r} is declared to lie between {low:g} and {high:g}, and run "
                f"{ids[out[0]]} has {values[name][out[0]]:g}: change tables.bounds, or that score"
            )
        found[name] = (low, high)
    for name, column in values.items():
        low, high = BETWEEN.get(name.rpartition("/")[2], (np.nan, np.nan))
        if name not in found and np.all((low <= column) & (column <= high)):
            found[name] = (low, high)
    for name in reading.higher_is_better:
        if name in found:
            low, high = found[name]
            found[name] = (-high, -low)
    return found


def sizes_are_counts(given: Mapping[str, float]) -> bool:
    """Whether sizes are counts of tokens; relative sizes have no unit of their own."""
    return sum(given.values()) > COUNTS


def domain_tokens(
    domains: Sequence[str], given: Mapping[str, float], *, field: str = "tables.sizes"
) -> dict[str, int]:
    """Tokens by domain from counts or relative sizes; equal ones where nothing is given.

    Only the ratios of the values mean anything unless the sizes are counts; see `counted`. `field`
    is where they were given.

    Raises:
        DataError: a name that is no domain, or a domain without a positive size.
    """
    unknown = sorted(set(given) - set(domains))
    if unknown:
        raise DataError(f"{field} names {first_names(unknown)}; domains: {first_names(domains)}")
    if not given:
        return dict.fromkeys(domains, 10**9)
    lacking = [name for name in domains if not given.get(name, 0) > 0]
    if lacking:
        raise DataError(
            f"{field} must be positive for every domain; not so: {first_names(lacking)}"
        )
    scale = 1.0 if sizes_are_counts(given) else 1e12
    return {name: max(1, round(given[name] * scale)) for name in domains}
