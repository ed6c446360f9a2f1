"""Data frames, arrays and mappings as tables of runs, and answers as data frames.

A frame is whatever has columns by name: pandas, polars, pyarrow, a mapping of lists. It becomes the
same table that a CSV file is, cell by cell, so that frames and files are read, and refused, alike.
pandas is imported only where a frame is asked for.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import ConstraintError, DataError
from cuvee.tasks.extras import require
from cuvee.tasks.study import table_columns, table_file
from cuvee.tasks.study.table_columns import IDS
from cuvee.tasks.study.table_file import UNNAMED, CsvTable, first_names
from cuvee.tasks.study.tables import ROUNDING

if TYPE_CHECKING:
    import pandas as pd

INDEX, ROW = "index", "row"  # columns that a frame's index, and the order of rows, are read as
SCORE = "score"  # the name of the one column of a vector


class FrameLike(Protocol):
    """A data frame, as pandas, polars and others have it: names, and a column by name."""

    @property
    def columns(self) -> Any: ...

    def __getitem__(self, name: Any, /) -> Any: ...


TableLike: TypeAlias = (
    str | os.PathLike[str] | FrameLike | Mapping[str, Iterable[Any]] | Array | Sequence[Any]
)
"""The path of a CSV file, a data frame, columns by name, or an array with a row per run."""


def paired_tables(
    mixtures: TableLike,
    scores: TableLike,
    *,
    key: str | None,
    domains: Sequence[str] = (),
    targets: Sequence[str] = (),
) -> tuple[CsvTable, CsvTable, str | None]:
    """Two tables with an id column in common, and its name where it is not to be looked for.

    Runs are paired by the id column, as which an index with a name counts; without one by the index
    of both frames, if they have one; without that, and only where neither is a file, by the order
    of their rows.

    Raises:
        DataError: what is no table, or tables of different length without an id.
    """
    left, right = _Source.of(mixtures, "mixtures", domains), _Source.of(scores, "scores", targets)
    known = set(left.columns) & set(right.columns)
    named = key in known or (key is None and left.labeled and right.labeled)
    text = any(table_columns.identifies_runs(left.table(), name) for name in known if left.rows)
    if named or text or left.file or right.file:
        return left.table(), right.table(), key
    if key is not None:
        return left.table(), right.table(), key  # whose lack is told where tables are joined
    if left.index and right.index and not (left.counted and right.counted):
        return left.table(INDEX, left.index), right.table(INDEX, right.index), INDEX
    if left.rows != right.rows:
        raise DataError(
            f"there are mixtures of {left.rows} runs and scores of {right.rows}, and no column of "
            "both says which is which: give both a column `run`, or name another in `id_column`"
        )
    numbers = [str(i) for i in range(left.rows)]
    return left.table(ROW, numbers), right.table(ROW, numbers), ROW


def place_of(table: TableLike, kind: str) -> str:
    """What a table is called in errors and notes: its path, or what it is of."""
    if isinstance(table, str | os.PathLike):
        return os.fspath(table)
    return f"the table of {kind}"


class _Source:
    """A table before it has an id: its columns, and the index of a frame that has one."""

    def __init__(self, path: Path, columns: Mapping[str, Sequence[str]], frame: Any = None) -> None:
        self.path, self.columns = path, dict(columns)
        self.file: CsvTable | None = None
        found = getattr(frame, "index", None)
        named = str(getattr(found, "name", None) or "")
        self.index = [] if found is None or callable(found) else [_cell(one) for one in found]
        if named and named not in columns:  # as good as a column
            self.columns = {named: self.index, **columns}

    @classmethod
    def of(cls, source: Any, kind: str, names: Sequence[str]) -> "_Source":
        if isinstance(source, str | os.PathLike):
            read = table_file.read_csv(Path(source).expanduser())
            made = cls(read.path, read.columns)
            made.file = read
            return made
        return cls(Path(place_of(source, kind)), dict(_columns(source, kind, names)), source)

    @property
    def rows(self) -> int:
        lengths = {len(cells) for cells in self.columns.values()}
        if len(lengths) > 1:
            raise DataError(f"{self.path} has columns of different lengths: {sorted(lengths)}")
        return lengths.pop() if lengths else 0

    @property
    def labeled(self) -> bool:
        return any(name in IDS for name in self.columns)

    @property
    def counted(self) -> bool:
        """Whether the index only counts the rows."""
        return self.index == [str(i) for i in range(self.rows)]

    def table(self, key: str = "", cells: Sequence[str] = ()) -> CsvTable:
        if self.file is not None:
            return self.file
        if key in self.columns:
            raise DataError(
                f"{self.path} has a column {key!r} beside an index: name the ids in `id_column`"
            )
        columns = {key: cells, **self.columns} if key else self.columns
        rows = [list(row) for row in zip(*columns.values(), strict=True)] if self.rows else []
        return table_file.table_of_cells(self.path, list(columns), rows)


def _columns(source: Any, kind: str, names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The columns of a frame, a mapping or an array, cells as a CSV file would hold them."""
    if isinstance(source, Mapping):
        pairs: Iterable[tuple[Any, Any]] = source.items()
    elif hasattr(source, "column_names"):  # pyarrow, whose `columns` have no names
        pairs = ((name, source[name].to_pylist()) for name in _different(source.column_names, kind))
    elif hasattr(source, "columns"):
        pairs = ((name, source[name]) for name in _different(source.columns, kind))
    else:
        pairs = _array_columns(source, kind, names)
    for place, (name, values) in enumerate(pairs):
        if isinstance(values, str) or not isinstance(values, Iterable):
            raise DataError(
                f"the table of {kind} needs a list of values in column {name!r}, one per run; got "
                f"{values!r:.60}"
            )
        yield str(name).strip() or f"{UNNAMED} {place}", [_cell(value) for value in values]


def _different(names: Iterable[Any], kind: str) -> list[Any]:
    found = list(names)
    doubled = sorted({str(name) for name in found if found.count(name) > 1})
    if doubled:
        raise DataError(
            f"the table of {kind}: columns that stand more than once: {first_names(doubled)}"
        )
    return found


def _array_columns(source: Any, kind: str, names: Sequence[str]) -> Iterable[tuple[str, Array]]:
    word = {"mixtures": "domains", "scores": "targets"}[kind]
    values = None
    with contextlib.suppress(TypeError, ValueError):
        values = np.asarray(source, dtype=np.float64)
    if values is None or not values.ndim:
        raise DataError(
            f"the {kind} must be a CSV file's path, a data frame, columns by name or an array of "
            f"numbers; got {type(source).__name__}"
        )
    if values.ndim == 1 and word == "targets":
        values, names = values[:, None], names or (SCORE,)
    if values.ndim != 2 or values.shape[1] != len(names):
        raise DataError(
            f"an array of {kind} needs a row per run and the name of every column in `{word}`; got "
            f"shape {values.shape} and {len(names)} names"
        )
    return zip(names, values.T, strict=True)


def _cell(value: Any) -> str:
    """A value as it would be written so that nothing of it is lost."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, int | np.integer):
        return str(value)
    try:
        return repr(float(value))
    except (TypeError, ValueError):
        return str(value)


def shares_of(mixtures: Any, domains: Sequence[str]) -> tuple[list[str], Array]:
    """Labels and shares (n, K) of mixtures to be predicted: a frame, an array, or mappings.

    Args:
        mixtures: columns by domain (others are not looked at), an array (n, K) or (K,) in the
            order of the domains, or mappings of shares: one mixture, or a list of them.
        domains: names of the K domains.

    Raises:
        DataError: a domain without a column, or a cell that is no number.
        ConstraintError: a row that is no mixture.
    """
    if rows := _mappings(mixtures):
        unknown = [
            name for name in dict.fromkeys(n for row in rows for n in row) if name not in domains
        ]
        if unknown:
            raise DataError(f"no domain {first_names(unknown)}; domains: {first_names(domains)}")
        mixtures = {name: [row.get(name, 0.0) for row in rows] for name in domains}
    elif (
        not hasattr(mixtures, "columns")
        and not isinstance(mixtures, str)
        and np.ndim(mixtures) == 1
    ):
        mixtures = np.asarray(mixtures)[None]
    source = _Source.of(mixtures, "mixtures", domains)
    lacking = [name for name in domains if name not in source.columns]
    if lacking:
        raise DataError(
            f"{source.path} has no column of the domains {first_names(lacking)}; it has: "
            f"{first_names(list(source.columns))}"
        )
    table = source.table()
    labels = source.index or [str(i) for i in range(source.rows)]
    at = range(source.rows)
    columns = [table_columns.numbers_of_runs(table, name, labels, at) for name in domains]
    labeled = zip(np.stack(columns, axis=1), labels, strict=True)
    return labels, np.array([_mixture(row, domains, label) for row, label in labeled])


def _mappings(mixtures: Any) -> list[Mapping[str, Any]]:
    """Mixtures that are given as mappings of shares; none where they are given otherwise."""
    if isinstance(mixtures, Mapping):
        return [mixtures] if all(np.isscalar(one) for one in mixtures.values()) else []
    given = list(mixtures) if isinstance(mixtures, list | tuple) else []
    return given if all(isinstance(one, Mapping) for one in given) else []


def _mixture(row: Array, domains: Sequence[str], label: str) -> Array:
    total = float(row.sum())
    hint = "; are these percent? Divide by 100" if 90 < total < 110 else ""
    try:
        return simplex.check_mixture(row / total if abs(total - 1) <= ROUNDING else row, domains)
    except ConstraintError as error:
        raise ConstraintError(f"mixture {label}: {error}{hint}") from None


def data_frame(
    columns: Mapping[str, Iterable[Any]], index: Sequence[Any], name: str
) -> "pd.DataFrame":
    """A pandas data frame.

    Raises:
        MissingExtra: pandas is not installed; says how to install it.
    """
    require("to_frame()", "notebook")
    import pandas as pd

    return pd.DataFrame(dict(columns), index=pd.Index(list(index), name=name))
