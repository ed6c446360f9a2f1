"""Which columns of two tables are ids, shares and scores, and which nobody can read.

A column is an id, or a row's label, by its name only where its numbers say nothing else: domains
and scores may be called `id` (Indonesian), `run`, `name` or `index`. Columns without any number are
not read, and named.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import DataError
from cuvee.tasks.study import table_file
from cuvee.tasks.study.table_file import UNNAMED, CsvTable, first_names

IDS = ("run", "run_id", "index", "id")  # looked for in this order where no id column is named
RUNS = ("run", "run_id")  # names of one column, as different programs write it
LABELS = ("name", "index", "run", "run_id", "id")  # of rows, unless they hold shares or scores


def id_columns(left: CsvTable, right: CsvTable, key: str | None) -> tuple[str, str]:
    """The id columns of both tables: the one that is named, or else one that is called so."""
    common = [name for name in left.columns if name in right.columns]
    pairs = [(key, key)] if key else [
        *((name, name) for name in RUNS),
        *itertools.permutations(RUNS, 2),
        *((name, name) for name in IDS),
    ]  # fmt: skip
    shares = () if key else _shares(left, list(left.columns))
    empty = {}
    for ours, theirs in pairs:
        if ours in left.columns and theirs in right.columns and ours not in shares:
            blank = [t.path for t, n in ((left, ours), (right, theirs)) if not any(t.columns[n])]
            if key or not blank:
                return ours, theirs
            empty[ours] = blank[0]
    told = "".join(f"; {name} is empty in all rows of {path}" for name, path in empty.items())
    could = [
        name for name in common if identifies_runs(left, name) and identifies_runs(right, name)
    ]
    raise DataError(
        f"{left.path} and {right.path} share no id column ({key or ', '.join(IDS)}){told}; columns "
        f"of both: {first_names(could or common) or 'none'}. Name it in tables.id"
    )


def share_columns(
    table: CsvTable, key: str, only: Sequence[str] = ()
) -> tuple[list[str], list[str]]:
    """The columns of shares, and those beside them that hold no number."""
    names = [name for name in table.columns if name != key]
    values = {name: table.numbers(name) for name in names}
    silent = [n for n in names if np.all(np.isnan(values[n])) and n not in only]
    mute = set(silent)
    plain = [name for name in names if name not in mute and not _label(name)]
    if only:
        unknown = [name for name in only if name not in names]
        if unknown:
            known = [name for name in names if name not in mute]
            raise DataError(
                f"{table.path} has no domain {first_names(unknown)}; it has: {first_names(known)}"
            )
        whole = [name for name in plain if not np.any(np.isnan(values[name]))]
        return list(dict.fromkeys((*only, *whole, *_shares(table, names)))), []
    taken = _shares(table, names)
    if any(name.startswith(UNNAMED) for name in taken):
        raise DataError(f"{table.path}: a column without a name holds shares; name its domain")
    read = {*plain, *taken}
    found = [name for name in names if name in read]
    if not found:
        raise DataError(
            f"{table.path} has no columns of numbers beside its ids; it has: {first_names(names)}"
        )
    return found, [name for name in silent if not _label(name)]


def _shares(table: CsvTable, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that are called as labels are, and yet hold shares: all within 0 and 1.

    Numbers that are all 0 or 1 can be a label's; they are shares if the rows then come no farther
    from the sum 1.
    """
    values = {name: table.numbers(name) for name in names}
    within = [n for n in names if _label(n) and np.all((values[n] >= 0) & (values[n] <= 1))]
    whole = [name for name in within if np.all(values[name] == np.round(values[name]))]
    mute = {n for n in whole if n.startswith(UNNAMED)}  # a row's number, or nothing; so that there
    within = [n for n in within if n not in mute]
    whole = [n for n in whole if n not in mute]  # are at most 2**len(LABELS) choices
    sums = np.zeros(table.rows)
    for name in names:
        if name in within or not _label(name):
            sums += np.nan_to_num(values[name]) if name not in whole else 0.0
    choices = itertools.chain.from_iterable(
        itertools.combinations(whole, count) for count in range(len(whole), -1, -1)
    )
    off = {c: float(np.mean(np.abs(sums + sum(values[n] for n in c) - 1))) for c in choices}
    best = min(off, key=lambda choice: round(off[choice], 9))
    return tuple(name for name in within if name not in whole or name in best)


def score_columns(
    table: CsvTable, skip: set[str] | None = None
) -> tuple[tuple[str, ...], list[str]]:
    """The columns of scores, and those that hold no number; a label's are whole and all differ."""
    found, silent = [], []
    for name, cells in table.columns.items():
        values = table.numbers(name)
        if name in (skip or ()):
            continue
        if np.all(np.isnan(values)):
            silent += [] if _label(name) else [name]
        elif not _label(name) or not (
            np.any(np.isnan(values))
            or (len(set(cells)) == table.rows and np.all(values == np.round(values)))
        ):
            if name.startswith(UNNAMED):
                raise DataError(f"{table.path}: a column without a name holds scores; name it")
            found.append(name)
    return tuple(found), silent


def numbers_of_runs(table: CsvTable, name: str, ids: Sequence[str], at: Sequence[int]) -> Array:
    """A column's numbers in the given rows."""
    values = table.numbers(name)
    if np.all(np.isnan(values)):
        raise DataError(
            f"{table.path}: column {name!r} has no number in any row; leave it out of what "
            "tables.targets or tables.only names to be read"
        )
    values = values[list(at)]
    bad = [int(i) for i in np.flatnonzero(np.isnan(values))]
    if bad:
        cell = table.columns[name][at[bad[0]]]
        hint = " with a decimal point" if table_file.COMMA.match(cell) else ""
        raise DataError(
            f"{table.path}: column {name!r} has no number for run "
            f"{first_names([ids[i] for i in bad])} (found {cell[:60]!r}); "
            f"fill it in{hint} or remove the run from both tables"
        )
    return np.asarray(values)


def identifies_runs(table: CsvTable, name: str) -> bool:
    """Whether a column can name the runs: no cell is empty or stands twice, and some are text."""
    cells = [cell.strip() for cell in table.columns[name]]
    different = all(cells) and len(set(cells)) == len(cells)
    return different and bool(np.any(np.isnan(table.numbers(name))))


def _label(name: str) -> bool:
    return name in LABELS or name.startswith(UNNAMED)
