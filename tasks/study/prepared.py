"""What a study trains on and is scored on: a corpus, benchmarks, and a checkpoint to go on from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cuvee.evaluation import suites
from cuvee.evaluation.suites import Limits
from cuvee.mixtures.domains import DomainSet
from cuvee.mixtures.runs.run_spec import BY_CONTENT, BY_NAMES
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.tasks.study.forgetting import StartCheckpoint


@dataclass(frozen=True)
class Prepared:
    """What a study trains on and is scored on.

    Attributes:
        corpus: token shards by domain.
        suite: benchmark tasks.
        limits: how much held-out text is scored.
        points: how often held-out text is scored on the way of a run.
        start: the checkpoint that every run goes on from; None where they start from nothing.
        texts: hash of a user's own files by domain, and of how they are read.
        unread: by domain, what its folders hold that is not read, in a sentence.
        sizes: tokens that a domain has in truth, where the recipe says so.
    """

    corpus: Corpus
    suite: suites.Suite
    limits: Limits
    start: StartCheckpoint | None = None
    points: int = 0
    texts: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)

    @property
    def version(self) -> int:
        """Of runs on the corpus: one that knows no content of held-out text is an earlier study's.

        Its domains have an identity of both splits, and its runs go by names.
        """
        return BY_CONTENT if self.corpus.domain_set().heldout else BY_NAMES

    @property
    def domains(self) -> DomainSet:
        """The domains of the corpus, as large as they are in truth, the largest on disk first.

        A design is drawn in this order: moved in the recipe, a domain gets the same shares.
        """
        found = self.corpus.domain_set()
        if self.version == BY_CONTENT:
            found = DomainSet(tuple(sorted(found, key=lambda d: (-d.stored, d.identity, d.name))))
        return DomainSet(
            tuple(d.sized(self.sizes[d.name]) if d.name in self.sizes else d for d in found)
        )

    @property
    def scoring(self) -> str:
        """Hash of everything that decides a score beside the proxy itself; part of fingerprints."""
        return suites.scoring_identity(*self.scored)

    @property
    def scored(self) -> tuple[list[Any], str, int]:
        """What the hash of scoring is of."""
        return self.suite.contents, self.limits.identity, self.points

    @property
    def chance(self) -> dict[str, float]:
        """What guessing scores, by the name of the accuracy among a run's details."""
        levels = {name: suites.OFFLINE[name].chance for name in self.suite.archives}
        return {
            f"task/{suites.short_name(name)}/accuracy": level
            for name, level in levels.items()
            if level == level  # nothing is chosen where it is NaN
        }

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the scores that each run brings."""
        held_out = tuple(f"domain/{name}" for name in self.domains.names)
        return held_out + tuple(f"task/{suites.short_name(name)}" for name in self.suite.tasks)
