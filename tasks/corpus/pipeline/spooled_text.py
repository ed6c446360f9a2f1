"""The kept text of documents, read from the spools a group at a time, in any order."""

import codecs
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np

from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.token_views import SPANS
from cuvee.tasks.corpus.pipeline.read_parts import GROUP, LONG, PLACE, Entries, PartRecord
from cuvee.tasks.corpus.pipeline.whole_files import read_exactly

GAP = 1 << 16  # bytes that are read with what lies around them
PIECE = 1 << 20  # bytes of a long document that are read together
OPEN_FILES = 32


class SpooledText:
    """Reads documents by their rows; use as a context.

    Args:
        spools: where spools lie.
        records: of all parts, by whose places rows name them.
    """

    def __init__(self, spools: ObjectFolder, records: Sequence[PartRecord]) -> None:
        self._spools, self._records = spools, records
        self._files: dict[int, BinaryIO] = {}

    def __enter__(self) -> "SpooledText":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def groups(self, rows: Entries) -> Iterator[tuple[Entries, list[bytes]]]:
        """Rows in lists of about GROUP bytes with their texts; a long document comes alone.

        Of that one there is no text: `pieces` gives it.
        """
        start, size = 0, 0
        for i, length in enumerate(rows["size"].tolist()):
            if length >= LONG:
                if i > start:
                    yield rows[start:i], self.texts(rows[start:i])
                yield rows[i : i + 1], []
                start, size = i + 1, 0
                continue
            size += length
            if size >= GROUP:
                yield rows[start : i + 1], self.texts(rows[start : i + 1])
                start, size = i + 1, 0
        if start < len(rows):
            yield rows[start:], self.texts(rows[start:])

    def texts(self, rows: Entries, most: int = LONG) -> list[bytes]:
        """The UTF-8 text of each row, of which nothing after `most` bytes is wanted."""
        found: list[bytes] = [b""] * len(rows)
        order = np.lexsort((rows["place"], rows["part"]))
        part, place = rows["part"][order], rows["place"][order].astype(np.int64)
        end = place + np.minimum(rows["size"][order], most)
        breaks = np.flatnonzero((part[1:] != part[:-1]) | (place[1:] > end[:-1] + GAP)) + 1
        spans = zip([0, *breaks.tolist()], [*breaks.tolist(), len(rows)], strict=True)
        for a, b in spans if len(rows) else ():
            first = int(place[a])
            data = self._read(int(part[a]), first, int(end[b - 1]))
            starts, ends = (place[a:b] - first).tolist(), (end[a:b] - first).tolist()
            for i, x, y in zip(order[a:b].tolist(), starts, ends, strict=True):
                found[i] = data[x:y]
        return found

    def viewed(self, rows: Entries) -> bool:
        """Whether the tokens of a domain's rows are used where they lie; there is no text then."""
        return bool(len(rows) and self._records[int(rows["part"][0])].view)

    def spans(self, rows: Entries) -> Entries:
        """Where the tokens of each row lie, as rows of SPANS, whose `file` is the part."""
        own = rows.copy()
        own["size"] = PLACE.size
        places = np.frombuffer(b"".join(self.texts(own)), dtype="<u8").reshape(-1, 2)
        found = np.empty(len(rows), dtype=SPANS)
        found["start"], found["count"] = places[:, 0], places[:, 1]
        found["file"] = rows["part"]
        return found

    def extras(self, rows: Entries) -> list[bytes]:
        """The line of JSON of each row; empty where a document has none."""
        behind = rows.copy()
        behind["place"] += np.uint64(PLACE.size) if self.viewed(rows) else rows["size"]
        behind["size"] = rows["extra"]
        return self.texts(behind)

    def pieces(self, row: Entries) -> Iterator[str]:
        """A long document, in pieces cut anywhere."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        place, size = int(row["place"]), int(row["size"])
        for start in range(0, size, PIECE):
            stop = min(start + PIECE, size)
            yield decoder.decode(self._read(int(row["part"]), place + start, place + stop))

    def _read(self, part: int, start: int, stop: int) -> bytes:
        name = f"{self._records[part].name}.texts"
        file = self._files.get(part)
        if file is None:
            if len(self._files) >= OPEN_FILES:
                self._files.pop(next(iter(self._files))).close()
            file = self._files[part] = self._spools.open(name)
        file.seek(start)
        return read_exactly(file, stop - start, self._spools.path(name))
