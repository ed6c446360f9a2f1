"""Fits scaling laws that are one equation: several starts, Huber on log scale, bootstrap over runs.

A law gives the logarithm of its value with derivatives; scores are divided by their mean per target
and compared by their logarithms, as in Hoffmann et al. 2022 (arXiv 2203.15556, appendix D.3), who
minimize a Huber loss of log residuals from a grid of starts. Here the minimizer is batched
Levenberg-Marquardt with Huber weights, and parameters have a normal prior, wide where data should
speak: a ladder has three or four sizes, from which an exponent and an asymptote cannot both be
had without one. The prior weighs as much as the residuals' variance says it should.

Points before the decay of a run (`Runs.stable`) are fitted as the law times one factor for all of
them, which is fitted with it and then forgotten: what a decay is worth, taken to be the same share
of a loss at every scale and mixture (assumption, not studied). The points of a run share its seed,
so that together they weigh as much as one end.

Deviations: the spread of refits to resampled runs (whole runs, within each size), and what the law
does not explain. A bootstrap refit starts at the fit and keeps its weights.
"""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import Prediction, least_squares
from cuvee.mixtures.laws.least_squares import Curve, FitProblem, Solution
from cuvee.mixtures.scaling import FittedScaling, Scaling, ScalingRuns, check_scaling_runs

HUBER = 2.0  # robust deviations beyond which a row's residual loses weight
ROUNDS = 3  # of weights and prior strength
EXPONENT = 50.0
FIRST = 0.02  # residual deviation assumed for the first fit, relative
CHUNK = 1024  # rows of a prediction at a time
FLOOR = 1e-6  # of the residual deviation: below it lies rounding
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
        draws: (B, M, P) parameters of bootstrap refits.
        noise: (M,) relative deviation of what the law does not explain.
        scale: (M,) that scores were divided by.
        reference: (N0, D0), at which the amplitudes of the scale's terms are given.
    """

    curve: Curve
    p: Array
    draws: Array
    noise: Array
    scale: Array
    reference: tuple[float, float]

    def predict(self, W: Array, parameters: Any, tokens: Any) -> Prediction:
        X = scale_rows(W, parameters, tokens, self.reference)
        mean = _values(self.curve, self.p, X)
        variance = np.repeat(self.noise[:, None] ** 2, X.shape[0], axis=1)
        if len(self.draws):
            flat = self.draws.reshape(-1, self.draws.shape[2])
            found = _values(self.curve, flat, X).reshape(len(self.draws), *mean.shape)
            variance = variance + ((found - mean) ** 2).mean(axis=0)
        values = self.scale[:, None] * np.exp(np.clip(mean, -EXPONENT, EXPONENT))
        return Prediction(values.T, (values * np.sqrt(variance)).T)


def _values(curve: Curve, p: Array, X: Array) -> Array:
    """(B, n) values of an equation, a part of the rows at a time: derivatives take memory."""
    parts = [curve(p, X[i : i + CHUNK])[0] for i in range(0, len(X), CHUNK)]
    return np.concatenate(parts, axis=1) if parts else np.empty((len(p), 0))


def scale_rows(W: Array, parameters: Any, tokens: Any, reference: tuple[float, float]) -> Array:
    """(n, K + 2): shares, log N / N0, log D / D0."""
    w = np.asarray(W, dtype=np.float64)
    n, d = (np.broadcast_to(np.asarray(x, dtype=np.float64), len(w)) for x in (parameters, tokens))
    return np.column_stack([w, np.log(n / reference[0]), np.log(d / reference[1])])


@dataclass(frozen=True)
class EquationScaling(Scaling):
    """A scaling law that is one equation: it says its fewest `rows` and its `equation`.

    Attributes:
        draws: bootstrap refits behind the deviations.
    """

    draws: int = 20

    def __post_init__(self) -> None:
        if self.draws < 0:
            raise RecipeError(
                f"scaling law {self.name} needs draws of at least 0; got {self.draws}"
            )

    @property
    def sizes(self) -> int:
        """Fewest distinct parameter counts from which it can be fitted."""
        return 3

    @abstractmethod
    def equation(self, k: int) -> Equation:
        """The equation over K domains."""

    def coarse(self) -> Self:
        """The same law without deviations of its own, for refits."""
        return replace(self, draws=0)

    def fit(self, runs: ScalingRuns, rng: np.random.Generator) -> FittedEquation:
        check_scaling_runs(self.name, self, runs)
        plain = form = self.equation(runs.W.shape[1])
        middle = (geometric_mean(runs.parameters), geometric_mean(runs.tokens))
        X, scale = scale_rows(runs.W, runs.parameters, runs.tokens, middle), runs.Y.mean(axis=0)
        if runs.stable is not None:
            form = with_gap(form)
            X = np.column_stack([X, np.asarray(runs.stable, dtype=np.float64)])
        y, noise = np.log(runs.Y / scale).T, (runs.noise / runs.Y).T
        solution, v, sigma = _solve(form, X, y, noise, row_weights(runs))
        found = _bootstrap(form, X, y, (v, sigma), (solution.p, draw_counts(runs, self.draws, rng)))
        size = len(plain.center)
        p, found = solution.p[:, :size], found[:, :, :size]
        return FittedEquation(plain.curve, p, found, sigma, scale, middle)


def with_gap(form: Equation) -> Equation:
    """An equation with one more parameter, the gap, and one more column, whether it counts."""

    def curve(p: Array, X: Array) -> tuple[Array, Array]:
        values, jacobian = form.curve(p[:, :-1], X[:, :-1])
        flag = X[:, -1]
        by_gap = np.broadcast_to(flag, values.shape)[:, :, None]
        return values + p[:, -1:] * flag, np.concatenate([jacobian, by_gap], axis=2)

    return Equation(
        curve=curve,
        center=np.append(form.center, GAP[0]),
        deviation=np.append(form.deviation, GAP[1]),
        starts=np.column_stack([form.starts, np.full(len(form.starts), GAP[0])]),
    )


def row_weights(runs: ScalingRuns) -> Array:
    """(N,) how much each row counts: an end by 1, the points of one run together by as much."""
    groups = np.unique(np.asarray(runs.groups), return_inverse=True)[1]
    most = np.zeros(groups.max() + 1)
    np.maximum.at(most, groups, runs.tokens)
    before = runs.tokens < most[groups]
    points = np.bincount(groups, weights=before)[groups]
    return np.where(before, 1.0 / np.maximum(points, 1.0), 1.0)


def geometric_mean(values: Array) -> float:
    """The geometric mean."""
    return float(np.exp(np.mean(np.log(values))))


def draw_counts(runs: ScalingRuns, draws: int, rng: np.random.Generator) -> Array:
    """(B, N) how often each row is in a bootstrap sample of the runs, drawn within each size."""
    groups = np.asarray(runs.groups)
    table = np.zeros((draws, len(runs)))
    for size in runs.sizes:
        own = np.unique(groups[runs.parameters == size])
        for b in range(draws):
            drawn, often = np.unique(rng.choice(own, size=len(own)), return_counts=True)
            for group, times in zip(drawn, often, strict=True):
                table[b, (groups == group) & (runs.parameters == size)] = times
    return table


def _problem(form: Equation, X: Array, y: Array, v: Array, strength: Array) -> FitProblem:
    prior, center = np.diag(form.deviation**-2.0), np.tile(form.center, (len(y), 1))
    return FitProblem(form.curve, X, y, v, strength, prior, center)


def _solve(
    form: Equation, X: Array, y: Array, noise: Array, share: Array
) -> tuple[Solution, Array, Array]:
    """The solution, the rows' weights (M, N) and the residual deviations (M,)."""
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
    return solution, v, residual_sd(solution, v)


def residual_sd(solution: Solution, v: Array) -> Array:
    """(M,) weighted residual deviation, by the rows that the parameters leave free."""
    residuals = solution.left_out * (1.0 - solution.leverage)
    free = np.maximum(v.sum(axis=1) - solution.leverage.sum(axis=1), 0.1 * v.sum(axis=1))
    sigma = np.sqrt((v * residuals**2).sum(axis=1) / free)
    return np.asarray(np.maximum(sigma, FLOOR), dtype=np.float64)


def _bootstrap(
    form: Equation,
    X: Array,
    y: Array,
    v_sigma: tuple[Array, Array],
    start_counts: tuple[Array, Array],
) -> Array:
    """(B, M, P) parameters of refits to resampled runs."""
    (v, sigma), (start, table) = v_sigma, start_counts
    m, b = len(y), len(table)
    if not b:
        return np.empty((0, *start.shape))
    weights = (table[:, None, :] * v).reshape(b * m, -1)
    problem = _problem(form, X, np.tile(y, (b, 1)), weights, np.tile(sigma**2, b))
    found = least_squares.marquardt(problem, np.tile(start, (b, 1)), steps=40)
    return found.p.reshape(b, m, -1)


def scale_term(p: Array, log_rate: Array, x: Array) -> tuple[Array, Array]:
    """`exp(p - exp(log_rate) x)` and its derivative by log_rate, for (B, 1) parameters, (n,) x."""
    rate = np.exp(np.clip(log_rate, -6.0, 2.0))
    value = np.exp(np.clip(p - rate * x, -EXPONENT, EXPONENT))
    return value, -rate * x * value
