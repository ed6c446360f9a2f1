"""Feasible sets: points inside them, when plain rejection would take for ever.

Every linear constraint set is a polytope. Its relative interior is found by linear programming; a
point outside is then pulled along the straight line to a centre until it is inside. Published
designs only reject. We pull when rejection keeps fewer than one draw in `PATIENCE`, and say so
here: the pulled draws lie denser near the limits than rejected ones would (assumption, not
studied; optima under caps lie on the limits too).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures.constraints import Constraints, Limit
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import ConstraintError

PATIENCE = 50  # draws per accepted point before rejection is given up
EDGE = 1e-9  # share by which a pulled point stays clear of a limit


@dataclass(frozen=True, eq=False)
class Region:
    """A feasible set's shape.

    Attributes:
        center: a point in its relative interior (K,).
        basis: orthonormal directions along which it extends (K, R); R is its dimension.
        constraints: the limits, sparsity replaced by the chosen support.
    """

    center: Array
    basis: Array
    constraints: Constraints


def on_support(constraints: Constraints, support: Sequence[int]) -> Constraints:
    """The constraints with every domain outside `support` held at zero, and no sparsity.

    Raises:
        ConstraintError: no mixture of these domains alone is feasible.
    """
    size = len(constraints.domains)
    zeros = tuple(
        Limit(f"{constraints.domains[k]} left out", tuple(map(float, np.eye(size)[k])), 0.0)
        for k in range(size)
        if k not in support
    )
    return replace(constraints, limits=constraints.limits + zeros, most_domains=None)


@functools.lru_cache(maxsize=512)
def region_of(constraints: Constraints) -> Region:
    """Centre and directions of a convex feasible set (sparsity is ignored)."""
    from scipy.linalg import null_space  # here: see `simplex`
    from scipy.optimize import linprog

    rows, bounds = _inequalities(constraints)
    loose = _loose(rows, bounds)
    size = len(constraints.domains)
    equal = np.vstack([np.ones((1, size)), rows[~loose]])
    values = np.concatenate([[1.0], bounds[~loose]])
    norms = np.linalg.norm(rows[loose], axis=1, keepdims=True)
    result = linprog(
        np.append(np.zeros(size), -1.0),
        A_ub=np.hstack([rows[loose], norms]) if loose.any() else None,
        b_ub=bounds[loose] if loose.any() else None,
        A_eq=np.hstack([equal, np.zeros((len(equal), 1))]),
        b_eq=values,
        bounds=[(0, 1)] * size + [(0, 1)],
        method="highs",
    )
    if result.status != 0:
        raise ConstraintError(f"no feasible mixture was found: {result.message}")
    center = np.clip(result.x[:size], 0.0, None)
    center = np.asarray(center / center.sum(), dtype=np.float64)
    if constraints.most_kl is not None:
        center = _towards_prior(center, constraints)
    basis = np.asarray(null_space(equal, rcond=1e-9), dtype=np.float64)
    return Region(center, basis, constraints)


def _inequalities(constraints: Constraints) -> tuple[Array, Array]:
    """All limits, non-negativity included, as `A w <= b`."""
    rows, bounds = constraints.matrix
    size = len(constraints.domains)
    return np.vstack([rows, -np.eye(size)]), np.concatenate([bounds, np.zeros(size)])


def _loose(rows: Array, bounds: Array) -> np.ndarray:
    """Which inequalities can hold strictly: the largest set of slacks that one point has at once.

    Homogenized: `A v + z <= b t`, `sum v = t`, `0 <= z <= 1`, `t >= 1`, most of `sum z`.
    """
    from scipy.optimize import linprog

    count, size = rows.shape
    cost = np.concatenate([np.zeros(size + 1), -np.ones(count)])
    result = linprog(
        cost,
        A_ub=np.hstack([rows, -bounds[:, None], np.eye(count)]),
        b_ub=np.zeros(count),
        A_eq=np.concatenate([np.ones(size), [-1.0], np.zeros(count)])[None],
        b_eq=[0.0],
        bounds=[(0, None)] * size + [(1, None)] + [(0, 1)] * count,
        method="highs",
    )
    if result.status != 0:
        raise ConstraintError(f"no feasible mixture was found: {result.message}")
    return np.asarray(result.x[size + 1 :] > 0.5, dtype=bool)


def _towards_prior(center: Array, constraints: Constraints) -> Array:
    """The centre moved towards the feasible mixture of least KL until it is inside the ball."""
    assert constraints.most_kl is not None
    nearest = constraints.nearest_to_prior()
    least = float(constraints.divergence(nearest))
    allowed = least + 0.5 * (constraints.most_kl - least)
    steps = np.linspace(1.0, 0.0, 200)[:, None]
    path = nearest + steps * (center - nearest)
    inside = constraints.divergence(path) <= allowed
    return np.asarray(path[int(np.argmax(inside))] if inside.any() else nearest, dtype=np.float64)


def pull_inside(points: Array, shape: Region, rng: np.random.Generator) -> Array:
    """Points (n, K) moved towards the centre until they are feasible; feasible ones stay.

    A point outside lands at a random depth between the limit and the centre, of which the volume
    is uniform (`u ** (1 / R)`).
    """
    direction, times = _towards(points, shape)
    reach = np.minimum(times, _reach_in_ball(direction, shape, np.minimum(times, 1.0)))
    depth = rng.random(len(points)) ** (1.0 / max(shape.basis.shape[1], 1))
    step = np.where(reach >= 1.0, 1.0, reach * depth * (1.0 - EDGE))
    moved = np.clip(shape.center + step[:, None] * direction, 0.0, None)
    return np.asarray(moved / moved.sum(axis=1, keepdims=True), dtype=np.float64)


def _towards(points: Array, shape: Region) -> tuple[Array, Array]:
    """Directions (n, K) from the centre to points, and how far (n,) along each the limits lie."""
    direction = (points - shape.center) @ shape.basis @ shape.basis.T
    rows, bounds = _inequalities(shape.constraints)
    slack = np.maximum(bounds - rows @ shape.center, 0.0)
    speed = direction @ rows.T
    times = np.where(speed > 1e-12, slack / np.where(speed > 1e-12, speed, 1.0), np.inf)
    return direction, times.min(axis=1)


def _reach_in_ball(direction: Array, shape: Region, most: Array) -> Array:
    """How far along each direction the KL ball reaches, by bisection; infinite without a ball."""
    if shape.constraints.most_kl is None:
        return np.full(len(direction), np.inf)

    def inside(step: Array) -> np.ndarray:
        points = np.clip(shape.center + step[:, None] * direction, 0.0, None)
        return shape.constraints.divergence(points) <= (shape.constraints.most_kl or 0.0)

    low, high = np.zeros(len(direction)), most.copy()
    free = inside(high)
    for _ in range(40):
        middle = 0.5 * (low + high)
        ok = inside(middle)
        low, high = np.where(ok, middle, low), np.where(ok, high, middle)
    return np.where(free, np.inf, low)


def draw_inside(
    draw: Callable[[int], Array], constraints: Constraints, n: int, rng: np.random.Generator
) -> Array:
    """Feasible points from a sampler of the whole simplex: rejection first, pulling after that.

    Args:
        draw: count -> points (count, K) of the simplex.
        constraints: what every point satisfies.
        n: points wanted.
        rng: the only source of chance.

    Returns:
        (n, K) points; not distinct by force.
    """
    kept: list[Array] = []
    have = tried = 0
    while have < n and tried < PATIENCE * n:
        points = keep_largest(draw(max(n, 256)), constraints.most_domains)
        tried += len(points)
        good = points[constraints.satisfied(points, slack=0.0)]
        kept.append(good)
        have += len(good)
    if have < n:
        kept.append(_pulled(draw, constraints, n - have, rng))
    return np.concatenate(kept)[:n]


def keep_largest(points: Array, most: int | None) -> Array:
    """Points with all but the `most` largest shares set to zero, renormalized."""
    if most is None or most >= points.shape[1]:
        return points
    order = np.argsort(-points, axis=1, kind="stable")
    kept = points.copy()
    np.put_along_axis(kept, order[:, most:], 0.0, axis=1)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True), dtype=np.float64)


def _pulled(
    draw: Callable[[int], Array], constraints: Constraints, n: int, rng: np.random.Generator
) -> Array:
    points = draw(n)
    if constraints.most_domains is None:
        return pull_inside(points, region_of(constraints), rng)
    rows = []
    shapes = sparse_regions(constraints, rng)
    for point in points:
        shape = shapes[int(rng.integers(len(shapes)))]
        rows.append(pull_inside(point[None], shape, rng)[0])
    return np.array(rows)


def sparse_regions(
    constraints: Constraints, rng: np.random.Generator, most: int = 64
) -> list[Region]:
    """Regions of up to `most` random sets of domains that a sparse mixture can have.

    Raises:
        ConstraintError: none of 20 times as many random sets is feasible.
    """
    size, keep = len(constraints.domains), constraints.most_domains or len(constraints.domains)
    found: dict[tuple[int, ...], Region] = {}
    for _ in range(20 * most):
        support = tuple(sorted(map(int, rng.choice(size, size=min(keep, size), replace=False))))
        if support in found:
            continue
        try:
            found[support] = region_of(on_support(constraints, support))
        except ConstraintError:
            continue
        if len(found) >= most:
            break
    if not found:
        raise ConstraintError(
            f"no set of {keep} domains was found that meets the other constraints: raise "
            f"most_domains or relax {'; '.join(limit.name for limit in constraints.limits)}"
        )
    return [found[support] for support in sorted(found)]


def clamp_inside(points: Array, shape: Region) -> Array:
    """Points (n, K) moved the least way along the line to the centre that makes them feasible.

    For a solver's answers, which leave the set by rounding alone.
    """
    direction, times = _towards(points, shape)
    reach = np.minimum(times, 1.0)
    reach = np.minimum(reach, _reach_in_ball(direction, shape, reach))
    moved = np.clip(shape.center + reach[:, None] * direction, 0.0, None)
    return np.asarray(moved / moved.sum(axis=1, keepdims=True), dtype=np.float64)
