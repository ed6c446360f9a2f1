"""Noise as a function of the mixture: how much noisier runs of one domain are than mixed ones.

    log sd_m(w) = level_m + slope (c(w) - center),   c(w) = log sum_k w_k^2

c is the concentration: 0 for a single domain, -log K for equal shares. Sums of squares within
repeated mixtures are chi-squared; the slope's likelihood, levels maximized out, is summed on a grid
under the prior N(0, `PRIOR`^2). So the slope is shrunk to the pooled deviation by the degrees of
freedom. Targets of one run err together: M count as `M^2 / sum r_mn^2` (r: their correlations).

Assumption: one slope for all targets, and no other feature than the concentration.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.diagnostics import pooled_deviation
from cuvee.mixtures.laws.observations import concentration

PRIOR = 0.5  # deviation of the slope; noise 3 times larger at a vertex of 8 domains is 1 of these
GRID = np.linspace(-3.0, 3.0, 601)  # slopes
CLEAR = 1.96  # posterior deviations of a slope that laws are given


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """Standard deviations over seeds at any mixture.

    Attributes:
        pooled: (M,) of all repeats together, whatever their mixture; 0 without a repeat.
        level: (M,) at the concentration `center`.
        center: mean log concentration of the repeats.
        slope: of log deviations, its posterior mean.
        error: the posterior deviation of the slope.
    """

    pooled: Array
    level: Array
    center: float = 0.0
    slope: float = 0.0
    error: float = PRIOR

    @property
    def clear(self) -> bool:
        """Whether noise clearly differs over mixtures; laws are given the pooled one until then."""
        return abs(self.slope) > CLEAR * self.error

    def at(self, W: Array) -> Array:
        """(n, M) deviations at mixtures W (n, K)."""
        return np.asarray(
            self.level * np.exp(self.slope * (concentration(W) - self.center))[:, None]
        )


def fit_noise(W: Array, Y: Array) -> NoiseModel:
    """The model of runs with shares W (N, K) and scores Y (N, M), some of them repeats."""
    member = simplex.group_rows(W)
    pooled, degrees = pooled_deviation(Y, member)
    left = Y - simplex.group_means(Y, member)[member]
    if not (degrees and left.any()):
        return NoiseModel(np.zeros(Y.shape[1]), np.zeros(Y.shape[1]))
    count, first = np.unique(member, return_counts=True)[1], np.unique(member, return_index=True)[1]
    many = np.flatnonzero(count > 1)
    squares = np.stack([(left[member == g] ** 2).sum(axis=0) for g in many])
    c = concentration(W[first[many]])
    center = float((count[many] - 1) @ c / degrees)
    seen = squares.any(axis=0)  # a target without noise says nothing of a slope
    products = left[:, seen].T @ left[:, seen]
    scale = np.sqrt(np.diag(products))
    targets = seen.sum() ** 2 / np.sum((products / np.outer(scale, scale)) ** 2)
    undone = np.exp(-2.0 * np.outer(GRID, c - center))  # (B, G)
    fit = -0.5 * degrees * np.log(undone @ squares[:, seen]).mean(axis=1)
    log = targets * fit - 0.5 * (GRID / PRIOR) ** 2
    weight = np.exp(log - log.max()) / np.exp(log - log.max()).sum()
    slope = float(weight @ GRID)
    error = float(np.sqrt(weight @ (GRID - slope) ** 2))
    level = np.sqrt(np.exp(-2.0 * slope * (c - center)) @ squares / degrees)
    return NoiseModel(pooled, level, center, slope, error)
