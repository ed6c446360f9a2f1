"""Least squares: many small nonlinear problems at once, by Levenberg-Marquardt.

A law is fitted to M targets from several starts and under several strengths of its prior; each of
these is a problem of some ten parameters. Solved one by one they cost Python more than arithmetic,
so this runs Levenberg-Marquardt on a batch: every array has a leading axis B of independent
problems, each with its own damping (Nocedal and Wright 2006, section 10.3).

The objective of problem b is

    sum_n v_bn (f_n(p_b) - y_bn)^2 + lambda_b (p_b - m_b)' Q (p_b - m_b)

with weights v and a quadratic prior Q around m. Because the minimum is linearized, leave-one-out
residuals cost nothing (`left_out`): `r_n / (1 - h_n)` with the leverage h. They choose lambda and
calibrate intervals.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.domains import Array
from cuvee.mixtures.threads import each_part

Curve = Callable[[Array, Array], tuple[Array, Array]]
"""(B, P) parameters and (n, K) shares -> (B, n) values and (B, n, P) derivatives."""

Index = NDArray[np.intp]  # positions in a batch

STEPS = 80
LARGE, MOST = 40_000, 8  # derivatives from which on problems are solved one by one; their steps
LOOSE = 1e-3  # their tolerance
TOLERANCE = 1e-10  # relative fall of the objective at which a problem is solved
SETTLED = 1e-8  # relative difference of objectives that are one minimum
LEVERAGE = 0.98  # a run's leverage is held below this, so that its left-out residual stays finite


@dataclass(frozen=True)
class FitProblem:
    """A batch of B least-squares problems that share runs and curve.

    Attributes:
        curve: the law.
        W: (N, K) shares.
        y: (B, N) scores, of order 1.
        v: (B, N) weights, of order 1.
        strength: (B,) lambda.
        prior: (P, P) Q, positive semidefinite.
        center: (B, P) m.
    """

    curve: Curve
    W: Array
    y: Array
    v: Array
    strength: Array
    prior: Array
    center: Array

    def take(self, index: Index) -> "FitProblem":
        """The problems at these positions of the batch."""
        parts = {n: getattr(self, n)[index] for n in ("y", "v", "strength", "center")}
        return replace(self, **parts)

    def objective(self, p: Array, values: Array) -> Array:
        """(B,) objective at parameters p with curve values (B, N)."""
        d = p - self.center
        fit = np.einsum("bn,bn->b", self.v, (values - self.y) ** 2)
        total = fit + self.strength * np.einsum("bp,pq,bq->b", d, self.prior, d)
        return np.where(np.isfinite(total), total, np.inf)

    def normal(self, jacobian: Array) -> Array:
        """(B, P, P) Gauss-Newton matrix."""
        weighted = jacobian * self.v[:, :, None]
        gram = np.matmul(weighted.transpose(0, 2, 1), jacobian)
        return np.asarray(gram + self.strength[:, None, None] * self.prior, dtype=np.float64)


@dataclass(frozen=True)
class Solution:
    """Minima of a batch.

    Attributes:
        p: (B, P) parameters.
        objective: (B,).
        left_out: (B, N) residuals `y - f` of each run under a fit without it (linearized).
        leverage: (B, N) in [0, 1).
        inverse: (B, P, P) inverse Gauss-Newton matrix: parameter covariance per unit variance.
    """

    p: Array
    objective: Array
    left_out: Array
    leverage: Array
    inverse: Array

    def take(self, index: Index) -> "Solution":
        """The solutions at these positions of the batch."""
        return Solution(*(getattr(self, n)[index] for n in self.__dataclass_fields__))


def marquardt(problem: FitProblem, start: Array, steps: int = STEPS) -> Solution:
    """Solve every problem of a batch from its start (B, P)."""
    p = np.array(start, dtype=np.float64)
    if len(problem.W) * p.shape[1] > LARGE:
        each = each_part(
            lambda b: _solve_large(problem.take(b), p[b], min(steps, MOST)),
            np.arange(len(p))[:, None],
            True,
        )
        return Solution(
            *(np.concatenate([getattr(s, n) for s in each]) for n in Solution.__dataclass_fields__)
        )
    damping = np.full(len(p), 1e-2)
    with np.errstate(over="ignore", invalid="ignore"):
        at = problem.curve(p, problem.W)
        best = problem.objective(p, at[0])
        active, part = np.arange(len(p)), problem
        going = np.isfinite(best)
        for _ in range(steps):
            if not going.all():
                active = active[going]
                if not len(active):
                    break
                part = problem.take(active)
                at = part.curve(p[active], part.W)
            fall, at = _step(part, p, best, damping, active, at)
            done = (fall >= 0) & (fall <= TOLERANCE * (best[active] + TOLERANCE))
            going = ~done & (damping[active] < 1e8)
    return _linearized(problem, p, best)


def _solve_large(problem: FitProblem, start: Array, steps: int) -> Solution:
    """One problem (B = 1) of many parameters or runs, to fewer digits; as `marquardt`."""
    p, damping, root = start[0], 1e-2, np.sqrt(problem.v[0])[:, None]
    strength, prior, center = problem.strength[0], problem.prior, problem.center[0]
    with np.errstate(over="ignore", invalid="ignore"):
        values, jacobian = problem.curve(start, problem.W)
        best = float(problem.objective(start, values)[0])
        while steps > 0 and np.isfinite(best) and damping < 1e8:
            half = jacobian[0] * root
            gram = half.T @ half + strength * prior
            gradient = (root[:, 0] * (values - problem.y)[0]) @ half
            gradient += strength * ((p - center) @ prior)
            diagonal = np.diag(gram)
            floor = 1e-9 * diagonal.max() + 1e-12
            fall = -1.0
            while fall < 0 < steps and damping < 1e8:
                steps -= 1
                damped = gram + np.diag(damping * (diagonal + floor))
                trial = p - np.linalg.solve(damped, gradient)
                tried = problem.curve(trial[None], problem.W)
                after = float(problem.objective(trial[None], tried[0])[0])
                fall = best - after if after <= best else -1.0
                damping = max(damping / 5.0, 1e-12) if fall >= 0 else damping * 4.0
            if fall < 0:
                break
            p, best, (values, jacobian) = trial, after, tried
            if fall <= LOOSE * (best + LOOSE):
                break
    return _linearized(problem, p[None], np.array([best]))


def _step(
    part: FitProblem, p: Array, best: Array, damping: Array, active: Index, at: tuple[Array, Array]
) -> tuple[Array, tuple[Array, Array]]:
    """One damped step of the active problems, in place; returns the fall, -1 where refused, and the
    curve where they are now."""
    values, jacobian = at
    gram = part.normal(jacobian)
    offset = part.strength[:, None] * ((p[active] - part.center) @ part.prior)
    gradient = np.einsum("bnp,bn->bp", jacobian, part.v * (values - part.y)) + offset
    diagonal = np.einsum("bpp->bp", gram)
    floor = 1e-9 * diagonal.max(axis=1, keepdims=True) + 1e-12
    gram = gram + np.eye(p.shape[1]) * (damping[active, None] * (diagonal + floor))[:, None, :]
    trial = p[active] - np.linalg.solve(gram, gradient[:, :, None])[:, :, 0]
    tried = part.curve(trial, part.W)
    after = part.objective(trial, tried[0])
    better = after <= best[active]
    fall = np.where(better, best[active] - after, -1.0)
    chosen = active[better]
    p[chosen], best[chosen] = trial[better], after[better]
    damping[active] = np.where(better, damping[active] / 5.0, damping[active] * 4.0)
    damping[active] = np.maximum(damping[active], 1e-12)
    if better.all():
        return fall, tried
    rows = better[:, None]
    return fall, (
        np.where(rows, tried[0], values),
        np.where(rows[:, :, None], tried[1], jacobian),
    )


def _linearized(problem: FitProblem, p: Array, best: Array) -> Solution:
    values, jacobian = problem.curve(p, problem.W)
    usable = np.isfinite(best)
    gram = np.where(usable[:, None, None], problem.normal(jacobian), np.eye(p.shape[1]))
    diagonal = np.einsum("bpp->bp", gram)
    tiny = 1e-10 * diagonal.max(axis=1, keepdims=True) + 1e-14
    inverse = np.linalg.inv(gram + np.eye(p.shape[1]) * tiny[:, None, :])
    leverage = np.einsum("bnp,bpq,bnq->bn", jacobian, inverse, jacobian, optimize=True) * problem.v
    leverage = np.clip(np.where(np.isfinite(leverage), leverage, LEVERAGE), 0.0, LEVERAGE)
    return Solution(p, best, (problem.y - values) / (1.0 - leverage), leverage, inverse)


def without_blocks(problem: FitProblem, p: Array, blocks: Sequence[Index]) -> Array:
    """(B, N) residuals of blocks of runs under a fit without each, linearized at p (B, P)."""

    def one(b: Index) -> Array:
        part = problem.take(b)
        values, jacobian = part.curve(p[b], part.W)
        J, v, residual = jacobian[0], part.v[0], (part.y - values)[0]
        gram, left_out = part.normal(jacobian)[0], residual.copy()
        gram[np.diag_indices(len(gram))] += 1e-10 * np.diag(gram).max()
        for rows in blocks:
            weighted = (J[rows] * v[rows, None]).T
            move = np.linalg.solve(gram - weighted @ J[rows], weighted @ residual[rows])
            left_out[rows] += J[rows] @ move
        return np.asarray(left_out, dtype=np.float64)

    return np.stack(each_part(one, np.arange(len(p))[:, None], True))


def cheapest(solution: Solution, cost: Array, groups: int) -> Solution:
    """The cheapest solution of each group; see `cheapest_rows`."""
    return solution.take(cheapest_rows(cost, groups))


def cheapest_rows(cost: Array, groups: int) -> Index:
    """The cheapest of each group of a batch laid out as (alternatives, groups).

    Args:
        cost: (B,) of B = alternatives x groups solutions, group fastest.
        groups: number of groups.
    """
    table = np.where(np.isfinite(cost), cost, np.inf).reshape(-1, groups)
    least = table.min(axis=0) * (1.0 + SETTLED)  # starts that ended in one minimum tie
    first = (table <= least).argmax(axis=0)
    return np.asarray(first * groups + np.arange(groups), dtype=np.intp)


def noise_weights(residuals: Array, noise: Array) -> Array:
    """Weights (B, N), with mean 1, from residuals and the known noise of each score.

    A score's variance is its noise over seeds plus the law's own misfit; the misfit is what the
    residuals show beyond the noise. Weighting by the noise alone would trust a quiet run
    where the law itself is what errs.
    """
    total = np.mean(residuals**2, axis=1, keepdims=True)
    misfit = np.maximum(total - np.mean(noise**2, axis=1, keepdims=True), 0.0)
    variance = noise**2 + np.maximum(misfit, 0.01 * total) + 1e-12
    v = 1.0 / variance
    return np.asarray(v / v.mean(axis=1, keepdims=True), dtype=np.float64)


def huber_weights(residuals: Array, threshold: float) -> Array:
    """Huber weights (B, N) in (0, 1]: 1 within `threshold` robust deviations, less beyond.

    The deviation is 1.4826 times the median absolute residual (Huber 1981, section 5).
    """
    scale = 1.4826 * np.median(np.abs(residuals), axis=1, keepdims=True)
    scale = np.maximum(scale, 1e-9)
    return np.minimum(1.0, threshold * scale / np.maximum(np.abs(residuals), 1e-300))
