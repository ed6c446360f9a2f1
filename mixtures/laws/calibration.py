"""Calibration: what runs that a fit did not see say of its deviations and of laws' weights.

A law's formula for its own uncertainty is right in shape at best: misfit is not noise. So the
standard deviations are multiplied by one factor per target, chosen on predictions of runs that the
fit did not see: the factor at which 90 % of them would have fallen inside the 90 % interval
(split conformal prediction; Lei et al. 2018, algorithm 2, with normalized residuals). The ends of
such an interval are `mean +- NORMAL_90 * sd`.

Random folds ask how a law fills gaps between runs; held-out regions ask how it goes beyond them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.spatial.distance import cdist

from cuvee.mixtures.domains import Array

Rows = NDArray[np.intp]  # positions of runs

NORMAL_90 = 1.6448536269514722  # half-width of a 90 % interval in standard deviations
LEVEL = 0.90
SAME, ROUNDS = 1e-6, 20  # distance of one place; rounds of the clustering
SUM = 1e3  # weight of the equation "the weights sum to one" in the least squares
BLOCK = 1024  # rows whose distances are known at a time
RATE = 0.3  # errors fall as N^-RATE: 0.3 to 0.5 on training rows of the RegMix tables


def width_factor(residuals: Array, sd: Array) -> Array:
    """What to multiply the standard deviations with, per target (M,).

    The 90 % quantile of |residual| / sd over that of a normal distribution. The conformal
    rank's correction for few runs is left out: folds fit fewer runs than the whole, which
    widens intervals already.

    Args:
        residuals: (N, M) of held-out predictions.
        sd: (N, M) uncalibrated standard deviations of the same predictions.
    """
    ratios = np.quantile(np.abs(residuals) / np.maximum(sd, 1e-300), LEVEL, axis=0)
    return np.asarray(np.maximum(ratios / NORMAL_90, 1e-12), dtype=np.float64)


def random_folds(rows: int, count: int, rng: np.random.Generator) -> tuple[tuple[Rows, Rows], ...]:
    """(kept, held out) positions of rows dealt at random to folds of nearly equal size."""
    order = rng.permutation(rows)
    folds = [np.sort(order[i::count]) for i in range(min(count, rows))]
    return tuple((np.setdiff1d(np.arange(rows), fold), fold) for fold in folds)


def region_folds(X: Array, order: Rows, count: int) -> tuple[Rows, ...]:
    """Rows in clusters (k-means), each of which is a region that the others do not reach into.

    Args:
        X: (N, K) where each row lies.
        order: (N,) of the rows, in which ties are broken.
        count: clusters, fewer where the rows lie at fewer places.
    """
    P = X[order]
    far = [cdist(P[i : i + BLOCK], P).sum(axis=1) for i in range(0, len(P), BLOCK)]
    centers = P[[int(np.argmax(np.concatenate(far)))]]
    for _ in range(count - 1):  # each as far from the others as can be
        gap = cdist(P, centers).min(axis=1)
        if gap.max() > SAME:
            centers = np.vstack([centers, P[np.argmax(gap)]])
    for _ in range(ROUNDS):
        nearest = cdist(P, centers).argmin(axis=1)
        centers = np.stack([P[nearest == i].mean(axis=0) for i in np.unique(nearest)])
    nearest = cdist(P, centers).argmin(axis=1)
    return tuple(np.sort(order[nearest == i]) for i in np.unique(nearest))


def convex_weights(residuals: Array, center: Array, pull: float) -> Array:
    """Weights (members,) that are not negative, sum to one, and minimize held-out squares.

    With weights that sum to one, the residual of the mean is the mean of the residuals.

    Args:
        residuals: (members, N) of held-out predictions.
        center: (members,) weights that they are drawn to.
        pull: how strongly, in squared residuals.
    """
    count, n = residuals.shape
    scale = np.sqrt(n * (np.mean(residuals**2) + 1e-24))
    draw = np.sqrt(n * pull) / scale
    system = np.vstack([residuals.T / scale, draw * np.eye(count), np.full((1, count), SUM)])
    weights, _ = nnls(system, np.concatenate([np.zeros(n), draw * center, [SUM]]))
    return np.asarray(weights / weights.sum(), dtype=np.float64)


@dataclass(frozen=True)
class Width:
    """What deviations are multiplied with: a factor per target, and more or less by a covariate.

    Attributes:
        factor: (M,) at the covariate's level.
        slope: of the log deviation in the covariate.
        level: mean covariate of the runs.
    """

    factor: Array
    slope: float
    level: float

    def at(self, covariate: Array) -> Array:
        """(M, n) at covariates (n,)."""
        return np.outer(self.factor, np.exp(self.slope * (covariate - self.level)))


def fold_width(residuals: Array, sd: Array, covariate: Array, count: int, parameters: int) -> Width:
    """Width of deviations from a cross-validation.

    Residuals may grow with a covariate faster or slower than a law's own deviations do; the slope
    of log |residual / sd| in it, over all targets, is taken out before the factors are chosen, so
    that intervals hold for mixtures unlike the runs in this respect (Lei et al. 2018, section 5.2).
    A fold's fit has fewer runs than the whole and errs more; the factors are reduced by as much
    (without that, 92 to 93 % of held-out training rows of the RegMix tables lay inside). What the
    folds share with the whole, such as hyper-parameters, has seen the runs held out: factors are
    raised by as many parts of the runs as there are of them.

    Args:
        residuals: (M, N) of runs under a fit without their fold.
        sd: (M, N) uncalibrated deviations of the same predictions.
        covariate: (N,) of the runs.
        count: folds.
        parameters: of each target that were not fitted anew in each fold.
    """
    level = float(covariate.mean())
    h = covariate - level
    logs = np.log(np.maximum(np.abs(residuals) / sd, 1e-3)).mean(axis=0)
    # One run's targets err together, so that there are N observations of the slope, not N M.
    slope = float(h @ (logs - logs.mean()) / (h @ h + 1.0))
    sd = sd * np.exp(slope * h)
    fewer = (1.0 - 1.0 / count) ** RATE
    seen = 1.0 + parameters / len(covariate)  # its root held too few from few runs
    return Width(width_factor(residuals.T, sd.T) * fewer * seen, slope, level)
