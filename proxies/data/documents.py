"""Documents, and the protocol by which every source of text gives them: in parts, each read alone.

A document is what is kept whole when text is held out, so it should be an article, a file, a page;
not a line, and not a whole dump.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol


class TextDocument(NamedTuple):
    """A document as its source gives it.

    Attributes:
        text: whole, as it stands in the source.
        id: of the source's own, where the recipe names a field for it; "" where it does not.
        attributes: fields of the source that the recipe keeps, by name.
    """

    text: str
    id: str = ""
    attributes: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class UnusableDocument:
    """A row or a file that holds no text, and why, in a sentence."""

    why: str


@dataclass(frozen=True)
class FilteredDocument:
    """A row that the recipe's filter leaves out; the one value `FILTERED` stands for each."""


FILTERED: Final = FilteredDocument()
Document = TextDocument | UnusableDocument | FilteredDocument


@dataclass(frozen=True, slots=True)  # there may be a million
class ReadPart:
    """What one task reads: a file, or a part of one. Plain values, which travel to workers.

    Attributes:
        url: of the file; a path where it is local.
        start: bytes of text or lines, groups of rows of a table.
        stop: where the next part starts; None: at the end.
        size: bytes that are read, as they are stored.
        content: identity of the whole file: sha256, or what a remote store says of an object.
    """

    url: str
    start: int = 0
    stop: int | None = None
    size: int = 0
    content: str = ""


class TextSource(Protocol):
    """Where the text of one domain comes from; picklable, so that workers can read its parts."""

    @property
    def identity(self) -> str:
        """Changes whenever the documents may have changed; of contents, not of paths."""
        ...

    @property
    def reading(self) -> str:
        """How a part is read, whichever it is: what its documents depend on beside its content."""
        ...

    def parts(self) -> tuple[ReadPart, ...]:
        """What can be read apart, in order."""
        ...

    def read(self, part: ReadPart) -> Iterator[Document]:
        """The documents of one part, in the same order every time."""
        ...

    def documents(self) -> Iterator[Document]:
        """The documents of all parts, in order."""
        ...
