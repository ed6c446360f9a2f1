"""Smallest step: the mixture nearest to one in use that reaches the gains asked for.

    min_w KL(w || start)   subject to   y_m(w) <= y_m(start) - gain_m,  the floors and the limits

By SLSQP, exactly where the law is convex. For other laws it starts from the nearest points, on the
lines from the start to many feasible mixtures, at which everything asked for is reached; those
stand as candidates too, as laws that are constant in pieces have no slope to follow. Where not all
gains can be reached the worst shortfall is made least first, within the floors, and the gains asked
for are lowered by it.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.constraints import feasible
from cuvee.mixtures.designs.anchors import Anchor
from cuvee.mixtures.designs.dirichlet import draw_dirichlet
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import FittedLaw, predicted_means
from cuvee.mixtures.objectives import (
    GAIN,
    NEEDED,
    SLACK,
    Asked,
    Objective,
    Scalarized,
    written_numbers,
)
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.registry import ByName, register
from cuvee.mixtures.searches import Search, score
from cuvee.mixtures.searches.convex import BROKEN, AnyLaw, Program
from cuvee.mixtures.searches.exact import Exact, descended, settled

LINES, POINTS, POLISHED = 32, 33, 3  # lines from the start, points on each, ends that are polished
CLOSE = 200.0  # concentration of the draws around the nearest points
COARSE = 4  # times fewer draws for refits


@register("search")
@dataclass(frozen=True)
class SmallestStep(Search):
    """The smallest step (KL) from natural, or from a mixture in use, that reaches given gains.

    Take it where a mixture is in use and a change must be argued for: it moves no more than the
    gains need, and not as far as the objective's optimum. Floors of the objective are kept.

    Attributes:
        gains: least gain over the start by target or family, or of the whole by `objective`; bits
            per byte. The objective must read the target.
        start: `natural`, `uniform` or shares by domain; null: what the objective is relative to. A
            domain with no share counts as if it had a thousandth.
        certain: whether gains are asked for at the lower end of their 90 % interval,
            not only in the mean; the step is then longer.
        draws: feasible mixtures tried, for laws that are not of the form `c + exp(A.w)`.
    """

    name = "smallest_step"

    gains: Annotated[tuple[tuple[str, float], ...], ByName] = field(default=(), metadata=NEEDED)
    start: Annotated[Any, Anchor | None] = None
    certain: bool = False
    draws: int = 2048

    def __post_init__(self) -> None:
        object.__setattr__(self, "gains", written_numbers(self.gains))
        if not self.gains or any(gain <= 0 for _, gain in self.gains):
            raise RecipeError(
                "smallest_step needs in `gains` how much each target must gain, such as "
                "{domain/code: 0.02}, each above 0; what may not lose stands in `floors` of the "
                f"objective `hinge`; got {dict(self.gains)}"
            )
        if self.start is not None:
            start = simplex.written_mixture(self.start, "smallest_step.start")
            object.__setattr__(self, "start", start)
        if self.draws < LINES:
            raise RecipeError(f"smallest_step needs draws >= {LINES}; got {self.draws}")

    def coarse(self) -> Self:
        """The same search on a quarter of the draws, for refits."""
        return replace(self, draws=max(LINES, self.draws // COARSE))

    def check_asked(self, objective: Objective, domains: DomainSet) -> None:
        for name, _ in self.gains:
            objective.row(name, objective.targets)
        if self.start is not None:
            simplex.written_shares(self.start, domains)

    def begins(self, problem: Problem) -> Array:
        if self.start is None:
            return problem.reference
        return simplex.written_shares(self.start, problem.domains)

    def held(self, law: FittedLaw, problem: Problem, reference: Array) -> Scalarized:
        """The objective under its floors and, last, the gains."""
        return self._with_gains(score.scalarize(problem, reference), law, problem)

    def stricter(self, low: Array) -> Self:
        short = np.maximum(-low[-len(self.gains) :], 0.0)
        if not (short > SLACK).any():
            return self
        raised = ((n, g + s) for (n, g), s in zip(self.gains, short.tolist(), strict=True))
        return replace(self, gains=tuple(raised))

    def choose(
        self, law: FittedLaw, problem: Problem, reference: Array, rng: np.random.Generator
    ) -> Array:
        floors, known = settled(law, problem, reference, rng)
        held = self._with_gains(floors, law, problem)
        path = _Way(law, problem, simplex.without_zeros(self.begins(problem)))
        points = np.vstack([path.home, known])
        if score.exponential(law) is None:
            points = np.vstack([points, self._near(path, held, rng)])
        if not path.reached(points, held).any():
            count = len(self.gains)
            gains = replace(held, rows=held.floors[-count:], offsets=held.bounds[-count:],
                            floors=held.floors[:-count], bounds=held.bounds[:-count])  # fmt: skip
            points = path.solved(gains, points, 0.0, rng)
            short = gains.value(predicted_means(law, points))
            lowered = np.concatenate([np.zeros(len(gains.bounds)), np.full(count, short.min())])
            held = replace(held, bounds=held.bounds + np.maximum(lowered, 0.0))
        nothing = replace(held, rows=np.zeros_like(held.rows[:1]), offsets=np.zeros(1))
        points = path.solved(nothing, points, 1.0, rng)
        kept = points[path.reached(points, held)]
        if not len(kept):
            return score.best_point(law, points, held)
        return np.asarray(kept[ties.lowest(path.distance(kept))], dtype=np.float64)

    def _with_gains(self, scalar: Scalarized, law: FittedLaw, problem: Problem) -> Scalarized:
        rows = np.stack([problem.objective.row(name, problem.targets) for name, _ in self.gains])
        begin = predicted_means(law, self.begins(problem)[None])[0]
        bounds = rows @ begin - np.array([gain for _, gain in self.gains])
        return replace(
            scalar,
            floors=np.vstack([scalar.floors, rows]),
            bounds=np.concatenate([scalar.bounds, bounds]),
            asked=(*scalar.asked, *(Asked(name, GAIN, gain) for name, gain in self.gains)),
        )

    def _near(self, way: "_Way", held: Scalarized, rng: np.random.Generator) -> Array:
        """Points (n, K) at which lines from the start first reach everything that is asked for."""

        def raw(count: int) -> Array:
            half = -(-count // 2)
            near = draw_dirichlet(way.begin.size * way.begin, half, rng)
            wide = draw_dirichlet(np.full(way.begin.size, 0.5), half, rng)
            return rng.permutation(np.vstack([near, wide]))

        limits = way.problem.constraints
        found = way.first(feasible.draw_inside(raw, limits, self.draws, rng), held)
        whole = limits.most_domains is None  # else no dust in domains that the nearest leave out
        drawn = [
            rng.dirichlet(CLOSE * w + 1e-3, LINES) * (whole | (w > 0)) for w in found[:POLISHED]
        ]
        around = simplex.normalized(np.vstack(drawn))
        return way.first(np.vstack([found, around[limits.satisfied(around)]]), held)


@dataclass(frozen=True, eq=False)
class _Way:
    """The start of a step, and how the way from it is looked for.

    Attributes:
        law: fitted.
        problem: whose constraints every point keeps.
        begin: shares (K,) that distances are measured from, none 0.
    """

    law: FittedLaw
    problem: Problem
    begin: Array

    @property
    def home(self) -> Array:
        """The start, or the feasible mixture nearest to it."""
        return self.problem.constraints.project(self.begin)

    def distance(self, points: Array) -> Array:
        """KL(w || start) (n,) in nats."""
        return simplex.kl(points, self.begin)

    def reached(self, points: Array, held: Scalarized) -> NDArray[np.bool_]:
        """Which of the points (n, K) keep every floor and reach every gain."""
        return np.asarray(held.violation(predicted_means(self.law, points)) <= SLACK)

    def first(self, ends: Array, held: Scalarized) -> Array:
        """Where lines from the start to the best of the ends first reach everything; else the end.

        The nearest first; what is not reached last.
        """
        ends = ends[self._order(ends, held)[:LINES]]
        steps = np.linspace(0.0, 1.0, POINTS)[1:, None, None]
        paths = (self.home + steps * (ends - self.home)).reshape(-1, self.begin.size)
        good = self.reached(paths, held) & self.problem.constraints.satisfied(paths)
        place = np.where((ok := good.reshape(len(steps), -1)).any(axis=0), ok.argmax(axis=0), -1)
        points = paths.reshape(len(steps), len(ends), -1)[place, np.arange(len(ends))]
        return np.asarray(points[self._order(points, held)], dtype=np.float64)

    def _order(self, points: Array, held: Scalarized) -> NDArray[np.int64]:
        over = held.violation(predicted_means(self.law, points))
        return np.lexsort((self.distance(points), np.where(over <= SLACK, 0.0, over)))

    def solved(
        self, scalar: Scalarized, points: Array, kl_reg: float, rng: np.random.Generator
    ) -> Array:
        """The points (n, K), and what programs that start from the best of them find."""
        limits = self.problem.constraints
        program = Program(AnyLaw(self.law), scalar, self.begin, kl_reg)
        if score.exponential(self.law) is not None:
            exact = replace(program, curve=score.curve_of(self.law))
            points = np.vstack([points, Exact().minimized(exact, limits, rng)])
            if self.reached(points[-1:], scalar).all():
                return points
        scores = predicted_means(self.law, points)
        merit = scalar.relaxed(scores) + BROKEN * scalar.violation(scores)
        best = ties.sort_order(merit + kl_reg * self.distance(points))[:POLISHED]
        return np.vstack([points, *(descended(program, limits, points[i]) for i in best)])
