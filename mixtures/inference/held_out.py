"""A law fitted to all runs, and how well it predicts each target of runs that it has not seen."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference import diagnostics, evidence_grade
from cuvee.mixtures.inference.diagnostics import RunTable
from cuvee.mixtures.laws import FittedLaw, Law, Prediction
from cuvee.mixtures.recommendation import LEVEL

UNLIKELY = 0.05  # chance of so few runs inside their interval, below which it is named too narrow


@dataclass(frozen=True)
class TargetQuality:
    """How well a law predicted one target of runs that it had not seen, by cross-validation.

    Attributes:
        target: its name.
        rank_correlation: of observed and predicted means of mixtures (Spearman).
        low: of its 95 % interval.
        high: of its 95 % interval.
        error: mean absolute error over runs, in the target's unit.
        spread: standard deviation of the target over mixtures, which the error is small against if
            the law says more than the mean does.
        coverage: share of runs inside the law's 90 % interval.
        noise: standard deviation over seeds; 0 where no mixture was run twice.
    """

    target: str
    rank_correlation: float
    low: float
    high: float
    error: float
    spread: float
    coverage: float
    noise: float


def fit_and_hold_out(
    law: Law, sample: RunTable, folds: int, rng: np.random.Generator
) -> tuple[FittedLaw, Prediction]:
    """A law fitted to all runs, and what it says of each run (N, M) when that is held out.

    The generators are those of `recommend.draft_answer` for one law, so that a law that is fitted
    by itself and the recommendation that rests on it say the same.

    Raises:
        EvidenceError: too few runs for the law, or for the folds.
    """
    compare_rng, _, fit_rng, *_ = rng.spawn(5)
    split, fold_rng = compare_rng.spawn(2)
    parts = diagnostics.grouped_folds(simplex.group_rows(sample.W), folds, split)
    left = len(sample.W) - max(len(part) for part in parts)
    least = law.rows(sample.W.shape[1])
    if left < least:
        raise EvidenceError(
            f"law {law.name!r} needs at least {least} runs for {sample.W.shape[1]} domains, and "
            f"{len(parts)} folds leave it {left} of {len(sample.W)}: train more, take more folds, "
            "or a law with fewer parameters, such as log_linear"
        )
    held_out = diagnostics.cross_validate(law, sample, parts, fold_rng)
    return sample.fit(law, np.arange(len(sample.W)), fit_rng), held_out


def target_qualities(
    sample: RunTable, held_out: Prediction, targets: Sequence[str]
) -> tuple[TargetQuality, ...]:
    """What held-out predictions say of a law, target by target."""
    member = simplex.group_rows(sample.W)
    observed = simplex.group_means(sample.Y, member)
    predicted = simplex.group_means(held_out.mean, member)
    inside = np.abs(sample.Y - held_out.mean) <= diagnostics.Z * held_out.sd
    found = []
    for m, target in enumerate(targets):
        rank = diagnostics.spearman(observed[:, m], predicted[:, m])
        low, high = rank_interval(rank, len(observed))
        found.append(
            TargetQuality(
                target=target,
                rank_correlation=rank,
                low=low,
                high=high,
                error=float(np.abs(sample.Y[:, m] - held_out.mean[:, m]).mean()),
                spread=float(observed[:, m].std(ddof=1)),
                coverage=float(inside[:, m].mean()),
                noise=float(sample.noise[..., m].mean()),
            )
        )
    return tuple(found)


def rank_interval(rank: float, count: int, level: float = 0.95) -> tuple[float, float]:
    """Interval of a rank correlation of `count` pairs.

    Source: Bonett and Wright 2000, "Sample size requirements for estimating Pearson, Kendall and
    Spearman correlations" (Psychometrika 65): Fisher's z with variance (1 + r^2 / 2) / (n - 3).
    It is infinite at 1; so orders without a mistake count as half of the least one (a convention).
    """
    if count < 4:
        return -1.0, 1.0
    most = 1 - 6 / (count * (count**2 - 1))
    z = math.atanh(max(-most, min(most, rank)))
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt((1 + rank**2 / 2) / (count - 3))
    return math.tanh(z - half), math.tanh(z + half)


def quality_warnings(
    qualities: Sequence[TargetQuality], runs: int, mixtures: int
) -> tuple[str, ...]:
    """What a reader must know before a fitted law is used, a sentence each."""
    lines = [
        f"{one.target!r} is ranked poorly: held-out rank correlation {one.rank_correlation:.2f} "
        f"({one.low:.2f} to {one.high:.2f}), wanted {evidence_grade.RANK}: train more mixtures or "
        "longer proxies"
        for one in qualities
        if one.rank_correlation < evidence_grade.RANK
    ]
    narrow = [
        f"{one.target!r} ({one.coverage:.0%})"
        for one in qualities
        if _chance(round(one.coverage * runs), runs) < UNLIKELY
    ]
    if narrow:
        lines.append(
            f"intervals are too narrow: fewer than {LEVEL:.0%} of the held-out runs lie in those "
            f"of {', '.join(narrow)}"
        )
    if not any(one.noise for one in qualities):
        lines.append(
            f"none of {mixtures} mixtures was run with two seeds, so the noise of a score is "
            "unknown: repeat two of them"
        )
    return tuple(lines)


def _chance(inside: int, runs: int) -> float:
    """Chance that at most so many of some runs lie in intervals of `LEVEL`, if these are right."""
    return sum(math.comb(runs, k) * LEVEL**k * (1 - LEVEL) ** (runs - k) for k in range(inside + 1))
