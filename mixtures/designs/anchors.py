"""Anchors: given mixtures, which methods train again with further seeds.

They measure the noise: runs that differ in nothing but their seed. A mixture that the constraints
forbid is replaced by the nearest one that they allow.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Constraints
from cuvee.mixtures.designs import Design, distinct_rows, first_rows
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.registry import ByName, register

Anchor = Literal["natural", "uniform"] | ByName  # as recipes write one


@register("design")
@dataclass(frozen=True)
class Anchors(Design):
    """The natural and the uniform mixture, or any that the recipe writes out.

    Take it to run mixtures that you write out, such as a team's candidates; methods repeat theirs
    over seeds by their field `anchors`.

    Attributes:
        mixtures: each "natural", "uniform", or (domain, share) pairs or a mapping.
    """

    name = "anchors"

    mixtures: Annotated[tuple[Any, ...], tuple[Anchor, ...]] = simplex.NAMED

    def __post_init__(self) -> None:
        values = tuple(simplex.written_mixture(m, "an anchor") for m in self.mixtures)
        object.__setattr__(self, "mixtures", values)

    def draw(
        self, domains: DomainSet, constraints: Constraints, n: int, rng: np.random.Generator
    ) -> Array:
        return first_rows(self.all(domains, constraints), n, "anchors")

    def all(self, domains: DomainSet, constraints: Constraints) -> Array:
        """Every distinct anchor, shape (A, K)."""
        given = [simplex.written_shares(m, domains) for m in self.mixtures]
        rows = [constraints.project(shares) for shares in given]
        return distinct_rows(np.array(rows).reshape(-1, len(domains)))
