"""Runs that were trained elsewhere: a table of mixtures and a table of scores, joined by run id.

Rows are paired by their id, never by their position. An id that is missing from one table, or
stands twice, is named; so is every cell without a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mixtures.domains import Array
from mixtures.errors import DataError, EvidenceError

IDS = ("run", "run_id", "index", "id")  # looked for in this order where no id column is named
LABELS = ("name", "index", "run", "run_id", "id")  # columns that are neither domain nor target
ROUNDING = 0.02  # a row of shares may miss 1 by this much, since tables are written with few digits
SHOWN = 5  # ids that an error names


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
    """

    ids: tuple[str, ...]
    domains: tuple[str, ...]
    targets: tuple[str, ...]
    W: Array
    Y: Array
    rescaled: int


def read(mixtures: Path, scores: Path, *, key: str | None = None) -> Tables:
    """Read and join.

    Args:
        mixtures: CSV with an id column and a column of shares per domain.
        scores: CSV with the same id column and a column per target; lower is better.
        key: name of the id column; the first of `IDS` that both tables have if None.

    Raises:
        DataError: a table that cannot be read, or a cell that is no number (run and column named).
        EvidenceError: ids that are doubled, or in one table only.
    """
    left, right = _load(mixtures), _load(scores)
    column = _key(left, right, key, mixtures, scores)
    for path, table in ((mixtures, left), (scores, right)):
        ids = table[column]
        doubled = sorted(set(ids[ids.duplicated()]))
        if doubled:
            raise EvidenceError(f"{path}: runs that stand more than once: {_some(doubled)}")
    for path, ours, theirs in ((scores, left, right), (mixtures, right, left)):
        missing = sorted(set(ours[column]) - set(theirs[column]))
        if missing:
            raise EvidenceError(
                f"{path} has no row for {len(missing)} runs of the other table: {_some(missing)}; "
                "add them there or remove them here"
            )
    joined_right = right.set_index(column).loc[list(left[column])]
    W, domains = _numbers(left.set_index(column), mixtures)
    Y, targets = _numbers(joined_right, scores)
    sums = W.sum(axis=1)
    bad = np.flatnonzero((np.abs(sums - 1) > ROUNDING) | np.any(W < 0, axis=1))
    if bad.size:
        names = [f"{left[column].iloc[i]} ({sums[i]:.4g})" for i in bad]
        raise DataError(
            f"{mixtures}: shares must be >= 0 and sum to 1; they do not in {_some(names)}"
        )
    return Tables(
        ids=tuple(left[column]),
        domains=domains,
        targets=targets,
        W=np.asarray(W / sums[:, None]),
        Y=Y,
        rescaled=int(np.sum(np.abs(sums - 1) > 1e-9)),
    )


def tokens(domains: Sequence[str], given: Mapping[str, float]) -> dict[str, int]:
    """Tokens by domain from counts or relative sizes; equal ones where nothing is given.

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
    scale = 1.0 if sum(given.values()) > 1000 else 1e12  # relative sizes have no unit of their own
    return {name: max(1, round(given[name] * scale)) for name in domains}


def _load(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise DataError(f"no table {path}") from None
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"{path} is not a CSV table: {error}") from error
    table.columns = [str(name).strip() for name in table.columns]
    if table.empty:
        raise DataError(f"{path} has a header but no rows")
    return table


def _key(
    left: pd.DataFrame, right: pd.DataFrame, key: str | None, mixtures: Path, scores: Path
) -> str:
    common = [name for name in left.columns if name in set(right.columns)]
    for name in (key,) if key else IDS:
        if name in common:
            return name
    raise DataError(
        f"{mixtures} and {scores} share no id column ({key or ', '.join(IDS)}); "
        f"columns of both: {', '.join(common) or 'none'}. Name it in tables.id"
    )


def _numbers(table: pd.DataFrame, path: Path) -> tuple[Array, tuple[str, ...]]:
    names = [name for name in table.columns if name not in LABELS]
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
    return np.stack(columns, axis=1), tuple(names)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(str(name) for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
