"""Points of a polytope on the simplex: whether there is one, and which is nearest.

The three questions that constraints and designs put to scipy's solvers, as functions of plain
arrays: `rows w <= bounds` on the simplex of K domains.
"""

from typing import Any

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array


def has_mixture(rows: Array, bounds: Array, most: int) -> bool:
    """Whether a mixture of at most `most` domains lies within `rows w <= bounds`."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # here: see `simplex`

    size = rows.shape[1]
    conditions = [LinearConstraint(np.append(np.ones(size), np.zeros(size)), 1.0, 1.0)]
    conditions.append(LinearConstraint(np.hstack([np.eye(size), -np.eye(size)]), ub=0.0))
    conditions.append(LinearConstraint(np.append(np.zeros(size), np.ones(size)), ub=most))
    if len(rows):
        padded = np.hstack([rows, np.zeros_like(rows)])
        conditions.append(LinearConstraint(padded, ub=bounds))
    whole = np.append(np.zeros(size), np.full(size, 1 if most < size else 0))
    result = milp(
        np.zeros(2 * size), constraints=conditions, integrality=whole, bounds=Bounds(0, 1)
    )
    return bool(result.status == 0)


def least_kl(prior: Array, rows: Array, bounds: Array) -> Array:
    """The mixture within `rows w <= bounds` with the least KL to a prior: convex, by SLSQP."""
    from scipy.optimize import minimize

    inside = prior > 0
    safe = np.where(inside, prior, 1.0)

    def divergence(w: Array) -> tuple[float, Array]:
        return float(simplex.kl(w, safe)), simplex.kl_slope(w, safe)

    result = minimize(
        divergence,
        prior,
        jac=True,
        bounds=[(0.0, float(ok)) for ok in inside],
        constraints=_conditions(rows, bounds),
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-12},
    )
    return simplex.normalized(np.clip(result.x, 0.0, None))


def least_kl_dual(prior: Array, rows: Array, bounds: Array) -> Array:
    """The same, to some six digits and much faster: by its dual, one variable a limit.

    The mixture is `prior exp(-rows' x)`, normalized, at the x >= 0 that minimizes
    `log sum(prior exp(-rows' x)) + bounds . x`.
    """
    from scipy.optimize import minimize

    def dual(x: Array) -> tuple[float, Array]:
        exponents = -x @ rows
        top = exponents.max()
        mass = prior * np.exp(exponents - top)
        total = mass.sum()
        return float(np.log(total) + top + bounds @ x), bounds - rows @ (mass / total)

    start = np.zeros(len(rows))
    limits = [(0.0, None)] * len(rows)
    result = minimize(
        dual, start, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": 200}
    )
    return simplex.tilt(prior, -result.x @ rows)


def nearest_point(
    target: Array,
    ceiling: Array,
    rows: Array,
    bounds: Array,
    *,
    ball: tuple[Array, float | None],
) -> Array:
    """The mixture nearest to `target` in Euclidean distance, by SLSQP; the caller checks it.

    Args:
        target: (K,) any vector.
        ceiling: (K,) most of each share; 0 leaves a domain out.
        rows: (L, K) and bounds (L,): `rows w <= bounds`.
        bounds: see `rows`.
        ball: prior (K,) and the most KL to it in nats, or None.
    """
    from scipy.optimize import minimize

    prior, most_kl = ball
    conditions = _conditions(rows, bounds)
    if most_kl is not None:

        def left(w: Array) -> Array:
            w = np.maximum(w, 0.0)
            return most_kl - simplex.kl(w[w > 0], prior[w > 0])

        conditions.append({"type": "ineq", "fun": left})
    result = minimize(
        lambda w: 0.5 * float(np.sum((w - target) ** 2)),
        simplex.project_simplex(np.clip(target, 0, ceiling)) if ceiling.any() else target,
        jac=lambda w: w - target,
        bounds=[(0.0, float(c)) for c in ceiling],
        constraints=conditions,
        method="SLSQP",
        options={"maxiter": 500, "ftol": 1e-14},
    )
    return simplex.normalized(np.clip(result.x, 0.0, None))


def _conditions(rows: Array, bounds: Array) -> list[dict[str, Any]]:
    """A mixture within `rows w <= bounds`, as SLSQP takes it."""
    found: list[dict[str, Any]] = [
        {"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like}
    ]
    if len(rows):
        found.append({"type": "ineq", "fun": lambda w: bounds - rows @ w, "jac": lambda w: -rows})
    return found
