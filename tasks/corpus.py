"""Prepares a corpus: reads, deduplicates, decontaminates, splits, tokenizes and writes shards.

The order matters. Exact duplicates go first, over all domains, so that no document is both
trained on and held out. Text that shares 13 words in a row with a benchmark goes next. The split is
by whole document and by a hash of its content, so that new documents do not move the old ones, and
near-duplicates are not looked for (a limit). The tokenizer sees training documents only.

A prepared corpus is a folder named by a hash of everything that determines it; asked for again, it
is verified and returned. Text passes through a spool file, so memory holds a few numbers per
document and not the corpus.
"""

import dataclasses
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.decontaminate import NGramIndex
from mixtures.errors import CorruptError, CuveeError, DataError, StorageError
from proxies import tokenizer as tokenizers
from proxies.corpus import Source
from proxies.shards import (
    Corpus,
    ShardWriter,
    exclusive,
    file_digest,
    identity,
    read_manifest,
    write_manifest,
)

Report = Callable[[str, float], None]

VERSION = 1  # raised by hand whenever the same sources would give other shards
GROUP = 4_000_000  # bytes of text handled together
SAMPLE_DOCUMENT = 50_000  # characters of one document that the tokenizer sees at most


def ignore(message: str, fraction: float) -> None:
    """Progress that nobody watches."""


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
class _Domain:
    """What is known of a domain while it is being prepared; its text is in the spool."""

    name: str
    spool: Path
    counts: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)
    sizes: list[int] = field(default_factory=list)  # bytes of each kept document
    keys: list[float] = field(default_factory=list)  # its place in [0, 1), by content
    held: frozenset[int] = frozenset()  # indices of the documents held out


def prepare(
    sources: Mapping[str, Source],
    out: Path,
    *,
    benchmarks: Mapping[str, Iterable[str]],
    settings: CorpusSettings = CorpusSettings(),  # noqa: B008 (frozen)
    progress: Report = ignore,
) -> Corpus:
    """The prepared corpus for these sources, made now or found where it was made before.

    Args:
        sources: by domain name; the order is the order of the domains.
        out: the folder under which prepared corpora lie, each named by its key.
        benchmarks: texts by benchmark; none of them may remain in the corpus.
        settings: see `CorpusSettings`.
        progress: called with a message and the fraction done.

    Raises:
        DataError: a source that cannot be used, or a domain with too little text.
        CorruptError: a source that breaks off.
        StorageError: `out` cannot be written, or the disk is full.
    """
    if not sources:
        raise DataError("a corpus needs at least one domain; got none")
    for name in sources:
        if not name or name in (".", "..") or set(name) & set('/\\:*?"<>|\0') or name[0] == ".":
            raise DataError(f"domain {name!r} cannot be a folder's name; use letters and digits")
    progress("reading the benchmarks", 0.0)
    index = NGramIndex.build(benchmarks)
    key = _key(sources, index, settings)
    root = Path(out) / key[:16]
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        waiting = lambda: progress("waiting for another process that prepares this corpus", 0.0)  # noqa: E731
        with exclusive(root.parent / f".{root.name}.lock", waiting):
            found = _existing(root, progress)
            if found is None:
                found = _build(root, key, sources, index, settings, progress)
    except CuveeError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write the corpus under {out}: {error.strerror or error}; it needs about "
            "twice the size of the text"
        ) from error
    progress(f"the corpus is in {root}", 1.0)
    return found


def _key(sources: Mapping[str, Source], index: NGramIndex, settings: CorpusSettings) -> str:
    """Hash of everything that determines a prepared corpus."""
    body = {
        "version": VERSION,
        "sources": [[name, source.identity] for name, source in sources.items()],
        "benchmarks": index.identity,
        "settings": dataclasses.asdict(settings),
    }
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _existing(root: Path, progress: Report) -> Corpus | None:
    """The corpus if it is there and whole; a corrupt one is removed."""
    if not root.exists():
        return None
    try:
        return Corpus.open(root, verify=True)
    except DataError as error:
        progress(f"{error}; doing so now", 0.0)
        shutil.rmtree(root)
        return None


def _build(
    root: Path,
    key: str,
    sources: Mapping[str, Source],
    index: NGramIndex,
    settings: CorpusSettings,
    progress: Report,
) -> Corpus:
    """Prepares in a temporary folder beside `root`, which then takes its name."""
    work = root.with_name(f".{root.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    spools = work / ".spool"
    spools.mkdir()
    try:
        domains = _read(sources, spools, index, settings, progress)
        progress("training the tokenizer", 0.40)
        tokenizer = tokenizers.train(_sample(domains, settings), settings.vocabulary)
        tokenizer.save(str(work / "tokenizer.json"))
        entries = _encode(domains, work, tokenizer, settings, progress)
        shutil.rmtree(spools)
        manifest = {
            "key": key,
            "version": VERSION,
            "settings": dataclasses.asdict(settings),
            "tokenizer": file_digest(work / "tokenizer.json"),
            "vocabulary": tokenizer.get_vocab_size(),
            "eot": tokenizer.token_to_id(tokenizers.EOT),
            "benchmarks": {
                name: {"texts": index.texts[name], "too_short": index.short[name]}
                for name in index.names
            },
            "domains": entries,
        }
        write_manifest(work, manifest)
        work.rename(root)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return Corpus.open(root, verify=False)


def _read(
    sources: Mapping[str, Source],
    spools: Path,
    index: NGramIndex,
    settings: CorpusSettings,
    progress: Report,
) -> list[_Domain]:
    """First pass: what is kept of every domain goes to its spool, and the split is drawn."""
    seen: dict[bytes, str] = {}
    domains = []
    for i, (name, source) in enumerate(sources.items()):
        domain = _Domain(name, spools / f"{i}")
        start, width = 0.4 * i / len(sources), 0.4 / len(sources)
        with domain.spool.open("wb") as spool:
            for group in _groups(source.documents()):
                _keep(domain, group, seen, index, settings.seed, spool.write)
                done = domain.counts["documents_read"]
                progress(f"reading {name}: {done} documents", start + width / 2)
        domain.held = _hold_out(domain, settings)
        domains.append(domain)
        progress(f"read {name}: {len(domain.sizes)} documents kept", start + width)
    return domains


def _groups(documents: Iterable[str]) -> Iterator[list[str]]:
    """Documents in lists of about GROUP characters."""
    group: list[str] = []
    size = 0
    for document in documents:
        group.append(document)
        size += len(document)
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _keep(
    domain: _Domain,
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
        data = text.encode("utf-8")
        counts["bytes_read"] += len(data)
        if not text.strip():
            counts["blank"] += 1
            continue
        digest = hashlib.blake2b(data, digest_size=16, key=b"%d" % seed).digest()
        if digest in seen:
            counts["duplicates" if seen[digest] == domain.name else "duplicates_elsewhere"] += 1
            continue
        seen[digest] = domain.name
        fresh.append((text, digest))
    for (text, digest), cleaned in zip(
        fresh, index.clean_all([text for text, _ in fresh]), strict=True
    ):
        if cleaned.dropped:
            counts["documents_dropped" if cleaned.text is None else "documents_cut"] += 1
            counts["blocks_dropped"] += cleaned.dropped
            domain.hits.update({name: 1 for name in cleaned.hits})
        if cleaned.text is None:
            counts["bytes_dropped"] += len(text.encode("utf-8"))
            continue
        data = cleaned.text.encode("utf-8")
        if cleaned.dropped:
            counts["bytes_dropped"] += len(text.encode("utf-8")) - len(data)
            rest = hashlib.blake2b(data, digest_size=16, key=b"%d" % seed).digest()
            if rest in seen:
                counts["duplicates"] += 1
                continue
            seen[rest] = domain.name
        write(data)
        domain.sizes.append(len(data))
        domain.keys.append(int.from_bytes(digest[:8], "big") / 2**64)


def _hold_out(domain: _Domain, settings: CorpusSettings) -> frozenset[int]:
    """The documents to hold out: those with the smallest keys, until there is enough text.

    A document of more than twice the wanted size is left to training; if that leaves nothing, the
    smallest document is held out.

    Raises:
        DataError: fewer than two documents.
    """
    if len(domain.sizes) < 2:
        kept, read = len(domain.sizes), domain.counts["documents_read"]
        raise DataError(
            f"domain {domain.name!r} has {kept} usable documents of {read} read; it takes at least "
            "2, one to train on and one to hold out. Add text, or, if a .txt file holds many "
            "documents, say what separates them"
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


def _spooled(domain: _Domain) -> Iterator[str]:
    """The kept documents of a domain, in order."""
    with domain.spool.open("rb") as spool:
        for size in domain.sizes:
            yield spool.read(size).decode("utf-8")


def _sample(domains: Iterable[_Domain], settings: CorpusSettings) -> Iterator[str]:
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
        for i, text in enumerate(_spooled(domain)):
            if i in chosen:
                yield text[:SAMPLE_DOCUMENT]


def _encode(
    domains: list[_Domain],
    work: Path,
    tokenizer: Any,
    settings: CorpusSettings,
    progress: Report,
) -> list[dict[str, Any]]:
    """Second pass: spools to shards; returns the manifest's entries."""
    encoder = tokenizers.Encoder(tokenizer)
    vocabulary, eot = tokenizer.get_vocab_size(), tokenizer.token_to_id(tokenizers.EOT)
    total = sum(sum(domain.sizes) for domain in domains)
    done = 0
    entries = []
    for domain in domains:
        folder = work / domain.name
        train = ShardWriter(folder, "train", vocabulary=vocabulary, eot=eot)
        valid = ShardWriter(folder, "valid", vocabulary=vocabulary, eot=eot)
        number = 0
        for group in _groups(_spooled(domain)):
            for data in encoder.encode(group):
                writer = valid if number in domain.held else train
                writer.add(data, domain.sizes[number])
                done += domain.sizes[number]
                number += 1
            progress(f"tokenizing {domain.name}", 0.45 + 0.54 * done / total)
        domain.spool.unlink()
        entries.append(_entry(domain, train.close(), valid.close(), work, settings))
    return entries


def _entry(
    domain: _Domain,
    train: dict[str, Any],
    valid: dict[str, Any],
    work: Path,
    settings: CorpusSettings,
) -> dict[str, Any]:
    """A domain's part of the manifest.

    Raises:
        DataError: too little text to train on.
    """
    if train["tokens"] < settings.min_tokens:
        raise DataError(
            f"domain {domain.name!r} has {train['tokens']} training tokens in "
            f"{train['documents']} documents ({train['bytes']} bytes); at least "
            f"{settings.min_tokens} are needed. Add text, merge it with another domain, or lower "
            "min_tokens"
        )
    counts = (
        "documents_read bytes_read blank duplicates duplicates_elsewhere documents_dropped "
        "documents_cut blocks_dropped bytes_dropped"
    ).split()
    return {
        "name": domain.name,
        "identity": identity(file_digest(work / "tokenizer.json"), {"train": train, "valid": valid}),
        "train": train,
        "valid": valid,
        "counts": {count: domain.counts[count] for count in counts},
        "contaminated_documents": dict(sorted(domain.hits.items())),
    }
