"""The world of recency: what is taught late counts more, for some domains.

A domain k whose text is soon forgotten counts with a density over the run's time t in [0, 1] that
rises: (1 + r_k) t^(r_k), so that its exposure to stages is

    e_k = sum_s w_sk (b_s^(1 + r_k) - a_s^(1 + r_k)),   stage s from a_s to b_s

and the world's truth is taken at e. At fixed shares e = w: a static mixture scores as in the world
inside, whatever r. With r_k > 0 for some domains and 0 for others, a schedule that moves the former
to the end is better than every static mixture, and its optimum is a small smooth problem.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
from scipy.optimize import minimize

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.registry import Registered, build, register
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.mixtures.worlds import truth
from cuvee.mixtures.worlds.learning import Learning

STARTS = 20  # of the search for the optimum


@register("world")
@dataclass(frozen=True)
class Recency(truth.Around):
    """A world in which every other domain is forgotten, at rate `rate`. It must be the outermost.

    Attributes:
        world: what is wrapped.
        rate: r of the domains with an even number; 0 for the others.
    """

    name: ClassVar[str] = "recency"

    world: Annotated[Any, Registered("world")] = field(default_factory=Learning)
    rate: float = 2.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "world", build("world", self.world))
        if self.rate < 0:
            raise RecipeError(f"a rate of forgetting cannot be negative; got {self.rate}")

    def exposure(self, stages: Sequence[Stage]) -> Array:
        """e (K,) of a schedule."""
        powers = 1.0 + self.rate * (np.arange(self.size) % 2 == 0)
        edges = np.clip(np.cumsum([0.0, *(stage.share for stage in stages)]), 0.0, 1.0)
        edges[-1] = 1.0
        parts = np.diff(edges[:, None] ** powers, axis=0)
        return np.asarray((parts * np.array([stage.weights for stage in stages])).sum(axis=0))

    def value(self, task: Problem, stages: Sequence[Stage]) -> float:
        """True objective of a schedule, without noise."""
        return truth.value_of(self, task, self.exposure(stages))

    def best(self, task: Problem, switch: float) -> tuple[Stage, ...]:
        """The best unconstrained schedule of two stages with a given switch point."""
        rng = np.random.default_rng(0)
        shares = (switch, 1.0 - switch)

        def stages(x: Array) -> tuple[Stage, ...]:
            rows = np.clip(x.reshape(2, -1), 0.0, None)
            return tuple(
                Stage(tuple(map(float, simplex.normalized(row))), share)
                for row, share in zip(rows, shares, strict=True)
            )

        found = [
            minimize(
                lambda x: self.value(task, stages(x)),
                rng.dirichlet(np.ones(self.size), size=2).ravel(),
                bounds=[(1e-9, 1.0)] * (2 * self.size),
                method="L-BFGS-B",
            )
            for _ in range(STARTS)
        ]
        return stages(min(found, key=lambda result: float(result.fun)).x)
