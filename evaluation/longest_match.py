"""The longest run of words that every benchmark item shares with a corpus, exact and streamed.

Runs of 1, 2, 4, ... words get names, each from those of its halves (Karp, Miller and Rosenberg
1972, STOC), in the items and in a block of the corpus together; a run of another length is known by
the two that cover it. Items with one answer so far are bisected together, with the places of the
block that are left to them. That is what a suffix automaton of the items says, from sorts of whole
arrays and not a word at a time.

Words are those of decontamination (`ngrams.normalize_words`), so that neither tokenizers, marks nor
capital letters part a match; of Chinese and Japanese, which set no blanks, a character is a word.
They are told apart by hashes of 64 bits: of 1e9 different words of a corpus, one is taken for one
of 1e5 of the items with a chance of 5e-6. All else is exact. Memory is that of the items and of one
block, times the logarithm of the longest match, whatever the corpus.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cuvee.evaluation.ngrams import Hashes, Powers, normalize_words, words_of
from cuvee.mixtures.errors import DataError

END = "\udcff"  # stands after a document: half a surrogate pair, which is in no text that is read
_SIGNS = re.compile(  # those that are words, or marks that decontamination takes for letters
    "([\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af])|[\uff1a-\uff20]"
)
Places = NDArray[np.int64]
Shared = tuple[Places, Places, Places, Places]  # places in the items, names of runs; in the block


class LongestMatches(NamedTuple):
    """The longest match of every item with some text.

    Attributes:
        words: (I,) words of the longest run that the item shares with the text; 0 for none.
        counts: (I,) places of the text at which such a run begins.
        documents: (I,) the document of the first of them; -1 for none.
        starts: (I,) where that run begins among the item's words (`item_words`).
    """

    words: Places
    counts: Places
    documents: Places
    starts: Places

    def joined(self, other: "LongestMatches") -> "LongestMatches":
        """Of this text and another, in any order where no document is in both."""
        longer, same = other.words > self.words, other.words == self.words
        better = longer | (same & (other.documents < self.documents))
        pairs = zip(self, other, strict=True)
        taken = LongestMatches(*(np.where(better, theirs, ours) for ours, theirs in pairs))
        return taken._replace(counts=self.counts * ~longer + other.counts * (longer | same))


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """The texts of benchmark items, ready to be looked for in a corpus.

    Attributes:
        hashes: (V,) of their words and of END, sorted.
        words: (W,) of all texts, by place in `hashes`; -1 ends a text.
        owners: (W,) the item of each place.
        end: place of END in `hashes`.
    """

    hashes: Hashes
    words: Places
    owners: Places
    end: int

    @classmethod
    def build(cls, items: Sequence[str]) -> "ItemIndex":
        """From the text of each item.

        Raises:
            DataError: there is none.
        """
        if not items:
            raise DataError("there are no benchmark items to look for")
        data = "".join(f"{text.replace(END, ' ')} {END} " for text in items)
        hashes, words = np.unique(words_of(_normal(data), Powers())[0], return_inverse=True)
        ends = words == words[-1]
        return cls(hashes, np.where(ends, -1, words), np.cumsum(ends) - ends, words[-1])

    def match(self, texts: Iterable[str], first: int = 0) -> LongestMatches:
        """The longest match of every item with documents that pass by.

        Args:
            texts: stretches of the documents, none of which ends within a word; END follows each
                document as a word of its own.
            first: number of the first document.
        """
        powers = Powers()
        ids, documents = np.zeros((2, 0), np.int64)
        found = self._matched(ids, documents, 0)
        longest = int(np.diff(np.flatnonzero(self.words < 0), prepend=-1).max())
        for text in texts:
            hashes = words_of(_normal(text), powers)[0]
            new = np.searchsorted(self.hashes[:-1], hashes)
            new[self.hashes[new] != hashes] = -1
            ends = np.cumsum(new == self.end)
            ids = np.append(ids, np.where(new == self.end, -1, new))
            documents, first = np.append(documents, first + ends), first + int(ends[-1:].sum())
            done = max(0, len(ids) - longest)  # what may go on is looked at with the next stretch
            found = found.joined(self._matched(ids, documents, done))
            ids, documents = ids[done:], documents[done:]
        return found.joined(self._matched(ids, documents, len(ids)))

    def _matched(self, ids: Places, documents: Places, done: int) -> LongestMatches:
        """The matches with a block, of which those are counted that begin at its first `done`."""
        words, counts, bases = np.zeros((3, self.owners[-1] + 1), np.int64)
        found = LongestMatches(words, counts, bases - 1, bases)
        tables = [(self.words, np.append(ids, -1))]  # names of runs of 1, 2, 4, ... words, or -1
        here, there = np.flatnonzero(self.words >= 0), np.flatnonzero(ids >= 0)
        length, left = (
            1,
            [],
        )  # words that are shared, that may be more; where: in the block, too
        while len(here):
            longer, names, there_too, their_names = _shared(tables, 2 * length, here, there)
            left.append((length, length // 2, self._rest(here, longer), there))
            mine, theirs = (np.full(len(table), -1) for table in tables[0])
            mine[longer], theirs[there_too] = names, their_names
            tables.append((mine, theirs))
            length, here, there = 2 * length, longer, there_too
        while left:
            length, step, *places = left.pop()
            runs = here, _, there, _ = _shared(tables, length, *places)
            if step and len(here):
                longer, _, there_too, _ = _shared(tables, length + step, here, there)
                left.append((length, step // 2, self._rest(here, longer), there))
                left.append((length + step, step // 2, longer, there_too))
            elif len(here):
                self._note(found, length, runs, documents, done)
        return found

    def _rest(self, places: Places, longer: Places) -> Places:
        """Places of items that have none among the places of longer runs."""
        return places[~np.isin(self.owners[places], self.owners[longer])]

    def _note(
        self, found: LongestMatches, length: int, runs: Shared, documents: Places, done: int
    ) -> None:
        """Write down what is the longest match of some items."""
        here, names, there, their_names = runs
        size = int(names.max()) + 1
        counts = np.bincount(their_names[there < done], minlength=size)
        place = np.zeros(size, np.int64)
        place[their_names[::-1]] = there[::-1]  # the first of each name is written last
        pairs, once = np.unique(self.owners[here] * size + names, return_index=True)
        owner, name = np.divmod(pairs, size)
        np.add.at(found.counts, owner, counts[name])
        order = np.argsort(-place[name])
        owner, name, once = owner[order], name[order], once[order]
        found.words[owner] = length
        found.documents[owner] = documents[place[name]]
        found.starts[owner] = here[once] - np.searchsorted(self.owners, owner)


def _shared(
    tables: Sequence[tuple[Places, Places]], length: int, here: Places, there: Places
) -> Shared:
    """Of places of the items and of the block, those at which shared runs of so many words begin.

    `tables` have, by k, the name of the run of 2^k words at every place of each, up to half the
    length at least; `there` are places of the block.
    """
    level = max(0, (length - 1).bit_length() - 1)
    (mine, theirs), after = tables[level], length - (1 << level)
    here = here[np.minimum(mine[here], mine[here + after]) >= 0]
    there = there[np.minimum(theirs[there], theirs[there + after]) >= 0]
    keys = mine[here] * len(mine) + mine[here + after]  # fewer names than words of the items
    their_keys = theirs[there] * len(mine) + theirs[there + after]
    known, names = np.unique(keys, return_inverse=True)
    their_names = np.searchsorted(known[:-1], their_keys)
    hit = known[their_names] == their_keys if len(known) else their_keys < 0
    there, their_names = there[hit], their_names[hit]
    both = np.bincount(their_names, minlength=len(known))[names] > 0
    return here[both], names[both], there, their_names


def item_words(text: str) -> list[str]:
    """The words of an item's text."""
    return [word for word in _normal(text).decode("utf-8", "replace").split("\0") if word]


def _normal(text: str) -> bytes:
    """As `normalize_words`, but with a character of Chinese or Japanese as a word."""
    return normalize_words(text if text.isascii() else _SIGNS.sub(r" \1 ", text))
