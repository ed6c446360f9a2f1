"""What a report is made of: paragraphs, tables, pictures and code, as plain values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

HALF_WIDTH = 62  # characters that fit half the width of the page


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class ReportTable:
    """Rows under columns; the first column names its row, the others are aligned as numbers."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = ()  # columns beside the first that hold words
    kind: str = "table"

    @property
    def wide(self) -> bool:
        """Whether it needs the whole width of the page, judged by its longest cells."""
        cells = zip(self.columns, *self.rows, strict=True)
        return sum(max(map(len, column)) + 2 for column in cells) > HALF_WIDTH


@dataclass(frozen=True)
class Picture:
    """A figure, drawn when it is rendered."""

    name: str
    caption: str
    plot: Callable[[], Figure]
    kind: str = "picture"


@dataclass(frozen=True)
class Code:
    """Text that is shown exactly as it is."""

    text: str
    language: str = ""
    kind: str = "code"


@dataclass(frozen=True)
class Explorer:
    """Sliders over a law: the page computes with the values, the twin says where the page is."""

    values: Mapping[str, Any]
    kind: str = "explorer"


Block = Paragraph | ReportTable | Picture | Code | Explorer


@dataclass(frozen=True)
class Section:
    """A titled part of the report."""

    title: str
    blocks: tuple[Block, ...] = field(default=())
