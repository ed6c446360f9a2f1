"""Vertices: each domain alone, or as nearly alone as the constraints allow.

For domain k the mixture with the most of k is found by linear programming; the rest of its shares
stay as near to the natural proportions as the limits let them. Such runs tell what each
domain is worth by itself (Skill-It's graph is learned from them) and make a law's fit safe at the
corners. Beyond K mixtures, pairs follow: the midpoint of two vertices (convex sets hold them).
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

from cuvee.mixtures.constraints import Constraints, feasible
from cuvee.mixtures.designs import Design, distinct_rows, first_rows
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import ConstraintError
from cuvee.mixtures.registry import register


@register("design")
@dataclass(frozen=True)
class Vertices(Design):
    """Single-domain mixtures first, then their pairwise means, in the order of the domains.

    Take it to learn what each domain is worth alone, in one run per domain; beside another design
    it makes laws safe at the corners.

    Attributes:
        pairs: whether pairwise means may fill up a larger design.
    """

    name = "vertices"

    pairs: bool = True

    def draw(
        self, domains: DomainSet, constraints: Constraints, n: int, rng: np.random.Generator
    ) -> Array:
        corners = np.array([vertex(domains, constraints, k) for k in range(len(domains))])
        rows = [corners]
        if self.pairs and n > len(corners):
            middles = [(a + b) / 2 for a, b in itertools.combinations(corners, 2)]
            rows.append(np.array([m for m in middles if bool(constraints.satisfied(m))]))
        found = distinct_rows(np.concatenate([r.reshape(-1, len(domains)) for r in rows]))
        return first_rows(found, n, "vertices")


def vertex(domains: DomainSet, constraints: Constraints, k: int) -> Array:
    """The feasible mixture (K,) with the most of domain k, the rest near its natural shares."""
    most = _most(constraints, k)
    rest = np.where(np.arange(len(domains)) == k, 0.0, domains.natural)
    ideal = np.where(np.arange(len(domains)) == k, most, (1 - most) * rest / rest.sum())
    try:
        return constraints.project(ideal)
    except ConstraintError:
        return feasible.region_of(constraints).center


def _most(constraints: Constraints, k: int) -> float:
    """The largest share of domain k within the linear limits."""
    rows, bounds = constraints.matrix
    size = len(constraints.domains)
    result = linprog(
        -np.eye(size)[k],
        A_ub=rows if len(rows) else None,
        b_ub=bounds if len(rows) else None,
        A_eq=np.ones((1, size)),
        b_eq=[1.0],
        bounds=(0, 1),
        method="highs",
    )
    return float(min(max(-result.fun, 0.0), 1.0))
