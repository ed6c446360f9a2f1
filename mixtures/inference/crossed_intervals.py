"""Intervals of a paired gain: over new seeds, and over new seeds and new items.

Two mixtures are trained with the same S seeds and scored on the same I units (documents, items of a
task), so their difference is a crossed table D (S, I). With c_i what unit i favors one mixture by
and e_si what is left,

    gain_s = gain + a_s + mean_i (c_i + e_si)
    Var(mean gain) = s2_a / S + s2_c / I + s2_e / (S I)

The seed component is taken from the gains in the whole objective, so that seeds that are good for
several targets at once count in full; units are nested in targets, and other targets have other
units. With mean squares of seeds, units and their interaction, each divided to be the variance of a
mean, the estimate is

    V = max(V_seed, sum_m E_m) + sum_m max(0, V_unit,m - E_m)

where E_m, the interaction's, is in both of the others and is taken off once; negative components
are truncated. Its degrees of freedom are those of the components weighted by variance, 1/v = sum_j
(V_j / V) / v_j. That is this project's own choice: Satterthwaite's (1946) for sums and differences
of mean squares are more, and over three seeds under-cover, as the multi-bootstrap does (Sellam et
al. 2022, "The MultiBERTs", section 3); docs/results/evidence.md compares them. Where items add
little, more degrees of freedom could make the interval narrower than Student's over seeds; the
wider of the two is taken.

What a unit adds to the score of its target is its pseudo-value of the delete-one jackknife (Efron
and Stein 1981): for a ratio of sums, the residual linearized and weighted by bytes. It holds for
gains in weighted means of targets alone. The largest of several noisy scores (a worst target, a
regret) is biased where they lie close, by more than the interval is wide; the jackknife mends a
bias of a smooth function only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference.diagnostics import paired_mean
from cuvee.mixtures.recommendation import LEVEL, Estimate

SEEDS = "new seeds"
ITEMS = "new seeds and new items"
FEWEST = 30  # units of a target: from here on their variance can be told


@dataclass(frozen=True)
class GainInterval:
    """The mean of a paired gain with its interval and one-sided test.

    Attributes:
        mean: over seeds, positive is better.
        low: lower end.
        high: upper end.
        p: one-sided probability of a mean this high if the true one were zero.
        degrees: of freedom, of Student's t.
        covers: for what it holds: `SEEDS` or `ITEMS`.
        over_seeds: Student's interval over new seeds alone.
        items: the part of the mean's standard error that new items bring, whatever the seeds.
    """

    mean: float
    low: float
    high: float
    p: float
    degrees: float
    covers: str
    over_seeds: Estimate
    items: float = 0.0


def gain_interval(
    values: Sequence[float], parts: Sequence[Array] = (), *, level: float = LEVEL
) -> GainInterval:
    """The mean gain with its interval, over new seeds, and over new units where these are given.

    Args:
        values: (S,) gains, one a seed.
        parts: (S, I_m) pseudo-values of each target's units, from `unit_values`, times its weight
            in the gain; all targets that the gain reads. Without any, Student's t over seeds.
        level: coverage.

    Raises:
        EvidenceError: fewer than 2 seeds or than `FEWEST` units, or a value that is not finite.
    """
    from scipy import stats  # here: see `simplex`

    alone = paired_mean(list(values), level)
    seeds = float(np.var(values, ddof=1)) / alone.n, alone.n - 1.0
    over = Estimate(alone.mean, alone.low, alone.high)
    if not parts:
        return GainInterval(alone.mean, alone.low, alone.high, alone.p, seeds[1], SEEDS, over)
    components = crossed_components(*seeds, [mean_squares(part) for part in parts])
    total = sum(variance for variance, _ in components)
    degrees = total / sum(v / d for v, d in components) if total > 0 else seeds[1]
    error = math.sqrt(total)
    half = max(float(stats.t.ppf(0.5 + level / 2, degrees)) * error, alone.high - alone.mean)
    p = max(float(stats.t.sf(alone.mean / error, degrees)) if error > 0 else 0.0, alone.p)
    ends, items = (alone.mean - half, alone.mean + half), math.sqrt(total - components[0][0])
    return GainInterval(alone.mean, *ends, p, degrees, ITEMS, over, items)


def crossed_components(
    seeds: float, degrees: float, parts: Sequence[tuple[float, float, int]]
) -> list[tuple[float, float]]:
    """Variances of the mean gain with their degrees of freedom: of seeds, of each part's units."""
    least = sum(interaction for _, interaction, _ in parts)
    counts = [(max(0.0, units - interaction), count - 1.0) for units, interaction, count in parts]
    return [(max(seeds, least), degrees), *counts]


def mean_squares(part: Array) -> tuple[float, float, int]:
    """Variance of the mean by units and by their interaction with seeds, and the units."""
    S, count = part.shape
    if count < FEWEST or not np.all(np.isfinite(part)):
        raise EvidenceError(f"an interval over units needs {FEWEST} finite ones; got {count}")
    rest = part - part.mean(axis=0) - part.mean(axis=1, keepdims=True) + part.mean()
    interaction = float(np.square(rest).sum()) / ((S - 1) * (count - 1)) / (S * count)
    return float(part.mean(axis=0).var(ddof=1)) / count, interaction, count


def unit_values(totals: Array, sizes: Array) -> Array:
    """What each unit of one target adds to its score, or to a gain in it: pseudo-values (S, I).

    Args:
        totals: (S, I) of the units, by seed: the score is `totals.sum() / sizes.sum()`.
        sizes: (I,) of the units, positive in sum without any one of them.
    """
    count, whole = len(sizes), totals.sum(axis=1, keepdims=True)
    without = (whole - totals) / (sizes.sum() - sizes)
    return np.asarray(count * whole / sizes.sum() - (count - 1) * without, dtype=np.float64)
