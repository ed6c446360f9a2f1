"""From the runs of a confirmation to its paired gains: the claim, with its interval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference.diagnostics import paired_mean
from cuvee.mixtures.recommendation import LEVEL, Estimate
from cuvee.mixtures.runs.run_results import Failed, RunResult
from cuvee.mixtures.scale_evidence import Forecast

RECOMMENDED = "recommended"
BASELINES = ("natural", "uniform")  # what there is without a search
BEST = "best observed"
AVERAGE = "its average"  # a schedule's own shares, held fixed


class Judgement(StrEnum):
    """What the interval of a gain allows one to say: nothing, where it includes zero."""

    BETTER = "better by more than the noise"
    WORSE = "worse by more than the noise"
    NOISE = "within the noise"

    @classmethod
    def of(cls, low: float, high: float) -> "Judgement":
        """Of a gain between `low` and `high`; positive is better."""
        return cls.BETTER if low > 0 else cls.WORSE if high < 0 else cls.NOISE


def interval_text(estimate: Estimate | Forecast, form: str = ".3f") -> str:
    """An estimate with its interval, such as `2.231 (2.214 to 2.248)`; `form` is of its numbers."""
    return f"{estimate.mean:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


@dataclass(frozen=True)
class PairedGain:
    """How much better the recommended mixture is, from differences paired by seed.

    Attributes:
        name: the target, or "objective".
        gain: mean of (baseline - recommended), bits per byte; positive is better.
        low: lower end of the interval of the gain.
        high: upper end.
        p: one-sided probability of a gain this high if the true one were zero.
        n: pairs of seeds.
    """

    name: str
    gain: float
    low: float
    high: float
    p: float
    n: int

    def __post_init__(self) -> None:
        if self.n < 1 or not self.low <= self.gain <= self.high:
            raise EvidenceError(
                f"a paired gain needs at least one pair and low <= gain <= high; got {self}"
            )

    @classmethod
    def of(cls, name: str, differences: Sequence[float], level: float = LEVEL) -> "PairedGain":
        """From differences paired by seed, by Student's t."""
        found = paired_mean(differences, level)
        return cls(name, found.mean, found.low, found.high, found.p, found.n)

    @property
    def estimate(self) -> Estimate:
        """The gain with its interval alone."""
        return Estimate(self.gain, self.low, self.high)

    @property
    def judgment(self) -> Judgement:
        """What the interval allows one to say."""
        return Judgement.of(self.low, self.high)


@dataclass(frozen=True)
class ConfirmedRun:
    """One run of a confirmation: which mixture was trained, what it scored."""

    mixture: str
    objective: float
    result: RunResult


@dataclass(frozen=True)
class Confirmation:
    """Fresh runs of the recommended mixture and its baselines, paired by seed.

    Attributes:
        runs: every finished run, recommended and baselines.
        objective: baseline -> paired gain in the objective.
        targets: baseline -> paired gain per target, in the order of the problem's targets.
        failed: runs that gave no result.
        level: coverage of the intervals.
        unpaired: baselines that share fewer than two seeds with the recommended mixture, so that
            nothing can be said of them.
    """

    runs: tuple[ConfirmedRun, ...]
    objective: Mapping[str, PairedGain]
    targets: Mapping[str, tuple[PairedGain, ...]] = field(default_factory=dict)
    failed: tuple[Failed, ...] = ()
    level: float = LEVEL
    unpaired: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        alone = sorted(set(self.targets) - set(self.objective))
        if alone:
            raise EvidenceError(
                f"targets are compared with {', '.join(alone)}, but the objective is not; "
                f"it is compared with {', '.join(self.objective) or 'nothing'}"
            )
        places = {(run.result.spec.size, run.result.spec.tokens) for run in self.runs}
        if len(places) > 1:
            raise EvidenceError(f"a confirmation is at one size; these runs have {sorted(places)}")

    def values(self, mixture: str, target: str | None = None) -> dict[int, float]:
        """Seed -> value of a target, or of the objective, for one mixture."""
        return {
            run.result.spec.seed: run.objective
            if target is None
            else run.result.scores[target].value
            for run in self.runs
            if run.mixture == mixture
        }

    def mean(self, mixture: str, target: str | None = None) -> float | None:
        """Mean over seeds of a target, or of the objective; None where none finished."""
        seeds = self.values(mixture, target)
        return sum(seeds.values()) / len(seeds) if seeds else None

    def differences(self, baseline: str, target: str | None = None) -> dict[int, float]:
        """Seed -> baseline minus recommended, of the seeds that both were trained with, in order.

        Of a target, or of the objective; what does not share a seed is in no pair.
        """
        ours, theirs = self.values(RECOMMENDED, target), self.values(baseline, target)
        return {seed: theirs[seed] - ours[seed] for seed in sorted(ours.keys() & theirs.keys())}

    @property
    def mixtures(self) -> tuple[str, ...]:
        """Names of what finished, in the order in which it was planned."""
        return tuple(dict.fromkeys(run.mixture for run in self.runs))

    @property
    def seeds(self) -> int:
        """Seeds of the recommended mixture."""
        return len(self.values(RECOMMENDED))

    @property
    def claimed(self) -> tuple[str, ...]:
        """Baselines that the recommended mixture claims to beat.

        The best observed mixture and a schedule's own average stand beside it to show what the
        search, and the schedule, added; to tie with them breaks no promise.
        """
        return tuple(name for name in self.objective if name not in (BEST, AVERAGE))

    @property
    def complete(self) -> bool:
        """Whether all that is claimed could be tested."""
        return bool(self.claimed) and not set(self.unpaired) - {BEST, AVERAGE}

    @property
    def size(self) -> str:
        """Of the proxies; empty without runs."""
        return self.runs[0].result.spec.size if self.runs else ""

    @property
    def tokens(self) -> int:
        """Of each training."""
        return self.runs[0].result.spec.tokens if self.runs else 0

    @property
    def flops(self) -> float:
        """Of one training, on average."""
        return sum(run.result.flops for run in self.runs) / max(1, len(self.runs))


def paired_confirmation(
    runs: Sequence[ConfirmedRun],
    targets: Sequence[str],
    *,
    failed: Sequence[Failed] = (),
    baselines: Sequence[str] = BASELINES,
    level: float = LEVEL,
) -> Confirmation:
    """Gains of the recommended mixture over each baseline, paired by seed.

    Args:
        runs: recommended and baselines, at the same seeds.
        targets: names of the problem's targets, in their order.
        failed: runs that gave no result; their seeds are left out of the pairs they miss.
        baselines: names of the mixtures compared with.
        level: coverage of the intervals.

    Raises:
        EvidenceError: no baseline shares two seeds with the recommended mixture.
    """
    whole = Confirmation(tuple(runs), {}, failed=tuple(failed), level=level)
    shared = {name: len(whole.differences(name)) for name in baselines}
    known = [name for name, seeds in shared.items() if seeds > 1]
    if not known:
        counts = ", ".join(f"{name} {seeds}" for name, seeds in shared.items())
        raise EvidenceError(
            "a confirmation needs two seeds with which the recommended mixture and a baseline "
            f"finished; shared seeds: {counts or 'no baseline'}; {len(failed)} runs failed"
        )

    def gain(baseline: str, target: str | None) -> PairedGain:
        pairs = whole.differences(baseline, target)
        return PairedGain.of(target or "objective", list(pairs.values()), level)

    return replace(
        whole,
        objective={b: gain(b, None) for b in known},
        targets={b: tuple(gain(b, target) for target in targets) for b in known},
        unpaired=tuple(name for name in baselines if name not in known),
    )
