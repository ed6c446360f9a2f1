"""Documents, and the protocol by which every source of text gives them: in parts, each read alone.

A document is what is kept whole when text is held out, so it should be an article, a file, a page;
not a line, and not a whole dump.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

PARTS, CONTENT = "parts", "content"  # what a sample is drawn by
LEAST, AIMED = 8, 32  # parts of a sample: with fewer than the first its error is rough
FINEST, COARSEST = 1 << 20, 1 << 28  # bytes of a part
TOKEN_BYTES = 4  # of text, where the tokenizer is not known


class TokenSpan(NamedTuple):
    """Where a document's ids lie in its file: the first byte, how many ids, and their type."""

    start: int
    ids: int
    type: str


class TextDocument(NamedTuple):
    """A document as its source gives it.

    Attributes:
        text: whole, as it stands in the source.
        id: of the source's own, where the recipe names a field for it; "" where it does not.
        attributes: fields of the source that the recipe keeps, by name.
        tokens: where its ids lie, if they are to be used where they are.
    """

    text: str
    id: str = ""
    attributes: Mapping[str, Any] = MappingProxyType({})
    tokens: TokenSpan | None = None


@dataclass(frozen=True)
class UnusableDocument:
    """A row or a file that holds no text, and why, in a sentence.

    Attributes:
        why: the sentence.
        empty: whether it is a file without a byte, which among others is a blank document.
    """

    why: str
    empty: bool = False


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


@dataclass(frozen=True)
class Sample:
    """What is wanted of a domain: training tokens, by parts or by content."""

    tokens: int
    by: str = PARTS

    @property
    def part_bytes(self) -> int:
        """Size of the parts that are read: so many that it shows how they differ.

        A power of two, so that a slightly larger sample reads the same parts.
        """
        wanted = max(1, TOKEN_BYTES * self.tokens // AIMED)
        return min(COARSEST, max(FINEST, 1 << (wanted.bit_length() - 1)))

    def stored_bytes(self, files: int, size: int) -> int:
        """Bytes that are read of so many files of a size in all, about; before any is opened."""
        parts = max(files, size // self.part_bytes, 1)
        least = size * min(1.0, LEAST / parts)
        wanted = max(TOKEN_BYTES * self.tokens, round(least))
        return size if self.by == CONTENT else min(size, wanted)


@dataclass(frozen=True)
class SampledSource:
    """A source of which a sample is wanted."""

    source: TextSource
    sample: Sample

    @property
    def identity(self) -> str:
        body = f"{self.source.identity} {self.sample.tokens} {self.sample.by}"
        return hashlib.sha256(body.encode()).hexdigest()

    @property
    def reading(self) -> str:
        return self.source.reading

    @property
    def stored_bytes(self) -> int:
        """Bytes that are read for the sample, about."""
        parts = self.parts()
        return self.sample.stored_bytes(len(parts), sum(part.size for part in parts))

    def parts(self) -> tuple[ReadPart, ...]:
        return self.source.parts()

    def read(self, part: ReadPart) -> Iterator[Document]:
        return self.source.read(part)

    def documents(self) -> Iterator[Document]:
        return self.source.documents()
