"""Looks in the training text of a prepared corpus for the longest match of every benchmark item.

The corpus is read from its shards, views of token files included, a part of a domain at a time, on
whatever a task pool has. Tokens become text by a table: a decoder is ten times slower, and needs
whole documents.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cuvee.evaluation.held_out import token_bytes
from cuvee.evaluation.longest_match import END, ItemIndex, LongestMatches
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.proxies.data.shards import Shard
from cuvee.tasks.corpus.download import ProgressReport, ignore_progress
from cuvee.tasks.corpus.pipeline.task_pool import TaskPool

PART = 1 << 23  # tokens of a task, about: some 40 MB of text
STRETCH = 1 << 20  # tokens that are looked through together
RAW_END = END.encode("utf-8", "surrogateescape")  # a byte that no text in UTF-8 has


@dataclass(frozen=True)
class CorpusMatcher:
    """Matches items with parts of a corpus; the same for all parts.

    Attributes:
        corpus: its folder, or its URL in a remote store.
        index: of the items.
    """

    corpus: str
    index: ItemIndex

    def __call__(self, part: tuple[str, int, int]) -> LongestMatches:
        """The longest match of every item with documents of a domain, from one to another."""
        name, first, stop = part
        corpus = Corpus.open(self.corpus, verify=False)
        texts = token_texts(corpus.tokenizer_path, corpus.eot)
        return self.index.match(shard_text(corpus.train(name), texts, first, stop), first)


def corpus_matches(
    corpus: Corpus,
    work: CorpusMatcher,
    domains: Sequence[str],
    *,
    pool: TaskPool,
    progress: ProgressReport = ignore_progress,
) -> Iterator[tuple[str, LongestMatches]]:
    """Each domain and the longest match of every item with its training text, as they are done.

    Args:
        corpus: as it is here.
        work: matches parts of it, as the workers of the pool find it.
        domains: that are looked through.
        pool: where the parts are read.
        progress: called with a message and the fraction done.
    """
    parts = [(name, *part) for name in domains for part in _parts(corpus.train(name))]
    left = Counter(name for name, *_ in parts)
    found: dict[str, LongestMatches] = {}
    for done, (number, one) in enumerate(pool.map(work, parts), 1):
        name = parts[number][0]
        found[name] = found[name].joined(one) if name in found else one
        left[name] -= 1
        progress(f"looked through {name}", done / len(parts))
        if not left[name]:
            yield name, found.pop(name)


def _parts(shard: Shard) -> Iterator[tuple[int, int]]:
    """Documents together to PART tokens, a longer one alone."""
    first = 0
    while first < len(shard):
        stop = int(np.searchsorted(shard.offsets, shard.offsets[first] + PART, side="right")) - 1
        yield first, max(stop, first + 1)
        first = max(stop, first + 1)


@lru_cache(maxsize=1)
def token_texts(tokenizer: Path, eot: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The text of all tokens, one after the other, RAW_END for that which ends a document; and
    where each begins, (V + 1,)."""
    texts = [text.replace(RAW_END, b"?") for text in token_bytes(tokenizer)]
    texts[eot] = b" " + RAW_END + b" "
    return np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)])


def shard_text(
    shard: Shard, texts: tuple[NDArray[Any], NDArray[Any]], first: int, stop: int
) -> Iterator[str]:
    """The text of documents of a shard, in stretches of which none ends within a word."""
    (data, begins), rest = texts, b""
    end = int(shard.offsets[stop])
    for start in range(int(shard.offsets[first]), end, STRETCH):
        ids = np.asarray(shard.tokens[start : min(start + STRETCH, end)])
        sizes = begins[ids.astype(np.int64) + 1] - begins[ids]
        shift = np.repeat(begins[ids] - np.cumsum(sizes) + sizes, sizes)
        rest += data[np.arange(len(shift)) + shift].tobytes()
        cut = max(rest.rfind(b" "), rest.rfind(b"\n")) + 1
        yield rest[:cut].decode("utf-8", "surrogateescape")
        rest = rest[cut:]
