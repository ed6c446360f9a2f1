"""Laws that are one equation: starts, prior, robust weights, and what is fitted in the end.

A law of this kind is an `EquationLaw` that gives its `Form`: the equation with its derivatives, a
quadratic prior, and starts that follow from the data without chance, so that the fit is the same
for any order of the domains. Scores are scaled to mean 0 and standard deviation 1 per target before
the fit.
"""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws import Law, Prediction, calibration, least_squares
from cuvee.mixtures.laws.least_squares import Curve, FitProblem, Solution
from cuvee.mixtures.laws.observations import Observations, observe, scattered_rows

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-5, 1e-8)  # lambda, for scores of standard deviation 1
HUBER = 3.0  # robust deviations beyond which a run's residual loses weight
CROWDED = 0.4  # parameters per run above which left-out residuals come from refits
FOLDS = 5
FIRST = 3  # steps of a large problem on all runs, the first time
SUBSET = 192  # runs on which starts and strengths are compared
CORNERS = 1e-3  # weight of each corner in a first fit; a run's is 1
ASTRAY = 8.0  # deviations of the scores that a corner may lie off their mean
EXPONENT = 50.0  # exponents of e beyond this are cut: no loss varies by e^50


@dataclass(frozen=True)
class Form:
    """An equation that can be fitted.

    Attributes:
        curve: values and derivatives; a module's own function, so that a fitted law pickles.
        prior: (P, P) quadratic prior, scaled by the strength that is chosen.
        center: (P,) where the prior has its minimum.
        starts: from shares (N, K) and scaled scores (M, N) to starts (S, M, P).
        strengths: of the prior, from which each target's is chosen.
        corners: weights of the prior on corners, one or (M,), which a first fit begins with and
            whose residuals then set; see `_posed`. 0 is none.
        slopes: from parameters (B, P) and shares (n, K) to the values' derivatives by the
            logarithms of the shares (B, n, K).
    """

    curve: Curve
    prior: Array
    center: Array
    starts: Callable[[Array, Array], Array]
    strengths: tuple[float, ...] = STRENGTHS
    corners: Array | float = 0.0
    slopes: Callable[[Array, Array], Array] | None = None


@dataclass(frozen=True)
class FittedCurve:
    """An equation with its parameters.

    Attributes:
        curve: the equation, for scaled scores.
        p: (M, P) parameters.
        covariance: (M, P, P) of the parameters, calibrated.
        noise: (M,) scaled deviation of what the law does not explain, calibrated.
        center: (M,) mean that was subtracted from the scores.
        spread: (M,) that they were divided by.
    """

    curve: Curve
    p: Array
    covariance: Array
    noise: Array
    center: Array
    spread: Array

    def predict(self, W: Array) -> Prediction:
        values, jacobian = self.curve(self.p, np.asarray(W, dtype=np.float64))
        moved = np.matmul(jacobian, self.covariance)
        variance = np.maximum(np.einsum("mnp,mnp->mn", moved, jacobian), 0.0)
        sd = np.sqrt(variance + self.noise[:, None] ** 2)
        return Prediction(self.center + self.spread * values.T, self.spread * sd.T)

    def means(self, W: Array) -> Array:
        """Predicted scores (n, M) alone."""
        values, _ = self.curve(self.p, np.asarray(W, dtype=np.float64))
        return np.asarray(self.center + self.spread * values.T, dtype=np.float64)


def fit_form(
    data: Observations, form: Form, rng: np.random.Generator, huber: float = HUBER
) -> FittedCurve:
    """Fit a form to all targets, with weights from the noise and for outliers.

    Args:
        data: what is fitted.
        form: what to fit.
        rng: deals the folds of a cross-validation where leave-one-out cannot be linearized.
        huber: 0 gives plain weighted least squares.
    """
    y, noise = data.scaled.T, data.scaled_noise.T
    v = np.ones_like(y)
    solution = solve_form(form, data.W, y, v)
    for _ in range(2):
        r = solution.left_out * (1.0 - solution.leverage)
        v = least_squares.noise_weights(r, noise)
        v = v * least_squares.huber_weights(r, huber) if huber else v
        if np.any(form.corners):
            error = np.average(solution.left_out**2, axis=1, weights=v)
            form = replace(form, corners=np.minimum(error, 1.0) / ASTRAY**2)
        elif np.ptp(v) < 1e-9:
            break
        solution = solve_form(form, data.W, y, v, start=solution.p)
    held_out = solution.left_out
    if len(form.center) > CROWDED * len(data.W):
        held_out = _refitted(form, data.W, (y, v), solution.p, rng)
    return _fitted(data, form, solution, held_out)


def _refitted(
    form: Form, W: Array, y_v: tuple[Array, Array], start: Array, rng: np.random.Generator
) -> Array:
    """(M, N) residuals of runs under fits without them, by cross-validation."""
    y, v = y_v
    residuals = np.empty_like(y)
    for kept, fold in calibration.random_folds(len(W), FOLDS, rng):
        part = solve_form(form, W[kept], y[:, kept], v[:, kept], start=start)
        residuals[:, fold] = y[:, fold] - form.curve(part.p, W[fold])[0]
    return residuals


class EquationLaw(Law):
    """What every law that is one equation does with it; an abstract level without state."""

    @abstractmethod
    def form(self, k: int) -> Form:
        """The equation over K domains."""

    def fit(self, W: Array, Y: Array, noise: Array, rng: np.random.Generator) -> FittedCurve:
        return fit_form(observe(self, W, Y, noise), self.form(np.shape(W)[1]), rng)


def solve_form(form: Form, W: Array, y: Array, v: Array, start: Array | None = None) -> Solution:
    """The solution under each target's best strength; see `solved_form`."""
    return solved_form(form, W, y, v, start)[0]


def solved_form(
    form: Form,
    W: Array,
    y: Array,
    v: Array,
    start: Array | None = None,
    steps: int = least_squares.STEPS,
) -> tuple[Solution, Array]:
    """The solution under each target's best strength, by weighted left-out error; and that (M,).

    Where runs are many, all but the last steps are done on `SUBSET` of them.

    Args:
        form: the equation.
        W: (N, K) shares.
        y: (M, N) scaled scores.
        v: (M, N) weights.
        start: (M, P); without it, the best of the form's starts under a middling prior.
        steps: at most.
    """
    rows = np.sort(scattered_rows(W, y)[:SUBSET])
    if len(rows) < len(W):
        _, strength, start = _chosen(form, W[rows], y[:, rows], v[:, rows], start, steps)
        # more steps were lost on a large problem, whose runs are weighted and fitted again
        steps = FIRST if len(W) * len(form.center) > least_squares.LARGE else steps
        return held_form(form, W, y, v, strength, start, steps), strength
    solution, strength, _ = _chosen(form, W, y, v, start, steps)
    return solution, strength


def _chosen(
    form: Form, W: Array, y: Array, v: Array, start: Array | None, steps: int
) -> tuple[Solution, Array, Array]:
    """The best solution of each target, its strength and its parameters."""
    m, n = y.shape
    problem = _posed(form, W, y, v, np.ones(m))
    if start is None:
        starts = form.starts(W, y)
        every = _repeated(problem, np.full(len(starts) * m, 1e-2))
        first = least_squares.marquardt(every, starts.reshape(-1, starts.shape[2]), steps=40)
        start = least_squares.cheapest(first, first.objective, m).p
    every = _repeated(problem, np.repeat(form.strengths, m))
    solution = least_squares.marquardt(every, np.tile(start, (len(form.strengths), 1)), steps)
    solution = _of_runs(solution, n)
    error = np.einsum("bn,bn->b", every.v[:, :n], solution.left_out**2)
    best = least_squares.cheapest_rows(error, m)
    return solution.take(best), every.strength[best], solution.p[best]


def held_form(
    form: Form, W: Array, y: Array, v: Array, strength: Array, start: Array, steps: int
) -> Solution:
    """The solution under given strengths (M,), from a start (M, P)."""
    found = least_squares.marquardt(_posed(form, W, y, v, strength), start, steps)
    return _of_runs(found, len(W))


def _posed(form: Form, W: Array, y: Array, v: Array, strength: Array) -> FitProblem:
    """The problems, with the prior on corners as further observations.

    Whatever its parameters, a law that runs off does so towards a corner that no run came near. So
    each corner counts as a run that scored the mean, give or take `ASTRAY` deviations of the
    scores: its weight is small, and smaller the better the law predicts runs. Steep falls within
    the runs, which a prior on parameters would flatten, are left to them.
    """
    if np.any(form.corners):
        k = W.shape[1]
        W = np.vstack([W, np.eye(k)])
        y = np.column_stack([y, np.repeat(y.mean(axis=1, keepdims=True), k, axis=1)])
        v = np.column_stack([v, np.outer(np.broadcast_to(form.corners, len(v)), np.ones(k))])
    center = np.tile(form.center, (len(y), 1))
    return FitProblem(form.curve, W, y, v, strength, form.prior, center)


def _of_runs(solution: Solution, runs: int) -> Solution:
    """The solution with the residuals and leverages of runs alone."""
    left_out, leverage = solution.left_out[:, :runs], solution.leverage[:, :runs]
    return replace(solution, left_out=left_out, leverage=leverage)


def _repeated(problem: FitProblem, strength: Array) -> FitProblem:
    """The problems once for every block of strengths."""
    index = np.tile(np.arange(len(problem.y)), len(strength) // len(problem.y))
    return replace(problem.take(index), strength=strength)


def _fitted(data: Observations, form: Form, solution: Solution, held_out: Array) -> FittedCurve:
    degrees = np.maximum(len(data.W) - solution.leverage.sum(axis=1), 1.0)
    inside = solution.left_out * (1.0 - solution.leverage)
    sigma = np.sqrt((inside**2).sum(axis=1) / degrees + 1e-24)
    raw = sigma[:, None] / np.sqrt(1.0 - solution.leverage)
    sigma = sigma * calibration.width_factor(held_out.T, raw.T)
    covariance = solution.inverse * (sigma**2)[:, None, None]
    return FittedCurve(form.curve, solution.p, covariance, sigma, data.center, data.spread)


def centering_prior(size: int, first: int, last: int) -> Array:
    """Prior (P, P) of `size` parameters on the differences among parameters first..last - 1."""
    prior = np.zeros((size, size))
    count = last - first
    prior[first:last, first:last] = np.eye(count) - 1.0 / count
    return prior


def start_offsets(y: Array, parts: tuple[float, ...]) -> Array:
    """(S, M) asymptotes below the lowest scores (M, N), by these parts of their range."""
    width = np.maximum(np.ptp(y, axis=1), 1e-6)
    return np.stack([y.min(axis=1) - part * width for part in parts])
