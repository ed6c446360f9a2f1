"""Simulation: draw many mixtures, predict them all, average the best.

Source: RegMix (arXiv 2407.01492), section 3: 100 000 draws from a Dirichlet around the natural
shares, the mean of the 128 predicted best. The mean is steadier than the single best, and it keeps
every linear constraint, since the feasible set is convex.

Departures: the default is a quarter of the draws and of the top, which is the same part of the
whole, as a tree law takes seconds for 100 000 draws of each target; draws keep the constraints
(RegMix draws without); with sparsity, whose set is not convex, only draws with the best one's
support are averaged; where the mean breaks a floor, the best single draw is taken; where too few
draws keep every floor, more are made nearer to the natural shares, where floors relative to these
hold; under floors, whose edge few draws come near, a descent goes on from the mean.
"""

from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.constraints import feasible
from cuvee.mixtures.designs.dirichlet import draw_dirichlet
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import FittedLaw
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.registry import register
from cuvee.mixtures.searches import Search, score
from cuvee.mixtures.searches.exact import best_under_floors, settled

COARSE = 10  # times fewer draws for refits, of which there are many
CHUNK = 20_000  # mixtures predicted at once: bounds the memory, not the result
NEARER = (1.0, 4.0, 16.0, 64.0)  # times the strength, until enough draws keep the floors


@register("search")
@dataclass(frozen=True)
class Simulate(Search):
    """Mean of the top draws by predicted objective; works with any law and objective.

    Take it with any law, trees included; its answer is the mean of many good mixtures and so a
    steady one.

    Attributes:
        draws: mixtures that are drawn and predicted.
        top: best draws whose mean is the answer.
        temperature: exponent on the natural shares around which is drawn; 0 makes them equal.
        strength: concentration of the Dirichlet that draws; small values give mixtures of few
            domains.
    """

    name = "simulate"

    draws: int = 25_000
    top: int = 32
    temperature: float = 1.0
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.top <= self.draws or self.strength <= 0:
            raise RecipeError(
                "a simulation needs 1 <= top <= draws and a positive strength; "
                f"got top {self.top}, draws {self.draws}, strength {self.strength}"
            )

    def coarse(self) -> "Simulate":
        """The same search on a tenth of the draws, for refits."""
        return replace(self, draws=-(-self.draws // COARSE), top=max(1, round(self.top / COARSE)))

    def choose(
        self, law: FittedLaw, problem: Problem, reference: Array, rng: np.random.Generator
    ) -> Array:
        scalar, known = settled(law, problem, reference, rng)
        points, found = np.empty((0, len(problem.domains))), np.empty(0)
        for factor in NEARER:
            drawn = self._points(problem, rng, factor)
            parts = np.array_split(drawn, -(-len(drawn) // CHUNK))
            points = np.vstack([points, drawn])
            found = np.concatenate(
                [found, *(score.predict_objective(law, part, scalar) for part in parts)]
            )
            if np.isfinite(found).sum() >= self.top:
                break
        order = ties.sort_order(found)[: self.top]
        order = order[np.isfinite(found[order])]
        if not order.size:
            return best_under_floors(law, problem, np.stack([points[0], known]), scalar)
        best = points[order]
        same = ((best > 0) == (best[0] > 0)).all(axis=1)
        chosen = best[same] if problem.constraints.most_domains is not None else best
        mean = simplex.normalized(chosen.mean(axis=0))
        if not np.isfinite(score.predict_objective(law, mean[None], scalar)[0]):
            mean = best[0]
        return best_under_floors(law, problem, np.stack([mean, known]), scalar)

    def _points(self, problem: Problem, rng: np.random.Generator, factor: float) -> Array:
        strength = factor * self.strength
        prior = simplex.temper(problem.domains.natural, self.temperature) * strength
        return feasible.draw_inside(
            lambda count: draw_dirichlet(prior, count, rng), problem.constraints, self.draws, rng
        )
