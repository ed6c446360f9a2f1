"""Additions: new mixtures for an earlier sweep, none of them near one that was tried.

Source: Olmix rejects candidates within a Euclidean distance of 0.01 of an earlier swarm. Here also
the new ones keep that distance from one another.
"""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from cuvee.mixtures.constraints import Constraints
from cuvee.mixtures.designs import Design, first_rows
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import ConstraintError, RecipeError
from cuvee.mixtures.registry import Registered, build, register


@register("design")
@dataclass(frozen=True)
class Additions(Design):
    """A design that keeps clear of what is known.

    Take it to enlarge a sweep with mixtures unlike those that were tried.

    Attributes:
        existing: mixtures tried before, each K shares in the order of the domains.
        distance: least Euclidean distance to them and between new ones.
        design: what draws the candidates; a registered design.
    """

    name = "additions"

    existing: tuple[tuple[float, ...], ...] = ()
    distance: float = 0.01
    design: Annotated[Any, Registered("design")] = "dirichlet"

    def __post_init__(self) -> None:
        object.__setattr__(self, "existing", tuple(tuple(map(float, w)) for w in self.existing))
        object.__setattr__(self, "design", build("design", self.design))
        if self.distance < 0:
            raise RecipeError(f"additions.distance is at least 0; got {self.distance}")

    def draw(
        self, domains: DomainSet, constraints: Constraints, n: int, rng: np.random.Generator
    ) -> Array:
        if any(len(w) != len(domains) for w in self.existing):
            raise RecipeError(f"additions.existing needs {len(domains)} shares per mixture")
        taken = [np.array(w) for w in self.existing]
        fresh: list[Array] = []
        for count in (n, 4 * n, 16 * n):
            try:
                drawn = self.design.draw(domains, constraints, count, rng)
            except ConstraintError:
                break
            for row in drawn:
                others = np.array([*taken, *fresh]).reshape(-1, len(domains))
                gaps = np.linalg.norm(others - row, axis=1)
                if len(fresh) < n and (gaps > self.distance).all():
                    fresh.append(row)
            if len(fresh) >= n:
                break
        return first_rows(np.array(fresh).reshape(-1, len(domains)), n, "additions")
