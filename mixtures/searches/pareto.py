"""Pareto front: what one objective costs another.

For each of a row of bounds b, evenly spaced between the two ends, minimise the first objective
where the second is at most b (the epsilon-constraint method; Haimes et al. 1971). Weighted sums
would leave gaps wherever the front is straight and would miss its concave parts. Laws of
exponential form are solved exactly; for all others the front of many feasible draws is taken.
"""

from dataclasses import replace

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.constraints import feasible
from cuvee.mixtures.designs.dirichlet import draw_dirichlet
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import FittedLaw, predicted_means
from cuvee.mixtures.objectives import Objective, Scalarized
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Compromise
from cuvee.mixtures.searches import score
from cuvee.mixtures.searches.convex import Program

DRAWS = 10_000
ROUNDS = 5  # of refinement for laws that are not solved exactly
AROUND = 100.0  # concentration of the draws around a point of the front
EQUAL = 1e-7  # bits per byte below which two points of a front are one


def pareto_front(
    law: FittedLaw,
    problem: Problem,
    pair: tuple[Objective, Objective],
    *,
    reference: Array,
    rng: np.random.Generator,
    points: int = 24,
) -> tuple[Compromise, ...]:
    """The front between two objectives, from the best of the first to the best of the second.

    Floors of the objectives do not enter: the front is there to choose them.

    Args:
        law: fitted to the problem's targets.
        problem: whose constraints every point keeps; its own objective is not used.
        pair: the two objectives.
        reference: (M,) predicted scores of the natural mixture.
        rng: the only source of chance.
        points: wanted; fewer come back where the objectives hardly disagree.

    Raises:
        RecipeError: fewer than 2 points are asked for, or sparsity with an exact law.
    """
    if points < 2:
        raise RecipeError(f"a front needs at least 2 points; got {points}")
    scalars = tuple(objective.scalarize(problem.targets, reference) for objective in pair)
    exact = score.exponential(law) is not None and problem.constraints.most_domains is None
    found = _exact(law, problem, scalars, points) if exact else _drawn(law, problem, scalars, rng)
    scores = predicted_means(law, found)
    values = np.column_stack([scalar.relaxed(scores) for scalar in scalars])
    kept = _thinned(values, undominated(values), points)
    return tuple(compromise(found[i], values[i]) for i in kept)


def compromise(weights: Array, values: Array, name: str = "") -> Compromise:
    """A mixture (K,) with its values (2,)."""
    return Compromise(tuple(map(float, weights)), float(values[0]), float(values[1]), name)


def undominated(values: Array) -> list[int]:
    """Rows (n, 2) that no other row is at least as good as in both, in order of the first."""
    kept: list[int] = []
    lowest = np.inf
    for i in np.lexsort((values[:, 1], values[:, 0])):
        if values[i, 1] < lowest - EQUAL:
            kept.append(int(i))
            lowest = float(values[i, 1])
    return kept


def _thinned(values: Array, rows: list[int], points: int) -> list[int]:
    """At most `points` rows, spread evenly along the front, its ends included."""
    if len(rows) <= points:
        return rows
    span = np.maximum(np.ptp(values[rows], axis=0), EQUAL)
    steps = np.linalg.norm(np.diff(values[rows] / span, axis=0), axis=1)
    along = np.append(0.0, np.cumsum(steps))
    wanted = np.linspace(0.0, along[-1], points)
    nearest = {ties.lowest(np.abs(along - place), float(along[-1])) for place in wanted}
    return [rows[i] for i in sorted(nearest)]


def _exact(law: FittedLaw, problem: Problem, scalars: tuple[Scalarized, ...], points: int) -> Array:
    first, second = (scalar.without_floors for scalar in scalars)
    program = Program(
        curve=score.curve_of(law),
        scalar=first,
        prior=problem.domains.natural,
        kl_reg=0.0,
    )
    region = feasible.region_of(problem.constraints)
    start = feasible.clamp_inside(problem.domains.natural[None], region)[0]

    def solve(scalar: Scalarized, begin: Array) -> Array:
        solved = replace(program, scalar=scalar).solve(problem.constraints, begin)
        return np.asarray(feasible.clamp_inside(solved[None], region)[0], dtype=np.float64)

    ends = [solve(first, start), solve(second, start)]
    levels = [float(second.relaxed(program.scores(w))) for w in ends]
    rows, w = [ends[0]], ends[0]
    for bound in np.linspace(levels[0], levels[1], 2 * points)[1:-1]:
        held = replace(first, floors=second.rows, bounds=second.offsets + bound)
        w = solve(held, w)
        rows.append(w)
    found = np.array([*rows, ends[1]])
    return simplex.without_rounding(found)


def _drawn(
    law: FittedLaw, problem: Problem, scalars: tuple[Scalarized, ...], rng: np.random.Generator
) -> Array:
    """Feasible draws, then a few rounds of draws between and around the points of the front."""
    prior = problem.domains.natural

    def raw(count: int) -> Array:
        half = -(-count // 2)
        wide = draw_dirichlet(np.full(prior.size, 0.5), half, rng)
        return rng.permutation(np.vstack([draw_dirichlet(prior, half, rng), wide]))

    found = feasible.draw_inside(raw, problem.constraints, DRAWS, rng)
    for _ in range(ROUNDS):
        scores = predicted_means(law, found)
        best = found[undominated(np.column_stack([scalar.relaxed(scores) for scalar in scalars]))]
        one, two = rng.integers(len(best), size=(2, DRAWS // ROUNDS))
        part = rng.random((len(one), 1))
        around = np.array([rng.dirichlet(AROUND * best[i] + 1e-3) for i in one[: len(one) // 2]])
        fresh = np.vstack([part * best[one] + (1 - part) * best[two], around])
        found = np.vstack([best, fresh[problem.constraints.satisfied(fresh)]])
    return found
