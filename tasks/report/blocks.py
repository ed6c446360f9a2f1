"""What a report is made of: paragraphs, tables, pictures and code, as plain values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

HALF_WIDTH = 56  # characters that fit half the width of the page
TELEPHONE = 40  # characters that fit the width of a telephone


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
    fold: int = 0  # rows that are shown before a reader asks for more; 0: all
    kind: str = "table"

    @property
    def wide(self) -> bool:
        """Whether it needs the whole width of the page, judged by its longest cells."""
        return self._width > HALF_WIDTH

    @property
    def stacked(self) -> bool:
        """Whether its cells stand below each other where the page is narrow."""
        return self._width > TELEPHONE

    @property
    def folded(self) -> tuple[tuple[str, ...], ...]:
        """The rows that are not shown at first."""
        return self.rows[self.fold :] if self.fold else ()

    @property
    def _width(self) -> int:
        cells = zip(self.columns, *self.rows, strict=True)
        return sum(max(map(len, column)) + 2 for column in cells)


@dataclass(frozen=True)
class Picture:
    """A figure, drawn when it is rendered; the finding says in words what one sees in it."""

    name: str
    caption: str
    finding: str
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
