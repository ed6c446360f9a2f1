"""Gaussian process on the square roots of the shares, anisotropic.

Source: Rasmussen and Williams 2006, "Gaussian processes for machine learning", chapters 2 and 5;
Olmix fits an isotropic one on the shares themselves. Square roots make the simplex a piece of a
sphere on which Euclidean distance is Hellinger's, so that a share going from 0 to 1 % moves as far
as one going from 36 % to 49 %.

Departures: a linear trend; priors pooled over the targets, noise by run, and noise that targets
share (see `gaussian_field`); the logarithm of scores that are all positive. The deviation is
calibrated by cross-validation.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import Law, Prediction, calibration
from cuvee.mixtures.laws import gaussian_field as field
from cuvee.mixtures.laws.observations import Observations, check_most, observe
from cuvee.mixtures.registry import register

MOST = 1_500  # runs: a fit of 512 takes most of a minute, and one of these 25 times as much work


@dataclass(frozen=True)
class ScoreScale:
    """From scores to what a field is fitted to, and back.

    Attributes:
        center: (M,) subtracted from (the logarithm of) the scores.
        spread: (M,) that they are divided by.
        logs: whether logarithms were taken.
    """

    center: Array
    spread: Array
    logs: bool

    def prediction(self, mean: Array, sd: Array) -> Prediction:
        """From scaled means and deviations (M, n)."""
        mean = self.center + self.spread * mean.T
        sd = self.spread * sd.T
        if not self.logs:
            return Prediction(mean, sd)
        mean = np.exp(mean)
        return Prediction(mean, sd * mean)


def scale_scores(data: Observations, logarithm: bool) -> tuple[Observations, ScoreScale]:
    """The data that fields are fitted to; logarithms only where every score is positive."""
    logs = logarithm and bool(data.Y.min() > 0)
    data = data.logarithms() if logs else data
    return data, ScoreScale(data.center, data.spread, logs)


def concentration(W: Array) -> Array:
    """(N,) log of the sum of squared shares: 0 for one domain, -log K for equal shares."""
    return np.asarray(np.log(np.sum(W**2, axis=1)), dtype=np.float64)


@dataclass(frozen=True)
class TrendField:
    """Fitted fields with a linear trend, in scaled scores.

    Attributes:
        fields: of all targets.
        power: of the shares in the metric.
        level: mean concentration of the runs.
    """

    fields: field.Fields
    power: float
    level: float

    def predict(self, W: Array) -> tuple[Array, Array]:
        """Scaled means and variances (M, n)."""
        X = W**self.power
        trend = np.broadcast_to(X, (len(self.fields.theta), *X.shape))
        return self.fields.predict(X, trend, concentration(W) - self.level)


def fit_trend(
    tables: tuple[Array, Array, Array], power: float, prior: field.Prior, start: TrendField | None
) -> TrendField:
    """Fit a surface to shares (N, K), scaled scores (M, N) and known noise variances (M, N)."""
    W, y, known = tables
    X, level = W**power, float(concentration(W).mean())
    trend = np.broadcast_to(X, (len(y), *X.shape))
    data = field.FieldData(X, y, trend, concentration(W) - level, known)
    return TrendField(field.fit_fields(data, prior, start.fields if start else None), power, level)


@dataclass(frozen=True)
class FittedGaussianProcess:
    """A fitted process.

    Attributes:
        surface: in scaled scores.
        scale: back to scores.
        width: of the deviations, from cross-validation.
    """

    surface: TrendField
    scale: ScoreScale
    width: calibration.Width

    def predict(self, W: Array) -> Prediction:
        W = np.asarray(W, dtype=np.float64)
        mean, variance = self.surface.predict(W)
        return self.scale.prediction(mean, np.sqrt(variance) * self.width.at(concentration(W)))


@register("law")
@dataclass(frozen=True)
class GaussianProcess(Law):
    """The process without data.

    Attributes:
        power: of the shares in the metric; 1/2 is Hellinger's.
        logarithm: whether positive scores are fitted by their logarithm.
        length: prior mean of the log inverse lengths.
        noise: prior mean of the log noise variance, for scores of variance 1.
        folds: of the cross-validation of the deviations.
        most: runs that are fitted; more are refused.
    """

    name = "gaussian_process"

    power: float = 0.5
    logarithm: bool = True
    length: float = -1.2
    noise: float = -4.0
    folds: int = 5
    most: int = MOST

    def __post_init__(self) -> None:
        if not 0 < self.power <= 1 or self.folds < 2:
            raise RecipeError(
                "gaussian_process needs a power in (0, 1] and at least 2 folds; got "
                f"power {self.power}, folds {self.folds}"
            )

    def rows(self, domains: int) -> int:
        return domains + 2

    def fit(
        self, W: Array, Y: Array, noise: Array, rng: np.random.Generator
    ) -> FittedGaussianProcess:
        check_most(self, len(W))
        given = observe("gaussian_process", self.rows(np.shape(W)[1]), W, Y, noise)
        data, scale = scale_scores(given, self.logarithm)
        y, known = data.scaled.T, data.scaled_noise.T**2
        lengths = np.full((len(y), data.W.shape[1]), self.length)
        prior = field.Prior(lengths, noise=self.noise)
        whole = fit_trend((data.W, y, known), self.power, prior, None)
        again = field.Prior(lengths, noise=self.noise, rounds=2, steps=8, more=8)

        def refit(kept: calibration.Rows, held: calibration.Rows) -> tuple[Array, Array]:
            tables = (data.W[kept], y[:, kept], known[:, kept])
            return fit_trend(tables, self.power, again, whole).predict(data.W[held])

        width = calibration.fold_width(y, concentration(data.W), self.folds, (refit, rng))
        return FittedGaussianProcess(whole, scale, width)
