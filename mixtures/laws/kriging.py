"""Kriged power law, the default: a saturating power law, and what it leaves is kriged.

    L_m(r) = c_m + (b_m0 + sum_j b_mj r_j^p_m)^(-g_m) + f_m(r) + noise

f_m is a Gaussian process on the shares to the power `power` (see `gaussian_field`). The
equation carries the fit where runs are few; the process corrects it where they are many. The
equation's derivatives by its parameters are the process's trend, so that its parameters are
corrected together with f (universal kriging, Cressie 1993, section 3.4, linearized). A domain that
the equation finds useful to a target is given a shorter length in f (`sway`).

The prediction is the mean of two such fields: on the power law and on a linear trend alone. They
err differently; on the training rows of the RegMix tables the mean was better than either at every
number of rows.

Runs that the fields find noisy weigh less in a second fit of the power law. The deviation is
calibrated by cross-validation, in which everything is fitted anew but
hyper-parameters start from those of the whole.

This law is our own. Settings were chosen on held-out training rows of the RegMix tables.
"""

from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import curves, least_squares, saturating_power
from cuvee.mixtures.laws import gaussian_field as field
from cuvee.mixtures.laws.gaussian_process import (
    MOST,
    FieldLaw,
    Tables,
    TrendField,
    concentration,
    fit_trend,
)
from cuvee.mixtures.registry import register

FIRST_SHARE = 4  # position of log b_1 among the power law's parameters
RIDGE = (1e-2, 1e-4)  # prior precision of the trend, on the power law's prior and on all
POWER_LENGTH, LINEAR_LENGTH = -1.7, -1.2  # prior means of log inverse lengths
UNSET = np.empty((0, 0))  # lengths, which each fit fills in
FIRST = field.Prior(UNSET, rounds=4, steps=25, more=8)  # from the prior
AGAIN = field.Prior(UNSET, rounds=2, steps=6, more=4)  # from an earlier fit
POWER_NOISE, LINEAR_NOISE = -1.0, -4.0  # prior means of log noise, relative to what is kriged


@dataclass(frozen=True)
class PowerField:
    """Power law and fields, in scaled scores.

    Attributes:
        form: the power law.
        p: (M, P) its parameters.
        basis: (P, P) from its derivatives to the trend's basis.
        scale: (M,) deviation of its left-out residuals.
        fields: of what it leaves.
        linear: fields on a linear trend alone.
    """

    form: curves.Form
    p: Array
    basis: Array
    scale: Array
    fields: field.Fields
    linear: TrendField

    def predict(self, W: Array) -> tuple[Array, Array]:
        """Scaled means and variances (M, n)."""
        values, jacobian = self.form.curve(self.p, W)
        spread = concentration(W) - self.linear.level
        mean, variance = self.fields.predict(W**self.linear.power, jacobian @ self.basis, spread)
        mean = values + self.scale[:, None] * mean
        sd = self.scale[:, None] * np.sqrt(variance)
        other, other_variance = self.linear.predict(W)
        return 0.5 * (mean + other), (0.5 * (sd + np.sqrt(other_variance))) ** 2


@register("law")
@dataclass(frozen=True)
class Kriging(FieldLaw):
    """The law without data.

    Take it with `regmix`, and wherever you know no better: no law ranked unseen mixtures clearly
    better in our comparisons, from few runs or many, and its deviations are calibrated. It is the
    default.

    Attributes:
        power: power of the shares in the metric of the fields.
        sway: how far a domain's log b moves its prior log inverse length.
        logarithm: whether positive scores are fitted by their logarithm.
        folds: folds of the cross-validation that calibrates the deviations.
        most: runs that it is fitted to at most; more are refused.
    """

    name = "kriging"

    power: float = 0.35
    sway: float = 0.2
    logarithm: bool = True
    folds: int = 5
    most: int = MOST

    def __post_init__(self) -> None:
        if not 0 < self.power <= 1 or self.folds < 2 or self.sway < 0:
            raise RecipeError(
                "kriging needs a power in (0, 1], a sway of at least 0 and at least 2 folds; got "
                f"power {self.power}, sway {self.sway}, folds {self.folds}"
            )

    def rows(self, domains: int) -> int:
        return domains + 5

    def model(self, tables: Tables, start: PowerField | None) -> PowerField:
        """Fit to the tables, from nothing or from an earlier fit."""
        W, y, _ = tables
        form = saturating_power.saturating_form(W.shape[1])
        solution = curves.solve_form(form, W, y, np.ones_like(y), start.p if start else None)
        linear = self._linear(tables, solution.p, AGAIN if start else FIRST, start)
        solution = curves.solve_form(
            form, W, y, _weights(form, tables, linear, solution.p), solution.p
        )
        linear = self._linear(tables, solution.p, AGAIN, linear)
        prior = replace(AGAIN if start else FIRST, noise=POWER_NOISE)
        prior = replace(prior, lengths=POWER_LENGTH + self._swayed(solution.p))
        return _kriged((form, solution), tables, linear, prior, start.fields if start else None)

    def _swayed(self, p: Array) -> Array:
        """(M, K) shift of the log inverse lengths by what the power law finds useful."""
        log_b = p[:, FIRST_SHARE:]
        return np.asarray(self.sway * (log_b - log_b.mean(axis=1, keepdims=True)))

    def _linear(
        self, tables: Tables, p: Array, prior: field.Prior, start: PowerField | TrendField | None
    ) -> TrendField:
        lengths = LINEAR_LENGTH + self._swayed(p)
        before = start.linear if isinstance(start, PowerField) else start
        prior = replace(prior, lengths=lengths, noise=LINEAR_NOISE)
        return fit_trend(tables, self.power, prior, before)


def _weights(form: curves.Form, tables: Tables, linear: TrendField, p: Array) -> Array:
    """(M, N) weights of the power law's fit, from known noise, run factors and residuals."""
    W, y, known = tables
    factors = linear.fields.factors
    r = (y - form.curve(p, W)[0]) * np.exp(-0.5 * factors)
    v = least_squares.noise_weights(r, np.sqrt(known)) * least_squares.huber_weights(
        r, curves.HUBER
    )
    v = v * np.exp(-factors)
    return np.asarray(v / v.mean(axis=1, keepdims=True), dtype=np.float64)


def _kriged(
    fitted: tuple[curves.Form, least_squares.Solution],
    tables: Tables,
    linear: TrendField,
    prior: field.Prior,
    start: field.Fields | None,
) -> PowerField:
    """Krige what a fitted power law leaves."""
    (form, solution), (W, y, known) = fitted, tables
    values, jacobian = form.curve(solution.p, W)
    precision = RIDGE[0] * form.prior + RIDGE[1] * np.eye(len(form.prior))
    basis = np.linalg.cholesky(np.linalg.inv(precision))
    scale = np.sqrt(np.mean(solution.left_out**2, axis=1)) + 1e-6
    data = field.FieldData(
        X=W**linear.power,
        y=(y - values) / scale[:, None],
        trend=jacobian @ basis,
        spread=concentration(W) - linear.level,
        known=known / scale[:, None] ** 2,
    )
    return PowerField(form, solution.p, basis, scale, field.fit_fields(data, prior, start), linear)
