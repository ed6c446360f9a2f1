"""Kriging laws: a parametric mean and a Gaussian process, calibrated; `kriging` is the default.

    L_m(r) = mean_m(r) + f_m(r) + noise

f_m is a Gaussian process on the shares to the power `power` (see `gaussian_field`). The mean
carries the fit where runs are few; the process corrects it where they are many. The mean's
derivatives by its parameters are the process's trend, so that its parameters are corrected
together with f (universal kriging, Cressie 1993, section 3.4, linearized).

`gaussian_process` has a linear mean in the shares to the power. Square roots make the simplex a
piece of a sphere on which Euclidean distance is Hellinger's, so that a share going from 0 to 1 %
moves as far as one going from 36 % to 49 %. Olmix fits an isotropic process on the shares.

`kriging` is the average of two such fields, with a linear mean and with a saturating power law,

    c_m + (b_m0 + sum_j b_mj r_j^p_m)^(-g_m)

They err differently; on the training rows of the RegMix tables the average was better than either
at every number of rows. A domain that the power law finds useful to a target is given a shorter
length in f (`sway`). Runs that the fields find noisy weigh less in a second fit of the power law.

The deviations are calibrated by cross-validation, in closed form at the whole's hyper-parameters.
This law is our own. Settings were chosen on held-out training rows of the RegMix tables.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import (
    Law,
    Prediction,
    calibration,
    curves,
    least_squares,
)
from cuvee.mixtures.laws import gaussian_field as field
from cuvee.mixtures.laws.observations import (
    concentration,
    observe,
    scattered_rows,
)
from cuvee.mixtures.laws.saturating_power import saturating_form
from cuvee.mixtures.registry import register

Tables = tuple[Array, Array, Array]  # shares (N, K), scaled scores and noise variances (M, N)

FIRST_SHARE = 4  # position of log b_1 among the power law's parameters
RIDGE = (1e-2, 1e-4)  # prior precision of the trend, on the power law's prior and on all
POWER_LENGTH, LINEAR_LENGTH = -1.7, -1.2  # prior means of log inverse lengths
UNSET = np.empty((0, 0))  # lengths, which each fit fills in
FIRST = field.Prior(UNSET, rounds=4, steps=25, more=8)  # from the prior
AGAIN = field.Prior(UNSET, rounds=2, steps=6, more=4)  # from an earlier fit
POWER_NOISE, LINEAR_NOISE = -1.0, -4.0  # prior means of log noise, relative to what is kriged
STEPS, REFIT_STEPS = 40, 6  # of the power law's fit
CHUNK = 2048  # mixtures predicted at a time


@dataclass(frozen=True)
class PowerMean:
    """A fitted power law as the mean of fields.

    Attributes:
        form: the power law.
        p: (M, P) its parameters.
        strength: (M,) of its prior.
        basis: (P, P) from its derivatives to the trend's basis.
        scale: (M,) deviation of its left-out residuals.
    """

    form: curves.Form
    p: Array
    strength: Array
    basis: Array
    scale: Array

    def at(self, W: Array, X: Array) -> tuple[Array, Array]:
        """Values (M, n) and trend basis (M, n, P) at mixtures (n, K)."""
        values, jacobian = self.form.curve(self.p, W)
        return values, jacobian @ self.basis


@dataclass(frozen=True)
class LinearMean:
    """No law: what is linear in the shares to the power is the trend's.

    Attributes:
        scale: (M,) 1.
    """

    scale: Array

    def at(self, W: Array, X: Array) -> tuple[Array, Array]:
        """Values (M, n) and trend basis (M, n, K) at mixtures (n, K)."""
        m = len(self.scale)
        return np.zeros((m, len(X))), np.broadcast_to(X, (m, *X.shape))


@dataclass(frozen=True)
class Kriged:
    """Fields around a mean, in scaled scores.

    Attributes:
        mean: of all targets.
        fields: of what it leaves, in units of its scale.
        power: of the shares in the metric.
        level: mean concentration of the runs.
    """

    mean: PowerMean | LinearMean
    fields: field.Fields
    power: float
    level: float

    def predict(self, W: Array) -> tuple[Array, Array]:
        """Scaled means and deviations (M, n)."""
        X, scale = W**self.power, self.mean.scale[:, None]
        values, trend = self.mean.at(W, X)
        mean, variance = self.fields.predict(X, trend, concentration(W) - self.level)
        return values + scale * mean, scale * np.sqrt(variance)

    def means(self, W: Array) -> Array:
        """Scaled means (M, n)."""
        X = W**self.power
        values, trend = self.mean.at(W, X)
        return values + self.mean.scale[:, None] * self.fields.means(X, trend)

    @property
    def left_out(self) -> tuple[Array, Array]:
        """Residuals (M, N) of runs under a fit without their block, and their deviations."""
        residual, variance = self.fields.left_out[0]
        scale = self.mean.scale[:, None]
        return scale * residual, scale * np.sqrt(variance)


@dataclass(frozen=True)
class FittedFields:
    """A fitted law of fields.

    Attributes:
        members: fields whose average it is.
        center: (M,) subtracted from (the logarithm of) the scores.
        spread: (M,) that they are divided by.
        logs: whether logarithms were taken.
        width: of the deviations, from cross-validation.
    """

    members: tuple[Kriged, ...]
    center: Array
    spread: Array
    logs: bool
    width: calibration.Width

    def predict(self, W: Array) -> Prediction:
        W = np.asarray(W, dtype=np.float64)
        parts = [self._part(W[i : i + CHUNK]) for i in range(0, len(W), CHUNK)]
        return Prediction(
            np.concatenate([p.mean for p in parts]), np.concatenate([p.sd for p in parts])
        )

    def _part(self, W: Array) -> Prediction:
        found = [member.predict(W) for member in self.members]
        mean = self.center + self.spread * np.mean([mean for mean, _ in found], axis=0).T
        deviation = np.mean([sd for _, sd in found], axis=0)
        sd = self.spread * (deviation * self.width.at(concentration(W))).T
        if not self.logs:
            return Prediction(mean, sd)
        mean = np.exp(mean)
        return Prediction(mean, sd * mean)


class FieldLaw(Law):
    """What `gaussian_process` and `kriging` have in common; an abstract level without state."""

    logarithm: bool
    folds: int

    @abstractmethod
    def members(self, tables: Tables, blocks: field.Partition) -> tuple[Kriged, ...]:
        """Fit to the tables; blocks of runs are left out once each, for calibration."""

    def fit(self, W: Array, Y: Array, noise: Array, rng: np.random.Generator) -> FittedFields:
        data = observe(self, W, Y, noise)
        logs = self.logarithm and bool(data.Y.min() > 0)
        data = data.logarithms() if logs else data
        blocks = tuple(held for _, held in calibration.random_folds(len(data.W), self.folds, rng))
        members = self.members((data.W, data.scaled.T, data.scaled_noise.T**2), blocks)
        residuals, sd = (
            np.mean(x, axis=0) for x in zip(*(m.left_out for m in members), strict=True)
        )
        width = calibration.fold_width(
            residuals, sd, concentration(data.W), self.folds, data.W.shape[1] + field.HEAD
        )
        return FittedFields(members, data.center, data.spread, logs, width)


def _field_data(
    mean: PowerMean | LinearMean, tables: Tables, power: float, level: float
) -> field.FieldData:
    """What a mean leaves of the tables to its fields."""
    W, y, known = tables
    X, scale = W**power, mean.scale[:, None]
    values, trend = mean.at(W, X)
    return field.FieldData(
        X=X,
        y=(y - values) / scale,
        trend=trend,
        spread=concentration(W) - level,
        known=known / scale**2,
        scattered=scattered_rows(W, y),
    )


def _kriged(
    mean: PowerMean | LinearMean,
    tables: Tables,
    power: float,
    prior: field.Prior,
    blocks: field.Partition = (),
    start: Array | None = None,
) -> Kriged:
    """Krige what a mean leaves."""
    level = float(concentration(tables[0]).mean())
    data = _field_data(mean, tables, power, level)
    partitions = (blocks,) if blocks else ()
    return Kriged(mean, field.fit_fields(data, prior, partitions, start), power, level)


@register("law")
@dataclass(frozen=True)
class Kriging(FieldLaw):
    """Kriged power law, the default: a saturating power law, and what it leaves is kriged.

    The average of two fields: a Gaussian process around the power law
    `c_m + (b_m0 + sum_j b_mj r_j^p_m)^(-g_m)`, and one on a linear trend alone. The equation
    carries the fit where runs are few; the process corrects it where they are many.

    Take it with `regmix`, and wherever you know no better: no law ranked unseen mixtures clearly
    better in our comparisons, from few runs or many, and its deviations are calibrated. It is the
    default.

    Attributes:
        power: power of the shares in the metric of the fields.
        sway: how far a domain's log b moves its prior log inverse length.
        logarithm: whether positive scores are fitted by their logarithm.
        folds: folds of the cross-validation that calibrates the deviations.
        most: no longer needed: any number of runs is fitted.
    """

    name = "kriging"

    power: float = 0.35
    sway: float = 0.2
    logarithm: bool = True
    folds: int = 5
    most: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.power <= 1 or self.folds < 2 or self.sway < 0:
            raise RecipeError(
                "kriging needs a power in (0, 1], a sway of at least 0 and at least 2 folds; got "
                f"power {self.power}, sway {self.sway}, folds {self.folds}"
            )

    def rows(self, domains: int) -> int:
        return domains + 5

    def members(self, tables: Tables, blocks: field.Partition) -> tuple[Kriged, ...]:
        W, y, _ = tables
        form = saturating_form(W.shape[1])
        solution, strength = curves.solved_form(form, W, y, np.ones_like(y), steps=STEPS)
        flat = LinearMean(np.ones(len(y)))

        def lengths(level: float, prior: field.Prior, noise: float) -> field.Prior:
            log_b = solution.p[:, FIRST_SHARE:]
            swayed = self.sway * (log_b - log_b.mean(axis=1, keepdims=True))
            return replace(prior, lengths=level + swayed, noise=noise)

        prior = lengths(LINEAR_LENGTH, FIRST, LINEAR_NOISE)
        level = float(concentration(W).mean())
        theta, factors = field.hyper_parameters(_field_data(flat, tables, self.power, level), prior)
        v = _weights(form, tables, factors, solution.p)
        solution = curves.held_form(form, W, y, v, strength, solution.p, steps=STEPS)
        prior = lengths(LINEAR_LENGTH, AGAIN, LINEAR_NOISE)
        linear = _kriged(flat, tables, self.power, prior, blocks, theta)
        precision = RIDGE[0] * form.prior + RIDGE[1] * np.eye(len(form.prior))
        basis = np.linalg.cholesky(np.linalg.inv(precision))
        scale = np.sqrt(np.mean(solution.left_out**2, axis=1)) + 1e-6
        mean = PowerMean(form, solution.p, strength, basis, scale)
        prior = lengths(POWER_LENGTH, FIRST, POWER_NOISE)
        return _kriged(mean, tables, self.power, prior, blocks), linear


def _weights(form: curves.Form, tables: Tables, factors: Array, p: Array) -> Array:
    """(M, N) weights of the power law's fit, from known noise, run factors and residuals."""
    W, y, known = tables
    r = (y - form.curve(p, W)[0]) * np.exp(-0.5 * factors)
    v = least_squares.noise_weights(r, np.sqrt(known)) * least_squares.huber_weights(
        r, curves.HUBER
    )
    v = v * np.exp(-factors)
    return np.asarray(v / v.mean(axis=1, keepdims=True), dtype=np.float64)


@register("law")
@dataclass(frozen=True)
class GaussianProcess(FieldLaw):
    """Gaussian process on the square roots of the shares, anisotropic.

    A linear trend and a process in Hellinger's metric, in which a share going from 0 to 1 % moves
    as far as one going from 36 % to 49 %; Rasmussen and Williams 2006, chapters 2 and 5.

    Take it where you expect no equation to hold and there are a hundred runs or more; from fewer
    `kriging` is safer.

    Attributes:
        power: of the shares in the metric; 1/2 is Hellinger's.
        logarithm: whether positive scores are fitted by their logarithm.
        length: prior mean of the logarithm of the inverse lengths.
        noise: prior mean of the log noise variance, for scores of variance 1.
        folds: folds of the cross-validation that calibrates the deviations.
        most: no longer needed: any number of runs is fitted.
    """

    name = "gaussian_process"

    power: float = 0.5
    logarithm: bool = True
    length: float = -1.2
    noise: float = -4.0
    folds: int = 5
    most: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.power <= 1 or self.folds < 2:
            raise RecipeError(
                "gaussian_process needs a power in (0, 1] and at least 2 folds; got "
                f"power {self.power}, folds {self.folds}"
            )

    def rows(self, domains: int) -> int:
        return domains + 2

    def members(self, tables: Tables, blocks: field.Partition) -> tuple[Kriged, ...]:
        W, y, _ = tables
        prior = field.Prior(np.full((len(y), W.shape[1]), self.length), noise=self.noise)
        return (_kriged(LinearMean(np.ones(len(y))), tables, self.power, prior, blocks),)
