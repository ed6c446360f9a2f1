"""One table in a file, as spreadsheets and programs write it: CSV, read to its last cell.

Columns may be divided by commas, semicolons or tabs; in the latter two a comma may be the decimal
mark, if no number of the file has a point. Text is UTF-8, or UTF-16 with its mark, packed or not.
A row that has more or fewer cells than the header is refused, since nobody knows which are meant.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import DataError
from cuvee.tasks.escape import CONTROL, printable

LARGEST = 2**30  # bytes of a table, unpacked
MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
DIVIDERS = (",", ";", "\t")
UNNAMED = "Unnamed:"  # how pandas calls a column without a name: a row's number, as a rule
NUMBER = re.compile(r"[ \t]*[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?[ \t]*$")
COMMA = re.compile(r"\s*[-+]?[0-9]*,[0-9]+(?:[eE][-+]?[0-9]+)?\s*$")
POINT = re.compile(r"\s*[-+]?[0-9]*\.[0-9]+(?:[eE][-+]?[0-9]+)?\s*$")
SHOWN, LONG = 5, 100  # names that an error shows, and characters of each


@dataclass(frozen=True)
class CsvTable:
    """A table's cells as they are written.

    Attributes:
        path: of its file.
        columns: cells by the column's name.
        decimal: the mark in its numbers.
    """

    path: Path
    columns: dict[str, tuple[str, ...]]
    decimal: str

    @property
    def rows(self) -> int:
        """Rows beside the header."""
        return len(next(iter(self.columns.values())))

    def numbers(self, name: str) -> Array:
        """A column (N,), NaN where a cell holds no finite number."""
        cells = [cell.replace(self.decimal, ".") for cell in self.columns[name]]
        values = [float(cell) if NUMBER.match(cell) else np.nan for cell in cells]
        return np.where(np.isfinite(values), values, np.nan)


def read_csv(path: Path) -> CsvTable:
    """A table from its file.

    Raises:
        DataError: it cannot be read, or is no table of rows under a header of different names.
    """
    text = _text(path)
    lines = io.StringIO(text, newline="")
    try:
        widths = {}
        for mark in DIVIDERS:
            lines.seek(0)
            widths[mark] = len(next(csv.reader(lines, delimiter=mark), ()))
        divider = max(widths, key=lambda mark: widths[mark])
        lines.seek(0)
        rows = list(csv.reader(lines, delimiter=divider, strict=True))
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV table: {error}") from error
    if not rows:
        raise DataError(f"{path} is not a CSV table: it is empty")
    header = [name.strip() or f"{UNNAMED} {place}" for place, name in enumerate(rows[0])]
    return table_of_cells(path, header, rows[1:], divider)


def table_of_cells(
    path: Path, header: list[str], rows: list[list[str]], divider: str = ","
) -> CsvTable:
    """A table from its cells as they would be written; `path` is what errors call it.

    Raises:
        DataError: a name that stands twice or holds control characters, a row that is longer or
            shorter than the header, or no row.
    """
    doubled = sorted(name for name, times in Counter(header).items() if times > 1)
    if doubled:
        raise DataError(f"{path}: columns that stand more than once: {first_names(doubled)}")
    hostile = [name for name in header if CONTROL.search(name)]
    if hostile:
        raise DataError(f"{path}: names of columns hold control characters: {hostile[0]!r}")
    kept = []
    for number, row in enumerate(rows, start=2):
        if len(row) < len(header) or any(cell.strip() for cell in row[len(header) :]):
            if not any(cell.strip() for cell in row):
                continue
            raise DataError(
                f"{path} is not a CSV table: row {number} has {len(row)} cells and the header "
                f"{len(header)}"
            )
        if any(cell.strip() for cell in row):
            kept.append(row[: len(header)])
    if not kept:
        raise DataError(f"{path} has a header but no rows")
    columns = dict(zip(header, zip(*kept, strict=True), strict=True))
    return CsvTable(path, columns, _decimal(divider, kept))


def first_names(names: Sequence[object]) -> str:
    """The first names of a list, in one line and as a terminal may show them."""
    shown = ", ".join(" ".join(printable(str(name)).split())[:LONG] for name in names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def _text(path: Path) -> str:
    """What a file holds, unpacked by its ending."""
    try:
        with fsspec.filesystem("file").open(str(path), "rb", compression="infer") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise DataError(f"no table {path}") from None
    except Exception as error:  # each way of packing has errors of its own
        said = " ".join(str(error).split())
        raise DataError(f"{path} is not a CSV table: it cannot be read ({said})") from error
    if len(data) > LARGEST:
        raise DataError(f"{path} is larger than any table ({LARGEST // 2**20:,} MB)")
    try:
        return str(data, MARKS.get(data[:2], "utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not a CSV table: {error.reason} at byte {error.start:,}; save it as CSV in "
            "UTF-8"
        ) from error


def _decimal(divider: str, rows: Sequence[Sequence[str]]) -> str:
    """The decimal mark of a table's numbers."""
    if divider == "," or not any(COMMA.match(cell) for row in rows for cell in row):
        return "."
    return "." if any(POINT.match(cell) for row in rows for cell in row) else ","
