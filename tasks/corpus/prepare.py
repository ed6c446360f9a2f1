"""Prepares a corpus: reads, deduplicates, decontaminates, splits, tokenizes and writes shards.

The bytes of a corpus depend on its sources, its settings and the study's state, and on nothing
else: not on the number of workers, nor on the order of anything. A prepared corpus is a folder
named by a hash of what determines it; asked for again, it is verified and returned. It is written
beside its place and renamed when it is whole. A preparation that was killed goes on: whatever task
had ended is not done again.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from tokenizers import Tokenizer

from cuvee.evaluation.decontamination import NGramIndex, texts_fingerprint
from cuvee.mixtures.errors import CuveeError, DataError, StorageError
from cuvee.proxies.data import tokenizer as tokenizers
from cuvee.proxies.data.files import exclusive_lock, file_digest
from cuvee.proxies.data.prepared_corpus import HELD_KEYS, Corpus, read_manifest, write_manifest
from cuvee.proxies.data.shards import folder_names, shard_identity, token_type
from cuvee.proxies.data.sources.documents import ReadPart, SampledSource, TextSource
from cuvee.proxies.data.tokenizer import TokenizerFile
from cuvee.tasks.corpus.corpus_state import CorpusState, RankedDomain, StateStore, next_state
from cuvee.tasks.corpus.download import ProgressReport, ignore_progress
from cuvee.tasks.corpus.pipeline import near_bands, near_duplicates, read_parts
from cuvee.tasks.corpus.pipeline.deduplicate_split import (
    COUNTS,
    CorpusSettings,
    Deduplicator,
    DomainText,
    count_partitions,
    count_shared,
    hold_out,
    partition_bits,
    read_kept,
    unused_text,
)
from cuvee.tasks.corpus.pipeline.read_parts import (
    KEYS,
    Entries,
    PartReader,
    PartRecord,
    ReadTask,
    shared_spools,
)
from cuvee.tasks.corpus.pipeline.sampling import (
    DomainSample,
    bytes_per_token,
    count_tokens,
    sample_notices,
)
from cuvee.tasks.corpus.pipeline.spooled_text import SpooledText
from cuvee.tasks.corpus.pipeline.task_pool import InlinePool, TaskPool
from cuvee.tasks.corpus.pipeline.tokenize_partitions import (
    PartitionEncoder,
    Segment,
    join_segments,
    small_domains,
    tokenizer_sample,
    warm_encoder,
)
from cuvee.tasks.corpus.pipeline.work_folder import WorkFolder
from cuvee.tasks.corpus.tolerated_growth import keep_earlier

VERSION = 2  # raised by hand whenever the same sources would give other shards
DEFAULT = CorpusSettings()
PLENTY = 64  # bytes a token, beyond which no text is too small for its tokens
SPOOLS = ".parts.partial"  # of all corpora under a folder, beside them
INLINE = InlinePool()


def prepare_corpus(
    sources: Mapping[str, TextSource],
    out: Path,
    *,
    benchmarks: Mapping[str, Iterable[str]],
    settings: CorpusSettings = DEFAULT,
    progress: ProgressReport = ignore_progress,
    tokenizer: TokenizerFile | None = None,
    states: StateStore | None = None,
    pool: TaskPool = INLINE,
) -> Corpus:
    """The prepared corpus for these sources, made now or found where it was made before.

    Args:
        sources: by domain name; the order is the order of the domains.
        out: the folder under which prepared corpora lie, each named by its key.
        benchmarks: texts by benchmark; none of them may remain in the corpus.
        settings: see `CorpusSettings`.
        progress: called with a message and the fraction done.
        tokenizer: a team's own, or that of a model that goes on training; None: the one that the
            study has trained before, or one that is trained on the text now.
        states: what the study keeps of its corpora; None: nothing is kept, and nothing was.
        pool: where tasks run.

    Raises:
        DataError: a source that cannot be used, or a domain with too little text.
        CorruptError: a source that breaks off.
        StorageError: `out` cannot be written, or the disk is full.
    """
    _check_names(sources)
    if tokenizer is not None:  # before the text is read, which takes minutes
        tokenizers.load_tokenizer(tokenizer.path, tokenizer.end_of_text)
    asked = CorpusRequest(
        sources,
        {name: source.identity for name, source in sources.items()},
        {name: tuple(texts) for name, texts in benchmarks.items()},
        settings,
        tokenizer,
        states.load(settings) if states else CorpusState(),
    )
    out = Path(out)
    try:
        found = _found_or_made(asked, out, states, progress, pool)
    except CuveeError:
        raise
    except OSError as error:
        raise StorageError(
            f"cannot write the corpus under {out}: {error.strerror or error}; it needs about "
            "twice the size of the text"
        ) from error
    if states:
        _remember(asked, out, states, found)
    progress(f"the corpus is in {found.root}", 1.0)
    return found


def _found_or_made(
    asked: "CorpusRequest",
    out: Path,
    states: StateStore | None,
    progress: ProgressReport,
    pool: TaskPool,
) -> Corpus:
    """The corpus in its folder, which one process at a time makes."""
    name = asked.key(asked.state)[:16]

    def waiting() -> None:
        progress("waiting for another process that prepares this corpus", 0.0)

    out.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(out / f".{name}.lock", waiting):
        root = _known_root(out, name)
        found = _existing(root, progress)
        if found is None:
            with shared_spools(out / SPOOLS) as done:
                build = _Build(asked, root, states, progress, pool)
                found = build.make()
                done += build.known.values()
    return found


def _remember(asked: "CorpusRequest", out: Path, states: StateStore, found: Corpus) -> None:
    """Keeps the study's state; asked for under it, the corpus is found where it is."""
    state = CorpusState.from_json(read_manifest(found.root)["state"])
    keys = (found.root / HELD_KEYS).read_bytes()
    states.save(asked.settings, state, found.tokenizer_path, keys)
    before, after = asked.key(asked.state), asked.key(state)
    if after != before:
        (out / f".{after[:16]}.same").write_text(found.root.name)


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


@dataclasses.dataclass(frozen=True)
class CorpusRequest:
    """What is asked for: everything that determines a prepared corpus."""

    sources: Mapping[str, TextSource]
    identities: Mapping[str, str]
    texts: Mapping[str, Sequence[str]]
    settings: CorpusSettings
    tokenizer: TokenizerFile | None
    state: CorpusState

    def key(self, state: CorpusState) -> str:
        """Hash of it all, with a state of the study."""
        body = {
            "version": VERSION,
            "sources": [[name, identity] for name, identity in self.identities.items()],
            "benchmarks": texts_fingerprint(self.texts),
            "settings": {
                name: value
                for name, value in dataclasses.asdict(self.settings).items()
                if value != getattr(DEFAULT, name)  # so that a new setting voids no corpus
            },
            "state": state.digest,
        }
        if self.tokenizer is not None:
            body["tokenizer"] = [file_digest(self.tokenizer.path), self.tokenizer.end_of_text]
        if self.settings.deduplicate == "near":
            body["near"] = near_duplicates.METHOD
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _known_root(out: Path, name: str) -> Path:
    """Where the corpus of a key lies: in its own folder, or in that of one with the same bytes."""
    same = out / f".{name}.same"
    return out / (same.read_text().strip() if same.exists() else name)


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


class _Build:
    """One preparation, step by step; each step's finished tasks are found again by the next try."""

    def __init__(
        self,
        asked: CorpusRequest,
        root: Path,
        states: StateStore | None,
        progress: ProgressReport,
        pool: TaskPool,
    ) -> None:
        self.asked, self.root, self.states = asked, root, states
        self.progress, self.pool = progress, pool
        self.work = root.with_name(f".{root.name}.partial")
        shared = WorkFolder(pool.shared or str(root.parent))  # what all workers read and write
        self.spools = shared.within(SPOOLS)
        self.kept = shared.within(f"{self.work.name}/kept")
        self.segments = shared.within(f"{self.work.name}/segments")
        self.folder = self.work / "corpus"
        self.domains = [DomainText(name) for name in asked.sources]
        self.frozen = states.held_keys(asked.state) if states else b""
        self.near = asked.settings.deduplicate == "near"
        self.known: dict[tuple[int, str], PartRecord] = {}  # parts that were read: domain, spool
        self.parts = {name: source.parts() for name, source in asked.sources.items()}
        self.samples = self._samples()

    def _samples(self) -> dict[int, DomainSample]:
        """The samples that are wanted, by the number of their domain."""
        asked, settings = self.asked, self.asked.settings
        places = asked.state.places(asked.identities)
        found = {}
        for i, (name, source) in enumerate(asked.sources.items()):
            if isinstance(source, SampledSource):
                old = asked.state.ranks[places[name]] if name in places else None
                found[i] = DomainSample(
                    source.sample,
                    self.parts[name],
                    seed=settings.seed,
                    valid_bytes=settings.valid_bytes,
                    before=(old.parts, old.drawn_from) if old else ((), 0),
                )
        return found

    def make(self) -> Corpus:
        """The corpus, in its place."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.progress("reading the benchmarks", 0.0)
        index = NGramIndex.build(self.asked.texts)
        while True:
            self.records = self.read(index)
            sizes = {one.name: one.read_bytes for one in self.domains}
            sizes |= {self.domains[i].name: int(s.whole_text) for i, s in self.samples.items()}
            self.ranks = self.asked.state.ordered(self.asked.identities, sizes)
            self.bits = partition_bits(self.records)
            self.deduplicate(*self.near_duplicates())
            self.held = hold_out(self.domains, self.partitions, self.frozen, self.asked.settings)
            with SpooledText(self.spools, self.records) as text:
                tokenizer = self.tokenizer(text)
                if self.settled(text, tokenizer):
                    self.check_sizes(text, tokenizer)
                    break
        entries = [self.tolerated(entry) for entry in self.encode(tokenizer)]
        self.write(index, tokenizer, entries)
        self.folder.rename(self.root)
        shutil.rmtree(self.work, ignore_errors=True)
        if not self.spools.local:
            self.remove_shared()
        return Corpus.open(self.root, verify=False)

    def remove_shared(self) -> None:
        """Removes what workers wrote in a place that is not this disk."""
        for record in self.known.values():
            for name in self.spools.names(record.name):
                self.spools.remove(name)
        for folder in (self.kept, self.segments):
            for name in folder.names():
                folder.remove(name)

    def read(self, index: NGramIndex) -> list[PartRecord]:
        """Reads all parts that are wanted; what is left of their text is in the spools."""
        reader = PartReader(self.spools, index, self.asked.settings.seed, self.near)
        tasks = self.tasks()
        while left := [task for task in tasks if (task.domain, task.name) not in self.known]:
            self.read_parts(reader, left)
            tasks = self.tasks()
        for name, source in self.asked.sources.items():
            if source.identity != self.asked.identities[name]:
                for task in tasks:
                    if task.source is source:
                        self.spools.remove(f"{task.name}.json")
                raise DataError(f"the text of domain {name!r} changed while it was read: run again")
        self.domains = [DomainText(one.name) for one in self.domains]
        for task in tasks:
            self.domains[task.domain].add_part(self.known[task.domain, task.name])
        return [self.known[task.domain, task.name] for task in tasks]

    def tasks(self) -> list[ReadTask]:
        """The parts that are wanted, as far as it is known by now which these are."""
        asked, seed = self.asked, self.asked.settings.seed
        shared: list[Any] = [read_parts.VERSION, texts_fingerprint(asked.texts), seed]
        shared += [near_duplicates.METHOD] if self.near else []
        tasks = []
        for i, (name, source) in enumerate(asked.sources.items()):
            sample, parts, below = self.samples.get(i), list(self.parts[name]), KEYS
            if sample is not None:
                chosen = sample.chosen()
                parts, below = [sample.parts[place] for place in chosen], sample.spooled_below
            shorter = [below] if below < KEYS else []
            for part in parts:
                spool = _part_name([*shared, *shorter], source, asked.identities[name], part)
                tasks.append(ReadTask(spool, i, source, part, below))
        return tasks

    def read_parts(self, reader: PartReader, tasks: Sequence[ReadTask]) -> None:
        """Reads parts, and tells the samples what was in them."""
        sizes = [max(1, task.part.size) for task in tasks]
        left = Counter(task.domain for task in tasks)
        documents, done = Counter[int](), 0
        for number, record in self.pool.map(reader, tasks):
            task = tasks[number]
            self.known[task.domain, task.name] = record
            if task.domain in self.samples:
                self.samples[task.domain].note(task.part, record)
            done += sizes[number]
            left[task.domain] -= 1
            documents[task.domain] += record.counts.get("documents_read", 0)
            what = "reading" if left[task.domain] else "read"
            told = f"{what} {self.domains[task.domain].name}: {documents[task.domain]} documents"
            self.progress(told, 0.4 * done / sum(sizes))

    def near_duplicates(self) -> tuple[Entries, csr_array | None]:
        """What becomes of documents that have near-duplicates, and what domains share of them."""
        if not self.near:
            return np.zeros(0, near_bands.RESOLVED), None
        finder = near_bands.NearFinder(
            self.spools,
            [(record.name, record.domain) for record in self.records],
            [self.ranks[domain.name] for domain in self.domains],
            near_bands.band_bits(sum(record.documents for record in self.records)),
            self.frozen,
        )
        for graph in near_bands.find_near_duplicates(self.pool, finder):
            self.progress(f"near-duplicates: {len(graph.keys)} documents so far", 0.4)
        return near_bands.resolved(graph, len(self.domains))

    def deduplicate(self, near: Entries, shared: csr_array | None) -> None:
        """Drops duplicates; the rows that stay are in files, a partition each."""
        ranks = [self.ranks[domain.name] for domain in self.domains]
        work = Deduplicator(
            self.spools, self.kept, self.records, ranks, self.bits, self.frozen, near,
            [self.samples[i].below if i in self.samples else KEYS for i in range(len(ranks))],
        )  # fmt: skip
        count = 1 << self.bits
        stats = {}
        for number, one in self.pool.map(work, range(count)):
            stats[number] = one
            self.progress("comparing documents", 0.4 + 0.02 * len(stats) / count)
        count_partitions(self.domains, [stats[number] for number in range(count)])
        count_shared(self.domains, list(stats.values()), shared)

    def partitions(self, *, backwards: bool = False) -> Iterator[Entries]:
        """The rows that stay, a partition at a time, in the order of keys."""
        numbers = range(1 << self.bits)
        for number in reversed(numbers) if backwards else numbers:
            yield read_kept(self.kept, number)

    def tokenizer(self, text: SpooledText) -> Tokenizer:
        """The corpus's tokenizer, in its folder: given, the study's, or trained now."""
        path, vocabulary = self.folder / "tokenizer.json", self.asked.settings.vocabulary
        given = self.asked.tokenizer
        if path.exists():  # of a round before
            return tokenizers.load_tokenizer(path, given.end_of_text if given else "")
        known = given.path if given else None
        if given is None and self.states is not None:
            known = self.states.trained_tokenizer(self.asked.state, vocabulary)
        if known is not None:
            shutil.copyfile(known, path)
            return tokenizers.load_tokenizer(path, given.end_of_text if given else "")
        self.progress("training the tokenizer", 0.43)
        most = self.asked.settings.tokenizer_bytes
        rows = self.partitions(backwards=True)
        sample = tokenizer_sample(text, rows, self.held, len(self.domains), most)
        tokenizer = tokenizers.train_tokenizer(sample, vocabulary)
        tokenizer.save(str(path))
        return tokenizer

    def settled(self, text: SpooledText, tokenizer: Tokenizer) -> bool:
        """Whether every sample holds as much as is wanted; if not, it is read anew, or cut."""
        encoder = warm_encoder(tokenizer.to_str())
        changed = [
            sample.settle(
                self.domains[i].bytes,
                sample.rate or bytes_per_token(text, self.partitions(), i, encoder),
            )
            for i, sample in self.samples.items()
        ]
        return not any(changed)

    def check_sizes(self, text: SpooledText, tokenizer: Tokenizer) -> None:
        """Sees that small domains suffice before large ones are encoded; names all that do not.

        Raises:
            DataError: too little text to train on.
        """
        least = self.asked.settings.min_tokens
        small = [i for i, one in enumerate(self.domains) if one.bytes <= PLENTY * least]
        for i in small:
            self.progress(f"tokenizing {self.domains[i].name}", 0.44)
        rows = self.partitions() if small else ()
        encoder = warm_encoder(tokenizer.to_str())
        counts = small_domains(text, rows, small, self.held, encoder, least)
        wrong = [
            f"domain {self.domains[i].name!r} has {tokens} training tokens in {documents} "
            f"documents ({size} bytes); at least {least} are needed. Add text, merge it with "
            "another domain, or lower corpus.min_tokens"
            for i, (tokens, documents, size) in counts.items()
            if tokens < least
        ]
        if wrong:
            raise DataError("; ".join(wrong))

    def encode(self, tokenizer: Tokenizer) -> list[dict[str, Any]]:
        """Tokenizes all partitions and joins them; returns the manifest's entries."""
        given = self.asked.tokenizer
        work = PartitionEncoder(
            self.spools,
            self.kept,
            self.segments,
            self.records,
            self.held,
            len(self.domains),
            tokenizer.to_str(),
            tokenizers.end_of_text(tokenizer, given.end_of_text if given else ""),
        )
        count = 1 << self.bits
        found: dict[int, list[Segment]] = {}
        self.progress("tokenizing", 0.45)
        for number, segments in self.pool.map(work, range(count)):
            found[number] = segments
            self.progress("tokenizing", 0.45 + 0.5 * len(found) / count)
        folders = folder_names([domain.name for domain in self.domains])
        places = [self.folder / folders[domain.name] for domain in self.domains]
        digest = file_digest(self.folder / "tokenizer.json")
        width = token_type(tokenizers.vocabulary_size(tokenizer)).itemsize
        entries = []
        figures = self.sample_figures(count) if self.samples else {}
        joined = join_segments(
            self.segments, [found[n] for n in range(count)], places, width, self.near
        )
        for domain, place, splits in zip(self.domains, places, joined, strict=True):
            entry = self.entry(domain, splits, digest) | {"folder": place.name}
            entries.append(entry)
            if sampled := figures.get(domain.name):
                sampled["tokens"] -= splits["valid"]["tokens"]
                entry["sampled"] = sampled
                entry["notices"] += sample_notices(
                    domain.name, sampled, self.samples[len(entries) - 1].grown
                )
            self.progress(f"writing {domain.name}", 0.95 + 0.04 * len(entries) / len(places))
        return entries

    def sample_figures(self, partitions: int) -> dict[str, dict[str, Any]]:
        """What is estimated of each sampled domain that was not read whole."""
        shape = len(self.records), len(self.domains)
        tokens, squares = count_tokens(self.kept, self.segments, partitions, self.held, shape)
        places = np.array([record.domain for record in self.records])
        return {
            self.domains[i].name: figures
            for i, sample in self.samples.items()
            if (figures := sample.figures(tokens[places == i], squares[i]))
        }

    def entry(
        self, domain: DomainText, splits: dict[str, dict[str, Any]], tokenizer: str
    ) -> dict[str, Any]:
        """A domain's part of the manifest."""
        return {
            "name": domain.name,
            "identity": shard_identity(tokenizer, splits["train"]["content"]),
            "heldout": shard_identity(tokenizer, splits["valid"]["content"]),
            "source": self.asked.identities[domain.name],
            **splits,
            "counts": {count: domain.counts[count] for count in COUNTS},
            "contaminated_documents": dict(sorted(domain.hits.items())),
            "notices": unused_text(domain),
            "distinct": domain.distinct,
            "shared": domain.shared,
        }

    def tolerated(self, entry: dict[str, Any]) -> dict[str, Any]:
        """An entry, or that of the domain's earlier shards where it grew by little."""
        tolerance, state = self.asked.settings.tolerance, self.asked.state
        place = state.places(self.asked.identities).get(entry["name"]) if tolerance else None
        if place is None:
            return entry
        return keep_earlier(
            entry,
            self.folder / entry["folder"],
            state.ranks[place],
            others=self.root.parent,
            tolerance=tolerance,
        )

    def write(self, index: NGramIndex, tokenizer: Tokenizer, entries: list[dict[str, Any]]) -> None:
        """Writes what else belongs to a corpus, the manifest last."""
        asked, given = self.asked, self.asked.tokenizer
        digest = file_digest(self.folder / "tokenizer.json")
        (self.folder / HELD_KEYS).write_bytes(self.held)
        heldout = hashlib.sha256(self.held).hexdigest()
        drawn = {self.domains[i].name: sample.drawn for i, sample in self.samples.items()}
        domains = [
            RankedDomain(
                e["name"], e["source"], e["identity"], e["heldout"], e["train"]["tokens"],
                *drawn.get(e["name"], ()),
            )
            for e in entries
        ]  # fmt: skip
        trained = (asked.settings.vocabulary, digest) if given is None else None
        state = next_state(asked.state, domains, self.ranks, heldout=heldout, tokenizer=trained)
        manifest = {
            "key": asked.key(state),
            "version": VERSION,
            "settings": dataclasses.asdict(asked.settings),
            "tokenizer": digest,
            "vocabulary": tokenizers.vocabulary_size(tokenizer),
            "eot": tokenizers.end_of_text(tokenizer, given.end_of_text if given else ""),
            "heldout_keys": heldout,
            "state": state.to_json(),
            "benchmarks": {
                name: {"texts": index.texts[name], "too_short": index.short[name]}
                for name in index.names
            },
            "domains": entries,
        }
        write_manifest(self.folder, manifest)


def _part_name(shared: list[Any], source: TextSource, identity: str, part: ReadPart) -> str:
    """The name of a part's spool: a hash of everything that determines it."""
    known = [source.reading, part.content] if part.content else [identity, part.url]
    body = [*shared, *known, part.start, part.stop]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()[:32]
