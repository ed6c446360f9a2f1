"""Prepares a corpus: reads, deduplicates, decontaminates, splits, tokenizes and writes shards.

A prepared corpus is a folder named by a hash of everything that determines it; asked for again, it
is verified and returned. It is written beside its place and renamed when it is whole, so a
preparation that was killed leaves nothing that could be taken for a corpus. What is kept and held
out is decided in `deduplicate_split`; the tokenizer sees training documents only.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from cuvee.evaluation.decontamination import NGramIndex, texts_fingerprint
from cuvee.mixtures.errors import CuveeError, DataError, StorageError
from cuvee.proxies.data import tokenizer as tokenizers
from cuvee.proxies.data.documents import TextSource
from cuvee.proxies.data.files import exclusive_lock, file_digest
from cuvee.proxies.data.prepared_corpus import Corpus, write_manifest
from cuvee.proxies.data.shards import ShardWriter, folder_names, shards_identity
from cuvee.proxies.data.tokenizer import TokenizerFile
from cuvee.tasks.corpus.deduplicate_split import (
    COUNTS,
    CorpusSettings,
    DomainText,
    kept_text,
    read_domains,
    text_groups,
    tokenizer_sample,
    unused_text,
)
from cuvee.tasks.corpus.download import ProgressReport, ignore_progress

VERSION = 1  # raised by hand whenever the same sources would give other shards
DEFAULT = CorpusSettings()
PLENTY = 64  # bytes a token, beyond which no text is too small for its tokens


def prepare_corpus(
    sources: Mapping[str, TextSource],
    out: Path,
    *,
    benchmarks: Mapping[str, Iterable[str]],
    settings: CorpusSettings = DEFAULT,
    progress: ProgressReport = ignore_progress,
    tokenizer: TokenizerFile | None = None,
) -> Corpus:
    """The prepared corpus for these sources, made now or found where it was made before.

    Args:
        sources: by domain name; the order is the order of the domains.
        out: the folder under which prepared corpora lie, each named by its key.
        benchmarks: texts by benchmark; none of them may remain in the corpus.
        settings: see `CorpusSettings`.
        progress: called with a message and the fraction done.
        tokenizer: a team's own, or that of a model that goes on training; None: one is trained on
            the text.

    Raises:
        DataError: a source that cannot be used, or a domain with too little text.
        CorruptError: a source that breaks off.
        StorageError: `out` cannot be written, or the disk is full.
    """
    _check_names(sources)
    texts = {name: tuple(texts) for name, texts in benchmarks.items()}
    if tokenizer is not None:
        tokenizers.load_tokenizer(
            tokenizer.path, tokenizer.end_of_text
        )  # before the text is read, which takes minutes
    identities = {name: source.identity for name, source in sources.items()}
    key = _key(identities, texts, settings, tokenizer)
    root = Path(out) / key[:16]

    def waiting() -> None:
        progress("waiting for another process that prepares this corpus", 0.0)

    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(root.parent / f".{root.name}.lock", waiting):
            found = _existing(root, progress)
            if found is None:
                progress("reading the benchmarks", 0.0)
                index = NGramIndex.build(texts)
                work = _Work(root, key, settings, progress, tokenizer, identities)
                found = _build(work, sources, index)
    except CuveeError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write the corpus under {out}: {error.strerror or error}; it needs about "
            "twice the size of the text"
        ) from error
    progress(f"the corpus is in {root}", 1.0)
    return found


def _check_names(sources: Mapping[str, TextSource]) -> None:
    """Domain names stand in tables, records and exports, on one line."""
    if not sources:
        raise DataError("a corpus needs at least one domain; got none")
    for name in sources:
        if not name.isprintable() or not name or name != name.strip():
            raise DataError(
                f"domain {name!r} cannot be a name: use printable characters, and no blank at "
                "either end"
            )


def _key(
    identities: Mapping[str, str],
    texts: Mapping[str, Sequence[str]],
    settings: CorpusSettings,
    tokenizer: TokenizerFile | None,
) -> str:
    """Hash of everything that determines a prepared corpus."""
    body = {
        "version": VERSION,
        "sources": [[name, identity] for name, identity in identities.items()],
        "benchmarks": texts_fingerprint(texts),
        "settings": dataclasses.asdict(settings),
    }
    if tokenizer is not None:
        body["tokenizer"] = [file_digest(tokenizer.path), tokenizer.end_of_text]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _existing(root: Path, progress: ProgressReport) -> Corpus | None:
    """The corpus if it is there and whole; a corrupt one is removed."""
    if not root.exists():
        return None
    try:
        found = Corpus.open(root, verify=True, again=False)
        os.utime(root)  # so that its age is the time since it was used
        return found
    except DataError as error:
        progress(f"{error}; doing so now", 0.0)
        shutil.rmtree(root)
        return None


@dataclasses.dataclass(frozen=True)
class _Work:
    """What is made where: the corpus's place and key, its settings, a given tokenizer, sources."""

    root: Path
    key: str
    settings: CorpusSettings
    progress: ProgressReport
    tokenizer: TokenizerFile | None
    identities: Mapping[str, str]


def _build(task: _Work, sources: Mapping[str, TextSource], index: NGramIndex) -> Corpus:
    """Prepares in a temporary folder beside the corpus's place, which then takes its name."""
    root, settings = task.root, task.settings
    work = root.with_name(f".{root.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    spools = work / ".spool"
    spools.mkdir()
    try:
        domains = read_domains(sources, spools, index, settings, task.progress)
        tokenizer = _tokenizer(task, domains, work / "tokenizer.json")
        entries = _encode(task, domains, work, tokenizer)
        spools.rmdir()
        for name, source in sources.items():
            if source.identity != task.identities[name]:
                raise DataError(f"the text of domain {name!r} changed while it was read: run again")
        manifest = {
            "key": task.key,
            "version": VERSION,
            "settings": dataclasses.asdict(settings),
            "tokenizer": file_digest(work / "tokenizer.json"),
            "vocabulary": tokenizers.vocabulary_size(tokenizer),
            "eot": _end(task, tokenizer),
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


def _tokenizer(task: _Work, domains: list[DomainText], path: Path) -> Tokenizer:
    """The corpus's tokenizer, written to a path: the given one to the byte, or one trained now."""
    if task.tokenizer is not None:
        shutil.copyfile(task.tokenizer.path, path)
        return tokenizers.load_tokenizer(path, task.tokenizer.end_of_text)
    task.progress("training the tokenizer", 0.40)
    tokenizer = tokenizers.train_tokenizer(
        tokenizer_sample(domains, task.settings), task.settings.vocabulary
    )
    tokenizer.save(str(path))
    return tokenizer


def _end(task: _Work, tokenizer: Tokenizer) -> int:
    """The id that ends a document."""
    return tokenizers.end_of_text(tokenizer, task.tokenizer.end_of_text if task.tokenizer else "")


def _encode(
    task: _Work, domains: list[DomainText], work: Path, tokenizer: Tokenizer
) -> list[dict[str, Any]]:
    """Second pass: spools to shards; returns the manifest's entries.

    The smallest domains come first, so that those which are too small are told before the large
    ones are encoded, all of them at once.
    """
    encoder = tokenizers.DocumentEncoder(tokenizer)
    vocabulary, eot = tokenizers.vocabulary_size(tokenizer), _end(task, tokenizer)
    total = sum(sum(domain.sizes) for domain in domains)
    folders = folder_names([domain.name for domain in domains])
    done = 0
    entries: dict[str, dict[str, Any]] = {}
    small: list[str] = []
    for domain in sorted(domains, key=lambda one: sum(one.sizes)):
        if small and sum(domain.sizes) > PLENTY * task.settings.min_tokens:
            break
        folder = work / folders[domain.name]
        train = ShardWriter(folder, "train", vocabulary=vocabulary, eot=eot)
        valid = ShardWriter(folder, "valid", vocabulary=vocabulary, eot=eot)
        number = 0
        parts = kept_text(domain, encoder)
        for group in text_groups(parts, lambda part: len(part[0])):
            for data, (_, ends) in zip(encoder.encode([t for t, _ in group]), group, strict=True):
                writer = valid if number in domain.held else train
                if not ends:
                    writer.extend(data)
                    continue
                writer.add(data, domain.sizes[number])
                done += domain.sizes[number]
                number += 1
            task.progress(f"tokenizing {domain.name}", 0.45 + 0.54 * done / total)
        domain.spool.unlink()
        try:
            splits = {"train": train.close(), "valid": valid.close()}
            entry = _entry(domain, splits, work / "tokenizer.json", task.settings.min_tokens)
        except DataError as error:
            small.append(str(error))
        else:
            entries[domain.name] = {**entry, "folder": folder.name}
    if small:
        raise DataError("; ".join(small))
    return [entries[domain.name] for domain in domains]


def _entry(
    domain: DomainText, splits: dict[str, dict[str, Any]], tokenizer: Path, least: int
) -> dict[str, Any]:
    """A domain's part of the manifest.

    Raises:
        DataError: too little text to train on.
    """
    train = splits["train"]
    if train["tokens"] < least:
        raise DataError(
            f"domain {domain.name!r} has {train['tokens']} training tokens in "
            f"{train['documents']} documents ({train['bytes']} bytes); at least "
            f"{least} are needed. Add text, merge it with another domain, or lower "
            "corpus.min_tokens"
        )
    return {
        "name": domain.name,
        "identity": shards_identity(file_digest(tokenizer), splits),
        **splits,
        "counts": {count: domain.counts[count] for count in COUNTS},
        "contaminated_documents": dict(sorted(domain.hits.items())),
        "notices": unused_text(domain),
    }
