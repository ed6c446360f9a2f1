"""Designs: which mixtures to try. One file each, registered by name."""

from abc import abstractmethod
from typing import ClassVar, Protocol

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Constraints
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import ConstraintError


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


def distinct_rows(points: Array) -> Array:
    """The rows (n, K) that are of no earlier row's mixture, in their order."""
    member = simplex.group_rows(points)
    first = np.sort(np.unique(member, return_index=True)[1])
    return np.asarray(points[first], dtype=np.float64).reshape(-1, points.shape[1])


def first_rows(points: Array, n: int, design: str) -> Array:
    """The first n rows.

    Raises:
        ConstraintError: there are fewer.
    """
    if len(points) < n:
        raise ConstraintError(
            f"design {design!r} found {len(points)} distinct feasible mixtures of the {n} asked "
            "for; ask for fewer or relax the constraints"
        )
    return points[:n]
