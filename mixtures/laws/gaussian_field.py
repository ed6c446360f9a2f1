"""Kriging of all targets: a trend plus a Gaussian process plus noise, exact or on anchors.

Rasmussen and Williams 2006, chapters 2 and 5; Cressie 1993, chapter 3, for universal kriging:

    y_mn = q_mn' beta_m + f_m(x_n) + e_mn,   x = w^power
    cov f_m   = a_m Matern_3/2(|L_m (x - x')|)     one length per domain: anisotropic
    var e_mn  = s_m H_n^gamma_m t_n + known noise

x is the share to a power near 1/2, a metric in which small shares count (1/2 is Hellinger's). H is
the mixture's concentration, `sum_j w_j^2`: proxies on one domain are noisier elsewhere. t_n is
one factor per run, the scale mixture of a Student t over all targets, so that a run that went
wrong loses weight for all of them. Hyper-parameters maximize the marginal likelihood times a
log-normal prior; the prior of the lengths is centered on their mean over the targets (empirical
Bayes), because few runs cannot tell K lengths per target.

They are found on some of the runs (`_subset`); then each target is solved once on all. Beyond
`EXACT` runs the process is known by its values at `ANCHORS` of them (FITC: Snelson and Ghahramani
2006, "Sparse Gaussian processes using pseudo-inputs"), so that time grows with the runs and not
with their cube.
What a fit without a block of runs would have said of them follows from the whole's inverse P:
residuals `(P_FF)^-1 (P y)_F`, covariance `(P_FF)^-1` (Rasmussen and Williams, section 5.4.2).
"""

import functools
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy.linalg import lapack
from scipy.optimize import minimize

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws.calibration import Rows
from cuvee.mixtures.threads import each_part

Partition = tuple[Rows, ...]  # of the runs into blocks, each of which is left out once

HEAD = 4  # log s, log trend amplitude, gamma, log a; then K log inverse lengths
DEVIATIONS = (2.0, 2.0, 0.7, 2.0)  # prior deviations of the head
GAMMA = 0.7  # prior mean of gamma
POOL = 0.5  # how far the lengths' prior moves to the mean over targets
JITTER, ANCHOR_JITTER = 1e-8, 1e-6
SUBSET, MOST, EACH = 192, 384, 10  # runs that hyper-parameters need: least, most, for each length
EXACT, ANCHORS = 1024, 512  # runs solved exactly, and those that stand for more
WAVES, KINDS = 128, 50  # of a draw's path of the prior, and how many such sets draws have
LARGE = 50_000  # entries of shares of a fit whose targets are computed on all cores
FEW = 6  # targets of a large fit that say how surprising a run is that hyper-parameters had not


@dataclass(frozen=True)
class FieldData:
    """What one batch of fields is fitted to.

    Attributes:
        X: (N, K) shares to the power.
        y: (M, N) residuals from the trend's fit, of order 1.
        trend: (M, N, P) trend basis, scaled so that beta has unit prior variance.
        spread: (N,) log concentration, mean 0.
        known: (M, N) known noise variance.
        scattered: (N,) the runs in an order as good as random.
    """

    X: Array
    y: Array
    trend: Array
    spread: Array
    known: Array
    scattered: Rows

    @property
    def large(self) -> bool:
        """Whether its targets are worth a thread each."""
        return self.X.size > LARGE

    def take(self, rows: Rows) -> "FieldData":
        """Some of the runs."""
        return FieldData(
            self.X[rows], self.y[:, rows], self.trend[:, rows], self.spread[rows],
            self.known[:, rows], np.arange(len(rows)),
        )  # fmt: skip


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


Weights = tuple[Array, Array, Array]  # of anchors (A, ...), trend (P, ...) and constant (...)


class Uncertainty(Protocol):
    """How sure a process is of itself."""

    def variance(self, theta: Array, k: Array, trend: Array) -> Array:
        """(n,) of the process and its trend, from correlations with the anchors (n, A)."""
        ...

    def conditioned(self, theta: Array, path: Array, rng: np.random.Generator) -> Weights:
        """What B paths of the prior, with values (A, B) at the anchors, are moved by to be draws of
        what the runs leave open of the process and its trend (Matheron's rule)."""
        ...


@dataclass(frozen=True)
class FromRuns:
    """From all runs.

    Attributes:
        inverse: (N, N) of their covariance.
        trend: (N, P).
        noise: (N,) variance.
    """

    inverse: Array
    trend: Array
    noise: Array

    def variance(self, theta: Array, k: Array, trend: Array) -> Array:
        amplitude, field = np.exp(theta[[1, 3]])
        c = field * k + amplitude * trend @ self.trend.T + 1.0
        prior = field + 1.0 + amplitude * np.einsum("np,np->n", trend, trend)
        return np.asarray(prior - np.einsum("nk,nk->n", c @ self.inverse, c), dtype=np.float64)

    def conditioned(self, theta: Array, path: Array, rng: np.random.Generator) -> Weights:
        amplitude, field = np.exp(theta[[1, 3]])
        noise = np.sqrt(self.noise)[:, None] * rng.standard_normal(path.shape)
        constant = rng.standard_normal(path.shape[1])
        trend = np.sqrt(amplitude) * rng.standard_normal((self.trend.shape[1], path.shape[1]))
        alpha = self.inverse @ (path + noise + self.trend @ trend + constant)
        trend = trend - amplitude * (self.trend.T @ alpha)
        return -field * alpha, trend, constant - alpha.sum(axis=0)


@dataclass(frozen=True)
class FromAnchors:
    """From anchors.

    Attributes:
        whiten: (A, A) inverse of the lower factor of their correlation.
        inverse: (D, D) posterior covariance of the features' weights.
    """

    whiten: Array
    inverse: Array

    def features(self, theta: Array, k: Array, trend: Array) -> Array:
        """(n, D) features: of the process, of the trend, and the constant."""
        amplitude, field = np.exp(0.5 * theta[[1, 3]])
        process = field * (k @ self.whiten.T)
        return np.hstack([process, amplitude * trend, np.ones((len(k), 1))])

    def variance(self, theta: Array, k: Array, trend: Array) -> Array:
        phi = self.features(theta, k, trend)
        known = np.einsum("nd,nd->n", phi @ self.inverse, phi)
        beyond = np.exp(theta[3]) - (phi[:, : len(self.whiten)] ** 2).sum(axis=1)
        return np.asarray(known + np.maximum(beyond, 0.0), dtype=np.float64)

    def conditioned(self, theta: Array, path: Array, rng: np.random.Generator) -> Weights:
        size, (amplitude, field) = len(self.whiten), np.exp(0.5 * theta[[1, 3]])
        root = np.linalg.cholesky(self.inverse)
        drawn = root @ rng.standard_normal((len(root), path.shape[1]))
        anchors = self.whiten.T @ (field * drawn[:size] - self.whiten @ path)
        return anchors, amplitude * drawn[size:-1], drawn[-1]


@dataclass(frozen=True)
class Waves:
    """Random waves, whose sums are paths of the prior: random Fourier features (Rahimi and Recht
    2007, "Random features for large-scale kernel machines"), of a Matern 3/2: Student's t of 3
    degrees of freedom.

    Attributes:
        frequencies: (D, K).
        phases: (D,).
    """

    frequencies: Array
    phases: Array

    @classmethod
    def drawn(cls, domains: int, rng: np.random.Generator) -> "Waves":
        """Waves over coordinates in units of the lengths."""
        scale = np.sqrt(3.0 / rng.chisquare(3.0, WAVES))
        frequencies = rng.standard_normal((WAVES, domains)) * scale[:, None]
        return cls(frequencies, rng.uniform(0.0, 2.0 * np.pi, WAVES))

    def angles(self, z: Array) -> Array:
        """(n, D) at coordinates (n, K) in units of the lengths."""
        return np.asarray(z @ self.frequencies.T + self.phases, dtype=np.float64)


@dataclass(frozen=True)
class Posterior:
    """One target given the runs, or a draw of it.

    Attributes:
        anchors: (A,) weights of the correlations with the anchors in a mean.
        trend: (P,) weights of the trend.
        constant: of a mean.
        sure: how sure it is.
        waved: (D,) weights of the waves of a draw; the mean has none.
    """

    anchors: Array
    trend: Array
    constant: float
    sure: Uncertainty
    waved: Array | None = None

    def mean(self, k: Array, trend: Array) -> Array:
        """(n,) from correlations with the anchors (n, A) and the trend (n, P), without waves."""
        return np.asarray(k @ self.anchors + trend @ self.trend + self.constant, dtype=np.float64)

    def moved(self, by: list[Array]) -> "Posterior":
        """With these added to the weights of anchors, trend, constant and waves."""
        anchors, trend, constant = self.anchors + by[0], self.trend + by[1], self.constant + by[2]
        return Posterior(anchors, trend, float(constant), self.sure, by[3])


@dataclass(frozen=True)
class Fields:
    """Fitted fields of all targets.

    Attributes:
        X: (A, K) the anchors' shares to the power.
        theta: (M, 4 + K) hyper-parameters.
        factors: (N,) log t.
        posteriors: one for each target.
        left_out: (S, 2, M, N) residuals of every run under a fit without its block, and their
            variances, for S partitions of the runs into blocks.
        waves: of a draw.
    """

    X: Array
    theta: Array
    factors: Array
    posteriors: tuple[Posterior, ...]
    left_out: Array
    waves: Waves | None = None

    def means(self, Z: Array, trend: Array) -> Array:
        """Means (M, n) of shares to the power (n, K) with their trend basis (M, n, P)."""
        return np.stack([self._mean(m, self._near(m, Z)[0], Z, q) for m, q in enumerate(trend)])

    def _near(self, m: int, Z: Array) -> tuple[Array, Array]:
        """Correlation (n, A) of shares to the power with the anchors, and its derivative."""
        scale, anchors = self._scaled[m]
        return _matern_of(Z * scale, anchors)

    @functools.cached_property
    def _scaled(self) -> list[tuple[Array, Array]]:
        """Of each target the lengths' inverses (K,) and the anchors in units of the lengths."""
        return [(scale, self.X * scale) for scale in np.exp(self.theta[:, HEAD:])]

    def _mean(self, m: int, k: Array, Z: Array, trend: Array) -> Array:
        posterior = self.posteriors[m]
        mean = posterior.mean(k, trend)
        if self.waves is not None and posterior.waved is not None:
            mean = mean + np.cos(self.waves.angles(Z * self._scaled[m][0])) @ posterior.waved
        return mean

    def slopes(self, Z: Array) -> tuple[Array, Array]:
        """Means (M, n) without the trend, and their derivatives (M, n, K), by shares to the power
        (n, K)."""
        mean, slope = np.empty((len(self.theta), len(Z))), np.empty((len(self.theta), *Z.shape))
        for m, posterior in enumerate(self.posteriors):
            scale, anchors = self._scaled[m]
            z, (k, by_square) = Z * scale, self._near(m, Z)
            by_square *= posterior.anchors
            mean[m] = k @ posterior.anchors + posterior.constant
            slope[m] = 2.0 * (z * by_square.sum(axis=1)[:, None] - by_square @ anchors)
            if self.waves is not None and posterior.waved is not None:
                angles = self.waves.angles(z)
                mean[m] += np.cos(angles) @ posterior.waved
                slope[m] -= (np.sin(angles) * posterior.waved) @ self.waves.frequencies
            slope[m] *= scale
        return mean, slope

    def draws(self, count: int, widths: Array, rng: np.random.Generator) -> list["Fields"]:
        """Fields as they may as well be, given the runs; deviations times widths (M,).

        Few share their waves, so that over draws their covariance is the process's.
        """
        kinds = [Waves.drawn(self.X.shape[1], child) for child in rng.spawn(min(count, KINDS))]
        waves = [kinds[b % KINDS] for b in range(count)]

        def drawn(part: tuple[Posterior, Array, float, np.random.Generator]) -> list[Posterior]:
            own, theta, width, child = part
            X, size = self.X * np.exp(theta[HEAD:]), np.sqrt(2.0 * np.exp(theta[3]) / WAVES)
            waved = size * child.standard_normal((WAVES, count))
            path = np.empty((len(X), count))
            for i, kind in enumerate(kinds):
                path[:, i::KINDS] = np.cos(kind.angles(X)) @ waved[:, i::KINDS]
            moves = (*own.sure.conditioned(theta, path, child), waved)
            return [own.moved([width * move[..., b] for move in moves]) for b in range(count)]

        parts = zip(self.posteriors, self.theta, widths, rng.spawn(len(self.theta)), strict=True)
        each_target = each_part(drawn, parts, self.X.size > LARGE)
        found = [
            replace(self, posteriors=posteriors, waves=each)
            for posteriors, each in zip(zip(*each_target, strict=True), waves, strict=True)
        ]
        for one in found:
            vars(one)["_scaled"] = self._scaled  # alike in all, and as large as the rest together
        return found

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_scaled"}

    def predict(self, Z: Array, trend: Array, spread: Array) -> tuple[Array, Array]:
        """Means and variances (M, n) of new observations.

        Args:
            Z: (n, K) shares to the power.
            trend: (M, n, P) their trend basis.
            spread: (n,) their log concentration, on the scale of the fit.
        """
        mean, variance = np.empty((2, len(self.theta), len(Z)))
        for m, (posterior, theta) in enumerate(zip(self.posteriors, self.theta, strict=True)):
            k = self._near(m, Z)[0]
            mean[m] = self._mean(m, k, Z, trend[m])
            variance[m] = np.maximum(posterior.sure.variance(theta, k, trend[m]), 0.0)
            variance[m] += np.exp(theta[0] + theta[2] * spread)
        return mean, variance


def fit_fields(
    data: FieldData,
    prior: Prior,
    partitions: tuple[Partition, ...] = (),
    start: Array | None = None,
) -> Fields:
    """Fields of all targets.

    Args:
        data: what is fitted.
        prior: of the hyper-parameters.
        partitions: of the runs, for residuals of runs under a fit without their block.
        start: hyper-parameters of the same targets to begin from.
    """
    return solve_fields(data, *hyper_parameters(data, prior, start), partitions)


def hyper_parameters(
    data: FieldData, prior: Prior, start: Array | None = None
) -> tuple[Array, Array]:
    """Hyper-parameters (M, 4 + K) and factors (N,) of the runs, from some of them."""
    rows, factors = np.sort(data.scattered[: _subset(*data.X.shape)]), np.zeros(len(data.X))
    theta, factors[rows] = _likeliest(data.take(rows), prior, start)
    if len(rows) < len(factors):
        rest = np.setdiff1d(np.arange(len(factors)), rows)
        pairs = list(zip(_targets(data, factors), theta, strict=True))
        pairs = pairs[:: -(-len(pairs) // FEW)] if data.large else pairs
        found = each_part(lambda pair: pair[0].solved(pair[1]).left_out(), pairs, data.large)
        factors[rest] += _surprise(found, prior.freedom)[rest]
        factors -= np.log(np.mean(np.exp(factors)))
    return theta, factors


def _subset(runs: int, lengths: int) -> int:
    """How many runs tell the hyper-parameters; where anchors stand for the rest, time is short."""
    return SUBSET if runs > EXACT else max(SUBSET, min(MOST, EACH * lengths))


def solve_fields(
    data: FieldData, theta: Array, factors: Array, partitions: tuple[Partition, ...] = ()
) -> Fields:
    """Fields of all targets at known hyper-parameters (M, 4 + K) and factors (N,)."""

    def solve(pair: tuple[_Target, Array]) -> tuple[Posterior, Array]:
        solved, left_out = pair[0].solved(pair[1]), np.empty((len(partitions), 2, len(data.X)))
        for s, blocks in enumerate(partitions):
            for rows in blocks:
                left_out[s, 0, rows], left_out[s, 1, rows] = solved.without(rows)
        return solved.posterior, left_out

    pairs = list(zip(_targets(data, factors), theta, strict=True))
    posteriors, left_out = zip(*each_part(solve, pairs, data.large), strict=True)
    return Fields(
        data.X[_anchors(data)], theta, factors, tuple(posteriors), np.stack(left_out, axis=2)
    )


def _anchors(data: FieldData) -> Rows:
    n = len(data.X)
    return np.arange(n) if n <= EXACT else np.sort(data.scattered[:ANCHORS])


def _likeliest(data: FieldData, prior: Prior, start: Array | None) -> tuple[Array, Array]:
    """Hyper-parameters (M, 4 + K) and factors (N,) of largest posterior."""
    m, n = data.y.shape
    head = np.array([prior.noise, 0.0, GAMMA, 0.0])
    lengths, shift = prior.lengths, np.zeros(data.X.shape[1])
    theta = np.column_stack([np.tile(head, (m, 1)), lengths]) if start is None else start
    factors = np.zeros(n)
    for i in range(prior.rounds):
        steps = prior.more if i else prior.steps
        targets, means = _targets(data, factors), lengths + shift
        parts = [
            (t, (theta[j], np.concatenate([head, means[j]]), prior.width, steps))
            for j, t in enumerate(targets)
        ]
        theta = np.stack(each_part(lambda part: part[0].optimum(*part[1]), parts, data.large))
        shift = POOL * (theta[:, HEAD:] - lengths).mean(axis=0)
        head = np.concatenate([head[:2], [theta[:, 2].mean()], head[3:]])
        if i + 1 < prior.rounds:
            solved = [t.solved(h).left_out() for t, h in zip(targets, theta, strict=True)]
            factors = factors + _surprise(solved, prior.freedom)
            factors = factors - np.log(np.mean(np.exp(factors)))
    return theta, factors


class _Solved(Protocol):
    """A target at its hyper-parameters."""

    @property
    def posterior(self) -> Posterior: ...

    def left_out(self) -> tuple[Array, Array]:
        """Residuals (N,) of each run under a fit without it, and their variances."""

    def without(self, rows: Rows) -> tuple[Array, Array]:
        """Residuals of these runs under a fit without them, and their variances."""


@dataclass(frozen=True)
class _SolvedExactly:
    """From the inverse P (N, N) of the covariance, and alpha = P y."""

    posterior: Posterior
    alpha: Array
    inverse: Array

    def left_out(self) -> tuple[Array, Array]:
        variance = 1.0 / np.diag(self.inverse)
        return self.alpha * variance, variance

    def without(self, rows: Rows) -> tuple[Array, Array]:
        block = np.linalg.inv(self.inverse[np.ix_(rows, rows)])
        return block @ self.alpha[rows], np.diag(block)


@dataclass(frozen=True)
class _SolvedOnAnchors:
    """The same by features (N, D): P is diagonal less a matrix of rank D."""

    posterior: Posterior
    alpha: Array
    noise: Array
    scaled: Array  # features over the noise
    inverse: Array

    @functools.cached_property
    def _known(self) -> Array:
        return np.asarray(self.scaled @ self.inverse, dtype=np.float64)

    def left_out(self) -> tuple[Array, Array]:
        explained = np.einsum("nd,nd->n", self._known, self.scaled)
        variance = 1.0 / (1.0 / self.noise - explained)
        return self.alpha * variance, variance

    def without(self, rows: Rows) -> tuple[Array, Array]:
        explained = self._known[rows] @ self.scaled[rows].T
        block = np.linalg.inv(np.diag(1.0 / self.noise[rows]) - explained)
        return block @ self.alpha[rows], np.diag(block)


def _surprise(left_out: list[tuple[Array, Array]], freedom: float) -> Array:
    """(N,) log of the factor by which each run's noise is larger than it was thought to be.

    The mean of a Student t's scale given the standardized left-out residuals of the M targets.
    """
    squares = np.stack([r**2 / v for r, v in left_out])
    m = len(left_out)
    return np.asarray(np.log((freedom + squares.sum(axis=0)) / (freedom + m)), dtype=np.float64)


def _targets(data: FieldData, factors: Array) -> list["_Target"]:
    anchors = _anchors(data)
    return [_Target(data, factors, m, anchors) for m in range(len(data.y))]


class _Target:
    """The marginal likelihood of one target as a function of its hyper-parameters."""

    def __init__(self, data: FieldData, factors: Array, m: int, anchors: Rows) -> None:
        self.X, self.y, self.known = data.X, data.y[m], data.known[m]
        self.trend, self.anchors = data.trend[m], anchors
        self.spread, self.factors = data.spread, factors

    @functools.cached_property
    def of_trend(self) -> Array:
        """(N, N) covariance of the trend at amplitude 1."""
        return np.asarray(self.trend @ self.trend.T, dtype=np.float64)

    def optimum(self, start: Array, mean: Array, width: float, steps: int) -> Array:
        """Hyper-parameters (4 + K,) of the largest posterior, by L-BFGS."""
        deviation = np.concatenate([DEVIATIONS, np.full(len(mean) - HEAD, width)])

        def cost(theta: Array) -> tuple[float, Array]:
            value, gradient = self.objective(theta)
            z = (theta - mean) / deviation
            return value + 0.5 * float(z @ z), gradient + z / deviation

        found = minimize(
            cost,
            np.clip(start, -10.0, 6.0),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-10.0, 6.0)] * len(start),
            options={"maxiter": steps},
        )
        return np.asarray(found.x, dtype=np.float64)

    def _noise(self, theta: Array) -> Array:
        return np.asarray(np.exp(theta[0] + theta[2] * self.spread + self.factors))

    def _covariance(self, theta: Array) -> tuple[Array, Array, Array, Array]:
        amplitude, field = np.exp(theta[[1, 3]])
        noise = self._noise(theta)
        k, slope = _matern(self.X, self.X, theta[HEAD:])
        c = field * k
        c += amplitude * self.of_trend
        c += 1.0
        c[np.diag_indices(len(c))] += noise + self.known + JITTER
        return c, k, slope, noise

    def objective(self, theta: Array) -> tuple[float, Array]:
        """Negative log likelihood and its gradient."""
        c, k, slope, noise = self._covariance(theta)
        inverse, half_log = _inverse(c)
        if inverse is None:
            return 1e10, np.zeros_like(theta)
        alpha = inverse @ self.y
        g = inverse
        g -= np.outer(alpha, alpha)
        g *= 0.5
        amplitude, field = np.exp(theta[[1, 3]])
        by_noise = np.diag(g) * noise
        gradient = np.empty_like(theta)
        gradient[0], gradient[2] = by_noise.sum(), by_noise @ self.spread
        gradient[1] = amplitude * np.vdot(g, self.of_trend)
        gradient[3] = field * np.vdot(g, k)
        # sum_nk h_nk (x_nj - x_kj)^2 for all j at once, by expanding the square
        x = self.X * np.exp(theta[HEAD:])
        h = g
        h *= slope
        h *= field
        gradient[HEAD:] = 4.0 * ((x * x).T @ h.sum(axis=1) - ((h @ x) * x).sum(axis=0))
        return float(0.5 * self.y @ alpha + half_log), gradient

    def solved(self, theta: Array) -> _Solved:
        """The target given all runs, at its hyper-parameters."""
        if len(self.anchors) < len(self.X):
            return self._on_anchors(theta)
        c, _, _, _ = self._covariance(theta)
        found, _ = _inverse(c)
        inverse = np.asarray(np.linalg.pinv(c) if found is None else found, dtype=np.float64)
        alpha = inverse @ self.y
        amplitude, field = np.exp(theta[[1, 3]])
        weights = field * alpha, amplitude * (alpha @ self.trend), float(alpha.sum())
        noise = self._noise(theta) + self.known + JITTER
        posterior = Posterior(*weights, FromRuns(inverse, self.trend, noise))
        return _SolvedExactly(posterior, alpha, inverse)

    def _on_anchors(self, theta: Array) -> _Solved:
        U, size = self.X[self.anchors], len(self.anchors)
        correlation = _matern(U, U, theta[HEAD:])[0]
        correlation[np.diag_indices(size)] += ANCHOR_JITTER
        amplitude, field = np.exp(0.5 * theta[[1, 3]])
        root = np.asarray(np.linalg.cholesky(correlation), dtype=np.float64)
        whiten = np.asarray(np.linalg.inv(root), dtype=np.float64)
        k = _matern(self.X, U, theta[HEAD:])[0]
        phi = FromAnchors(whiten, whiten).features(theta, k, self.trend)
        beyond = np.maximum(np.exp(theta[3]) - (phi[:, :size] ** 2).sum(axis=1), 0.0)
        noise = self._noise(theta) + self.known + JITTER + beyond
        scaled = phi / noise[:, None]
        half = phi / np.sqrt(noise)[:, None]
        precision = half.T @ half
        precision[np.diag_indices(len(precision))] += 1.0
        lower = np.linalg.inv(np.linalg.cholesky(precision))
        inverse = np.asarray(lower.T @ lower, dtype=np.float64)
        weights = inverse @ (scaled.T @ self.y)
        alpha = (self.y - phi @ weights) / noise
        anchors = field * (weights[:size] @ whiten)
        posterior = Posterior(
            anchors, amplitude * weights[size:-1], float(weights[-1]), FromAnchors(whiten, inverse)
        )
        return _SolvedOnAnchors(posterior, alpha, noise, scaled, inverse)


def _inverse(c: Array) -> tuple[Array | None, float]:
    """Inverse of a covariance and half its log determinant; None if it is not positive."""
    factor, failed = lapack.dpotrf(c, lower=1)
    if failed:
        return None, 0.0
    half_log = float(np.log(np.diag(factor)).sum())
    lower, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    inverse = lower + lower.T  # above the diagonal the factor is clean
    inverse[np.diag_indices(len(inverse))] *= 0.5
    return inverse, half_log


def _matern(A: Array, B: Array, logs: Array) -> tuple[Array, Array]:
    """Matern 3/2 correlation (n, N), and its derivative by the squared distance."""
    return _matern_of(A * np.exp(logs), B * np.exp(logs))


def _matern_of(a: Array, b: Array) -> tuple[Array, Array]:
    """The same in units of the lengths."""
    r = a @ b.T
    r *= -2.0
    r += (a * a).sum(axis=1)[:, None]
    r += (b * b).sum(axis=1)
    np.maximum(r, 0.0, out=r)
    r *= 3.0
    np.sqrt(r, out=r)
    e = np.exp(-r)
    r += 1.0
    r *= e
    e *= -1.5
    return r, e
