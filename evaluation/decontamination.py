"""Removes training text that shares a run of 13 words with a benchmark.

The rule of Brown et al. 2020 (arXiv 2005.14165, appendix C): words are runs of letters and digits,
lower-cased, and a shared run of n = 13 words is a collision. Where we depart from it: a long
document loses only the blocks (about 4 kB, cut between paragraphs) that the collision touches,
while they drop 200 characters on either side and whole documents torn into more than ten pieces. A
benchmark text shorter than n words cannot collide; such texts are counted, and that is a limit.

Runs are compared by hashes of 64 bits (`evaluation.ngrams`). A table of 2^27 bits answers most
questions with "no"; the sorted list of hashes answers the rest. Over 20 M words against 1 M, the
chance that any two different runs share a hash is about 1e-6.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cuvee.evaluation.ngrams import Hashes, Powers, grams_of, normalize_words, text_grams, words_of
from cuvee.mixtures.errors import DataError

N = 13
BLOCK = 4096  # characters of a long document that are dropped together, about
BATCH = 2_000_000  # bytes looked at in one sweep
LONGEST_WORD = 100_000  # bytes of a word that are compared (assumption: no benchmark has longer)

_TABLE_BITS = 27


def text_blocks(text: str, size: int = BLOCK) -> Iterator[str]:
    """A text cut into blocks of about `size` characters, at a paragraph's end where there is one.

    The blocks joined are the text. A text of up to two blocks stays whole.
    """
    start = 0
    while len(text) - start > 2 * size:
        cut = -1
        for mark in ("\n\n", "\n", " "):
            found = text.find(mark, start + size, start + 2 * size)
            if found >= 0:
                cut = found + len(mark)
                break
        cut = cut if cut > 0 else start + 2 * size
        yield text[start:cut]
        start = cut
    yield text[start:]


@dataclass(frozen=True)
class Cleaned:
    """What is left of a document.

    Attributes:
        text: the document without the blocks that collide; None if nothing is left.
        hits: by benchmark, the number of blocks that share a run of words with it.
        blocks: blocks in all.
        dropped: blocks dropped.
    """

    text: str | None
    hits: Mapping[str, int]
    blocks: int
    dropped: int


@dataclass(frozen=True, eq=False)
class NGramIndex:
    """The runs of n words of all benchmark texts, ready to be looked up.

    Attributes:
        names: of the benchmarks.
        hashes: (G,) sorted, without doubles.
        owners: (G,) bit i is set if benchmark i holds the run.
        n: words in a run.
        texts: benchmark texts by name.
        short: those of fewer than n words, which can collide with nothing.
    """

    names: tuple[str, ...]
    hashes: Hashes
    owners: Hashes
    n: int
    texts: Mapping[str, int]
    short: Mapping[str, int]
    _powers: Powers = field(default_factory=Powers, repr=False)

    @classmethod
    def build(cls, texts_by_benchmark: Mapping[str, Iterable[str]], n: int = N) -> "NGramIndex":
        """Reads every benchmark's texts once.

        Raises:
            DataError: a benchmark without texts, n below 1, or more than 64 benchmarks.
        """
        names = tuple(sorted(texts_by_benchmark))
        if n < 1:
            raise DataError(f"a run of words has at least 1 word; got n = {n}")
        if len(names) > 64:
            raise DataError(f"decontamination takes at most 64 benchmarks; got {len(names)}")
        powers = Powers()
        counts: dict[str, int] = {}
        short: dict[str, int] = {}
        found: list[Hashes] = []
        for name in names:
            texts = list(texts_by_benchmark[name])
            if not texts:
                raise DataError(f"benchmark {name!r} has no texts to decontaminate against")
            grams, words = text_grams(texts, n, powers)
            found.append(np.unique(grams))
            counts[name] = len(texts)
            short[name] = int((words < n).sum())
        hashes, owners = _merge(found)
        return cls(names, hashes, owners, n, counts, short)

    def clean(self, document: str) -> tuple[str | None, dict[str, int]]:
        """One document: what is left of it (None if nothing), and hit blocks by benchmark."""
        result = self.clean_all([document])[0]
        return result.text, dict(result.hits)

    def clean_all(self, documents: Sequence[str]) -> list[Cleaned]:
        """Documents, swept together: much faster than one at a time. Same results."""
        result: list[Cleaned] = []
        batch: list[str] = []
        size = 0
        for document in documents:
            if len(document) > BATCH:
                result += [*self._sweep(batch), self._stretched(document)]
                batch, size = [], 0
                continue
            batch.append(document)
            size += len(document)
            if size >= BATCH:
                result += self._sweep(batch)
                batch, size = [], 0
        return result + self._sweep(batch)

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        """A bit for every value of a hash's top bits that occurs, 16 MB."""
        top = (self.hashes >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)
        table = np.zeros(1 << (_TABLE_BITS - 3), dtype=np.uint8)
        np.bitwise_or.at(table, top >> 3, (1 << (top & 7)).astype(np.uint8))
        return table

    def _lookup(self, grams: Hashes) -> tuple[NDArray[np.int64], Hashes]:
        """Positions of the grams that are in the index, and their owners."""
        if not len(self.hashes):
            return np.zeros(0, dtype=np.int64), self.owners
        top = (grams >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)
        maybe = np.flatnonzero(self._table[top >> 3] & (1 << (top & 7)).astype(np.uint8))
        places = np.searchsorted(self.hashes, grams[maybe])
        places = np.minimum(places, len(self.hashes) - 1)
        sure = self.hashes[places] == grams[maybe]
        return maybe[sure], self.owners[places[sure]]

    def _sweep(self, documents: Sequence[str]) -> list[Cleaned]:
        """Documents whose blocks are laid end to end and looked up at once."""
        cut = [list(text_blocks(document)) for document in documents]
        firsts = np.cumsum([0, *map(len, cut)]).tolist()
        hit = self._hits(cut)
        return [
            self._result(text, [hit.get(first + i, 0) for i in range(len(parts))])
            for text, parts, first in zip(documents, cut, firsts[:-1], strict=True)
        ]

    def _stretched(self, text: str) -> Cleaned:
        """A long document, a stretch at a time: memory is that of a stretch, results are the same.

        The last n words of a stretch go before the next one, so that a run may span two. The last
        of them may itself go on there, and is looked up there.
        """
        hit: dict[int, int] = {}
        carry, begun = b"", np.zeros(0, dtype=np.int64)  # last words, and the block each begins in
        count = 0
        for parts, last in _stretches(text_blocks(text)):
            pieces = [normalize_words(part) for part in parts]
            data = b"".join([carry, *pieces])
            words, starts = words_of(data, self._powers)
            ends = len(carry) + np.cumsum([len(piece) for piece in pieces])
            block = count + np.searchsorted(ends, starts, side="right")
            block[: len(begun)] = begun
            whole = words if last else words[:-1]
            positions, owners = self._lookup(grams_of(whole, self.n))
            _mark(hit, block[positions], block[positions + self.n - 1], owners)
            tail = data[starts[-self.n :][0] :].split(b"\0") if len(starts) else []
            carry = b"\0".join([word[:LONGEST_WORD] for word in tail if word])
            carry += b"\0" * data.endswith(b"\0")
            begun = block[-self.n :]
            count += len(parts)
        return self._result(text, [hit.get(i, 0) for i in range(count)])

    def _hits(self, cut: Sequence[Sequence[str]]) -> dict[int, int]:
        """Bits of the benchmarks that each colliding block touches, by the block's number."""
        if not len(self.hashes):
            return {}
        # A zero byte parts documents, but not blocks: a run may span two blocks of a document.
        pieces = [
            normalize_words(part) + (b"\0" if i == len(parts) - 1 else b"")
            for parts in cut
            for i, part in enumerate(parts)
        ]
        ends = np.cumsum([len(piece) for piece in pieces])
        document = np.repeat(np.arange(len(cut)), [len(parts) for parts in cut])
        words, starts = words_of(b"".join(pieces), self._powers)
        positions, owners = self._lookup(grams_of(words, self.n))
        first = np.searchsorted(ends, starts[positions], side="right")
        last = np.searchsorted(ends, starts[positions + self.n - 1], side="right")
        same = document[first] == document[last]
        hit: dict[int, int] = {}
        _mark(hit, first[same], last[same], owners[same])
        return hit

    def _result(self, text: str, masks: Sequence[int]) -> Cleaned:
        """What is left of a text, given the bits of the benchmarks that each block touches."""
        if not any(masks):
            return Cleaned(text, {}, len(masks), 0)
        hits = {
            name: count
            for i, name in enumerate(self.names)
            if (count := sum(mask >> i & 1 for mask in masks))
        }
        kept = "".join(
            part for part, mask in zip(text_blocks(text), masks, strict=True) if not mask
        )
        dropped = sum(mask > 0 for mask in masks)
        return Cleaned(kept if kept.strip() else None, hits, len(masks), dropped)


def _stretches(parts: Iterable[str]) -> Iterator[tuple[list[str], bool]]:
    """Blocks together to BATCH characters, and whether they are the last."""
    stretch: list[str] = []
    size = 0
    for part in parts:
        if size >= BATCH:
            yield stretch, False
            stretch, size = [], 0
        stretch.append(part)
        size += len(part)
    yield stretch, True


def _mark(
    hit: dict[int, int], first: NDArray[np.int64], last: NDArray[np.int64], owners: Hashes
) -> None:
    """Adds the owners of runs of words to all blocks from a run's first word to its last."""
    for a, b, mask in zip(first.tolist(), last.tolist(), owners.tolist(), strict=True):
        for i in range(a, b + 1):
            hit[i] = hit.get(i, 0) | mask


def texts_fingerprint(texts_by_benchmark: Mapping[str, Iterable[str]], n: int = N) -> str:
    """Hash of n and of all benchmark texts: what decides which text is removed."""
    digest = hashlib.sha256(f"{n}".encode())
    for name in sorted(texts_by_benchmark):
        digest.update(f"\n\n{name}".encode())
        for text in texts_by_benchmark[name]:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(b"\n%d:" % len(data) + data)
    return digest.hexdigest()


def _merge(found: Sequence[Hashes]) -> tuple[Hashes, Hashes]:
    """Sorted hashes of all benchmarks, and for each the bits of the benchmarks that hold it."""
    if not found:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.uint64)
    hashes, inverse = np.unique(np.concatenate(found), return_inverse=True)
    owners = np.zeros(len(hashes), dtype=np.uint64)
    start = 0
    for i, part in enumerate(found):
        owners[inverse[start : start + len(part)]] |= np.uint64(1 << i)
        start += len(part)
    return hashes, owners
