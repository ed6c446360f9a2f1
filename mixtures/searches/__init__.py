"""Searches: from a fitted law to the best mixture. One file each."""

from abc import abstractmethod
from typing import ClassVar, Protocol, Self

import numpy as np

from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.laws import FittedLaw
from cuvee.mixtures.objectives import Objective, Scalarized
from cuvee.mixtures.problem import Problem


class Search(Protocol):
    """Finds the mixture of the lowest predicted objective; its fields are hyper-parameters.

    Attributes:
        name: in recipes.
        convex_only: whether it takes only laws of the form c + exp(A.w).
        certain: whether refits of the law have a part in what it chooses (see `stricter`).
    """

    name: ClassVar[str]
    convex_only: ClassVar[bool] = False
    certain: bool = False

    def coarse(self) -> Self:
        """A cheaper variant, for refits; itself where there is none."""
        return self

    def check_asked(self, objective: Objective, domains: DomainSet) -> None:
        """Hold what a recipe asks of it to the objective and domains, before anything is fitted.

        Raises:
            CuveeError: a name that is not there, or shares that are no mixture.
        """
        return

    def begins(self, problem: Problem) -> Array | None:
        """The mixture (K,) from which its answer is a step, if it is one."""
        return None

    def held(self, law: FittedLaw, problem: Problem, reference: Array) -> Scalarized:
        """The objective, under all floors that its answer is held to."""
        return problem.objective.scalarize(problem.targets, reference)

    def stricter(self, low: Array) -> Self:
        """The search that asks for more where less than was asked for is certain; else itself.

        Args:
            low: (F,) by how much each floor of `held` is kept, at the lower end of the interval.
        """
        return self

    @abstractmethod
    def choose(
        self, law: FittedLaw, problem: Problem, reference: Array, rng: np.random.Generator
    ) -> Array:
        """The best feasible mixture.

        Args:
            law: fitted to the problem's targets, in their order.
            problem: objective and constraints.
            reference: (M,) predicted scores of the natural mixture.
            rng: the only source of chance.

        Returns:
            Shares (K,) that satisfy the constraints.

        Raises:
            RecipeError: the search cannot handle this law or objective; says which can.
        """
