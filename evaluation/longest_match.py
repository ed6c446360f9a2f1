"""The longest run of words that every benchmark item shares with a corpus, exact and streamed.

Runs of n words get names, those of n + 1 from the name of their first n and their last word (Karp,
Miller and Rosenberg 1972, STOC), in the items and in a block of the corpus together; only places
whose run stands in both go on. An item's answer is the last n at which a place of it is left. That
is what a suffix automaton of the items says, from sorts of whole arrays and not a word at a time.

Words are those of decontamination (`ngrams.normalize_words`), so that neither tokenizers, marks nor
capital letters part a match. They are told apart by hashes of 64 bits: of 1e9 different words of a
corpus, one is taken for one of 1e5 of the items with a chance of 5e-6. All else is exact. Memory is
that of the items and of one block, whatever the corpus.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cuvee.evaluation.ngrams import Hashes, Powers, normalize_words, words_of

END = "\ufdd0"  # stands after a document: a character that is none, and so a word of no item
Places = NDArray[np.int64]
Level = tuple[Places, Places, Places, Places]  # places in the items, their names; in the block, too


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

    def joined(self, later: "LongestMatches") -> "LongestMatches":
        """Of this text and one that follows it."""
        longer, same = later.words > self.words, later.words == self.words
        pairs = zip(self, later, strict=True)
        taken = LongestMatches(*(np.where(longer, theirs, ours) for ours, theirs in pairs))
        return taken._replace(counts=taken.counts + np.where(same, later.counts, 0))


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
    def build(cls, items: Sequence[Sequence[str]]) -> "ItemIndex":
        """From the texts of each item."""
        data = "".join(f"{text} {END} " for texts in items for text in texts)
        hashes, words = np.unique(words_of(normalize_words(data), Powers())[0], return_inverse=True)
        ends = words == words[-1]
        owners = np.repeat(np.arange(len(items)), [len(texts) for texts in items])
        return cls(hashes, np.where(ends, -1, words), owners[np.cumsum(ends) - ends], words[-1])

    def match(self, texts: Iterable[str], first: int = 0) -> LongestMatches:
        """The longest match of every item with documents that pass by.

        Args:
            texts: stretches of the documents, none of which ends within a word; END follows each
                document as a word of its own.
            first: number of the first document.
        """
        powers = Powers()
        ids, documents = np.zeros((2, 0), np.int64)
        found = self._matched(ids, documents)
        longest = int(np.diff(np.flatnonzero(self.words < 0), prepend=-1).max())
        for text in texts:
            hashes = words_of(normalize_words(text), powers)[0]
            new = np.searchsorted(self.hashes[:-1], hashes)
            new[self.hashes[new] != hashes] = -1
            ends = np.cumsum(new == self.end)
            ids = np.append(ids, np.where(new == self.end, -1, new))
            documents, first = np.append(documents, first + ends), first + int(ends[-1:].sum())
            done = max(0, len(ids) - longest)  # what may go on is looked at with the next stretch
            found = found.joined(self._matched(ids, documents, done))
            ids, documents = ids[done:], documents[done:]
        return found.joined(self._matched(ids, documents))

    def _matched(self, ids: Places, documents: Places, done: int | None = None) -> LongestMatches:
        """What matches begin at the first `done` places of a block, or at any."""
        levels = list(self._levels(ids, done))
        starts = np.searchsorted(self.owners, np.arange(self.owners[-1] + 1))
        words, counts, bases = np.zeros((3, len(starts)), np.int64)
        found = LongestMatches(words, counts, bases - 1, bases)
        for length in range(len(levels), 0, -1):
            here, names, there, their_names = levels[length - 1]
            left = found.words[self.owners[here]] == 0
            here, names = here[left], names[left]
            counts = np.bincount(their_names)
            place = np.zeros(len(counts), np.int64)
            place[their_names[::-1]] = there[::-1]  # the first of each name is written last
            runs, once = np.unique(self.owners[here] * len(counts) + names, return_index=True)
            owner, name = np.divmod(runs, len(counts))
            np.add.at(found.counts, owner, counts[name])
            order = np.argsort(-place[name])
            owner, name, once = owner[order], name[order], once[order]
            found.words[owner] = length
            found.documents[owner] = documents[place[name]]
            found.starts[owner] = here[once] - starts[owner]
        return found

    def _levels(self, ids: Places, done: int | None) -> Iterator[Level]:
        """By the number of words, the places at which a run of so many stands in both."""
        here, there = np.flatnonzero(self.words >= 0), np.flatnonzero(ids[:done] >= 0)
        keys, their_keys, padded = self.words[here], ids[there], np.append(ids, -1)
        for length in count(1):
            known, names = np.unique(keys, return_inverse=True)
            their_names = np.searchsorted(known[:-1], their_keys)
            hit = known[their_names] == their_keys if len(known) else their_keys < 0
            there, their_names = there[hit], their_names[hit]
            if not len(there):
                return
            both = np.bincount(their_names, minlength=len(known))[names] > 0
            here, names = here[both], names[both]
            yield here, names, there, their_names
            after, follows = self.words[here + length], padded[there + length]
            here, names, after = here[after >= 0], names[after >= 0], after[after >= 0]
            there, their_names = there[follows >= 0], their_names[follows >= 0]
            keys = names * len(self.hashes) + after
            their_keys = their_names * len(self.hashes) + follows[follows >= 0]


def item_words(texts: Iterable[str]) -> list[str]:
    """The words of an item's texts, one text after the other, with "" after each."""
    data = (normalize_words(text).decode("utf-8", "replace") for text in texts)
    return [word for text in data for word in (*filter(None, text.split("\0")), "")]
