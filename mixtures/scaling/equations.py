"""Fits scaling laws that are one equation: several starts, Huber on log scale, a normal prior.

A law gives the logarithm of its value with derivatives; scores are divided by their mean per target
and compared by their logarithms, as in Hoffmann et al. 2022 (arXiv 2203.15556, appendix D.3), who
minimize a Huber loss of log residuals from a grid of starts. Here the minimizer is batched
Levenberg-Marquardt with Huber weights, and parameters have a normal prior, wide where data should
speak: a ladder has three or four sizes, from which an exponent and an asymptote cannot both be
had without one. The prior weighs as much as the residuals' variance says it should.

Every equation has one more term, `U (N / D)^u`: of few tokens a larger model is worse, which no sum
of falls in N and in D can say (assumption; seen on this project's ladder, docs/results/scale.md).

Points before the decay of a run (`Runs.stable`) are fitted as the law times one factor for all of
them, which is fitted with it and then forgotten: what a decay is worth, taken to be the same share
of a loss at every scale and mixture (assumption, not studied). The points of a run share its seed,
so that together they weigh as much as one end.

Deviations: the posterior of the parameters, linearized at the fit, so that what data leave open is
as wide as the prior; what the law does not explain, of which runs of one mixture share a part; and
beyond the fitted sizes what back-tests found (`discrepancy.py`).
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import Prediction, least_squares
from cuvee.mixtures.laws.least_squares import Curve, FitProblem, Solution
from cuvee.mixtures.scaling import FittedScaling, Scaling, ScalingRuns, check_scaling_runs
from cuvee.mixtures.scaling.discrepancy import Discrepancy, learn_discrepancy

HUBER = 2.0  # robust deviations beyond which a row's residual loses weight
ROUNDS = 3  # of weights and prior strength
EXPONENT = 50.0
FIRST = 0.02  # residual deviation assumed for the first fit, relative
CHUNK = 1024  # rows of a prediction at a time
FLOOR = 1e-6  # of the residual deviation: below it lies rounding
UNDER = ((np.log(0.003), 1.5), (np.log(1.0), 0.3))  # prior of log U and log u
GAP = (0.03, 0.05)  # prior mean and deviation of log (score before a decay / score after it)


@dataclass(frozen=True)
class Equation:
    """A law of mixture, parameters and tokens that can be fitted.

    Attributes:
        curve: (B, P) parameters and (n, K + 2) rows of shares, log N / N0 and log D / D0 to
            logarithms of scaled scores (B, n) and derivatives (B, n, P); a module's own function.
        center: (P,) mean of the prior.
        deviation: (P,) standard deviation of the prior.
        starts: (S, P).
    """

    curve: Curve
    center: Array
    deviation: Array
    starts: Array


@dataclass(frozen=True, eq=False)
class FittedEquation(FittedScaling):
    """An equation with its parameters.

    Attributes:
        curve: the equation.
        p: (M, P) parameters.
        covariance: (M, P, P) of the parameters.
        noise: (M,) relative deviation of what the law does not explain.
        scale: (M,) that scores were divided by.
        reference: (N0, D0), at which the amplitudes of the scale's terms are given.
        discrepancy: what back-tests say of its errors beyond the runs; None in refits.
    """

    curve: Curve
    p: Array
    covariance: Array
    noise: Array
    scale: Array
    reference: tuple[float, float]
    discrepancy: Discrepancy | None = None

    @property
    def unexplained(self) -> Array:
        return self.noise

    def predict(self, W: Array, parameters: Any, tokens: Any) -> Prediction:
        X = scale_rows(W, parameters, tokens, self.reference)
        parts = [self._part(X[i : i + CHUNK]) for i in range(0, len(X), CHUNK)]
        mean, own = (np.concatenate(column) for column in zip(*parts, strict=True))
        variance = own + self.noise**2
        if self.discrepancy is not None:
            at = (np.broadcast_to(np.asarray(x, float), len(X)) for x in (parameters, tokens))
            variance = variance + np.square(self.discrepancy.errors(*at)).sum(axis=0)
        values = self.scale * np.exp(np.clip(mean, -EXPONENT, EXPONENT))
        return Prediction(values, values * np.sqrt(variance))

    def _part(self, X: Array) -> tuple[Array, Array]:
        """Logarithms (n, M) and their variances, a part of the rows: derivatives take memory."""
        mean, jacobian = self.curve(self.p, X)
        spread = np.einsum("mnp,mpq->mnq", jacobian, self.covariance)
        return mean.T, (spread * jacobian).sum(axis=2).T


def scale_rows(W: Array, parameters: Any, tokens: Any, reference: tuple[float, float]) -> Array:
    """(n, K + 2): shares, log N / N0, log D / D0."""
    w = np.asarray(W, dtype=np.float64)
    n, d = (np.broadcast_to(np.asarray(x, dtype=np.float64), len(w)) for x in (parameters, tokens))
    return np.column_stack([w, np.log(n / reference[0]), np.log(d / reference[1])])


@dataclass(frozen=True)
class EquationScaling(Scaling):
    """A scaling law that is one equation: it says its fewest `rows` and its `equation`.

    Attributes:
        draws: 0 leaves out the back-tests, for refits; any other number makes them.
        least: sizes from which it is fitted; of fewer than 3 the exponent in N is the prior's.
    """

    draws: int = 20
    least: int = 3

    def __post_init__(self) -> None:
        if self.draws < 0 or self.least < 1:
            raise RecipeError(
                f"scaling law {self.name} needs draws of at least 0 and least of at least 1; got "
                f"{self.draws} and {self.least}"
            )

    @property
    def sizes(self) -> int:
        """Fewest distinct parameter counts from which it can be fitted."""
        return self.least

    @abstractmethod
    def equation(self, k: int) -> Equation:
        """The equation over K domains."""

    def coarse(self) -> Self:
        """The same law without back-tests, from any sizes that are left, for refits."""
        return replace(self, draws=0, least=1)

    def fit(self, runs: ScalingRuns, rng: np.random.Generator) -> FittedEquation:
        check_scaling_runs(self.name, self, runs)
        plain = form = undertrained(self.equation(runs.W.shape[1]))
        middle = (geometric_mean(runs.parameters), geometric_mean(runs.tokens))
        X, scale = scale_rows(runs.W, runs.parameters, runs.tokens, middle), runs.Y.mean(axis=0)
        if runs.stable is not None:
            form = with_gap(form)
            X = np.column_stack([X, np.asarray(runs.stable, dtype=np.float64)])
        y, noise = np.log(runs.Y / scale).T, (runs.noise / runs.Y).T
        solution = _solve(form, X, y, noise, row_weights(runs))
        covariance, sigma = _posterior(form, X, solution, runs)
        size = len(plain.center)
        p, covariance = solution.p[:, :size], covariance[:, :size, :size]
        fitted = FittedEquation(plain.curve, p, covariance, sigma, scale, middle)
        return (
            replace(fitted, discrepancy=learn_discrepancy(self, runs, rng))
            if self.draws
            else fitted
        )


def undertrained(form: Equation) -> Equation:
    """An equation with one more term: a model that sees few tokens for its size is worse for it.

    `U (N / D)^u`, alike for all mixtures: without it every law says that a larger model is better
    on any number of tokens, however few. Where runs do not show it, the prior keeps it small.
    """
    return _extended(form, partial(_with_undertraining, form.curve), *UNDER)


def _with_undertraining(curve: Curve, p: Array, X: Array) -> tuple[Array, Array]:
    values, jacobian = curve(p[:, :-2], X)
    term, by_rate = scale_term(p[:, -2:-1], p[:, -1:], X[:, -1] - X[:, -2])
    total = np.logaddexp(values, np.log(term))
    own = np.exp(values - total)[:, :, None] * jacobian
    added = np.exp(-total)[:, :, None] * np.stack([term, by_rate], axis=2)
    return total, np.concatenate([own, added], axis=2)


def with_gap(form: Equation) -> Equation:
    """An equation with one more parameter, the gap, and one more column, whether it counts."""

    def curve(p: Array, X: Array) -> tuple[Array, Array]:
        values, jacobian = form.curve(p[:, :-1], X[:, :-1])
        flag = X[:, -1]
        by_gap = np.broadcast_to(flag, values.shape)[:, :, None]
        return values + p[:, -1:] * flag, np.concatenate([jacobian, by_gap], axis=2)

    return _extended(form, curve, GAP)


def _extended(form: Equation, curve: Curve, *priors: tuple[float, float]) -> Equation:
    """An equation with more parameters, of which each begins at the mean of its prior."""
    center, deviation = np.transpose(priors)
    return Equation(
        curve=curve,
        center=np.append(form.center, center),
        deviation=np.append(form.deviation, deviation),
        starts=np.column_stack([form.starts, np.tile(center, (len(form.starts), 1))]),
    )


def row_weights(runs: ScalingRuns) -> Array:
    """(N,) how much each row counts: ends of a run together by 1, its points by as much."""
    groups = np.unique(np.asarray(runs.groups), return_inverse=True)[1]
    most = np.zeros(groups.max() + 1)
    np.maximum.at(most, groups, runs.tokens)
    before = runs.tokens < most[groups]
    points = np.bincount(groups, weights=before)[groups]
    ends = np.bincount(groups, weights=~before)[groups]
    return np.where(before, 1.0 / np.maximum(points, 1.0), 1.0 / ends)


def geometric_mean(values: Array) -> float:
    """The geometric mean."""
    return float(np.exp(np.mean(np.log(values))))


def _problem(form: Equation, X: Array, y: Array, v: Array, strength: Array) -> FitProblem:
    prior, center = np.diag(form.deviation**-2.0), np.tile(form.center, (len(y), 1))
    return FitProblem(form.curve, X, y, v, strength, prior, center)


def _solve(form: Equation, X: Array, y: Array, noise: Array, share: Array) -> Solution:
    """The solution, its rows weighted by their noise and by how far they lie off."""
    m, s = len(y), len(form.starts)
    v, sigma = np.tile(share, (m, 1)), np.full(m, FIRST)
    many = _problem(form, X, np.tile(y, (s, 1)), np.tile(v, (s, 1)), np.tile(sigma**2, s))
    first = least_squares.marquardt(many, np.repeat(form.starts, m, axis=0))
    solution = least_squares.cheapest(first, first.objective, m)
    for _ in range(ROUNDS):
        residuals = solution.left_out * (1.0 - solution.leverage)
        v = (
            least_squares.noise_weights(residuals, noise)
            * least_squares.huber_weights(residuals, HUBER)
            * share
        )
        sigma = residual_sd(solution, v)
        solution = least_squares.marquardt(_problem(form, X, y, v, sigma**2), solution.p)
    return solution


def residual_sd(solution: Solution, v: Array) -> Array:
    """(M,) weighted residual deviation, by the rows that the parameters leave free."""
    residuals = solution.left_out * (1.0 - solution.leverage)
    free = np.maximum(v.sum(axis=1) - solution.leverage.sum(axis=1), 0.1 * v.sum(axis=1))
    sigma = np.sqrt((v * residuals**2).sum(axis=1) / free)
    return np.asarray(np.maximum(sigma, FLOOR), dtype=np.float64)


def _posterior(
    form: Equation, X: Array, solution: Solution, runs: ScalingRuns
) -> tuple[Array, Array]:
    """Covariances (M, P, P) of the parameters and deviations (M,) of what the law leaves over.

    Runs of one mixture share a part of what the law does not explain: the covariance is the mean of
    the posterior's and of what leaving mixtures out changes (a jackknife, linearized), and a
    mixture left out says how far an unseen one errs.
    """
    share, mixtures = row_weights(runs), simplex.group_rows(runs.W)
    sigma = residual_sd(solution, np.tile(share, (len(solution.p), 1)))
    residuals = solution.left_out * (1.0 - solution.leverage)
    jacobian, precision = form.curve(solution.p, X)[1], np.diag(form.deviation**-2.0)
    covariance, unseen = [], []
    for r, variance, J in zip(residuals, sigma**2, jacobian, strict=True):
        inverse = np.linalg.inv((J.T * share) @ J + variance * precision)
        moved, square = _without_mixtures(r, J, (inverse, share), mixtures)
        covariance.append((variance * inverse + moved.T @ moved) / 2.0)
        unseen.append(square)
    return np.array(covariance), np.maximum(sigma, np.sqrt(unseen))


def _without_mixtures(
    r: Array, J: Array, fit: tuple[Array, Array], mixtures: Any
) -> tuple[Array, float]:
    """What leaving each mixture out moves (G, P), and the mean square of what it then errs by."""
    (inverse, share), moved, total = fit, [], 0.0
    for index in range(int(mixtures.max()) + 1):
        own = np.flatnonzero(mixtures == index)
        weighted = J[own].T * share[own]
        leverage = J[own] @ inverse @ weighted
        left_out = np.linalg.solve((1.0 + 1e-9) * np.eye(len(own)) - leverage, r[own])
        moved.append(inverse @ (weighted @ left_out))
        total += float(share[own] @ left_out**2)
    return np.array(moved), total / float(share.sum())


def scale_term(p: Array, log_rate: Array, x: Array) -> tuple[Array, Array]:
    """`exp(p - exp(log_rate) x)` and its derivative by log_rate, for (B, 1) parameters, (n,) x."""
    rate = np.exp(np.clip(log_rate, -6.0, 2.0))
    value = np.exp(np.clip(p - rate * x, -EXPONENT, EXPONENT))
    return value, -rate * x * value
