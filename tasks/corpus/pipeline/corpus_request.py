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
from cuvee.tasks.corpus.corpus_state import CorpusState, next_state
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

    @classmethod
    def canonical(
        cls,
        sources: Mapping[str, TextSource],
        texts: Mapping[str, Sequence[str]],
        settings: CorpusSettings,
        tokenizer: TokenizerFile | None,
        state: CorpusState,
    ) -> "CorpusRequest":
        """A request whose sources stand in the order of their contents, whatever a recipe says."""
        known = {name: source.identity for name, source in sources.items()}
        order = sorted(sources, key=lambda name: (known[name], name))
        return cls(
            {name: sources[name] for name in order},
            {name: known[name] for name in order},
            texts,
            settings,
            tokenizer,
            state,
        )

    def key(self, state: CorpusState) -> str:
        """Hash of all that decides the corpus, with a state of the study.

        Names are no part of it, nor is what the state says of other domains or other vocabularies.
        Only domains of equal sources are told apart by their names.
        """
        contents = list(self.identities.values())
        trained = state.tokenizers.get(self.settings.vocabulary) if not self.tokenizer else None
        body = {
            "version": VERSION,
            "sources": self._known_sources(state),
            "names": [n for n, one in self.identities.items() if contents.count(one) > 1],
            "benchmarks": texts_fingerprint(self.texts),
            "settings": {
                name: value
                for name, value in dataclasses.asdict(self.settings).items()
                if value != getattr(DEFAULT, name)  # so that a new setting voids no corpus
            },
            "state": [state.heldout, trained],
        }
        if self.tokenizer is not None:
            body["tokenizer"] = [file_digest(self.tokenizer.path), self.tokenizer.end_of_text]
        if self.settings.deduplicate == "near":
            body["near"] = near_duplicates.METHOD
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    def _known_sources(self, state: CorpusState) -> list[list[Any]]:
        """Each source, and what a study knows of it: its rank among these, and what was read."""
        places = state.places(self.identities)
        ranks = {place: rank for rank, place in enumerate(sorted(places.values()))}
        found: list[list[Any]] = []
        for name, identity in self.identities.items():
            found.append([identity])
            if name in places:
                old = state.ranks[places[name]]
                kept = [old.identity] if self.settings.tolerance else []
                found[-1] += [ranks[places[name]], list(old.parts), old.drawn_from, *kept]
        return found

    def state_after(self, body: Mapping[str, Any]) -> CorpusState:
        """The state of the study once it has a corpus, as its manifest has it; the corpus may have
        been prepared under other names."""
        then = CorpusState.from_json(body["state"]).ranks
        known = {(one.name, one.source): (place, one) for place, one in enumerate(then)}
        found = {
            name: known[entry["name"], entry["source"]]
            for name, entry in zip(self.identities, body["domains"], strict=True)
        }
        ranks = self.state.places(self.identities)
        fresh = sorted((name for name in found if name not in ranks), key=lambda n: found[n][0])
        ranks |= {name: len(self.state.ranks) + i for i, name in enumerate(fresh)}
        domains = [dataclasses.replace(one, name=name) for name, (_, one) in found.items()]
        trained = (self.settings.vocabulary, body["tokenizer"]) if self.tokenizer is None else None
        return next_state(
            self.state, domains, ranks, heldout=body["heldout_keys"], tokenizer=trained
        )


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
