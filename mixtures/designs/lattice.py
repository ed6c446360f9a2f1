"""Lattice: the mixtures whose shares are multiples of 1/q, thinned to the most spread ones.

Scheffe's simplex-lattice {K, q} (1958): q is the smallest for which enough points are feasible.
Narrow sets hold few lattice points; then those of a coarse lattice are moved to the nearest
feasible mixture on the line to the set's centre.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import ties
from cuvee.mixtures.constraints import Constraints, feasible
from cuvee.mixtures.designs import Design, distinct_rows, first_rows
from cuvee.mixtures.designs.max_min import farthest_rows
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.registry import register

MOST = 20_000  # lattice points looked at


@register("design")
@dataclass(frozen=True)
class Lattice(Design):
    """Feasible lattice points, the n that lie farthest apart.

    Take it for three to five domains, or where shares should be round numbers.
    """

    name = "lattice"

    def draw(
        self, domains: DomainSet, constraints: Constraints, n: int, rng: np.random.Generator
    ) -> Array:
        size, best = len(domains), np.zeros((0, len(domains)))
        q = 1
        while math.comb(q + size - 1, size - 1) <= MOST and len(best) < n:
            points = lattice_points(size, q)
            best = points[constraints.satisfied(points)]
            q += 1
        if len(best) < n and constraints.most_domains is None:
            shape = feasible.region_of(constraints)
            moved = feasible.clamp_inside(lattice_points(size, max(q - 1, 1)), shape)
            best = distinct_rows(np.vstack([best, moved]))
        start = ties.lowest(((best - domains.natural) ** 2).sum(axis=1)) if len(best) else 0
        return first_rows(farthest_rows(distinct_rows(best), n, start), n, "lattice")


def lattice_points(size: int, q: int) -> Array:
    """All mixtures of `size` domains with shares in multiples of 1/q, shape (C(q+K-1, K-1), K)."""
    bars = np.array(list(itertools.combinations(range(q + size - 1), size - 1)), dtype=np.int64)
    edges = np.hstack([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), q + size - 1)])
    return np.asarray((np.diff(edges, axis=1) - 1) / q, dtype=np.float64)
