"""Rows of a part in its CSV file: what is there is not measured again."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, numbers as numbers; none where there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [{name: number(text) for name, text in row.items()} for row in csv.DictReader(file)]


def number(text: str) -> float | str:
    """A cell as a number where it is one."""
    try:
        return float(text)
    except ValueError:
        return text


def append_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows, whose names are those of the file, and the names first where it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        if new:
            writer.writeheader()
        writer.writerows(rows)


def lacking(path: Path, cells: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The cells of which the file has no row yet."""
    rows = read_rows(path)
    return [c for c in cells if not any(all(r.get(k) == v for k, v in c.items()) for r in rows)]
