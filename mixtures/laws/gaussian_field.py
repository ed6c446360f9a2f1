"""Kriging of all targets: what `gaussian_process` and `kriging` have in common.

A target is a trend plus a Gaussian process plus noise (Rasmussen and Williams 2006, chapters 2 and
5; Cressie 1993, chapter 3, for universal kriging):

    y_mn = q_mn' beta_m + f_m(x_n) + e_mn,   x = w^power
    cov f_m   = a_m Matern_3/2(|L_m (x - x')|)     one length per domain: anisotropic
    var e_mn  = s_m H_n^gamma_m t_n + known noise

x is the share to a power near 1/2, a metric in which small shares count (1/2 is Hellinger's). H is
the mixture's concentration, `sum_j w_j^2`: proxies on one domain are noisier elsewhere. t_n is
one factor per run, the scale mixture of a Student t over all targets, so that a run that went
wrong loses weight for all of them. Hyper-parameters maximize the marginal likelihood times a
log-normal prior; the prior of the lengths is centered on their mean over the targets (empirical
Bayes), because few runs cannot tell K lengths per target.

Noise is also shared by the targets of a run (a bad proxy is bad at everything): one common factor
with loadings from a factor analysis of the left-out residuals, solved jointly.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lapack
from scipy.optimize import minimize

from cuvee.mixtures.domains import Array

HEAD = 4  # log s, log trend amplitude, gamma, log a; then K log inverse lengths
DEVIATIONS = (2.0, 2.0, 0.7, 2.0)  # prior deviations of the head
GAMMA = 0.7  # prior mean of gamma
POOL = 0.5  # how far the lengths' prior moves to the mean over targets
LOADING = 0.95  # bound on the common factor's part of the noise
JITTER = 1e-8
CHUNK = 2048  # mixtures predicted at a time


@dataclass(frozen=True)
class FieldData:
    """What one batch of fields is fitted to.

    Attributes:
        X: (N, K) shares to the power.
        y: (M, N) residuals from the trend's fit, of order 1.
        trend: (M, N, P) trend basis, scaled so that beta has unit prior variance.
        spread: (N,) log concentration, mean 0.
        known: (M, N) known noise variance.
    """

    X: Array
    y: Array
    trend: Array
    spread: Array
    known: Array


@dataclass(frozen=True)
class Prior:
    """Prior of the hyper-parameters.

    Attributes:
        lengths: (M, K) mean of the log inverse lengths.
        width: their deviation.
        noise: mean of log s.
        freedom: degrees of freedom of the Student t.
        rounds: of marginal likelihood, pooled lengths and run factors.
        steps: of the optimizer in the first round.
        more: of the optimizer in each later round, which begins where the last one ended.
    """

    lengths: Array
    width: float = 1.0
    noise: float = -1.0
    freedom: float = 4.0
    rounds: int = 4
    steps: int = 40
    more: int = 12


@dataclass(frozen=True)
class Fields:
    """Fitted fields of all targets.

    Attributes:
        X: (N, K).
        trend: (M, N, P).
        theta: (M, 4 + K) hyper-parameters.
        alpha: (M, N) weights of the runs in a prediction.
        inverse: (M, N, N) inverse covariances, for variances.
        factors: (N,) log t.
    """

    X: Array
    trend: Array
    theta: Array
    alpha: Array
    inverse: Array
    factors: Array

    def predict(self, Z: Array, trend: Array, spread: Array) -> tuple[Array, Array]:
        """Means and variances (M, n) of new observations.

        Args:
            Z: (n, K) shares to the power.
            trend: (M, n, P) their trend basis.
            spread: (n,) their log concentration, on the scale of the fit.
        """
        parts = [slice(i, i + CHUNK) for i in range(0, len(Z), CHUNK)]
        found = [self._part(Z[s], trend[:, s], spread[s]) for s in parts]
        mean, variance = (np.concatenate(x, axis=1) for x in zip(*found, strict=True))
        return mean, variance

    def _part(self, Z: Array, trend: Array, spread: Array) -> tuple[Array, Array]:
        mean, variance = np.empty((2, len(self.theta), len(Z)))
        for m, theta in enumerate(self.theta):
            noise, amplitude, field = np.exp(theta[[0, 1, 3]])
            c = field * _matern(Z, self.X, theta[HEAD:])[0]
            c += amplitude * trend[m] @ self.trend[m].T + 1.0
            prior = field + 1.0 + amplitude * np.einsum("np,np->n", trend[m], trend[m])
            mean[m] = c @ self.alpha[m]
            explained = np.einsum("nk,nk->n", c @ self.inverse[m], c)
            fresh = noise * np.exp(theta[2] * spread)
            variance[m] = np.maximum(prior - explained, 0.0) + fresh
        return mean, variance


def fit_fields(data: FieldData, prior: Prior, start: Fields | None = None) -> Fields:
    """Fields of all targets.

    Args:
        data: what is fitted.
        prior: of the hyper-parameters.
        start: fields of the same targets to begin from.
    """
    m, n = data.y.shape
    head = np.array([prior.noise, 0.0, GAMMA, 0.0])
    lengths, shift = prior.lengths, np.zeros(data.X.shape[1])
    theta = start.theta if start else np.column_stack([np.tile(head, (m, 1)), lengths])
    factors = np.zeros(n)
    for i in range(prior.rounds):
        targets = [
            _Target(data, factors, j, np.concatenate([head, lengths[j] + shift]), prior.width)
            for j in range(m)
        ]
        steps = prior.more if i else prior.steps
        theta = np.stack([t.optimum(theta[j], steps) for j, t in enumerate(targets)])
        solved = [t.solved(theta[j]) for j, t in enumerate(targets)]
        shift = POOL * (theta[:, HEAD:] - lengths).mean(axis=0)
        head = np.concatenate([head[:2], [theta[:, 2].mean()], head[3:]])
        if i + 1 < prior.rounds:
            factors = factors + _surprise(solved, prior.freedom)
            factors = factors - np.log(np.mean(np.exp(factors)))
    return _jointly(data, theta, solved, factors)


@dataclass(frozen=True)
class _Solved:
    """A target at its hyper-parameters: left-out residuals and their variances, noise, inverse."""

    left_out: Array
    variance: Array
    noise: Array
    inverse: Array


def _surprise(solved: list[_Solved], freedom: float) -> Array:
    """(N,) log of the factor by which each run's noise is larger than it was thought to be.

    The mean of a Student t's scale given the standardized left-out residuals of the M targets.
    """
    squares = np.stack([s.left_out**2 / s.variance for s in solved])
    m = len(solved)
    return np.asarray(np.log((freedom + squares.sum(axis=0)) / (freedom + m)), dtype=np.float64)


def _jointly(data: FieldData, theta: Array, solved: list[_Solved], factors: Array) -> Fields:
    """Solve all targets together, given that part of a run's noise is common to them.

    With e_mn = l_m sqrt(v_mn) u_n + rest, u_n of unit variance, Woodbury's identity leaves
    one system of N unknowns, the u, beyond the targets' own.
    """
    n = data.y.shape[1]
    load = _loadings(np.stack([s.left_out / np.sqrt(s.variance) for s in solved]))
    inverses, system, right = [], np.eye(n), np.zeros(n)
    for m, s in enumerate(solved):
        common = load[m] * np.sqrt(s.noise)
        own = np.linalg.inv(s.inverse)
        own[np.diag_indices(n)] -= common**2
        inverse = np.linalg.inv(own)
        inverses.append(inverse)
        system += common[:, None] * inverse * common
        right += common * (inverse @ data.y[m])
    u = np.linalg.solve(system, right)
    alpha = [
        inverses[m] @ (data.y[m] - load[m] * np.sqrt(s.noise) * u) for m, s in enumerate(solved)
    ]
    inverse = np.stack([s.inverse for s in solved])
    return Fields(data.X, data.trend, theta, np.stack(alpha), inverse, factors)


def _loadings(residuals: Array) -> Array:
    """One-factor loadings (M,) of residuals (M, N), by principal-axis iteration."""
    m = len(residuals)
    if m < 3:
        return np.zeros(m)  # two targets cannot tell a factor from their own noise
    scale = np.maximum(residuals.std(axis=1), 1e-12)
    z = (residuals - residuals.mean(axis=1, keepdims=True)) / scale[:, None]
    correlation = z @ z.T / residuals.shape[1]
    shared = np.full(m, 0.5)
    for _ in range(100):
        np.fill_diagonal(correlation, shared)
        values, vectors = np.linalg.eigh(correlation)
        load = vectors[:, -1] * np.sqrt(max(values[-1], 0.0))
        shared = np.minimum(load**2, LOADING)
    load = load * (1.0 if load.sum() >= 0 else -1.0)
    return np.asarray(np.clip(load, -LOADING, LOADING), dtype=np.float64)


class _Target:
    """The marginal likelihood of one target as a function of its hyper-parameters."""

    def __init__(self, data: FieldData, factors: Array, m: int, mean: Array, width: float) -> None:
        self.X, self.y, self.known = data.X, data.y[m], data.known[m]
        self.trend = data.trend[m] @ data.trend[m].T
        self.spread, self.factors = data.spread, factors
        self.mean = mean
        self.deviation = np.concatenate([DEVIATIONS, np.full(len(mean) - HEAD, width)])

    def optimum(self, start: Array, steps: int) -> Array:
        """Hyper-parameters (4 + K,) of the largest posterior, by L-BFGS."""
        found = minimize(
            self.objective,
            np.clip(start, -10.0, 6.0),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-10.0, 6.0)] * len(start),
            options={"maxiter": steps},
        )
        return np.asarray(found.x, dtype=np.float64)

    def _covariance(self, theta: Array) -> tuple[Array, Array, Array, Array]:
        amplitude, field = np.exp(theta[[1, 3]])
        noise = np.exp(theta[0] + theta[2] * self.spread + self.factors)
        k, slope = _matern(self.X, self.X, theta[HEAD:])
        c = field * k + amplitude * self.trend + 1.0
        c[np.diag_indices(len(c))] += noise + self.known + JITTER
        return c, k, slope, noise

    def objective(self, theta: Array) -> tuple[float, Array]:
        """Negative log posterior and its gradient."""
        c, k, slope, noise = self._covariance(theta)
        inverse, half_log = _inverse(c)
        if inverse is None:
            return 1e10, np.zeros_like(theta)
        alpha = inverse @ self.y
        g = 0.5 * (inverse - np.outer(alpha, alpha))
        amplitude, field = np.exp(theta[[1, 3]])
        by_noise = np.diag(g) * noise
        gradient = np.empty_like(theta)
        gradient[0], gradient[2] = by_noise.sum(), by_noise @ self.spread
        gradient[1] = amplitude * np.vdot(g, self.trend)
        gradient[3] = field * np.vdot(g, k)
        # sum_nk h_nk (x_nj - x_kj)^2 for all j at once, by expanding the square
        h, x = g * slope * field, self.X * np.exp(theta[HEAD:])
        gradient[HEAD:] = 4.0 * ((x * x).T @ h.sum(axis=1) - ((h @ x) * x).sum(axis=0))
        z = (theta - self.mean) / self.deviation
        value = 0.5 * self.y @ alpha + half_log + 0.5 * z @ z
        return float(value), gradient + z / self.deviation

    def solved(self, theta: Array) -> _Solved:
        c, _, _, noise = self._covariance(theta)
        found, _ = _inverse(c)
        inverse = np.asarray(np.linalg.pinv(c) if found is None else found, dtype=np.float64)
        variance = 1.0 / np.diag(inverse)
        return _Solved((inverse @ self.y) * variance, variance, noise, inverse)


def _inverse(c: Array) -> tuple[Array | None, float]:
    """Inverse of a covariance and half its log determinant; None if it is not positive."""
    factor, failed = lapack.dpotrf(c, lower=1)
    if failed:
        return None, 0.0
    lower, _ = lapack.dpotri(factor, lower=1)
    inverse = np.tril(lower) + np.tril(lower, -1).T
    return inverse, float(np.log(np.diag(factor)).sum())


def _matern(A: Array, B: Array, logs: Array) -> tuple[Array, Array]:
    """Matern 3/2 correlation (n, N), and its derivative by the squared distance."""
    a, b = A * np.exp(logs), B * np.exp(logs)
    square = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None] - 2.0 * a @ b.T
    r = np.sqrt(3.0 * np.maximum(square, 0.0))
    e = np.exp(-r)
    return (1.0 + r) * e, -1.5 * e
