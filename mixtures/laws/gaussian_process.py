"""Gaussian process on the square roots of the shares, anisotropic.

Source: Rasmussen and Williams 2006, "Gaussian processes for machine learning", chapters 2 and 5;
Olmix fits an isotropic one on the shares themselves. Square roots make the simplex a piece of a
sphere on which Euclidean distance is Hellinger's, so that a share going from 0 to 1 % moves as far
as one going from 36 % to 49 %.

Departures: a linear trend; priors pooled over the targets, noise by run, and noise that targets
share (see `gaussian_field`); the logarithm of scores that are all positive. The deviation is
calibrated by cross-validation.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import Law, Prediction, calibration
from cuvee.mixtures.laws import gaussian_field as field
from cuvee.mixtures.laws.observations import observe
from cuvee.mixtures.registry import register

Tables = tuple[Array, Array, Array]  # shares (N, K), scaled scores and noise variances (M, N)

MOST = 1_500  # runs: a fit of 512 takes most of a minute, and one of these 25 times as much work


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
    tables: Tables, power: float, prior: field.Prior, start: TrendField | None
) -> TrendField:
    """Fit fields with a linear trend."""
    W, y, known = tables
    X, level = W**power, float(concentration(W).mean())
    trend = np.broadcast_to(X, (len(y), *X.shape))
    data = field.FieldData(X, y, trend, concentration(W) - level, known)
    return TrendField(field.fit_fields(data, prior, start.fields if start else None), power, level)


class FieldModel(Protocol):
    """Fields of all targets, in scaled scores."""

    def predict(self, W: Array) -> tuple[Array, Array]:
        """Scaled means and variances (M, n)."""
        ...


@dataclass(frozen=True)
class FittedFields:
    """A fitted law of fields.

    Attributes:
        model: means and variances (M, n) of scaled scores at mixtures (n, K).
        center: (M,) subtracted from (the logarithm of) the scores.
        spread: (M,) that they are divided by.
        logs: whether logarithms were taken.
        width: of the deviations, from cross-validation.
    """

    model: FieldModel
    center: Array
    spread: Array
    logs: bool
    width: calibration.Width

    def predict(self, W: Array) -> Prediction:
        W = np.asarray(W, dtype=np.float64)
        scaled, variance = self.model.predict(W)
        mean = self.center + self.spread * scaled.T
        sd = self.spread * (np.sqrt(variance) * self.width.at(concentration(W))).T
        if not self.logs:
            return Prediction(mean, sd)
        mean = np.exp(mean)
        return Prediction(mean, sd * mean)


class FieldLaw(Law):
    """What `gaussian_process` and `kriging` have in common; an abstract level without state."""

    logarithm: bool
    folds: int

    @abstractmethod
    def model(self, tables: Tables, start: Any | None) -> Any:
        """Fit to the tables, from nothing or, with less work, from an earlier fit."""

    def fit(self, W: Array, Y: Array, noise: Array, rng: np.random.Generator) -> FittedFields:
        data = observe(self, W, Y, noise)
        logs = self.logarithm and bool(data.Y.min() > 0)
        data = data.logarithms() if logs else data
        y, known = data.scaled.T, data.scaled_noise.T**2
        whole = self.model((data.W, y, known), None)

        def refit(kept: calibration.Rows, held: calibration.Rows) -> tuple[Array, Array]:
            found: FieldModel = self.model((data.W[kept], y[:, kept], known[:, kept]), whole)
            return found.predict(data.W[held])

        width = calibration.fold_width(y, concentration(data.W), self.folds, (refit, rng))
        return FittedFields(whole, data.center, data.spread, logs, width)


@register("law")
@dataclass(frozen=True)
class GaussianProcess(FieldLaw):
    """The process without data.

    Take it where you expect no equation to hold and there are a hundred runs or more; from fewer
    `kriging` is safer.

    Attributes:
        power: of the shares in the metric; 1/2 is Hellinger's.
        logarithm: whether positive scores are fitted by their logarithm.
        length: prior mean of the logarithm of the inverse lengths.
        noise: prior mean of the log noise variance, for scores of variance 1.
        folds: folds of the cross-validation that calibrates the deviations.
        most: runs that it is fitted to at most; more are refused.
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

    def model(self, tables: Tables, start: TrendField | None) -> TrendField:
        W, y, _ = tables
        prior = field.Prior(np.full((len(y), W.shape[1]), self.length), noise=self.noise)
        again = replace(prior, rounds=2, steps=8, more=8)
        return fit_trend(tables, self.power, again if start else prior, start)
