"""Auto: the exact search where the law allows it, descent over many domains, else simulation.

For methods that choose their law by cross-validation and cannot know its form beforehand. Over many
domains random draws come nowhere near the best, so that a law with derivatives is descended there
in place of a simulation.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import FittedLaw, log_slopes
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.registry import Registered, build, register
from cuvee.mixtures.searches import Search, score
from cuvee.mixtures.searches.simulate import Simulate
from cuvee.mixtures.searches.smallest_step import SmallestStep

MANY = 48  # domains beyond which a law with derivatives is descended


@register("search")
@dataclass(frozen=True)
class Auto(Search):
    """Two searches, and the choice between them by the form of the law.

    Take it unless you know the law's form: `exact` where the law allows it, `mirror` for other laws
    with derivatives, such as the default, over more than 48 domains, `simulate` elsewhere. It is
    the default.

    Attributes:
        convex: search for laws of the form `c + exp(A.w)`.
        otherwise: search for all other laws.
        smooth: search for those of them with derivatives over more than 48 domains, where
            `otherwise` is a simulation.
    """

    name = "auto"

    convex: Annotated[Any, Registered("search")] = "exact"
    otherwise: Annotated[Any, Registered("search")] = "simulate"
    smooth: Annotated[Any, Registered("search")] = "mirror"

    def __post_init__(self) -> None:
        for name in ("convex", "otherwise", "smooth"):
            search = build("search", getattr(self, name))
            if isinstance(search, SmallestStep):
                raise RecipeError(
                    "auto chooses between searches for the optimum; name smallest_step itself as "
                    "the search"
                )
            object.__setattr__(self, name, search)

    def coarse(self) -> "Auto":
        """The same choice with cheaper searches, for refits."""
        return replace(
            self,
            convex=self.convex.coarse(),
            otherwise=self.otherwise.coarse(),
            smooth=self.smooth.coarse(),
        )

    def choose(
        self, law: FittedLaw, problem: Problem, reference: Array, rng: np.random.Generator
    ) -> Array:
        search = self.otherwise if score.exponential(law) is None else self.convex
        natural = problem.domains.natural
        draws = search is self.otherwise and isinstance(search, Simulate)
        if draws and len(natural) > MANY and log_slopes(law, natural[None]):
            search = self.smooth
        return np.asarray(search.choose(law, problem, reference, rng), dtype=np.float64)
