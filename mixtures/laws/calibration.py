"""Calibration: standard deviations that mean what they say.

A law's formula for its own uncertainty is right in shape at best: misfit is not noise. So the
standard deviations are multiplied by one factor per target, chosen on predictions of runs that the
fit did not see: the factor at which 90 % of them would have fallen inside the 90 % interval
(split conformal prediction; Lei et al. 2018, algorithm 2, with normalized residuals). The ends of
such an interval are `mean +- NORMAL_90 * sd`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.domains import Array

Rows = NDArray[np.intp]  # positions of runs

NORMAL_90 = 1.6448536269514722  # half-width of a 90 % interval in standard deviations
LEVEL = 0.90
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
