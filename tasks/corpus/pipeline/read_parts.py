"""Reads one part of a source: what is left of its documents goes to a spool, sorted by content.

A spool is three files: the texts, an index of 32 bytes a document, and, written last, the record of
what was read. Of a document whose tokens are used where they lie, there is no text but their place.
A spool is named by everything that determines it, so one that is there need not be read again. A
document's key is a hash of its cleaned text: equal text has equal keys, wherever it came from.
Memory holds a run of documents, which is written in the order of their keys.
"""

import hashlib
import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from operator import itemgetter
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cuvee.evaluation.decontamination import NGramIndex
from cuvee.mixtures.errors import DataError
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.sources.documents import (
    FilteredDocument,
    ReadPart,
    TextDocument,
    TextSource,
    UnusableDocument,
)
from cuvee.proxies.data.sources.source_files import file_state
from cuvee.proxies.data.tokenizer import STRETCH
from cuvee.tasks.corpus.pipeline.near_bands import ENDS as BAND_ENDS
from cuvee.tasks.corpus.pipeline.near_bands import BandWriter, band_writer
from cuvee.tasks.corpus.pipeline.whole_files import file_sizes, finished_task

VERSION = 1  # raised by hand whenever the same part would give another spool
GROUP = 4_000_000  # characters of text handled together
RUN = 32_000_000  # bytes of text that are sorted together
LONG = 8_000_000  # characters from which a document is written by itself, in pieces
INDEX = np.dtype(
    [("high", "<u8"), ("low", "<u8"), ("place", "<u8"), ("size", "<u4"), ("extra", "<u4")]
)
KEYS = 1 << 64  # upper halves of keys
PLACE = struct.Struct("<QQ")  # of a document's ids: the first byte, and how many
Entries = NDArray[Any]  # rows of INDEX, or of what adds columns to it


@dataclass(frozen=True)
class ReadTask:
    """A part to be read, and of which source.

    Attributes:
        name: of its spool.
        domain: the place of its domain among those of the corpus.
        below: upper half of a key from which documents are left out, of a sample by content.
        state: of the part's file where the task was made (`file_state`), which a worker must see,
            too; "" where it sees the file anyway.
    """

    name: str
    domain: int
    source: TextSource
    part: ReadPart
    below: int = KEYS
    state: str = ""

    @property
    def within_reach(self) -> bool:
        """Whether the file is there, and no other that has its path on another machine."""
        with suppress(DataError):
            return not self.state or file_state(self.part.url) == self.state
        return False


@dataclass(frozen=True)
class PartRecord:
    """What was read of a part.

    Attributes:
        name: of the spool.
        domain: as in the task.
        size: bytes of the part as it is stored.
        documents: that were kept.
        bytes: of their text, UTF-8.
        counts: of everything that was read and dropped.
        hits: documents that share words with a benchmark, by benchmark.
        skipped: why the first row that was skipped holds no text.
        runs: documents of each sorted run.
        files: bytes of each file of the spool.
        view: type of the ids, of documents whose tokens are used where they lie; "" for text.
        url: of the file that they lie in.
        content: identity of that file.
    """

    name: str
    domain: int
    size: int
    documents: int
    bytes: int
    counts: Mapping[str, int]
    hits: Mapping[str, int]
    skipped: str
    runs: Sequence[int]
    files: Mapping[str, int] = field(default_factory=dict)
    view: str = ""
    url: str = ""
    content: str = ""

    def of(self, task: ReadTask) -> "PartRecord":
        """The record for a task: it may have been written when the file lay elsewhere."""
        part = task.part
        return replace(self, domain=task.domain, url=part.url, content=part.content)


@dataclass(frozen=True)
class PartReader:
    """Reads parts; the same for all parts of a corpus.

    Attributes:
        spools: where spools lie.
        index: the benchmarks' runs of words, none of which may remain.
        seed: of the split, which keys depend on.
        near: whether to write what near-duplicates are found by.
    """

    spools: ObjectFolder
    index: NGramIndex
    seed: int
    near: bool = False

    def __call__(self, task: ReadTask) -> PartRecord | None:
        """Read a part, unless that was done; None where its file is on another machine.

        Raises:
            DataError: text that cannot be used and is not to be skipped.
            CorruptError: a file that breaks off.
        """
        known = finished_task(self.spools, task.name)
        if known is not None:
            return PartRecord(**known).of(task)
        if not task.within_reach:
            return None
        with (
            self.spools.writing(f"{task.name}.texts") as texts,
            self.spools.writing(f"{task.name}.index") as index,
            band_writer(self.spools, task.name, self.near) as bands,
        ):
            spool = _Spool(self, task, texts, index, bands)
            for group in document_groups(spool.usable(task.source.read(task.part))):
                spool.keep(group)
            spool.flush()
        ends = ("texts", "index", *(BAND_ENDS if self.near else ()))
        sizes = file_sizes(self.spools, [f"{task.name}.{end}" for end in ends])
        record = replace(spool.record(), files=sizes).of(task)
        self.spools.write(f"{task.name}.json", json.dumps(asdict(record)).encode())
        return record


def document_groups(documents: Iterable[TextDocument]) -> Iterator[list[TextDocument]]:
    """Documents in lists of about GROUP characters."""
    group: list[TextDocument] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document.text)
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


@dataclass
class _Spool:
    """A spool that is being written, and the counts of what went into it."""

    reader: PartReader
    task: ReadTask
    texts: BinaryIO
    index: BinaryIO
    bands: BandWriter | None
    counts: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    skipped: str = ""
    runs: list[int] = field(default_factory=list)
    place: int = 0  # bytes written
    kept: int = 0  # bytes of text alone
    view: str = ""  # type of ids
    run: list[tuple[bytes, bytes, int, int]] = field(default_factory=list)
    held: int = 0  # bytes of text in the run

    def usable(self, documents: Iterable[Any]) -> Iterator[TextDocument]:
        """Documents without what holds no text or is not wanted, which is counted."""
        for document in documents:
            if isinstance(document, TextDocument):
                yield document
            elif isinstance(document, UnusableDocument):
                self.counts["skipped"] += 1
                self.skipped = self.skipped or document.why
            elif isinstance(document, FilteredDocument):
                self.counts["filtered"] += 1

    def keep(self, group: list[TextDocument]) -> None:
        """Drops what is blank or contaminated, and takes the rest into the run; counts it all."""
        counts = self.counts
        full = []
        counts["documents_read"] += len(group)
        for document in group:
            if document.text and not document.text.isspace():
                full.append(document)
            else:
                counts["blank"] += 1
                counts["bytes_read"] += utf8_size(document.text)
        left = []
        for document, clean in zip(
            full, self.reader.index.clean_all([one.text for one in full]), strict=True
        ):
            text = None if clean.dropped and document.tokens else clean.text
            if clean.dropped:
                counts["documents_dropped" if text is None else "documents_cut"] += 1
                counts["blocks_dropped"] += clean.dropped
                lost = utf8_size(document.text) - utf8_size(text or "")
                counts["bytes_read"] += lost
                counts["bytes_dropped"] += lost
                self.hits.update(dict.fromkeys(clean.hits, 1))
            if text is not None:
                left.append((text, document))
        texts, digests = [], []
        for text, document in left:
            size, digest = utf8_digest(text, self.reader.seed)
            counts["bytes_read"] += size
            if int.from_bytes(digest[:8], "big") < self.task.below:
                self._add(text, document, digest, size)
                texts.append(text)
                digests.append(digest)
                self.kept += size
        if self.bands:
            self.bands.add(texts, digests)
        if self.held >= RUN:
            self.flush()

    def _add(self, text: str, document: TextDocument, digest: bytes, size: int) -> None:
        """Takes a document into the run, a long text into a run of its own."""
        extra, tokens = _extra(document), document.tokens
        if tokens:
            self.view = tokens.type
        if tokens or len(text) < LONG:
            own = PLACE.pack(tokens.start, tokens.ids) if tokens else text.encode()
            self.run.append((digest, own + extra, size, len(extra)))
            self.held += size
            return
        self.flush()
        for piece in utf8_pieces(text):
            self.texts.write(piece)
        self.texts.write(extra)
        self._write_index([digest], [size], [size + len(extra)], [len(extra)])

    def flush(self) -> None:
        """Writes the run in the order of its keys."""
        run = sorted(self.run, key=itemgetter(0))
        self.run, self.held = [], 0
        if run:
            keys, blobs, sizes, extras = zip(*run, strict=True)
            self.texts.writelines(blobs)
            self._write_index(keys, sizes, [len(blob) for blob in blobs], extras)
        if self.bands:
            self.bands.flush()

    def _write_index(
        self,
        keys: Sequence[bytes],
        sizes: Sequence[int],
        lengths: Sequence[int],
        extras: Sequence[int],
    ) -> None:
        entries = np.empty(len(keys), dtype=INDEX)
        halves = np.frombuffer(b"".join(keys), dtype=">u8").reshape(-1, 2)
        entries["high"], entries["low"] = halves[:, 0], halves[:, 1]
        ends = self.place + np.cumsum(lengths)
        entries["place"] = ends - lengths
        entries["size"] = sizes
        entries["extra"] = extras
        self.place = int(ends[-1])
        self.index.write(entries.tobytes())
        self.runs.append(len(keys))

    def record(self) -> PartRecord:
        """What was read, once all of it is written."""
        return PartRecord(
            name=self.task.name,
            domain=self.task.domain,
            size=self.task.part.size,
            documents=sum(self.runs),
            bytes=self.kept,
            counts=dict(self.counts),
            hits=dict(self.hits),
            skipped=self.skipped,
            runs=self.runs,
            view=self.view,
        )


def _extra(document: TextDocument) -> bytes:
    """A document's own id and attributes as a line of JSON; nothing where it has none."""
    if not document.id and not document.attributes:
        return b""
    body = {"id": document.id, **document.attributes}
    return json.dumps(body, ensure_ascii=False, default=str).encode() + b"\n"


def utf8_pieces(text: str) -> Iterator[bytes]:
    """The UTF-8 bytes of a text, a stretch at a time."""
    for start in range(0, len(text), STRETCH):
        yield text[start : start + STRETCH].encode()


def utf8_size(text: str) -> int:
    """How many there are."""
    return sum(map(len, utf8_pieces(text)))


def utf8_digest(text: str, seed: int) -> tuple[int, bytes]:
    """How many there are, and a text's key."""
    digest, size = hashlib.blake2b(digest_size=16, key=b"%d" % seed), 0
    for piece in utf8_pieces(text):
        digest.update(piece)
        size += len(piece)
    return size, digest.digest()
