"""From the runs of a confirmation to its paired gains: the claim, with its interval."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

import numpy as np

from cuvee.mixtures.domain_worth import Worth
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference import crossed_intervals
from cuvee.mixtures.inference.crossed_intervals import FEWEST, ITEMS, SEEDS
from cuvee.mixtures.objectives import OBJECTIVE, Objective, WeightedMean
from cuvee.mixtures.recommendation import LEVEL, Estimate
from cuvee.mixtures.runs.run_results import Failed, RunResult
from cuvee.mixtures.scale_evidence import Forecast

RECOMMENDED = "recommended"
BASELINES = ("natural", "uniform")  # what there is without a search
BEST = "best observed"
AVERAGE = "its average"  # a schedule's own shares, held fixed
NAMED = 3  # targets that a sentence names


class Alone(StrEnum):
    """Why a gain is for new seeds alone; targets follow."""

    MOST = "new items may change which counts most of"  # no weighted mean: see `crossed_intervals`
    FEW = f"fewer than {FEWEST} documents or items are known of"
    UNKNOWN = "runs keep no scores by document or item of"
    OTHER = "the runs that are compared were scored on different documents or items of"


class Judgement(StrEnum):
    """What the interval of a gain allows one to say: nothing, where it includes zero."""

    BETTER = "better by more than the noise"
    WORSE = "worse by more than the noise"
    NOISE = "within the noise"

    @classmethod
    def of(cls, low: float, high: float) -> "Judgement":
        """Of a gain between `low` and `high`; positive is better."""
        return cls.BETTER if low > 0 else cls.WORSE if high < 0 else cls.NOISE


def covers_text(gains: Iterable["PairedGain"]) -> str:
    """For what gains hold, all of them together: new seeds and new items, or new seeds alone."""
    every = tuple(gains)
    return ITEMS if every and all(g.covers == ITEMS for g in every) else f"{SEEDS} alone"


def alone_text(gains: Iterable["PairedGain"], most: int = NAMED) -> str:
    """Why gains are for new seeds alone: `, as fewer than 30 ... are known of domain/a`, or ""."""
    found: dict[Alone, dict[str, None]] = {}
    for target, why in (pair for gain in gains for pair in gain.alone.items()):
        found.setdefault(why, {})[target] = None
    parts = []
    for why, targets in found.items():
        more = f" and {len(targets) - most} more" if len(targets) > most else ""
        parts.append(f"{why} {', '.join(list(targets)[:most])}{more}")
    return f", as {'; '.join(parts)}" if parts else ""


def interval_text(estimate: Estimate | Forecast | Worth, form: str = ".3f") -> str:
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
        covers: for what gain, interval and p hold: "new seeds", or "new seeds and new items".
        over_seeds: the interval over new seeds alone, where the other holds for new items too.
        alone: why it is for new seeds alone, by target.
        items: the part of the gain's standard error that other items bring, whatever the seeds.
    """

    name: str
    gain: float
    low: float
    high: float
    p: float
    n: int
    covers: str = SEEDS
    over_seeds: Estimate | None = None
    alone: Mapping[str, Alone] = field(default_factory=dict)
    items: float = 0.0

    def __post_init__(self) -> None:
        if self.n < 1 or not self.low <= self.gain <= self.high:
            raise EvidenceError(
                f"a paired gain needs at least one pair and low <= gain <= high; got {self}"
            )

    @classmethod
    def of(
        cls,
        name: str,
        differences: Sequence[float],
        level: float = LEVEL,
        *,
        parts: Sequence[Array] = (),
        alone: Mapping[str, Alone] = MappingProxyType({}),
    ) -> "PairedGain":
        """From differences paired by seed, and from what units add to them (`gain_interval`)."""
        found = crossed_intervals.gain_interval(differences, () if alone else parts, level=level)
        ends = (found.mean, found.low, found.high, found.p, len(differences))
        seeds = found.over_seeds if found.covers == ITEMS else None
        return cls(name, *ends, found.covers, seeds, alone, found.items)

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
    objective: Objective,
    failed: Sequence[Failed] = (),
    baselines: Sequence[str] = BASELINES,
    level: float = LEVEL,
) -> Confirmation:
    """Gains of the recommended mixture over each baseline, paired by seed.

    Where the runs know their scores by document and item (`RunResult.units`), gains are for new
    items too; `Alone` says which are not.

    Args:
        runs: recommended and baselines, at the same seeds.
        targets: names of the problem's targets, in their order.
        objective: the one that the runs' values are of.
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

    return replace(
        whole,
        objective={b: paired_gain(whole, b, objective) for b in known},
        targets={b: tuple(mean_gain(whole, b, {t: 1.0}, t) for t in targets) for b in known},
        unpaired=tuple(name for name in baselines if name not in known),
    )


def mean_gain(
    found: Confirmation, baseline: str, weights: Mapping[str, float], name: str
) -> PairedGain:
    """The paired gain over a baseline in a weighted mean of targets; `paired_gain` says more."""
    return paired_gain(found, baseline, WeightedMean(tuple(weights.items())), name)


def paired_gain(
    found: Confirmation, baseline: str, objective: Objective, name: str = OBJECTIVE
) -> PairedGain:
    """The paired gain over a baseline in an objective, for new items where all its targets' are.

    One that is the largest of several scores is for new seeds alone, and of the runs' own values.

    Raises:
        EvidenceError: fewer than two shared seeds.
    """
    whole, targets = found.differences(baseline), objective.targets
    rows = objective.scalarize(targets, np.zeros(len(targets))).rows
    read = np.flatnonzero(rows.any(axis=0)).tolist()  # not those that only have floors
    if len(rows) > 1:
        most = {targets[column]: Alone.MOST for column in read}
        return PairedGain.of(name, list(whole.values()), found.level, alone=most)
    runs = {(run.mixture, run.result.spec.seed): run.result for run in found.runs}
    pairs = [(runs[baseline, seed], runs[RECOMMENDED, seed]) for seed in whole]
    gains, parts, alone = np.zeros(len(pairs)), [], {}
    for target, weight in ((targets[column], rows[0, column]) for column in read):
        values = [[run.scores[target].value for run in pair] for pair in pairs]
        gains -= weight * np.diff(values)[:, 0]
        table = _unit_table(pairs, target)
        if isinstance(table, Alone):
            alone[target] = table
        else:
            parts.append(weight * crossed_intervals.unit_values(*table))
    return PairedGain.of(name, gains.tolist(), found.level, parts=parts, alone=alone)


def _unit_table(
    pairs: Sequence[tuple[RunResult, RunResult]], target: str
) -> tuple[Array, Array] | Alone:
    """By how much a target's units differ in each pair (S, I), and their sizes (I,)."""
    known = [run.units.get(target) for pair in pairs for run in pair]
    units = [one for one in known if one is not None]
    if len(units) < len(known):
        return Alone.UNKNOWN
    orders = [np.argsort(one.keys) for one in units]
    first, *rest = (one.keys[order] for one, order in zip(units, orders, strict=True))
    if not all(np.array_equal(first, keys) for keys in rest):
        return Alone.OTHER
    if len(first) < FEWEST:
        return Alone.FEW
    totals = np.stack([one.totals[order] for one, order in zip(units, orders, strict=True)])
    return totals[::2] - totals[1::2], units[0].sizes[orders[0]]
