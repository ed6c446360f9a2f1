"""Exact search: the convex problem that laws of the form `c_m + exp(A_m . w)` give.

    min_w  max_p ( r_p . y(w) - o_p ) + kl_reg * KL(w || natural),   y_m(w) = c_m + exp(A_m . w)
    subject to the linear limits, the KL ball and the floors  f . y(w) <= b

Weights r and f are not negative, so that everything is convex and a local optimum is the optimum.
Source: Olmix, `olmix/fit/core.py` (cvxpy with ECOS, one mean, kl_reg 0.05 in the paper's
configurations). Departures: scipy's SLSQP with analytic gradients, so that no further solver is
needed; floors and worst-case objectives; sparsity by trying supports (all if there are at most
`SUPPORTS`, else by leaving out one domain after another).
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.constraints import Constraints, feasible
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import ConstraintError, RecipeError
from cuvee.mixtures.laws import FittedLaw, predicted_means
from cuvee.mixtures.laws.bounds import unbounded
from cuvee.mixtures.objectives import SLACK, Scalarized
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.registry import register
from cuvee.mixtures.searches import Search, score
from cuvee.mixtures.searches.convex import Program

SUPPORTS = 200
NEARER = np.append(np.geomspace(1.0, 1e-6, 40)[1:], 0.0)  # parts left of a line, to its end
EDGE = 1e-8  # bits per byte that a descent stays inside floors: a solver's rounding
DRAWS = 1000  # mixtures tried where floors yield, for laws that are constant in pieces


@register("search")
@dataclass(frozen=True)
class Exact(Search):
    """The optimum of a convex law.

    Take it with laws of the form `c + exp(A.w)`, such as `log_linear`: it is fast and finds the
    law's true optimum.

    Attributes:
        kl_reg: price of leaving the natural shares, bits per byte per nat of KL.
        starts: starting points; one suffices but for rounding.
    """

    name = "exact"

    kl_reg: float = 0.0
    starts: int = 3
    convex_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.kl_reg) and self.kl_reg >= 0) or self.starts < 1:
            raise RecipeError(
                f"exact needs kl_reg >= 0 and starts >= 1; got {self.kl_reg} and {self.starts}"
            )

    def choose(
        self, law: FittedLaw, problem: Problem, reference: Array, rng: np.random.Generator
    ) -> Array:
        if score.exponential(law) is None:
            kind = type(unbounded(law)).__name__
            raise RecipeError(
                f"search 'exact' needs a law of the form c + exp(A.w); {kind} is not "
                "one. Use search 'auto', 'mirror' or 'simulate'"
            )
        scalar, known = settled(law, problem, reference, rng)
        program = Program(score.curve_of(law), scalar, problem.domains.natural, self.kl_reg)
        found = self.minimized(program, problem.constraints, rng)
        kept = bool(np.isfinite(score.predict_objective(law, found[None], scalar)[0]))
        points = [found] if self.kl_reg > 0 and kept else [found, known]
        return score.best_point(law, np.array(points), scalar)

    def minimized(
        self, program: Program, constraints: Constraints, rng: np.random.Generator
    ) -> Array:
        """The feasible mixture (K,) that a program finds lowest."""
        found = self._solve(program, constraints, rng)
        if constraints.most_domains is not None and not bool(constraints.satisfied(found)):
            found = self._sparse(program, constraints, found, rng)
        return simplex.without_rounding(found)

    def _sparse(
        self, program: Program, constraints: Constraints, dense: Array, rng: np.random.Generator
    ) -> Array:
        keep = constraints.most_domains or dense.size
        if math.comb(dense.size, keep) <= SUPPORTS:
            found = self._over(
                program, constraints, itertools.combinations(range(dense.size), keep), rng
            )
        else:
            found, support = dense, tuple(range(dense.size))
            while len(support) > keep:
                smaller = (tuple(k for k in support if k != out) for out in support)
                found = self._over(program, constraints, smaller, rng)
                support = tuple(k for k in support if found[k] > 0)
        return found

    def _over(
        self,
        program: Program,
        constraints: Constraints,
        supports: Iterator[tuple[int, ...]],
        rng: np.random.Generator,
    ) -> Array:
        best: tuple[float, Array] | None = None
        for support in supports:
            try:
                narrowed = feasible.on_support(constraints, support)
                found = self._solve(program, narrowed, rng)
            except ConstraintError:
                continue
            value = program.merit(found)
            if best is None or value < best[0] - ties.ROUNDING * abs(best[0]):
                best = value, found
        if best is None:
            raise ConstraintError(
                f"no mixture of {constraints.most_domains} domains meets the other constraints"
            )
        return simplex.without_rounding(best[1])

    def _solve(self, program: Program, constraints: Constraints, rng: np.random.Generator) -> Array:
        """The best of a few solves, moved inside the limits by what rounding left outside."""
        shape = feasible.region_of(constraints)
        draws = rng.dirichlet(np.ones(shape.center.size), size=self.starts)
        starts = [program.prior, shape.center, *draws][: self.starts]
        inner = feasible.pull_inside(np.array(starts), shape, rng)
        solved = [program.solve(constraints, start) for start in inner]
        points = feasible.clamp_inside(np.array([*solved, *inner]), shape)
        merits = np.array([program.merit(point) for point in points])
        return np.asarray(points[ties.lowest(merits)], dtype=np.float64)


def settled(
    law: FittedLaw, problem: Problem, reference: Array, rng: np.random.Generator
) -> tuple[Scalarized, Array]:
    """The objective under floors that can be kept, and a mixture (K,) to fall back on.

    That is natural, or the feasible mixture nearest to it: a search may never recommend what its
    own law holds for worse than doing nothing. Where it breaks floors that yield, it is the mixture
    that they are relative to; where that does too, it is the one that breaks the worst by least,
    and the floors are raised by that.
    """
    scalar = score.scalarize(problem, reference)
    known = [problem.constraints.project(problem.domains.natural)]
    if not scalar.yields:
        return scalar, known[0]
    if np.any(problem.reference != problem.domains.natural):
        known.append(problem.constraints.project(problem.reference))
    over = scalar.violation(predicted_means(law, np.array(known)))
    if (over <= SLACK).any():
        return replace(scalar, yields=False), known[int((over <= SLACK).argmax())]
    program = Program(score.curve_of(law), scalar.broken_least, problem.domains.natural, 0.0)
    drawn = feasible.draw_inside(
        lambda count: rng.dirichlet(np.ones(known[0].size), count), problem.constraints, DRAWS, rng
    )
    least = Exact().minimized(program, problem.constraints, rng)
    points = np.vstack([*known, least, drawn])
    over = scalar.violation(predicted_means(law, points))
    best = ties.lowest(over)
    return replace(scalar, bounds=scalar.bounds + over[best], yields=False), points[best]


def best_under_floors(law: FittedLaw, problem: Problem, points: Array, scalar: Scalarized) -> Array:
    """The best (K,) of points (n, K) and, where there are floors, of what a descent from it finds.

    Few draws come near the edge of what floors allow, and the best lies on it.
    """
    best = score.best_point(law, points, scalar)
    if not len(scalar.floors):
        return best
    inside = replace(scalar, bounds=scalar.bounds - EDGE)
    program = Program(score.curve_of(law), inside, problem.domains.natural, 0.0)
    line = descended(program, problem.constraints, best)
    return score.best_point(law, np.vstack([best, line]), scalar)


def descended(program: Program, constraints: Constraints, start: Array) -> Array:
    """Points (n, K) of the line from a feasible start to what SLSQP finds from there.

    At the end itself rounding may break a floor. A law that is constant in pieces, such as trees,
    gives no way down.
    """
    if not program.slope(start).any():
        return start[None]
    if constraints.most_domains is not None:
        constraints = feasible.on_support(constraints, tuple(np.flatnonzero(start > 0)))
    region = feasible.region_of(constraints)
    end = feasible.clamp_inside(program.solve(constraints, start)[None], region)[0]
    line = start + (1.0 - NEARER)[:, None] * (end - start)
    return simplex.without_rounding(line)
