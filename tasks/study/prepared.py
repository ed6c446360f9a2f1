"""What a study trains on and is scored on: a corpus, benchmarks, and a checkpoint to go on from.

A study's mixtures are drawn around the natural one. So that text which grows by little asks for no
other mixtures, the store keeps the sizes that a study began with, and the study goes on with the
natural shares of those sizes until a domain has moved by more than anybody could mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cuvee.evaluation import suites
from cuvee.evaluation.suites import Limits
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.runs.run_spec import BY_CONTENT, BY_NAMES
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.forgetting import StartCheckpoint

DRAWN = "drawn-sizes"  # folder of the store: what the mixtures of each study were drawn at
UNMOVED = 0.01  # share of its tokens by which a domain may move (assumption, not studied)
SameDomain = tuple[str, str, str, int]  # identity, held-out text, name, tokens that it had


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
        drawn: domains as they were when the study's mixtures were drawn, in their order then; none
            of a study that begins.
        tolerance: share of its tokens by which a domain may have moved since, if that is more than
            `UNMOVED`.
    """

    corpus: Corpus
    suite: suites.Suite
    limits: Limits
    start: StartCheckpoint | None = None
    points: int = 0
    texts: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, str] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    drawn: Sequence[SameDomain] = ()
    tolerance: float = 0.0

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
        found = DomainSet(
            tuple(d.sized(self.sizes[d.name]) if d.name in self.sizes else d for d in found)
        )
        if self.version == BY_CONTENT:
            found = domains_as_drawn(found, self.drawn, max(UNMOVED, self.tolerance))
        return found

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


def domains_as_drawn(now: DomainSet, then: Sequence[SameDomain], most: float) -> DomainSet:
    """Domains in the order, and with the natural shares, that a study's mixtures were drawn at.

    As they are, where there is another number of them, or one moved by more than a share of the
    tokens that it had. A domain is known by its text, else by what is held out, else by its name.
    """
    free, places = dict(enumerate(then)), dict[int, Domain]()
    for kind in range(3):
        known = {one[kind]: place for place, one in reversed(free.items()) if one[kind]}
        for domain in now:
            mark = (domain.identity, domain.heldout, domain.name)[kind]
            if domain not in places.values() and known.get(mark) in free:
                places[known[mark]] = domain
                del free[known[mark]]
    moved = [abs(places[i].tokens / then[i][3] - 1) for i in places]
    if free or len(places) < len(now) or max(moved, default=1.0) > most:
        return now
    return DomainSet(tuple(replace(places[i], drawn_tokens=one[3]) for i, one in enumerate(then)))


def recall_drawn(store: Store, study: str) -> tuple[SameDomain, ...]:
    """The domains that a study's mixtures were drawn at; none where it begins."""
    kept = store.recall(DRAWN, study) or {"domains": []}
    return tuple((d["identity"], d["heldout"], d["name"], d["tokens"]) for d in kept["domains"])


def remember_drawn(store: Store, study: str, domains: DomainSet) -> None:
    """Keep the sizes that a study's mixtures are drawn at, by the text as it is now."""
    kept = tuple((d.identity, d.heldout, d.name, d.natural_tokens) for d in domains)
    if domains.heldout and kept != recall_drawn(store, study):
        names = ("identity", "heldout", "name", "tokens")
        body = [dict(zip(names, one, strict=True)) for one in kept]
        store.remember(DRAWN, study, {"domains": body})
