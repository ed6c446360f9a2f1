"""Max-min design: mixtures of which the two nearest are as far apart as can be.

Johnson, Moore and Ylvisaker 1990, by the greedy rule: out of a pool of feasible draws, take again
and again the one farthest (Euclidean) from all taken so far. The first is the one nearest to the
natural mixture. Greedy is within a factor of two of the best possible (Gonzalez 1985).
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import ties
from cuvee.mixtures.constraints import Constraints, feasible
from cuvee.mixtures.designs import Design, distinct_rows, first_rows
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register


@register("design")
@dataclass(frozen=True)
class MaxMin(Design):
    """Mixtures far from one another.

    Take it where runs are few and should be as unlike one another as possible.

    Attributes:
        oversample: mixtures drawn into the pool for each one kept.
        concentration: of the pool's symmetric Dirichlet; 1 is uniform, less reaches the corners.
    """

    name = "max_min"

    oversample: int = 50
    concentration: float = 0.6

    def __post_init__(self) -> None:
        if self.oversample < 1 or self.concentration <= 0:
            raise RecipeError(
                "max_min needs oversample >= 1 and a positive concentration; "
                f"got {self.oversample} and {self.concentration}"
            )

    def draw(
        self, domains: DomainSet, constraints: Constraints, n: int, rng: np.random.Generator
    ) -> Array:
        alpha = np.full(len(domains), self.concentration)
        pool = distinct_rows(
            feasible.draw_inside(
                lambda count: rng.dirichlet(alpha, count), constraints, n * self.oversample, rng
            )
        )
        start = ties.lowest(((pool - domains.natural) ** 2).sum(axis=1))
        return first_rows(farthest_rows(pool, n, start), n, "max_min")


def farthest_rows(pool: Array, n: int, start: int) -> Array:
    """Up to n rows of a pool (P, K), each the farthest from those before, beginning at `start`."""
    if len(pool) <= n:
        return pool
    taken = [start]
    gap = ((pool - pool[start]) ** 2).sum(axis=1)
    while len(taken) < n:
        taken.append(ties.highest(gap))
        gap = np.minimum(gap, ((pool - pool[taken[-1]]) ** 2).sum(axis=1))
    return np.asarray(pool[taken], dtype=np.float64)
