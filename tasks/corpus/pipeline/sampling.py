"""Samples of large domains: what is read of each, until it gives as much text as was asked for.

By parts: files and parts of files in the order of a seeded hash of their content and place, as many
as are needed. By content: everything is read, and the documents with the smallest keys stay. What
is chosen depends on the text, the tokenizer and the tokens wanted, never on names or workers; a
larger sample holds a smaller one, and a study keeps the parts that it had while they are there.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.sampled_sizes import estimate_from_content, estimate_from_parts
from cuvee.mixtures.units import bytes_text, count_text, error_text
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.prepared_corpus import marked_name
from cuvee.proxies.data.sources.documents import CONTENT, LEAST, PARTS, ReadPart, Sample
from cuvee.proxies.data.tokenizer import DocumentEncoder
from cuvee.tasks.corpus.pipeline.deduplicate_split import of_domain, read_kept
from cuvee.tasks.corpus.pipeline.read_parts import KEYS, Entries, PartRecord
from cuvee.tasks.corpus.pipeline.spooled_text import SpooledText
from cuvee.tasks.corpus.pipeline.tokenize_partitions import SAMPLE_GROUP, encoded_groups, split_rows
from cuvee.tasks.corpus.pipeline.whole_files import read_written

DENSE, SPARSE = 2.0, 7.0  # UTF-8 bytes of a token, before the tokenizer is known: least and most
MEASURED = 1_000_000  # bytes of a domain whose tokens are counted to know how many bytes one has
NEAR = 0.98  # of the text that is wanted, which is near enough
GROWN = 1.1  # of its size when its parts were chosen, from which it is told that a domain grew


def part_key(part: ReadPart, seed: int) -> str:
    """A part's place in the order in which parts are taken: a hash of its content and place."""
    body = f"{seed} {part.content or part.url} {part.start}"
    return hashlib.sha256(body.encode()).hexdigest()[:16]


class DomainSample:
    """The sample of one domain while a corpus is prepared.

    It is asked which parts to read, told what was in them, and asked again, until there is enough;
    then what duplicates took away and how long tokens are may ask for more.

    Args:
        sample: what is wanted.
        parts: of the domain.
        seed: of the order in which they are taken.
        valid_bytes: of text that is held out beside.
        before: keys of the parts that the study had, which come before all others, and the bytes
            that the domain had when these were chosen.
    """

    def __init__(
        self,
        sample: Sample,
        parts: Sequence[ReadPart],
        *,
        seed: int,
        valid_bytes: float,
        before: tuple[Sequence[str], int] = ((), 0),
    ) -> None:
        self.sample, self.valid_bytes = sample, valid_bytes
        self.had, self.drawn_from = set(before[0]), before[1]
        keyed = [(part_key(part, seed), part) for part in parts]
        keyed.sort(key=lambda one: (one[0] not in self.had, one[0]))  # equal ones keep their order
        self.keys = [key for key, _ in keyed]
        self.parts = [part for _, part in keyed]
        self.places = {part: place for place, part in enumerate(self.parts)}
        self.size = sum(part.size for part in parts)
        self.text: dict[int, int] = {}  # bytes of text of the parts that were read
        self.rate = 0.0  # bytes of a token; 0 until the tokenizer is known
        self.more = 1.0  # factor for what duplicates take away
        self.spooled = 1.0 if sample.by == PARTS else 0.0  # share of keys kept; 0: not yet known
        self.share = 1.0  # of keys in the sample, once it is known how much is needed

    @property
    def drawn(self) -> tuple[tuple[str, ...], int]:
        """What the study keeps: keys of the parts that are read, and the size of all."""
        if self.sample.by == CONTENT:
            return (), 0
        keys = tuple(self.keys[place] for place in self.chosen())
        return keys, self.drawn_from if self.had and self.had >= set(keys) else self.size

    @property
    def grown(self) -> float:
        """The domain's size over what it was when its parts were chosen."""
        return self.size / max(1, self.drawn[1]) if self.drawn[1] else 1.0

    def note(self, part: ReadPart, record: PartRecord) -> None:
        """What was read of a part."""
        place = self.places[part]
        everything = self.sample.by == CONTENT
        self.text[place] = record.counts.get("bytes_read", 0) if everything else record.bytes

    @property
    def wanted(self) -> float:
        """Bytes of text that give the tokens, and what is held out."""
        return self.sample.tokens * (self.rate or DENSE) * self.more + self.valid_bytes

    def chosen(self) -> range:
        """Places of the parts that are to be read now; those of the sample once all were read."""
        total, size = len(self.parts), 0
        least = min(LEAST, total)
        if any(place not in self.text for place in range(least)):
            return range(least)
        if self.sample.by == CONTENT:
            if not self.spooled:
                self._set_spooled()
            return range(total)
        for place in range(total):
            if place >= least and size >= self.wanted:
                return range(place)
            if place not in self.text:
                return range(self._far_enough(place, size))
            size += self.text[place]
        return range(total)

    def _far_enough(self, place: int, size: float) -> int:
        """Up to where parts are likely to hold what is wanted."""
        seen = sum(self.parts[known].size for known in self.text)
        dense = max(1, sum(self.text.values())) / max(1, seen)
        while place < len(self.parts) and size < self.wanted:
            size += dense * self.parts[place].size
            place += 1
        return place

    def _set_spooled(self) -> None:
        """Which share of keys gives enough, judged by the first parts, whatever the tokenizer."""
        wanted = self.sample.tokens * SPARSE + self.valid_bytes
        self.spooled = min(1.0, wanted / max(1.0, self.whole_text))
        self.text.clear()

    @property
    def spooled_below(self) -> int:
        """Upper half of a key from which documents are not spooled."""
        return round(self.spooled * KEYS)

    @property
    def below(self) -> int:
        """Upper half of a key from which documents are not in the sample."""
        return min(self.spooled_below, round(self.share * KEYS))

    @property
    def whole_text(self) -> float:
        """Bytes of text of all parts, as those say that were read."""
        seen = sum(self.parts[place].size for place in self.text)
        return self.size * sum(self.text.values()) / max(1, seen)

    def settle(self, kept: int, rate: float) -> bool:
        """Whether the sample changed, now that duplicates and the tokenizer are known.

        Args:
            kept: bytes of the domain's text without duplicates.
            rate: bytes of a token.
        """
        fresh, before = not self.rate, self.chosen()
        self.rate = self.rate or rate
        needed = self.sample.tokens * self.rate + self.valid_bytes
        if self.sample.by == CONTENT:
            return fresh and self._cut(kept, needed)
        if fresh and self.chosen() != before:
            return True
        if kept >= NEAR * needed or len(before) == len(self.parts):
            return False
        self.more *= 1.02 * needed / max(kept, 1)
        while self.chosen() == before:
            self.more *= 1.1
        return True

    def _cut(self, kept: int, needed: float) -> bool:
        if kept < NEAR * needed and self.spooled < 1:  # duplicates took more than was allowed for
            self.rate, self.spooled = 0.0, min(1.0, 4 * self.spooled)
            self.text.clear()
        else:
            self.share = self.spooled * min(1.0, needed / max(kept, 1))
        return True

    def figures(self, tokens: Array, squares: float) -> dict[str, Any]:
        """What the manifest says of the sample; empty where it is the whole domain.

        Args:
            tokens: of its parts, in their order.
            squares: the sum of those of its documents' tokens.
        """
        read = self.chosen()
        sizes = np.array([self.parts[place].size for place in read], dtype=np.float64)
        if self.sample.by == CONTENT:
            found = estimate_from_content(tokens.sum(), squares, self.below / KEYS)
        else:
            found = estimate_from_parts(tokens, sizes, size=self.size, parts=len(self.parts))
        if not found.error:
            return {}
        return {
            "by": self.sample.by,
            "take": self.sample.tokens,
            "tokens": round(found.total),
            "error": found.error,
            "parts": len(read),
            "of": len(self.parts),
            "bytes": round(sizes.sum()),
            "of_bytes": self.size,
        }


def bytes_per_token(
    text: SpooledText, kept: Iterable[Entries], domain: int, encoder: DocumentEncoder
) -> float:
    """UTF-8 bytes of a token, of the documents of a domain with the smallest keys."""
    size = tokens = 0
    for rows in kept:
        own = of_domain(rows, domain)
        for i in range(0, len(own), SAMPLE_GROUP):
            group = own[i : i + SAMPLE_GROUP]
            tokens += sum(sum(counts) for _, counts in encoded_groups(text, group, encoder, 0))
            size += int(group["size"].sum())
            if size >= MEASURED:
                return size / tokens
    return size / tokens if tokens else DENSE


def count_tokens(
    kept: ObjectFolder, segments: ObjectFolder, partitions: int, held: bytes, shape: tuple[int, int]
) -> tuple[Array, Array]:
    """Tokens of each part (P,), and of each domain the sum of its documents' squared tokens (K,).

    Args:
        kept: the rows that stay, by partition.
        segments: the lengths of their documents, in the order of `split_rows`.
        partitions: how many.
        held: keys of what is held out, which counts as well.
        shape: parts and domains, P and K.
    """
    tokens, squares = np.zeros(shape[0]), np.zeros(shape[1])
    for number in range(partitions):
        raw = np.frombuffer(read_written(segments, f"{number}.documents"), dtype="<u4")
        lengths, start = raw.reshape(-1, 3)[:, 0].astype(np.float64), 0
        for domain, _, own in split_rows(read_kept(kept, number), held, shape[1]):
            counted = lengths[start : start + len(own)]
            tokens += np.bincount(own["part"], counted, minlength=shape[0])
            squares[domain] += float(np.sum(counted**2))
            start += len(own)
    return tokens, squares


def sample_notices(name: str, figures: dict[str, Any], grown: float) -> list[str]:
    """What a reader must know of a sample, a sentence each; none where there is none.

    Args:
        name: of the domain.
        figures: of the manifest.
        grown: the domain's size over what it was when its parts were chosen.
    """
    if not figures:
        return []
    name = marked_name(name)
    size = f"{count_text(figures['tokens'])}{error_text(figures['error'])} tokens"
    if figures["by"] == CONTENT:
        return [f"{name} is a sample by content of about {size}; all of it was read"]
    read = f"{figures['parts']:,} of {figures['of']:,} parts, {bytes_text(figures['bytes'])}"
    found = [
        f"{name} is a sample of about {size}: {read} of {bytes_text(figures['of_bytes'])}, were "
        "read. Duplicates are found within these alone, so that the size counts some text twice"
    ]
    if figures["parts"] < LEAST:
        found.append(f"the size of {name} rests on {figures['parts']} parts, so its error is rough")
    if grown > GROWN:
        found.append(
            f"{name} is {grown:.1f} times as large as when its parts were chosen, and the sample "
            "holds none of the new text"
        )
    return found
