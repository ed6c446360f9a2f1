"""Token files of other trainers: where their documents lie, read a few at a time.

megatron    `x.bin` and `x.idx` (megatron.core.datasets.indexed_dataset): the index holds
            "MMIDIDX\\0\\0", version 1 (uint64), a code of the ids' type (uint8), the numbers of
            sequences and of marks (uint64); lengths in tokens (int32) and places in bytes (int64)
            of the sequences; the marks, between which lie a document's sequences (int64)
olmo        ids one after the other (uint16, uint32 where the vocabulary needs it), with or without
            NumPy's header; a document ends with the end-of-text token
datatrove   `x.ds`: ids as before; `x.ds.index`: where each document ends, in tokens (uint64)

All numbers are little-endian. A file that is not what its index says is refused by name.
"""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.errors import CorruptError
from cuvee.proxies.data.shards import token_type
from cuvee.proxies.data.sources.source_files import open_stored

MAGIC = b"MMIDIDX\x00\x00"
HEADER = struct.Struct("<9sQBQQ")
TYPES = {1: "<u1", 2: "<i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}  # Megatron's codes of integers
BLOCK = 1 << 20  # tokens that are read together
LEAST = 32  # ids by which those of 4 bytes are told (assumption: fewer may be as they seem)
Array = NDArray[Any]
# The number or place of a document in its file, its first byte there (-1: its sequences lie apart),
# and its ids.
Span = tuple[int, int, Array]


class TokenLayout(Protocol):
    """One token file of a format, with what lies beside it."""

    @property
    def url(self) -> str: ...

    @property
    def beside(self) -> tuple[str, ...]:
        """The URLs of the files that say where its documents lie."""
        ...

    def ranges(self, size: int) -> list[tuple[int, int, int]]:
        """What can be read apart: start, stop, and bytes, about `size` of them each."""
        ...

    def documents(self, start: int, stop: int | None) -> Iterator[Span]:
        """The documents of a range, in order, each with its end-of-text token if it has one."""
        ...


@dataclass(frozen=True)
class MegatronPair:
    """A pair of Megatron's; ranges are of documents."""

    url: str
    vocabulary: int
    end: int

    @property
    def beside(self) -> tuple[str, ...]:
        return (f"{self.url.removesuffix('.bin')}.idx",)

    @cached_property
    def index(self) -> tuple[np.dtype[Any], Array, Array, Array]:
        """Type of the ids; length and place of each sequence; the documents' marks."""
        (url,) = self.beside
        with open_stored(url) as file:
            raw = file.read(HEADER.size)
            if len(raw) < HEADER.size or raw[:9] != MAGIC:
                raise CorruptError(f"{url} is no index of Megatron's")
            _, version, code, sequences, marks = HEADER.unpack(raw)
            if version == 1 << 56:
                raise CorruptError(f"{url} was written in another byte order: write it anew")
            if version != 1 or code not in TYPES:
                raise CorruptError(
                    f"{url} has version {version} and ids of type {code}; known are version 1 and "
                    f"types {', '.join(map(str, TYPES))}"
                )
            says, has = HEADER.size + 12 * sequences + 8 * marks, _size(url)
            if says not in (has, has - sequences):  # of several kinds of data, a byte more each
                raise CorruptError(
                    f"{url} breaks off, or its counts are damaged: {sequences:,} sequences and "
                    f"{marks:,} marks take {says:,} bytes, and it has {has:,}"
                )
            lengths = _numbers(file, url, "<i4", sequences)
            places = _numbers(file, url, "<i8", sequences)
            bounds = _numbers(file, url, "<i8", marks)
        kind = np.dtype(TYPES[code])
        steps = np.diff(bounds)
        if not len(bounds) or bounds[0] != 0 or bounds[-1] != sequences or (steps < 0).any():
            raise CorruptError(f"{url} parts {sequences} sequences in another way than it says")
        size = _size(self.url)
        apart = (lengths < 0) | (places < 0) | (places > size)
        wanted = int((places + lengths.astype("<i8") * kind.itemsize).max(initial=0))
        if apart.any() or wanted != size:
            raise CorruptError(
                f"{self.url} has {size:,} bytes, and its index {url} speaks of {wanted:,}: one of "
                "them breaks off, or they are of two files"
            )
        return kind, lengths, places, bounds

    def ranges(self, size: int) -> list[tuple[int, int, int]]:
        kind, lengths, _, bounds = self.index
        ends = np.concatenate([[0], np.cumsum(lengths, dtype="<i8")])[bounds] * kind.itemsize
        cuts = np.searchsorted(ends, np.arange(0, ends[-1], size), "left")
        starts = [*np.unique(np.append(cuts, 0)).tolist(), len(bounds) - 1]
        return [(a, b, int(ends[b] - ends[a])) for a, b in itertools.pairwise(starts) if b > a]

    def documents(self, start: int, stop: int | None) -> Iterator[Span]:
        kind, lengths, places, bounds = self.index
        with open_stored(self.url, seeking=True) as file:
            for number in range(start, len(bounds) - 1 if stop is None else stop):
                own = slice(int(bounds[number]), int(bounds[number + 1]))
                parts = []
                for place, length in zip(places[own].tolist(), lengths[own].tolist(), strict=True):
                    file.seek(place)
                    parts.append(_numbers(file, self.url, kind.str, length))
                ends = places[own] + lengths[own].astype("<i8") * kind.itemsize
                joint = (ends[:-1] == places[own][1:]).all()
                first = int(places[own][0]) if parts and joint else -1
                yield number, first, np.concatenate(parts) if parts else np.empty(0, kind)


@dataclass(frozen=True)
class FlatTokens:
    """Ids one after the other, documents ended by a token; ranges are of tokens."""

    url: str
    vocabulary: int
    end: int

    @property
    def beside(self) -> tuple[str, ...]:
        return ()

    @cached_property
    def body(self) -> tuple[np.dtype[Any], int, int]:
        """Type of the ids, where they begin in bytes, and their number."""
        kind, begin, size = token_type(self.vocabulary), 0, _size(self.url)
        says = -1
        with open_stored(self.url, seeking=True) as file:
            if file.read(6) == b"\x93NUMPY":
                file.seek(0)
                kind, begin, says = _numpy_header(file, self.url)
            elif kind.itemsize == 2 and size % 4 == 0:
                file.seek(0)
                self._refuse_wide(_numbers(file, self.url, kind.str, min(BLOCK, size // 2)))
        if says >= 0 and says * kind.itemsize != size - begin:
            raise CorruptError(
                f"{self.url} breaks off, or its header is damaged: it speaks of {says:,} ids of "
                f"{kind.itemsize} bytes, and {size - begin:,} bytes follow"
            )
        if (size - begin) % kind.itemsize:
            raise CorruptError(
                f"{self.url} holds {size - begin:,} bytes, which are no whole number of "
                f"{kind.itemsize}-byte ids: it breaks off, or its ids are of another size"
            )
        return kind, begin, (size - begin) // kind.itemsize

    def _refuse_wide(self, words: Array) -> None:
        """Ids of 4 bytes, all below 65,536, have an empty upper half: every second word is 0."""
        if len(words) >= LEAST and words[::2].any() and not words[1::2].any():
            raise CorruptError(
                f"{self.url} seems to hold ids of 4 bytes: every second of its first "
                f"{len(words):,} ids of 2 bytes, which suffice for a vocabulary of "
                f"{self.vocabulary:,}, is 0. Write it as uint16, or with NumPy's header, which "
                "says the type"
            )

    def ranges(self, size: int) -> list[tuple[int, int, int]]:
        kind, _, total = self.body
        step = max(1, size // kind.itemsize)
        stops = [*range(step, total, step), total]
        return [
            (a, b, (b - a) * kind.itemsize)
            for a, b in zip([0, *stops], stops, strict=False)
            if b > a
        ]

    def documents(self, start: int, stop: int | None) -> Iterator[Span]:
        """Those that begin within the range; the last may end beyond it."""
        kind, begin, total = self.body
        stop = total if stop is None else stop
        with open_stored(self.url, seeking=True) as file:
            at = max(0, start - 1)  # the token before tells whether a document begins here
            file.seek(begin + at * kind.itemsize)
            open_at, parts = (0 if start == 0 else -1), list[Array]()
            while at < total:
                block = _numbers(file, self.url, kind.str, min(BLOCK, total - at))
                ends, done = np.flatnonzero(block == self.end) + 1, 0
                for cut in ends.tolist():
                    if open_at >= 0:
                        place = begin + open_at * kind.itemsize
                        yield open_at, place, np.concatenate([*parts, block[done:cut]])
                    open_at, done, parts = at + cut, cut, []
                    if open_at >= stop:
                        return
                parts = [*parts, block[done:]] if open_at >= 0 else []
                at += len(block)
            if open_at >= 0 and any(len(part) for part in parts):
                yield open_at, begin + open_at * kind.itemsize, np.concatenate(parts)


@dataclass(frozen=True)
class DatatroveFile:
    """A file of datatrove's with its index; ranges are of documents."""

    url: str
    vocabulary: int
    end: int

    @property
    def beside(self) -> tuple[str, ...]:
        return (f"{self.url}.index",)

    @cached_property
    def ends(self) -> tuple[np.dtype[Any], Array]:
        """Type of the ids, and where the documents end, after a first 0."""
        (url,) = self.beside
        size, index = _size(self.url), _size(url)
        with open_stored(url) as file:
            ends = np.append(np.zeros(1, "<u8"), _numbers(file, url, "<u8", index // 8))
        kinds = [np.dtype(name) for name in ("<u2", "<u4") if int(ends[-1]) * int(name[2]) == size]
        if index % 8 or not kinds or (ends[1:] < ends[:-1]).any():
            raise CorruptError(
                f"{self.url} has {size:,} bytes, and its index {url} speaks of {ends[-1]:,} tokens "
                "of 2 or 4 bytes: one of them breaks off, is of another byte order, or they are of "
                "two files"
            )
        return kinds[0], ends.astype("<i8")

    def ranges(self, size: int) -> list[tuple[int, int, int]]:
        kind, ends = self.ends
        cuts = np.searchsorted(ends * kind.itemsize, np.arange(0, ends[-1] * kind.itemsize, size))
        starts = [*np.unique(np.append(cuts, 0)).tolist(), len(ends) - 1]
        return [
            (a, b, int(ends[b] - ends[a]) * kind.itemsize)
            for a, b in itertools.pairwise(starts)
            if b > a
        ]

    def documents(self, start: int, stop: int | None) -> Iterator[Span]:
        kind, ends = self.ends
        with open_stored(self.url, seeking=True) as file:
            file.seek(int(ends[start]) * kind.itemsize)
            for number in range(start, len(ends) - 1 if stop is None else stop):
                count = int(ends[number + 1] - ends[number])
                place = int(ends[number]) * kind.itemsize
                yield number, place, _numbers(file, self.url, kind.str, count)


LAYOUTS: dict[str, type[MegatronPair | FlatTokens | DatatroveFile]] = {
    "megatron": MegatronPair,
    "olmo": FlatTokens,
    "datatrove": DatatroveFile,
}


def _numbers(file: BinaryIO, url: str, kind: str, count: int) -> Array:
    """The next numbers of a file."""
    raw = file.read(count * np.dtype(kind).itemsize)
    if len(raw) < count * np.dtype(kind).itemsize:
        raise CorruptError(
            f"{url} breaks off: {count:,} numbers were to follow, {len(raw):,} bytes do"
        )
    return np.frombuffer(raw, kind)


def _size(url: str) -> int:
    with open_stored(url, seeking=True) as file:
        return file.seek(0, 2)


def _numpy_header(file: BinaryIO, url: str) -> tuple[np.dtype[Any], int, int]:
    """Type, beginning and number of the ids of a file that NumPy wrote."""
    try:
        major, _ = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if major == 1
            else np.lib.format.read_array_header_2_0
        )
        shape, _, kind = read(file)
    except Exception as error:  # a header is read as Python is, and raises what that raises
        raise CorruptError(f"{url} is no array of NumPy's: {error}") from None
    if kind.kind not in "iu" or kind.byteorder == ">" or len(shape) != 1:
        raise CorruptError(
            f"{url} is an array of {kind.str} and shape {shape}: ids are little-endian integers, "
            "one after the other"
        )
    return kind, file.tell(), shape[0]
