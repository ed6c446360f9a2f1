"""Searches: from a fitted law to the best mixture. One file each."""

from abc import abstractmethod
from typing import ClassVar, Protocol, Self

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws import FittedLaw
from cuvee.mixtures.problem import Problem


class Search(Protocol):
    """Finds the mixture of the lowest predicted objective; its fields are hyper-parameters.

    Attributes:
        name: in recipes.
        convex_only: whether it takes only laws of the form c + exp(A.w).
    """

    name: ClassVar[str]
    convex_only: ClassVar[bool] = False

    def coarse(self) -> Self:
        """A cheaper variant, for refits; itself where there is none."""
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
