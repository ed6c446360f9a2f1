"""Makes a corpus, step by step, from parts that are read to a folder of shards."""

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_array
from tokenizers import Tokenizer

from cuvee.evaluation.decontamination import NGramIndex
from cuvee.mixtures.errors import DataError
from cuvee.proxies.data import tokenizer as tokenizers
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.prepared_corpus import Corpus, marked_name
from cuvee.proxies.data.shards import folder_names, token_type
from cuvee.proxies.data.sources.documents import ReadPart
from cuvee.proxies.data.sources.source_files import file_state, is_url
from cuvee.proxies.data.token_views import ViewMaker
from cuvee.tasks.corpus.corpus_state import StateStore
from cuvee.tasks.corpus.download import ProgressReport
from cuvee.tasks.corpus.pipeline import near_bands
from cuvee.tasks.corpus.pipeline.corpus_manifest import domain_entry, write_corpus
from cuvee.tasks.corpus.pipeline.corpus_request import CorpusRequest, domain_samples, read_tasks
from cuvee.tasks.corpus.pipeline.deduplicate_split import (
    Deduplicator,
    DomainText,
    count_partitions,
    count_shared,
    hold_out,
    partition_bits,
    read_kept,
)
from cuvee.tasks.corpus.pipeline.preparation_files import PreparationFiles
from cuvee.tasks.corpus.pipeline.read_parts import (
    KEYS,
    Entries,
    PartReader,
    PartRecord,
    ReadTask,
)
from cuvee.tasks.corpus.pipeline.sampling import (
    bytes_per_token,
    count_tokens,
    sample_notices,
)
from cuvee.tasks.corpus.pipeline.spooled_text import SpooledText
from cuvee.tasks.corpus.pipeline.task_pool import TaskPool
from cuvee.tasks.corpus.pipeline.tokenize_partitions import (
    PartitionEncoder,
    Segment,
    join_segments,
    small_domains,
    tokenizer_sample,
    warm_encoder,
)
from cuvee.tasks.corpus.tolerated_growth import keep_earlier

PLENTY = 64  # bytes a token, beyond which no text is too small for its tokens


class CorpusBuild:
    """One preparation, step by step; each step's finished tasks are found again by the next try."""

    def __init__(
        self,
        asked: CorpusRequest,
        root: Path,
        states: StateStore | None,
        progress: ProgressReport,
        pool: TaskPool,
        *,
        files: PreparationFiles,
    ) -> None:
        self.asked, self.root, self.states = asked, root, states
        self.progress, self.pool, self.files = progress, pool, files
        self.work = root.with_name(f".{root.name}.partial")
        self.spools = files.spools
        self.kept = files.folder.within(f"{self.work.name}/kept")
        self.segments = files.folder.within(f"{self.work.name}/segments")
        self.folder = self.work / "corpus"
        self.domains = [DomainText(name) for name in asked.sources]
        self.frozen = states.held_keys(asked.state, root.parent) if states else b""
        self.near = asked.settings.deduplicate == "near"
        self.known: dict[tuple[int, str], PartRecord] = {}  # parts that were read: domain, spool
        self.parts = {name: source.parts() for name, source in asked.sources.items()}
        self.samples = domain_samples(asked, self.parts)

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
        drawn = {self.domains[i].name: sample.drawn for i, sample in self.samples.items()}
        write_corpus(
            self.folder,
            self.asked,
            index,
            tokenizer,
            entries,
            held=self.held,
            ranks=self.ranks,
            drawn=drawn,
        )
        self.folder.rename(self.root)
        shutil.rmtree(self.work, ignore_errors=True)
        if self.spools.remote:
            self.kept.clear()
            self.segments.clear()
        return Corpus.open(self.root, verify=False)

    def read(self, index: NGramIndex) -> list[PartRecord]:
        """Reads all parts that are wanted; what is left of their text is in the spools."""
        reader = PartReader(self.spools, index, self.asked.settings.seed, self.near)
        tasks = read_tasks(self.asked, self.parts, self.samples)
        while left := [task for task in tasks if (task.domain, task.name) not in self.known]:
            self.read_parts(reader, left)
            tasks = read_tasks(self.asked, self.parts, self.samples)
        for name in self.asked.sources:
            self.check_unchanged(name, tasks)
        self.domains = [DomainText(one.name) for one in self.domains]
        for task in tasks:
            self.domains[task.domain].add_part(self.known[task.domain, task.name])
        return [self.known[task.domain, task.name] for task in tasks]

    def check_unchanged(self, name: str, tasks: Sequence[ReadTask] = ()) -> None:
        """See that a domain's files are what they were when they were asked for.

        Args:
            name: of the domain.
            tasks: whose spools do not stay where files changed.

        Raises:
            DataError: they are not.
        """
        source = self.asked.sources[name]
        if source.identity == self.asked.identities[name]:
            return
        for task in tasks:
            if task.source is source:
                self.spools.remove(f"{task.name}.json")
        raise DataError(f"the text of domain {name!r} changed while it was read: run again")

    def read_parts(self, reader: PartReader, tasks: Sequence[ReadTask]) -> None:
        """Reads parts, and tells the samples what was in them."""
        sizes = [max(1, task.part.size) for task in tasks]
        left = Counter(task.domain for task in tasks)
        documents, done = Counter[int](), 0
        self.files.use(task.name for task in tasks)
        away = [replace(task, state=self.state_here(task.part)) for task in tasks]
        for number, found in self.pool.map(reader, away):
            task = tasks[number]
            record = found or reader(task)  # which only this machine can read
            assert record is not None
            self.known[task.domain, task.name] = record
            if task.domain in self.samples:
                self.samples[task.domain].note(task.part, record)
            done += sizes[number]
            left[task.domain] -= 1
            documents[task.domain] += record.counts.get("documents_read", 0)
            what = "reading" if left[task.domain] else "read"
            told = f"{what} {self.domains[task.domain].name}: {documents[task.domain]} documents"
            self.progress(told, 0.4 * done / sum(sizes))

    def state_here(self, part: ReadPart) -> str:
        """State of a file of this machine, where not all workers may see its disk."""
        if self.pool.shared is None or is_url(part.url) or not os.path.exists(part.url):
            return ""
        return file_state(part.url)

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
            known = self.states.trained_tokenizer(self.asked.state, vocabulary, self.root.parent)
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
        views = ViewMaker(
            [(one.url, one.view, one.content.split("+")[0]) for one in self.records],
            work.eot,
            token_type(tokenizers.vocabulary_size(tokenizer)),
        )
        entries = []
        figures = self.sample_figures(count) if self.samples else {}
        joined = join_segments(
            self.segments, [found[n] for n in range(count)], places, views, self.near
        )
        for domain, place, splits in zip(self.domains, places, joined, strict=True):
            source = self.asked.identities[domain.name]
            entry = domain_entry(domain, splits, source=source, tokenizer=digest)
            entry["folder"] = place.name
            entries.append(entry)
            if sampled := figures.get(domain.name):
                sampled["tokens"] -= splits["valid"]["tokens"]
                entry["sampled"] = sampled
                entry["notices"] += sample_notices(
                    domain.name, sampled, self.samples[len(entries) - 1].grown
                )
            if "view" in splits["train"]:
                told = f"the tokens of {marked_name(domain.name)} are used where they lie"
                entry["notices"].append(told)
                self.check_unchanged(domain.name)
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
