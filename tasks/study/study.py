"""Study: everything that came of one study, as plain values.

The report, the record and the summary are all made from this one value, so that none of them can
say something that another does not know. It is filled by the flow, checks itself, and holds no
path, clock or client.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference.evidence_grade import RATIO
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import LawEvidence, Recommendation
from cuvee.mixtures.runs.run_results import (
    NO_COST,
    Failed,
    History,
    RunResult,
    TrainingCost,
    finished_runs,
    score_table,
    training_cost,
)
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.tasks.study import forgetting, next_steps
from cuvee.tasks.study.forgetting import MEAN, ContinualStart, DomainChange
from cuvee.tasks.study.suspicious_items import ItemMatch
from cuvee.tasks.validation.calibration import ScoredPredictions
from cuvee.tasks.validation.hypothesis_tests import LargerSizeTests
from cuvee.tasks.validation.paired import Confirmation, Judgement


@dataclass(frozen=True)
class DomainFigures:
    """What became of one domain's text on its way to training.

    Attributes:
        documents: training documents kept.
        bytes: UTF-8 bytes of their text.
        tokens: training tokens.
        duplicates: documents removed because their text, or nearly that, occurred before.
        contaminated: documents removed because they share a 13-gram with a benchmark, by benchmark.
        skipped: rows without usable text that were left out.
        filtered: rows that the recipe's filter left out.
        notices: what a reader must know of text that is not used, a sentence each.
        distinct: its different texts, before any was removed for being in another domain.
        shared: by other domain, how many of these it holds too: word for word, and word for word or
            nearly (the same number, where near-duplicates were not looked for).
    """

    documents: int
    bytes: int
    tokens: int
    duplicates: int = 0
    contaminated: Mapping[str, int] = field(default_factory=dict)
    skipped: int = 0
    filtered: int = 0
    notices: tuple[str, ...] = ()
    distinct: int = 0
    shared: Mapping[str, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """One finished study.

    Attributes:
        name: of the recipe.
        recipe_text: the exact YAML that was run.
        problem: what was to be chosen.
        recommendation: what was chosen.
        history: outcomes of the design and its anchors.
        corpus: by domain, what became of its text.
        versions: package -> version.
        confirmation: fresh runs of the answer, or None when it was not confirmed.
        inconclusive: outcomes of a confirmation that the budget ended before it could say anything.
        untrained: scores and details of a proxy before training, by name.
        chance: what guessing scores, by the name of a detail ("task/piqa/accuracy").
        minutes: wall time of this run of the study.
        trained_now: proxies trained by it.
        reused: proxies found finished in the store.
        call_cost: what it trained.
        tokens_per_second: median over runs, per core.
        seed: of every random choice.
        least_signal: ratio of spreads below which a target is flagged as mostly noise.
        started: ISO 8601 time.
        available: tokens that exist by domain; empty where they are unknown, None where they are
            those of the problem's domains.
        transfer: fresh runs of the answer at larger sizes, or None when there are none.
        card: what was predicted of them before they were trained, with its outcome.
        continual: the checkpoint that every run went on from; None where there is none.
        vocabulary: tokens of the tokenizer; 0 where nobody says.
        held_out: targets on which gains are stated though the objective does not read them; None
            for all that are measured.
        matches: the longest match of benchmark items with training text; None if nobody looked.
        clean: the confirmation scored again without the suspicious items; None where there are
            none, or no scores by item.
    """

    name: str
    recipe_text: str
    problem: Problem
    recommendation: Recommendation
    history: History
    corpus: Mapping[str, DomainFigures] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    confirmation: Confirmation | None = None
    inconclusive: History = ()
    untrained: Mapping[str, float] | None = None
    chance: Mapping[str, float] = field(default_factory=dict)
    minutes: float = 0.0
    trained_now: int = 0
    reused: int = 0
    call_cost: TrainingCost = NO_COST
    tokens_per_second: float = 0.0
    seed: int = 0
    least_signal: float = RATIO
    started: str = ""
    available: Mapping[str, int] | None = None
    transfer: LargerSizeTests | None = None
    card: ScoredPredictions | None = None
    continual: ContinualStart | None = None
    vocabulary: int = 0
    held_out: tuple[str, ...] | None = None
    matches: tuple[ItemMatch, ...] | None = None
    clean: Confirmation | None = None

    def __post_init__(self) -> None:
        ours, theirs = self.recommendation, self.problem
        if ours.domains != theirs.domains.names or ours.targets != theirs.targets:
            raise EvidenceError(
                "the recommendation and the problem differ in domains or targets: "
                f"{ours.domains} and {ours.targets} against "
                f"{theirs.domains.names} and {theirs.targets}"
            )
        unknown = sorted(set(self.corpus) - set(theirs.domains.names))
        if unknown:
            raise EvidenceError(f"the corpus table has unknown domains: {', '.join(unknown)}")

    @property
    def runs(self) -> tuple[RunResult, ...]:
        """The finished runs of the history."""
        return finished_runs(self.history)

    @property
    def confirmations(self) -> tuple[Confirmation, ...]:
        """At the study's own size, then at larger ones; those that there are."""
        own = (self.confirmation,) if self.confirmation else ()
        return own + (self.transfer.steps if self.transfer else ())

    @property
    def failed(self) -> tuple[Failed, ...]:
        """Every run that gave no result, the confirmations' included."""
        known = (*self.history, *self.inconclusive)
        lost = tuple(run for run in known if isinstance(run, Failed))
        return lost + tuple(run for found in self.confirmations for run in found.failed)

    @property
    def proxies(self) -> int:
        """Proxies that belong to the study, failed ones included."""
        extra = [run for found in self.confirmations for run in (*found.runs, *found.failed)]
        return len(self.history) + len(self.inconclusive) + len(extra)

    @property
    def cost(self) -> TrainingCost | None:
        """What its finished proxies cost, whoever trained them; None where tables do not say."""
        fresh = [run.result for found in self.confirmations for run in found.runs]
        known = (*self.runs, *finished_runs(self.inconclusive), *fresh)
        every = {run.spec.fingerprint: run for run in known}
        return training_cost(tuple(every.values()))

    @property
    def untried(self) -> int:
        """Proxies that were neither trained nor found, for want of budget or in a fit alone."""
        known = self.trained_now + self.reused
        return min(max(self.proxies - known, 0), len(self.failed))

    @property
    def law(self) -> LawEvidence | None:
        """The law that the recommendation rests on."""
        return next((law for law in self.recommendation.laws if law.chosen), None)

    @property
    def measured(self) -> bool:
        """Whether what is said of mixtures was measured in a trial: the method fitted no law."""
        return not self.recommendation.laws

    @property
    def confirmed(self) -> bool | None:
        """Whether fresh runs at proxy scale bore the claim out; None where none tested it."""
        tested = self.confirmation
        if tested is None:
            return None
        gains = tested.objective
        return tested.complete and all(
            gains[name].judgment is Judgement.BETTER for name in tested.claimed
        )

    @property
    def unconfirmed(self) -> tuple[Confirmation, ...]:
        """Those of the confirmations that did not bear the claim out."""
        own = (self.confirmation,) if self.confirmation and not self.confirmed else ()
        tests = self.transfer
        larger = [s for s in tests.steps if not tests.held_at(s)] if tests else []
        return (*own, *larger)

    @property
    def next_steps(self) -> tuple[str, ...]:
        """What mends weak evidence, and at what cost; empty where fresh runs bore the claim out."""
        tested = next_steps.tested_steps(self.confirmations, self.unconfirmed)
        left = sum(isinstance(run, Failed) for run in self.inconclusive)
        if left:
            tested = (f"raise `budget` and run again: {left} runs of the confirmation are left",)
        if self.confirmed:
            return tested
        return tested + next_steps.next_steps(
            self.recommendation, self.problem, self.runs, least_signal=self.least_signal
        )

    @property
    def tokens(self) -> Mapping[str, int]:
        """Tokens that exist by domain; empty where they are unknown."""
        if self.available is not None:
            return self.available
        return {domain.name: domain.tokens for domain in self.problem.domains}

    @cached_property
    def reference(self) -> Array:
        """Scores (M,) of the mixture that the objective is relative to: seen, else predicted, else
        the mean of all runs."""
        shares = self.problem.reference
        runs = tuple(run for run in self.runs if same_mixture(run.spec.weights, shares))
        for candidate in self.recommendation.candidates[1:] if not runs else ():
            if same_mixture(candidate.weights, shares):
                return np.array([estimate.mean for estimate in candidate.targets])
        _, scores, _ = score_table(runs or self.runs, self.problem.targets)
        return np.asarray(scores.mean(axis=0), dtype=np.float64)

    def objective(self, run: RunResult) -> float:
        """The objective of one run without its floors, bits per byte; lower is better.

        A run of a larger size has the value that it had beside the natural mixture of that size.
        """
        known = self._larger.get(run.spec.fingerprint)
        if known is not None:
            return known
        row = score_table((run,), self.problem.targets)[1][0]
        posed = self.problem.objective.scalarize(self.problem.targets, self.reference)
        return float(posed.relaxed(row))

    @cached_property
    def changes(self) -> tuple[DomainChange, ...]:
        """What training made of the checkpoint's score on every domain, under every mixture."""
        if self.continual is None:
            return ()
        domains = (*self.problem.domains.names, MEAN)
        return forgetting.domain_changes(
            self.continual, self.recommendation, self.confirmation, domains
        )

    @cached_property
    def _larger(self) -> dict[str, float]:
        steps = self.transfer.steps if self.transfer else ()
        return {r.result.spec.fingerprint: r.objective for step in steps for r in step.runs}

    @property
    def fingerprint(self) -> str:
        """Of the recommendation; see `fingerprint`."""
        return recommendation_fingerprint(self.recommendation)


def recommendation_fingerprint(ours: Recommendation) -> str:
    """sha256 of what is recommended, by which method, on which evidence."""
    content = {
        "domains": ours.domains,
        "stages": [(stage.weights, stage.share) for stage in ours.stages],
        "evidence": ours.evidence,
        "method": ours.method,
    }
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def same_mixture(a: Array | Sequence[float], b: Array | Sequence[float]) -> bool:
    """Whether two weight vectors (K,) are one mixture."""
    return bool(np.max(np.abs(np.asarray(a) - np.asarray(b))) <= simplex.SAME)


def finite_or_none(value: float) -> float | None:
    """A number as JSON can hold it: None for NaN and infinities."""
    return float(value) if math.isfinite(value) else None
