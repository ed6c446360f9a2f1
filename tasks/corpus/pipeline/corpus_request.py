"""What is asked for when a corpus is prepared, and which parts of its sources are read for it."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cuvee.evaluation.decontamination import texts_fingerprint
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.sources.documents import ReadPart, SampledSource, TextSource
from cuvee.proxies.data.tokenizer import TokenizerFile
from cuvee.tasks.corpus.corpus_settings import DEFAULT, CorpusSettings
from cuvee.tasks.corpus.corpus_state import CorpusState
from cuvee.tasks.corpus.pipeline import near_duplicates, read_parts
from cuvee.tasks.corpus.pipeline.read_parts import KEYS, ReadTask
from cuvee.tasks.corpus.pipeline.sampling import DomainSample

VERSION = 2  # raised by hand whenever the same sources would give other shards


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


def domain_samples(
    asked: CorpusRequest, parts: Mapping[str, Sequence[ReadPart]]
) -> dict[int, DomainSample]:
    """The samples that are wanted, by the number of their domain."""
    settings = asked.settings
    places = asked.state.places(asked.identities)
    found = {}
    for i, (name, source) in enumerate(asked.sources.items()):
        if isinstance(source, SampledSource):
            old = asked.state.ranks[places[name]] if name in places else None
            found[i] = DomainSample(
                source.sample,
                parts[name],
                seed=settings.seed,
                valid_bytes=settings.valid_bytes,
                before=(old.parts, old.drawn_from) if old else ((), 0),
            )
    return found


def read_tasks(
    asked: CorpusRequest,
    parts_of: Mapping[str, Sequence[ReadPart]],
    samples: Mapping[int, DomainSample],
) -> list[ReadTask]:
    """The parts that are wanted, as far as it is known by now which these are."""
    seed = asked.settings.seed
    shared: list[Any] = [read_parts.VERSION, texts_fingerprint(asked.texts), seed]
    shared += [near_duplicates.METHOD] if asked.settings.deduplicate == "near" else []
    tasks = []
    for i, (name, source) in enumerate(asked.sources.items()):
        sample, parts, below = samples.get(i), list(parts_of[name]), KEYS
        if sample is not None:
            chosen = sample.chosen()
            parts, below = [sample.parts[place] for place in chosen], sample.spooled_below
        shorter = [below] if below < KEYS else []
        for part in parts:
            spool = _part_name([*shared, *shorter], source, asked.identities[name], part)
            tasks.append(ReadTask(spool, i, source, part, below))
    return tasks


def _part_name(shared: list[Any], source: TextSource, identity: str, part: ReadPart) -> str:
    """The name of a part's spool: a hash of everything that determines it."""
    known = [source.reading, part.content] if part.content else [identity, part.url]
    body = [*shared, *known, part.start, part.stop]
    return hashlib.sha256(json.dumps(body).encode()).hexdigest()[:32]
