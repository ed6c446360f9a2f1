"""Standard deviations that mean what they say.

A law's formula for its own uncertainty is right in shape at best: misfit is not noise. So the
standard deviations are multiplied by one factor per target, chosen on predictions of runs that the
fit did not see: the factor at which 90 % of them would have fallen inside the 90 % interval
(split conformal prediction; Lei et al. 2018, algorithm 2, with normalized residuals). The ends of
such an interval are `mean +- NORMAL_90 * sd`.
"""

import math

import numpy as np
from numpy.typing import NDArray

from mixtures.domains import Array

Rows = NDArray[np.intp]  # positions of runs

NORMAL_90 = 1.6448536269514722  # half-width of a 90 % interval in standard deviations
LEVEL = 0.90


def factor(residuals: Array, sd: Array) -> Array:
    """What to multiply the standard deviations with, per target (M,).

    Args:
        residuals: (N, M) of held-out predictions.
        sd: (N, M) uncalibrated standard deviations of the same predictions.

    Returns:
        The ceil(0.9 (N + 1))-th smallest of |residual| / sd, over that of a normal distribution;
        the largest where N is too small for that.
    """
    n = len(residuals)
    ratios = np.sort(np.abs(residuals) / np.maximum(sd, 1e-300), axis=0)
    rank = min(n, math.ceil(LEVEL * (n + 1))) - 1
    return np.asarray(np.maximum(ratios[rank] / NORMAL_90, 1e-12), dtype=np.float64)


def folds(rows: int, count: int, rng: np.random.Generator) -> tuple[Rows, ...]:
    """Rows dealt at random to `count` folds of nearly equal size, as arrays of positions."""
    order = rng.permutation(rows)
    return tuple(np.sort(order[i::count]) for i in range(min(count, rows)))
