"""Recommendation: the mixture that the evidence speaks for, with its uncertainty."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cuvee.mixtures import simplex
from cuvee.mixtures.domain_worth import Attribution
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.objectives import FLOOR, GAIN, MOST
from cuvee.mixtures.runs.run_records import revive
from cuvee.mixtures.runs.run_spec import Stage, mean_shares
from cuvee.mixtures.scale_evidence import ScaleEvidence
from cuvee.mixtures.skill_graph import SkillGraph
from cuvee.mixtures.surface import Surface

RECOMMENDED, REFERENCE, START = "recommended", "reference", "start"  # names of candidates
BEYOND = "the law predicts scores that no run comes near"  # begins a warning
MISSED = "what was asked for is not reached: "  # begins a warning, which stands first
LEVEL = 0.90  # of every interval in a recommendation
ASKED = {FLOOR: "loses at most", MOST: "scores at most", GAIN: "gains at least"}
BINDS = 1e-4  # bits per byte to spare up to which what was asked is said to bind
KEPT = 2e-6  # bits per byte by which what was asked may be missed: rounding of a search
DISTANCE = "distance from natural"  # KL(w || natural) in nats, as a quantity of a front


@dataclass(frozen=True)
class Estimate:
    """A value with a 90 % interval, in bits per byte unless said otherwise."""

    mean: float
    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low <= self.high:
            raise EvidenceError(f"an interval's low end lies above its high end: {self}")


@dataclass(frozen=True)
class Candidate:
    """A mixture with what the law predicts of it.

    Attributes:
        name: "recommended", "natural", "uniform", "best observed" or a recipe's own.
        weights: shares of tokens (K,).
        objective: predicted objective.
        targets: predicted score per target (M,).
    """

    name: str
    weights: tuple[float, ...]
    objective: Estimate
    targets: tuple[Estimate, ...]


@dataclass(frozen=True)
class Optimism:
    """What predicted gains were before they were corrected (`mixtures.inference.optimism`).

    Attributes:
        law: that predicts the gains, and did not choose the mixture.
        chooser: the law that chose it.
        own: (name, estimate) pairs, the gains as the chooser has them.
    """

    law: str
    chooser: str
    own: tuple[tuple[str, Estimate], ...]

    @property
    def said(self) -> str:
        """Whose the gains are, in words."""
        name, gain = self.own[0]
        return (
            f"Predicted gains are those of {self.law}, fitted to the same runs, because a law that "
            f"chooses a mixture thinks too well of it: {self.chooser}, which chose, says "
            f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f}) over {name}"
        )


@dataclass(frozen=True)
class Demand:
    """What a target, a family or the objective was asked for, and what is predicted of it.

    Attributes:
        name: of whom.
        kind: `floor`: may lose at most `amount` over the reference; `most`: may score at most so
            much; `gain`: gains at least so much over the start of the step.
        amount: bits per byte.
        margin: by how much more than that it is kept, with the interval of refits; negative where
            it is not.
        certainty: share of the refits in which it is kept; None where they do not say.
    """

    name: str
    kind: str
    amount: float
    margin: Estimate
    certainty: float | None

    @property
    def kept(self) -> bool:
        """Whether the law predicts so."""
        return self.margin.mean >= -KEPT

    @property
    def predicted(self) -> str:
        """Its predicted gain over the mixture that it is relative to, or its score, in words."""
        base = -self.amount if self.kind == FLOOR else self.amount
        sign = -1 if self.kind == MOST else 1
        mean, *ends = (base + sign * end for end in dataclasses.astuple(self.margin))
        word, form = ("score", ".4f") if self.kind == MOST else ("gain", "+.4f")
        return f"{word} {mean:{form}} ({min(ends):{form}} to {max(ends):{form}})"

    @property
    def asked(self) -> str:
        """What was asked, in words, such as `loses at most 0.002`."""
        return f"{ASKED[self.kind]} {self.amount:.4g}"

    @property
    def verdict(self) -> str:
        """Whether it is kept, in words; it binds where nothing is to spare."""
        if not self.kept:
            return f"short by {-self.margin.mean:.4f}"
        return "kept, binds" if self.margin.mean <= BINDS else "kept"

    @property
    def said(self) -> str:
        """What was asked and what is predicted, in a line."""
        sure = "" if self.certainty is None else f", in {self.certainty:.0%} of refits"
        return f"{self.name} {self.asked}: predicted {self.predicted}, {self.verdict}{sure}"


def missed_lines(demands: Iterable[Demand]) -> tuple[str, ...]:
    """The warning of each demand that is not kept."""
    return tuple(MISSED + one.said for one in demands if not one.kept)


@dataclass(frozen=True)
class MixtureStep:
    """How far an answer lies from the mixture that it started from.

    Attributes:
        start: its name among the candidates.
        moved: share of the tokens that another domain has now (total variation).
        kl: KL(w || start) in nats, where a domain that the start lacks counts as `without_zeros`
            of `mixtures.simplex` has it.
    """

    start: str
    moved: float
    kl: float

    @property
    def said(self) -> str:
        """How long the step is, in words."""
        return (
            f"{100 * self.moved:.1f} points of the tokens move from one domain to another, from "
            f"the {self.start} mixture (KL {self.kl:.4f} nats)"
        )


@dataclass(frozen=True)
class LawEvidence:
    """How well a law predicted runs that it had not seen, by cross-validation.

    Attributes:
        law: its registered name.
        spearman: rank correlation of predicted and observed objective.
        decision_accuracy: share of pairs of runs whose objective was ordered rightly.
        error: mean absolute error of the objective, bits per byte.
        coverage: share of held-out observations inside the law's 90 % interval, over all targets.
        spearman_targets: rank correlation per target (M,).
        held_out: (observed, predicted) objective per run.
        learning_curve: (rows fitted, held-out rank correlation) pairs; empty for laws not chosen.
        chosen: whether the recommendation rests on this law.
    """

    law: str
    spearman: float
    decision_accuracy: float
    error: float
    coverage: float
    spearman_targets: tuple[float, ...]
    held_out: tuple[tuple[float, float], ...]
    learning_curve: tuple[tuple[int, float], ...] = ()
    chosen: bool = False


@dataclass(frozen=True)
class Noise:
    """Noise floor of a target, from runs that differ in their seed alone.

    Attributes:
        target: its name, or "objective".
        seeds: standard deviation over seeds, pooled over the anchors, bits per byte.
        mixtures: standard deviation over the design's mixtures.
        degrees: degrees of freedom of `seeds`.
    """

    target: str
    seeds: float
    mixtures: float
    degrees: int

    @property
    def ratio(self) -> float:
        """Signal to noise: spread over mixtures against spread over seeds."""
        return self.mixtures / self.seeds if self.seeds > 0 else float("inf")


@dataclass(frozen=True)
class Compromise:
    """A mixture by what it is predicted to bring in two quantities, both better when lower.

    Attributes:
        weights: shares of tokens (K,).
        first: predicted value of the first quantity.
        second: of the second.
        name: of a candidate, or empty.
    """

    weights: tuple[float, ...]
    first: float
    second: float
    name: str = ""


@dataclass(frozen=True)
class Front:
    """What one aim costs another: mixtures that no other beats in both (a Pareto front).

    Attributes:
        first: name of the first quantity, bits per byte.
        second: name of the second; bits per byte, or nats where it is a distance.
        points: of the front, from the best of the first to the best of the second.
        marks: the candidates, predicted by the same law.
    """

    first: str
    second: str
    points: tuple[Compromise, ...]
    marks: tuple[Compromise, ...] = ()

    @property
    def distance(self) -> bool:
        """Whether the second quantity is the distance from the natural mixture, in nats."""
        return self.second == DISTANCE


@dataclass(frozen=True)
class Recommendation:
    """A mixture for the full-scale run.

    Attributes:
        domains: names, in the order of every weight vector.
        targets: names, in the order of every score vector.
        stages: shares of tokens over time; one stage is a fixed mixture.
        intervals: 90 % interval of each share (K pairs), by draws of the law or refits, at the
            run's average.
        candidates: the recommended mixture first, then the baselines.
        gains: predicted gain over each baseline, (name, estimate) pairs; positive is better. They
            are corrected for having been the best of many, and so need not be differences of the
            candidates' objectives, which the law that chose predicts.
        laws: cross-validated evidence of every law that was tried.
        noise: noise floor per target and of the objective.
        active: names of the constraints that bind.
        epochs: passes over each domain at full scale (K,); empty where they are unknown.
        evidence: fingerprints of the runs that it rests on.
        failed: runs that gave no result.
        verdict: whether the evidence is strong enough, in words.
        warnings: what a reader must know before using it; demands that are not kept stand first.
        method: canonical JSON of the method.
        trajectory: for methods that move weights: (tokens, weights) pairs.
        front: what the first two parts of the objective cost each other, if it was computed.
        surface: what the chosen law predicts everywhere, for a page to compute, if there is a law.
        scale: for which scale it is made and how far that extrapolates, where sizes were compared.
        skills: which domain helps which target, if the method estimated it.
        demands: floors and gains that were asked for.
        step: how far it lies from where it started, if the smallest step was sought.
        attribution: what each domain is worth, where runs leave domains out.
        optimism: what the law that chose says of its gains, if they are another law's.
    """

    domains: tuple[str, ...]
    targets: tuple[str, ...]
    stages: tuple[Stage, ...]
    intervals: tuple[tuple[float, float], ...]
    candidates: tuple[Candidate, ...]
    gains: tuple[tuple[str, Estimate], ...] = ()
    laws: tuple[LawEvidence, ...] = ()
    noise: tuple[Noise, ...] = ()
    active: tuple[str, ...] = ()
    epochs: tuple[float, ...] = ()
    evidence: tuple[str, ...] = ()
    failed: int = 0
    verdict: str = "draft"
    warnings: tuple[str, ...] = ()
    method: str = ""
    trajectory: tuple[tuple[int, tuple[float, ...]], ...] = field(default=())
    front: Front | None = None
    surface: Surface | None = None
    scale: ScaleEvidence | None = None
    skills: SkillGraph | None = None
    demands: tuple[Demand, ...] = ()
    step: MixtureStep | None = None
    attribution: Attribution | None = None
    optimism: Optimism | None = None

    def __post_init__(self) -> None:
        for stage in self.stages:
            simplex.check_mixture(stage.weights, self.domains)
        missed_first = sorted(self.warnings, key=lambda line: not line.startswith(MISSED))
        object.__setattr__(self, "warnings", tuple(missed_first))
        if len(self.intervals) != len(self.domains):
            raise EvidenceError(
                f"{len(self.domains)} domains but {len(self.intervals)} intervals on their shares"
            )

    @property
    def weights(self) -> Array:
        """Shares of tokens over the whole run, shape (K,)."""
        return mean_shares(self.stages)

    def candidate(self, name: str) -> Candidate:
        """A candidate by name.

        Raises:
            EvidenceError: there is none.
        """
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        known = ", ".join(c.name for c in self.candidates)
        raise EvidenceError(f"no candidate {name!r} in the recommendation; it has {known}")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, for files and records."""
        return dataclasses.asdict(self)


def revive_recommendation(data: Mapping[str, Any]) -> Recommendation:
    """A recommendation from what `to_json` made of it, as read back from JSON.

    Raises:
        EvidenceError: the values are not those of a recommendation.
    """
    try:
        return revive(Recommendation, data)
    except (KeyError, TypeError, ValueError) as error:
        raise EvidenceError(f"this is not a recommendation: {error!r}") from error
