"""From the runs of a confirmation to its paired gains: the claim, with its interval."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

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


def few_text(gains: Iterable["PairedGain"]) -> str:
    """Why gains are for new seeds alone: `, as fewer than 30 ... are known of domain/a`, or ""."""
    few = tuple(dict.fromkeys(name for gain in gains for name in gain.few))
    more = f" and {len(few) - NAMED} more" if len(few) > NAMED else ""
    why = f", as fewer than {FEWEST} documents or items are known of {', '.join(few[:NAMED])}{more}"
    return why if few else ""


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
        few: targets of which too few documents or items are known for more than new seeds.
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
    few: tuple[str, ...] = ()
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
        few: Sequence[str] = (),
    ) -> "PairedGain":
        """From differences paired by seed, and from what units add to them (`gain_interval`)."""
        own = crossed_intervals.gain_interval(differences, level=level)
        seeds, found = None, own
        if parts and not few:
            seeds = Estimate(own.mean, own.low, own.high)
            found = crossed_intervals.gain_interval(differences, parts, level=level)
        ends = (found.mean, found.low, found.high, found.p, len(differences))
        return cls(name, *ends, found.covers, seeds, tuple(few), found.items)

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
    objective: Objective | None = None,
) -> Confirmation:
    """Gains of the recommended mixture over each baseline, paired by seed.

    Where the runs know their scores by document and item (`RunResult.units`), gains are for new
    items too; a target with fewer than 30 is for new seeds alone, and so is what reads it.

    Args:
        runs: recommended and baselines, at the same seeds.
        targets: names of the problem's targets, in their order.
        failed: runs that gave no result; their seeds are left out of the pairs they miss.
        baselines: names of the mixtures compared with.
        level: coverage of the intervals.
        objective: what the runs' objective is; without it, its gain is for new seeds alone.

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

    def whole_gain(baseline: str) -> PairedGain:
        if objective is None:
            return PairedGain.of(OBJECTIVE, list(whole.differences(baseline).values()), level)
        return paired_gain(whole, baseline, objective)

    return replace(
        whole,
        objective={b: whole_gain(b) for b in known},
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

    An objective that is relative to the natural mixture is so to its runs here, on their items.

    Raises:
        EvidenceError: fewer than two shared seeds.
    """
    seeds = list(found.differences(baseline))
    by_seed = {(run.mixture, run.result.spec.seed): run.result for run in found.runs}
    runs = [by_seed[mixture, seed] for mixture in (baseline, RECOMMENDED) for seed in seeds]
    targets, pairs = objective.targets, len(seeds)
    rows = objective.scalarize(targets, np.zeros(len(targets))).rows
    if len(rows) > 1:
        runs += [run.result for run in found.runs if run.mixture == "natural"]

    def of_table(table: Array) -> Array:
        scalar = objective.scalarize(targets, table[2 * pairs :].mean(axis=0))
        values = scalar.relaxed(table[: 2 * pairs])
        return np.asarray(values[:pairs] - values[pairs:])

    def gains(scores: Array) -> Array:
        if len(rows) > 1:
            return np.asarray(np.vectorize(of_table, signature="(r,m)->(s)")(scores))
        return np.asarray(scores[..., :pairs, :] @ rows[0] - scores[..., pairs:, :] @ rows[0])

    scores = np.array([[run.scores[target].value for target in targets] for run in runs])
    read = np.flatnonzero(rows.any(axis=0)).tolist()  # not those that only have floors
    units = {column: _unit_table(runs, targets[column]) for column in read}
    few = [targets[column] for column in read if units[column] is None]
    parts = [
        crossed_intervals.unit_values(gains, scores, column, *table)
        for column, table in units.items()
        if table is not None and not few
    ]
    return PairedGain.of(name, gains(scores).tolist(), found.level, parts=parts, few=few)


def _unit_table(runs: Sequence[RunResult], target: str) -> tuple[Array, Array] | None:
    """Totals (R, I) and sizes (I,) of a target's units; None where few or not the same."""
    known = [run.units[target] for run in runs if target in run.units]
    if len(known) < len(runs) or len(known[0]) < FEWEST:
        return None
    orders = [np.argsort(one.keys) for one in known]
    keys = known[0].keys[orders[0]]
    for one, order in zip(known, orders, strict=True):
        if len(one) != len(keys) or np.any(one.keys[order] != keys):
            return None
    totals = np.stack([one.totals[order] for one, order in zip(known, orders, strict=True)])
    return totals, known[0].sizes[orders[0]]
