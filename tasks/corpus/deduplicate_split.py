"""The first pass over a corpus: what is kept of every domain, and what of it is held out.

Exact duplicates go first, over all domains, so that no document is both trained on and held out.
Text that shares 13 words in a row with a benchmark goes next. The split is by whole document and
by a hash of its content, so that new documents do not move the old ones. Near-duplicates are not
looked for (a limit). Kept text passes through a spool file, so memory holds a few numbers per
document and not the corpus.
"""

import codecs
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from cuvee.evaluation.decontamination import NGramIndex
from cuvee.mixtures.errors import DataError
from cuvee.proxies.data.documents import (
    Document,
    FilteredDocument,
    TextSource,
    UnusableDocument,
)
from cuvee.proxies.data.tokenizer import STRETCH, DocumentEncoder
from cuvee.tasks.corpus.download import ProgressReport

Item = TypeVar("Item")
GROUP = 4_000_000  # characters of text handled together
NOTABLE = 0.05  # share of a domain's documents that another one holds, from which it is told
SAMPLE_DOCUMENT = 50_000  # characters of one document that the tokenizer sees at most
COUNTS = (
    "documents_read",
    "bytes_read",
    "blank",
    "duplicates",
    "duplicates_elsewhere",
    "documents_dropped",
    "documents_cut",
    "blocks_dropped",
    "bytes_dropped",
    "skipped",
)


@dataclass(frozen=True)
class CorpusSettings:
    """How a corpus is prepared.

    Attributes:
        vocabulary: token ids at most, the end-of-text token included.
        valid_share: share of each domain's bytes that is held out, about.
        valid_bytes: bytes held out per domain at most, about.
        min_tokens: training tokens below which a domain is refused.
        tokenizer_bytes: bytes per domain that the tokenizer is trained on at most, about.
        seed: of the split.
    """

    vocabulary: int = 4096
    valid_share: float = 0.05
    valid_bytes: int = 400_000
    min_tokens: int = 16_384
    tokenizer_bytes: int = 1_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 257 <= self.vocabulary <= 1 << 20:
            raise DataError(f"vocabulary lies in 257 ... 1048576; got {self.vocabulary}")
        if not 0 < self.valid_share <= 0.5:
            raise DataError(f"valid_share lies in (0, 0.5]; got {self.valid_share}")
        for name in ("valid_bytes", "min_tokens", "tokenizer_bytes"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is at least 1; got {getattr(self, name)}")


@dataclass
class DomainText:
    """What is known of a domain while it is being prepared; its text is in the spool."""

    name: str
    spool: Path
    counts: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    elsewhere: Counter[str] = field(default_factory=Counter)  # doubled documents by other domain
    skipped: str = ""  # why the first row that was skipped holds no text
    sizes: list[int] = field(default_factory=list)  # bytes of each kept document
    keys: list[float] = field(default_factory=list)  # its place in [0, 1), by content
    held: frozenset[int] = frozenset()  # indices of the documents held out


def read_domains(
    sources: Mapping[str, TextSource],
    spools: Path,
    index: NGramIndex,
    settings: CorpusSettings,
    progress: ProgressReport,
) -> list[DomainText]:
    """First pass: what is kept of every domain goes to its spool, and the split is drawn."""
    seen: dict[bytes, str] = {}
    domains = []
    for i, (name, source) in enumerate(sources.items()):
        domain = DomainText(name, spools / f"{i}")
        start, width = 0.4 * i / len(sources), 0.4 / len(sources)
        with domain.spool.open("wb") as spool:
            for group in text_groups(_usable(source.documents(), domain), len):
                _keep(domain, group, seen, index, settings.seed, spool.write)
                done = domain.counts["documents_read"]
                progress(f"reading {name}: {done} documents", start + width / 2)
        domain.held = hold_out(domain, settings)
        domains.append(domain)
        progress(f"read {name}: {len(domain.sizes)} documents kept", start + width)
    return domains


def _usable(documents: Iterable[Document], domain: DomainText) -> Iterator[str]:
    """Documents without what holds no text, which is counted."""
    for document in documents:
        if isinstance(document, UnusableDocument):
            domain.counts["skipped"] += 1
            domain.skipped = domain.skipped or document.why
        elif not isinstance(document, FilteredDocument):
            yield document.text


def text_groups(items: Iterable[Item], length: Callable[[Item], int]) -> Iterator[list[Item]]:
    """Documents, or parts of them, in lists of about GROUP characters."""
    group: list[Item] = []
    size = 0
    for item in items:
        group.append(item)
        size += length(item)
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _keep(
    domain: DomainText,
    group: list[str],
    seen: dict[bytes, str],
    index: NGramIndex,
    seed: int,
    write: Callable[[bytes], Any],
) -> None:
    """Drops what is blank, doubled or contaminated, and writes the rest; counts everything."""
    counts = domain.counts
    fresh: list[tuple[str, bytes]] = []
    for text in group:
        counts["documents_read"] += 1
        size, digest = _digest(text, seed)
        counts["bytes_read"] += size
        if not text or text.isspace():
            counts["blank"] += 1
            continue
        if digest in seen:
            counts["duplicates" if seen[digest] == domain.name else "duplicates_elsewhere"] += 1
            domain.elsewhere.update([seen[digest]] * (seen[digest] != domain.name))
            continue
        seen[digest] = domain.name
        fresh.append((text, digest))
    for (text, digest), cleaned in zip(
        fresh, index.clean_all([text for text, _ in fresh]), strict=True
    ):
        if cleaned.dropped:
            counts["documents_dropped" if cleaned.text is None else "documents_cut"] += 1
            counts["blocks_dropped"] += cleaned.dropped
            domain.hits.update(dict.fromkeys(cleaned.hits, 1))
        size, rest = _digest(cleaned.text or "", seed)
        if cleaned.dropped:
            counts["bytes_dropped"] += _digest(text, seed)[0] - size
        if cleaned.text is None:
            continue
        if cleaned.dropped:
            if rest in seen:
                counts["duplicates"] += 1
                continue
            seen[rest] = domain.name
        for start in range(0, len(cleaned.text), STRETCH):
            write(cleaned.text[start : start + STRETCH].encode())
        domain.sizes.append(size)
        domain.keys.append(int.from_bytes(digest[:8], "big") / 2**64)


def _digest(text: str, seed: int) -> tuple[int, bytes]:
    """The UTF-8 bytes of a text and their hash, a stretch at a time."""
    digest, size = hashlib.blake2b(digest_size=16, key=b"%d" % seed), 0
    for start in range(0, len(text), STRETCH):
        data = text[start : start + STRETCH].encode()
        digest.update(data)
        size += len(data)
    return size, digest.digest()


def hold_out(domain: DomainText, settings: CorpusSettings) -> frozenset[int]:
    """The documents to hold out: those with the smallest keys, until there is enough text.

    A document of more than twice the wanted size is left to training; if that leaves nothing, the
    smallest document is held out.

    Raises:
        DataError: fewer than two documents.
    """
    if len(domain.sizes) < 2:
        kept, read = len(domain.sizes), domain.counts["documents_read"]
        why = "; ".join(unused_text(domain)) or (
            "add text, or, if one file of text holds many documents, say in `separator` what parts "
            "them"
        )
        raise DataError(
            f"domain {domain.name!r} has {kept} usable documents of {read} read; it takes at least "
            f"2, one to train on and one to hold out: {why}"
        )
    wanted = min(settings.valid_share * sum(domain.sizes), settings.valid_bytes)
    held: list[int] = []
    size = 0
    for i in np.argsort(np.array(domain.keys), kind="stable").tolist():
        if size >= wanted:
            break
        if size + domain.sizes[i] <= 2 * wanted:
            held.append(i)
            size += domain.sizes[i]
    return frozenset(held or [int(np.argmin(domain.sizes))])


def unused_text(domain: DomainText) -> list[str]:
    """What a person must know of a domain's text that is not used, a sentence each."""
    counts, found = domain.counts, []
    read = counts["documents_read"]
    for other, count in sorted(domain.elsewhere.items()):
        if count >= NOTABLE * read:
            which = f"all {count:,}" if count == read else f"{count:,} of {read:,}"
            found.append(f"{which} documents of {domain.name} are also in {other}, and count there")
    if domain.skipped:
        total = counts["skipped"] + read
        found.append(
            f"{counts['skipped']:,} of {total:,} rows of {domain.name} were skipped, the first: "
            f"{domain.skipped}"
        )
    return found


def kept_text(domain: DomainText, encoder: DocumentEncoder) -> Iterator[tuple[str, bool]]:
    """The kept text of a domain in order, and whether a document ends with it.

    A long document comes in parts that no token spans, where the encoder can tell such places.
    """
    with domain.spool.open("rb") as spool:
        for size in domain.sizes:
            step = min(size, STRETCH) if encoder.separable else size
            decoder = codecs.getincrementaldecoder("utf-8")()
            text = ""
            for start in range(0, size, step):
                text += decoder.decode(spool.read(min(step, size - start)))
                *done, text = encoder.stretches(text, STRETCH)
                yield from ((part, False) for part in done)
            yield text, True


def tokenizer_sample(domains: Iterable[DomainText], settings: CorpusSettings) -> Iterator[str]:
    """Training documents for the tokenizer: those with the largest keys, the longest cut short."""
    for domain in domains:
        chosen = set()
        size = 0
        for i in np.argsort(-np.array(domain.keys), kind="stable").tolist():
            if size >= settings.tokenizer_bytes:
                break
            if i not in domain.held:
                chosen.add(i)
                size += min(domain.sizes[i], SAMPLE_DOCUMENT)
        with domain.spool.open("rb") as spool:
            for i, end in enumerate(np.cumsum(domain.sizes).tolist()):
                if i in chosen:
                    spool.seek(end - domain.sizes[i])
                    start = spool.read(min(domain.sizes[i], 4 * SAMPLE_DOCUMENT))
                    yield start.decode("utf-8", "ignore")[:SAMPLE_DOCUMENT]
