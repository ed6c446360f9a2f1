"""Log-linear mixing law: `L_m(r) = c_m + k_m exp(sum_j t_mj r_j)`.

Source: Ye et al. 2024, "Data Mixing Laws" (arXiv 2403.16952), equation M4. As the shares sum to 1,
k is folded into t: `c + exp(sum_j (t_j + log k) r_j)`, which is how Olmix writes it
(`exp(c) + exp(x . t)`). With `offset: positive` c is the exponential of a parameter, as in
both codes; with `free` (default) c is any number, so that scores that may be negative can be fitted.

Departures:
* Both codes run L-BFGS from hundreds of random starts on a Huber loss of fixed width. We start
  from the ridge solution of `log(y - c) = t . r` at several c, which is linear, and polish by
  Levenberg-Marquardt: the same minimum, without chance, and the same for any order of domains.
* The Huber loss's width is `huber` robust deviations of the residuals, so it needs no unit.
* K + 1 parameters from little more than K + 1 runs interpolate the noise. A quadratic prior
  `lambda sum_j (t_j - mean t)^2` pulls the exponents of a target together (the mean, that is log k,
  is free); lambda is chosen per target by linearized leave-one-out error, down to practically none.
"""

from dataclasses import dataclass

import numpy as np

from mixtures.domains import Array
from mixtures.errors import RecipeError
from mixtures.laws import Prediction, calibration, least_squares
from mixtures.laws.least_squares import Problem, Solution
from mixtures.laws.observations import Observations, observe
from mixtures.registry import register

STARTS = (0.02, 0.1, 0.3, 1.0, 3.0)  # offsets below the lowest score, in ranges of the scores
STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-5, 1e-8)  # lambda, for scores of standard deviation 1
EXPONENT = 50.0  # exponents of e beyond this are cut: no loss varies by e^50


@dataclass(frozen=True)
class FittedLogLinear:
    """A fitted log-linear law; it is of the `Exponential` form.

    Attributes:
        offsets: c (M,).
        exponents: A (M, K).
        covariance: (M, K + 1, K + 1) of (c, A), calibrated.
        noise: (M,) standard deviation of what the law does not explain, calibrated.
    """

    offsets: Array
    exponents: Array
    covariance: Array
    noise: Array

    def predict(self, W: Array) -> Prediction:
        W = np.asarray(W, dtype=np.float64)
        p = np.column_stack([self.offsets, self.exponents])
        values, jacobian = _free(p, W)
        variance = np.einsum("mnp,mpq,mnq->mn", jacobian, self.covariance, jacobian, optimize=True)
        sd = np.sqrt(np.maximum(variance, 0.0) + self.noise[:, None] ** 2)
        return Prediction(values.T, sd.T)


@register("law", "log_linear")
@dataclass(frozen=True)
class LogLinear:
    """The log-linear law without parameters.

    Attributes:
        offset: "free" or "positive".
        huber: residuals beyond this many robust deviations lose weight; 0 is plain least squares.
    """

    offset: str = "free"
    huber: float = 3.0

    def __post_init__(self) -> None:
        if self.offset not in ("free", "positive"):
            raise RecipeError(f"log_linear.offset is free or positive; got {self.offset!r}")
        if self.huber < 0:
            raise RecipeError(f"log_linear.huber is at least 0; got {self.huber}")

    def rows(self, domains: int) -> int:
        return domains + 2

    def fit(self, W: Array, Y: Array, noise: Array, rng: np.random.Generator) -> FittedLogLinear:
        data = observe("log_linear", self.rows(np.shape(W)[1]), W, Y, noise)
        positive = self.offset == "positive"
        if positive and data.Y.min() <= 0:
            raise RecipeError(
                f"log_linear with a positive offset needs positive scores; the lowest is "
                f"{data.Y.min():.4g}: set offset to free"
            )
        problem, shift = _problem(data, positive)
        solution = _chosen(problem, _start(problem, positive))
        for _ in range(2):
            r = solution.left_out * (1.0 - solution.leverage)
            v = least_squares.weights(r, data.scaled_noise.T)
            v = v * least_squares.robust(r, self.huber) if self.huber else v
            if np.ptp(v) < 1e-9:
                break
            problem = Problem(**{**vars(problem), "v": v})
            solution = _chosen(problem, solution.p)
        return _fitted(data, solution, shift, positive)


def _free(p: Array, W: Array) -> tuple[Array, Array]:
    e = np.exp(np.minimum(p[:, 1:] @ W.T, EXPONENT))
    jacobian = np.empty((len(p), len(W), p.shape[1]))
    jacobian[:, :, 0] = 1.0
    jacobian[:, :, 1:] = e[:, :, None] * W
    return p[:, :1] + e, jacobian


def _positive(p: Array, W: Array) -> tuple[Array, Array]:
    c = np.exp(np.minimum(p[:, :1], EXPONENT))
    values, jacobian = _free(np.column_stack([c, p[:, 1:]]), W)
    jacobian[:, :, 0] = c
    return values, jacobian


def _problem(data: Observations, positive: bool) -> tuple[Problem, Array]:
    """The problem in scaled scores, and what was subtracted from them (M,)."""
    m, k = data.Y.shape[1], data.W.shape[1]
    shift = np.zeros(m) if positive else data.center
    y = ((data.Y - shift) / data.spread).T
    prior = np.zeros((k + 1, k + 1))
    prior[1:, 1:] = np.eye(k) - 1.0 / k
    problem = Problem(
        curve=_positive if positive else _free,
        W=data.W,
        y=y,
        v=np.ones_like(y),
        strength=np.full(m, STRENGTHS[0]),
        prior=prior,
        center=np.zeros((m, k + 1)),
    )
    return problem, shift


def _start(problem: Problem, positive: bool) -> Array:
    """Best of the starts per target (M, K + 1), by the objective at a middling prior."""
    y, W = problem.y, problem.W
    m, k = len(y), W.shape[1]
    low, width = y.min(axis=1), np.maximum(np.ptp(y, axis=1), 1e-6)
    starts = []
    for part in STARTS:
        c = low - part * width
        c = np.maximum(c, low * 0.5 / (1.0 + part)) if positive else c
        logs = np.log(y - c[:, None])
        value = (y - c[:, None]) ** 2  # variance of log(y - c) goes as 1 / (y - c)^2
        gram = np.einsum("nj,mn,nk->mjk", W, value, W)
        ridge = 1e-3 * np.trace(gram, axis1=1, axis2=2)[:, None, None] / k
        mean = np.average(logs, axis=1, weights=value)[:, None]
        right = np.einsum("nj,mn->mj", W, value * (logs - mean))
        t = np.linalg.solve(gram + ridge * np.eye(k), right[:, :, None])[:, :, 0] + mean
        starts.append(np.column_stack([np.log(c) if positive else c, t]))
    every = problem.take(np.tile(np.arange(m), len(STARTS)))
    every = Problem(**{**vars(every), "strength": np.full(len(every.y), 1e-3)})
    solution = least_squares.minimize(every, np.concatenate(starts), steps=40)
    return least_squares.best_of(solution, solution.objective, m).p


def _chosen(problem: Problem, start: Array) -> Solution:
    """The solution under each target's best strength, by weighted left-out error."""
    m = len(problem.y)
    every = problem.take(np.tile(np.arange(m), len(STRENGTHS)))
    every = Problem(**{**vars(every), "strength": np.repeat(STRENGTHS, m)})
    solution = least_squares.minimize(every, np.tile(start, (len(STRENGTHS), 1)))
    error = np.einsum("bn,bn->b", every.v, solution.left_out**2)
    return least_squares.best_of(solution, error, m)


def _fitted(
    data: Observations, solution: Solution, shift: Array, positive: bool
) -> FittedLogLinear:
    p, inverse = solution.p.copy(), solution.inverse
    if positive:
        p[:, 0] = np.exp(p[:, 0])
        to_c = np.ones_like(p)
        to_c[:, 0] = p[:, 0]
        inverse = inverse * to_c[:, :, None] * to_c[:, None, :]
    degrees = np.maximum(len(data.W) - solution.leverage.sum(axis=1), 1.0)
    inside = solution.left_out * (1.0 - solution.leverage)
    sigma = np.sqrt((inside**2).sum(axis=1) / degrees + 1e-24)
    raw = sigma[:, None] / np.sqrt(1.0 - solution.leverage)
    sigma = sigma * calibration.factor(solution.left_out.T, raw.T)
    # In units of the scores: c scales with the spread, k takes it into the exponents.
    scale = np.ones_like(p)
    scale[:, 0] = data.spread
    covariance = inverse * (sigma**2)[:, None, None] * scale[:, :, None] * scale[:, None, :]
    return FittedLogLinear(
        offsets=shift + data.spread * p[:, 0],
        exponents=p[:, 1:] + np.log(data.spread)[:, None],
        covariance=covariance,
        noise=sigma * data.spread,
    )
