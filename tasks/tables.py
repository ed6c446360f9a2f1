"""Runs that were trained elsewhere: a table of mixtures and a table of scores, joined by run id.

Rows are paired by their id, never by their position. An id that is missing from one table, or
stands twice, is named; so is every cell without a number. Scores of which more is better are read
with their sign turned, so that less is better in everything that comes after.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mixtures.domains import Array
from mixtures.errors import DataError, EvidenceError

IDS = ("run", "run_id", "index", "id")  # looked for in this order where no id column is named
RUNS = ("run", "run_id")  # names of one column, as different programs write it
UNNAMED = "Unnamed:"  # how pandas calls a column without a name: a row's number, as a rule
LABELS = ("name", "index", "run", "run_id", "id")  # columns that are neither domain nor target
ROUNDING = 0.02  # a row of shares may miss 1 by this much, since tables are written with few digits
NOTHING = 1e-5  # shares of other domains that sum to no more are a table's rounding
COUNTS = 1000  # sizes that sum to more are counts of tokens, to less relative sizes
SHOWN = 5  # ids that an error names


@dataclass(frozen=True)
class Reading:
    """What to read of two tables.

    Attributes:
        key: name of the id column; the first of `RUNS` and `IDS` that both tables have if None.
        targets: columns of scores to read; all if empty.
        higher_is_better: columns whose scores are turned round.
        families: (name, columns) pairs; the columns of each are replaced by their plain mean.
        common: leave out runs that stand in one table only, instead of refusing them.
        only: domains to read; runs on any other are set aside, and the others' columns left out.
        every: of those, runs in which each of these domains has a share.
    """

    key: str | None = None
    targets: tuple[str, ...] = ()
    higher_is_better: tuple[str, ...] = ()
    families: tuple[tuple[str, tuple[str, ...]], ...] = ()
    common: bool = False
    only: tuple[str, ...] = ()
    every: bool = False


ALL = Reading()


@dataclass(frozen=True)
class Tables:
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
    """

    ids: tuple[str, ...]
    domains: tuple[str, ...]
    targets: tuple[str, ...]
    W: Array
    Y: Array
    rescaled: int
    left_out: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()


def read(mixtures: Path, scores: Path, reading: Reading = ALL) -> Tables:
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
    left, right = _load(mixtures), _load(scores)
    ours, theirs = _keys(left, right, reading.key, mixtures, scores)
    left, right = left.set_index(ours), right.set_index(theirs)
    for path, table in ((mixtures, left), (scores, right)):
        doubled = sorted(set(table.index[table.index.duplicated()]))
        if doubled:
            raise EvidenceError(f"{path}: runs that stand more than once: {_some(doubled)}")
    left_out = _alone(left, right, (mixtures, scores), reading.common)
    ids = [run for run in left.index if run not in left_out]
    W, domains = _numbers(left.loc[ids], mixtures)
    sums = W.sum(axis=1)
    bad = np.flatnonzero((np.abs(sums - 1) > ROUNDING) | np.any(W < 0, axis=1))
    if bad.size:
        names = [f"{ids[i]} ({sums[i]:.4g})" for i in bad]
        raise DataError(
            f"{mixtures}: shares must be >= 0 and sum to 1; they do not in {_some(names)}"
        )
    columns, on = _within(W, domains, reading, mixtures)
    kept = [run for run, stays in zip(ids, on, strict=True) if stays]
    Y, targets = _scores(right.loc[kept], scores, reading)
    W = W[on][:, columns]
    return Tables(
        ids=tuple(kept),
        domains=tuple(domains[k] for k in columns),
        targets=targets,
        W=np.asarray(W / W.sum(axis=1, keepdims=True)),
        Y=Y,
        rescaled=int(np.sum(np.abs(sums[on] - 1) > 1e-9)),
        left_out=left_out,
        aside=tuple(run for run, stays in zip(ids, on, strict=True) if not stays),
    )


def _within(
    W: Array, domains: tuple[str, ...], reading: Reading, path: Path
) -> tuple[list[int], np.ndarray]:
    """Numbers of the domains to read, and which runs (N,) are on them alone."""
    unknown = [name for name in reading.only if name not in domains]
    if unknown:
        raise DataError(f"{path} has no domain {_some(unknown)}; it has: {', '.join(domains)}")
    columns = [k for k, name in enumerate(domains) if not reading.only or name in reading.only]
    others = [k for k in range(len(domains)) if k not in columns]
    on = W[:, others].sum(axis=1) <= NOTHING
    if reading.every:
        on &= np.all(W[:, columns] > 0, axis=1)
    if not on.any():
        each = "all of " if reading.every else ""
        raise EvidenceError(
            f"{path}: none of {len(W)} runs is on {each}{_some(reading.only)} and no other domain"
        )
    return columns, on


def targets_of(scores: Path) -> tuple[str, ...]:
    """Names of the columns of a table that may hold scores.

    Raises:
        DataError: a table that cannot be read.
    """
    return _columns(_load(scores))


def _alone(
    left: pd.DataFrame, right: pd.DataFrame, paths: tuple[Path, Path], allowed: bool
) -> tuple[str, ...]:
    """Ids in one table only, in order."""
    found: list[str] = []
    for path, ours, theirs in ((paths[1], left, right), (paths[0], right, left)):
        missing = sorted(set(ours.index) - set(theirs.index))
        if missing and not allowed:
            raise EvidenceError(
                f"{path} has no row for {len(missing)} runs of the other table: {_some(missing)}; "
                "add them there or remove them here"
            )
        found += missing
    if len(found) == len(left) + len(right):
        raise EvidenceError(
            f"{paths[0]} and {paths[1]} have no run in common: {_some(list(left.index))} against "
            f"{_some(list(right.index))}"
        )
    return tuple(found)


def _scores(table: pd.DataFrame, path: Path, reading: Reading) -> tuple[Array, tuple[str, ...]]:
    """Scores (N, M), lower is better, and the names of the M targets."""
    known = _columns(table)
    members = [name for _, names in reading.families for name in names]
    for name in (*reading.targets, *reading.higher_is_better, *members):
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {close[0]!r}?" if close else f"it has: {_some(known)}"
            raise DataError(f"{path} has no column of scores {name!r}; {hint}")
    wanted = list(dict.fromkeys((*reading.targets, *members)) if reading.targets else known)
    values, names = _numbers(table[wanted], path)
    values = values * np.where([name in reading.higher_is_better for name in names], -1.0, 1.0)
    columns = {n: values[:, i] for i, n in enumerate(names) if n not in members}
    for family, parts in reading.families:
        columns[family] = values[:, [names.index(part) for part in parts]].mean(axis=1)
    return np.stack(list(columns.values()), axis=1), tuple(columns)


def counted(given: Mapping[str, float]) -> bool:
    """Whether sizes are counts of tokens; relative sizes have no unit of their own."""
    return sum(given.values()) > COUNTS


def tokens(domains: Sequence[str], given: Mapping[str, float]) -> dict[str, int]:
    """Tokens by domain from counts or relative sizes; equal ones where nothing is given.

    Only the ratios of the values mean anything unless the sizes are counts; see `counted`.

    Raises:
        DataError: a name that is no domain, or a domain without a positive size.
    """
    unknown = sorted(set(given) - set(domains))
    if unknown:
        raise DataError(f"tables.sizes names {_some(unknown)}; domains: {', '.join(domains)}")
    if not given:
        return dict.fromkeys(domains, 10**9)
    lacking = [name for name in domains if not given.get(name, 0) > 0]
    if lacking:
        raise DataError(f"tables.sizes must be positive for every domain; not so: {_some(lacking)}")
    scale = 1.0 if counted(given) else 1e12
    return {name: max(1, round(given[name] * scale)) for name in domains}


def _load(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise DataError(f"no table {path}") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} is not a CSV table: {' '.join(str(error).split())}") from error
    header = [str(name).strip() for name in _header(path)]
    doubled = sorted({name for name in header if name and header.count(name) > 1})
    if doubled:
        raise DataError(f"{path}: columns that stand more than once: {_some(doubled)}")
    table.columns = [str(name).strip() for name in table.columns]
    if table.empty:
        raise DataError(f"{path} has a header but no rows")
    return table


def _header(path: Path) -> list[str]:
    """Names of the columns as they are written; pandas renames those that stand twice."""
    first = pd.read_csv(path, dtype=str, keep_default_na=False, header=None, nrows=1)
    return [str(name) for name in first.iloc[0]]


def _keys(
    left: pd.DataFrame, right: pd.DataFrame, key: str | None, mixtures: Path, scores: Path
) -> tuple[str, str]:
    """The id columns of both tables."""
    both = [[name for name in RUNS if name in table.columns][:1] for table in (left, right)]
    common = [name for name in left.columns if name in set(right.columns)]
    named = [name for name in ((key,) if key else (*RUNS, *IDS)) if name in common]
    if not key and not set(named) & set(RUNS) and all(both):
        return both[0][0], both[1][0]
    if named:
        return named[0], named[0]
    raise DataError(
        f"{mixtures} and {scores} share no id column ({key or ', '.join(IDS)}); "
        f"columns of both: {', '.join(common) or 'none'}. Name it in tables.id"
    )


def _columns(table: pd.DataFrame) -> tuple[str, ...]:
    return tuple(n for n in table.columns if n and n not in LABELS and not n.startswith(UNNAMED))


def _numbers(table: pd.DataFrame, path: Path) -> tuple[Array, tuple[str, ...]]:
    names = _columns(table)
    columns = []
    for name in names:
        values = pd.to_numeric(table[name], errors="coerce")
        bad = list(table.index[~np.isfinite(values)])
        if bad:
            cell = table.loc[bad[0], name]
            raise DataError(
                f"{path}: column {name!r} has no number for run {_some(bad)} (found {cell!r}); "
                "fill it in or remove the run from both tables"
            )
        columns.append(values.to_numpy(dtype=np.float64))
    if not columns:
        raise DataError(f"{path} has no columns of numbers beside its ids")
    return np.stack(columns, axis=1), names


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(" ".join(str(name).split()) for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
