"""Designs: which mixtures to try. One file each, registered by name."""

from abc import abstractmethod
from typing import ClassVar, Protocol

import numpy as np

from cuvee.mixtures.constraints import Constraints
from cuvee.mixtures.domains import Array, DomainSet


class Design(Protocol):
    """Draws candidate mixtures. Its fields are its hyper-parameters.

    Attributes:
        name: in recipes.
    """

    name: ClassVar[str]

    @abstractmethod
    def draw(
        self,
        domains: DomainSet,
        constraints: Constraints,
        n: int,
        rng: np.random.Generator,
    ) -> Array:
        """Distinct feasible mixtures.

        Args:
            domains: the K domains with their natural shares.
            constraints: what every mixture satisfies.
            n: how many mixtures.
            rng: the only source of chance.

        Returns:
            W (n, K), every row a mixture that satisfies the constraints.

        Raises:
            ConstraintError: fewer than `n` distinct feasible mixtures could be drawn; says how
                many.
        """
