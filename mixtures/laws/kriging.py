"""Kriging laws: a parametric mean and a Gaussian process, calibrated; `kriging` is the default.

    L_m(r) = mean_m(r) + f_m(r) + noise

f_m is a Gaussian process on the shares to the power `power` (see `gaussian_field`). The mean
carries the fit where runs are few; the process corrects it where they are many. The mean's
derivatives by its parameters are the process's trend, so that its parameters are corrected
together with f (universal kriging, Cressie 1993, section 3.4, linearized).

`gaussian_process` has a linear mean in the shares to the power. Square roots make the simplex a
piece of a sphere on which Euclidean distance is Hellinger's, so that a share going from 0 to 1 %
moves as far as one going from 36 % to 49 %. Olmix fits an isotropic process on the shares.

`kriging` is a weighted average of two such fields, with a linear mean and with a saturating power
law, and of a power law in effective data alone:

    c_m + (b_m0 + sum_j b_mj r_j^p_m)^(-g_m)    and    c_m + (sum_j b_mj r_j)^(-g_m)

The fields err differently; on the training rows of the RegMix tables their average was better than
either at every number of rows. The plain law bends least: it is what holds far from the runs and
at another scale, where bends that a field has learned need not be (`HEDGE`). A domain that the
power law finds useful to a target is given a shorter length in f (`sway`). Runs that the fields
find noisy weigh less in a second fit of the power laws.

The weights of a target minimize the squares of runs under a fit without their fold, of random
folds and of held-out regions alike, and are drawn to `SHARES`: by the fields' own squares, since
few runs tell members apart badly, and by `HEDGE`, which does not vanish with more runs. Deviations
are the fields' with the members' disagreement, calibrated on the random folds. Fields are left out
in closed form at the whole's hyper-parameters, equations by refits.
This law is our own. Settings were chosen on held-out training rows of the RegMix tables; those of
the weights on all tables of MixBench (docs/results/laws.md).
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
from cuvee.mixtures.laws.power import power_form
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
STEPS, REFIT_STEPS = 40, 12  # of the power laws' fits, and of those without a fold
SHARES = (0.35, 0.35, 0.3)  # that weights are drawn to: of both fields and the plain power law
PULL = 3.0  # to them, in squared held-out residuals of the fields' average
HEDGE = 0.003  # the same in squared deviations of a target, for what differs at another scale
STEP = 1e-3  # of the power law's parameters, of order 1, in a difference
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

    def slopes(self, W: Array, X: Array, power: float, trend: Array) -> tuple[Array, Array]:
        """Values (M, n) with a trend (M, P) by weight, and derivatives (M, n, K) by log share."""
        assert self.form.slopes is not None
        values, jacobian = self.form.curve(self.p, W)
        move = trend @ self.basis.T
        step = STEP / (1.0 + np.abs(move).max(axis=1, keepdims=True))
        ahead, behind = (self.form.slopes(self.p + s * step * move, W) for s in (1.0, -1.0))
        slope = self.form.slopes(self.p, W) + (ahead - behind) / (2.0 * step[:, :, None])
        return values + np.einsum("mnp,mp->mn", jacobian, move), slope


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

    def slopes(self, W: Array, X: Array, power: float, trend: Array) -> tuple[Array, Array]:
        """Values (M, n) with a trend (M, K) by weight, and derivatives (M, n, K) by log share."""
        return trend @ X.T, power * trend[:, None, :] * X


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

    def slopes(self, W: Array) -> tuple[Array, Array]:
        """Scaled means (M, n) and their derivatives (M, n, K) by log shares."""
        X, scale = W**self.power, self.mean.scale[:, None]
        by_field, slope = self.fields.slopes(X)
        trend = scale * np.stack([p.trend for p in self.fields.posteriors])
        values, by_mean = self.mean.slopes(W, X, self.power, trend)
        slope *= self.power * scale[:, :, None] * X
        return values + scale * by_field, by_mean + slope

    def draws(self, count: int, widths: Array, rng: np.random.Generator) -> list["Kriged"]:
        """As it may as well be, given the runs; deviations times widths (M,)."""
        return [replace(self, fields=drawn) for drawn in self.fields.draws(count, widths, rng)]

    @property
    def left_out(self) -> tuple[Array, Array]:
        """Residuals (S, M, N) of runs under a fit without their block, and their deviations."""
        residual, variance = self.fields.left_out.swapaxes(0, 1)
        scale = self.mean.scale[:, None]
        return scale * residual, scale * np.sqrt(variance)


@dataclass(frozen=True)
class PlainLaw:
    """A power law alone, in scaled scores.

    Attributes:
        form: the law.
        p: (M, P) its parameters.
        left_out: (S, M, N) residuals of runs under a fit without their block.
    """

    form: curves.Form
    p: Array
    left_out: Array

    def means(self, W: Array) -> Array:
        """Scaled means (M, n)."""
        return self.form.curve(self.p, W)[0]

    def slopes(self, W: Array) -> tuple[Array, Array]:
        """Scaled means (M, n) and their derivatives (M, n, K) by log shares."""
        assert self.form.slopes is not None
        return self.means(W), self.form.slopes(self.p, W)


Members = tuple[tuple[Kriged, ...], tuple[PlainLaw, ...]]


def _left_out(members: Members) -> tuple[Array, Array]:
    """Residuals (L, S, M, N) of all members, and the variances (S, M, N) of the fields' average."""
    found = [field.left_out for field in members[0]]
    residuals = [residual for residual, _ in found] + [law.left_out for law in members[1]]
    return np.stack(residuals), np.mean([sd for _, sd in found], axis=0) ** 2


def _average(values: Array, weights: Array, variance: Array) -> tuple[Array, Array]:
    """Mean (M, n) of members' values (L, M, n) under weights (M, L), and its deviation.

    How far the members are from one another adds to the fields' variance: far from the runs,
    where they disagree, none of them knows by how much it is wrong.
    """
    mean = np.einsum("ml,lmn->mn", weights, values)
    between = np.einsum("ml,lmn->mn", weights, (values - mean) ** 2)
    return mean, np.sqrt(variance + between)


@dataclass(frozen=True)
class FittedFields:
    """A fitted law of fields.

    Attributes:
        members: fields and equations whose average it is.
        weights: (M, L) of the fields, then of the equations.
        center: (M,) subtracted from (the logarithm of) the scores.
        spread: (M,) that they are divided by.
        logs: whether logarithms were taken.
        width: of the deviations, from cross-validation.
    """

    members: Members
    weights: Array
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

    @property
    def _every(self) -> tuple[Kriged | PlainLaw, ...]:
        return (*self.members[0], *self.members[1])

    def means(self, W: Array) -> Array:
        """Means (n, M) without deviations: as `predict` has them, to the bit."""
        W = np.asarray(W, dtype=np.float64)
        parts = []
        for i in range(0, len(W), CHUNK):
            values = np.stack([one.means(W[i : i + CHUNK]) for one in self._every])
            scaled = np.einsum("ml,lmn->mn", self.weights, values)
            parts.append(self.center + self.spread * scaled.T)
        mean = np.concatenate(parts)
        return np.exp(mean) if self.logs else mean

    def slopes(self, W: Array) -> tuple[Array, Array]:
        """Means (n, M), and their derivatives by log shares (n, M, K)."""
        W = np.asarray(W, dtype=np.float64)
        each = (one.slopes(W) for one in self._every)
        values, slopes = (np.stack(found) for found in zip(*each, strict=True))
        mean = self.center + self.spread * np.einsum("ml,lmn->nm", self.weights, values)
        slope = np.einsum("ml,lmnk->nmk", self.weights * self.spread[:, None], slopes)
        if not self.logs:
            return mean, slope
        mean = np.exp(mean)
        return mean, slope * mean[:, :, None]

    def draws(self, count: int, rng: np.random.Generator) -> list["FittedFields"]:
        """Laws as they may as well be, given the runs.

        Each is one member, the same for all targets as far as their weights are, taken as often as
        it weighs, so that members' disagreement is in the draws; and a draw of it, if it is a
        field, by so much wider that over all draws the variance is that of the fields, at the mean
        concentration of the runs.
        """
        fields, plain = self.members
        seed, order = int(rng.integers(2**63)), rng.permutation(count)
        known = np.maximum(self.weights[:, : len(fields)].sum(axis=1), 1.0 / count)
        widths = self.width.factor / np.sqrt(known)
        each = [one.draws(count, widths, np.random.default_rng(seed)) for one in fields]
        before = np.cumsum(self.weights, axis=1)[:, :-1]
        found = []
        for drawn, place in zip(zip(*each, strict=True), order, strict=True):
            taken = (before <= (place + 0.5) / count).sum(axis=1)
            weights = np.eye(self.weights.shape[1])[taken]
            found.append(replace(self, members=(drawn, plain), weights=weights))
        return found

    def _part(self, W: Array) -> Prediction:
        found = [member.predict(W) for member in self.members[0]]
        values = [mean for mean, _ in found] + [law.means(W) for law in self.members[1]]
        variance = np.mean([sd for _, sd in found], axis=0) ** 2
        scaled, deviation = _average(np.stack(values), self.weights, variance)
        mean = self.center + self.spread * scaled.T
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
    def members(self, tables: Tables, partitions: tuple[field.Partition, ...]) -> Members:
        """Fit to the tables; each block of runs of the partitions is left out once."""

    def fit(self, W: Array, Y: Array, noise: Array, rng: np.random.Generator) -> FittedFields:
        data = observe(self, W, Y, noise)
        logs = self.logarithm and bool(data.Y.min() > 0)
        data = data.logarithms() if logs else data
        shares, y = data.W, data.scaled.T
        order = scattered_rows(shares, y)  # so that no order of runs moves a fold
        dealt = calibration.random_folds(len(order), self.folds, rng)
        folds = tuple(np.sort(order[held]) for _, held in dealt)
        regions = calibration.region_folds(np.sqrt(shares), order, self.folds)
        members = self.members((shares, y, data.scaled_noise.T**2), (folds, regions))
        residuals, variance = _left_out(members)
        weights = _weights_of(residuals)
        # all that is calibrated is what the average does in the random folds
        held, sd = _average(residuals[:, 0], weights, variance[0])
        width = calibration.fold_width(
            held, sd, concentration(shares), self.folds, shares.shape[1] + field.HEAD
        )
        return FittedFields(members, weights, data.center, data.spread, logs, width)


def _weights_of(residuals: Array) -> Array:
    """Weights (M, L) of members by their held-out residuals (L, S, M, N)."""
    count, _, m, _ = residuals.shape
    if count == 1:
        return np.ones((m, 1))
    each = residuals.transpose(2, 0, 1, 3).reshape(m, count, -1)
    squares = np.mean(each[:, :-1].mean(axis=1) ** 2, axis=1)  # of the fields' average
    pull = PULL * squares + HEDGE
    center = np.array(SHARES)
    return np.stack(
        [calibration.convex_weights(r, center, p) for r, p in zip(each, pull, strict=True)]
    )


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
    partitions: tuple[field.Partition, ...] = (),
    start: Array | None = None,
) -> Kriged:
    """Krige what a mean leaves."""
    level = float(concentration(tables[0]).mean())
    data = _field_data(mean, tables, power, level)
    return Kriged(mean, field.fit_fields(data, prior, partitions, start), power, level)


@register("law")
@dataclass(frozen=True)
class Kriging(FieldLaw):
    """Kriged power law, the default: a saturating power law, and what it leaves is kriged.

    The average of a Gaussian process around the power law
    `c_m + (b_m0 + sum_j b_mj r_j^p_m)^(-g_m)`, of one on a linear trend alone, and of the plain
    law `power`, in weights chosen for each target on held-out runs and regions. The equations carry
    the fit where runs are few or far; the processes correct it where they are many.

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

    def members(self, tables: Tables, partitions: tuple[field.Partition, ...]) -> Members:
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
        linear = _kriged(flat, tables, self.power, prior, partitions, theta)
        precision = RIDGE[0] * form.prior + RIDGE[1] * np.eye(len(form.prior))
        basis = np.linalg.cholesky(np.linalg.inv(precision))
        scale = np.sqrt(np.mean(solution.left_out**2, axis=1)) + 1e-6
        mean = PowerMean(form, solution.p, strength, basis, scale)
        prior = lengths(POWER_LENGTH, FIRST, POWER_NOISE)
        kriged = _kriged(mean, tables, self.power, prior, partitions)
        return (kriged, linear), (_plain_law(tables, factors, partitions),)


def _plain_law(tables: Tables, factors: Array, partitions: tuple[field.Partition, ...]) -> PlainLaw:
    """The plain power law, and its refits without each block; large ones are linearized."""
    W, y, _ = tables
    form = power_form(W.shape[1])
    solution, strength = curves.solved_form(form, W, y, np.ones_like(y), steps=STEPS)
    v = _weights(form, tables, factors, solution.p)
    p = curves.held_form(form, W, y, v, strength, solution.p, steps=STEPS).p
    if W.shape[0] * p.shape[1] > least_squares.LARGE:
        center = np.tile(form.center, (len(y), 1))
        problem = least_squares.FitProblem(form.curve, W, y, v, strength, form.prior, center)
        held = [least_squares.without_blocks(problem, p, blocks) for blocks in partitions]
        return PlainLaw(form, p, np.stack(held))
    left_out = np.empty((len(partitions), *y.shape))
    for s, blocks in enumerate(partitions):
        for rows in blocks:
            kept = np.setdiff1d(np.arange(len(W)), rows)
            part = curves.held_form(
                form, W[kept], y[:, kept], v[:, kept], strength, p, steps=REFIT_STEPS
            )
            left_out[s][:, rows] = y[:, rows] - form.curve(part.p, W[rows])[0]
    return PlainLaw(form, p, left_out)


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

    def members(self, tables: Tables, partitions: tuple[field.Partition, ...]) -> Members:
        W, y, _ = tables
        prior = field.Prior(np.full((len(y), W.shape[1]), self.length), noise=self.noise)
        mean = LinearMean(np.ones(len(y)))
        return (_kriged(mean, tables, self.power, prior, partitions),), ()
