"""Sobol design: a low-discrepancy sequence carried onto the simplex.

A scrambled Sobol point u in the cube of K - 1 dimensions is broken like a stick:
`w_k = (1 - w_1 - ... - w_(k-1)) (1 - u_k^(1 / (K - k)))`, the inverse Rosenblatt map of the uniform
distribution on the simplex, which keeps the sequence's evenness. Source of the sequence: scipy's
`qmc.Sobol` (Joe and Kuo 2008, Owen scrambling). Constraints are met as in every design: by
rejection, then by pulling (`mixtures.constraints.feasible`), which costs some of the evenness.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from cuvee.mixtures.constraints import Constraints, feasible
from cuvee.mixtures.designs import Design, distinct_rows, first_rows
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.registry import register


@register("design")
@dataclass(frozen=True)
class Sobol(Design):
    """Evenly spread mixtures of all domains.

    Take it for up to some ten domains and loose constraints, where mixtures should be spread
    evenly.
    """

    name = "sobol"

    def draw(
        self, domains: DomainSet, constraints: Constraints, n: int, rng: np.random.Generator
    ) -> Array:
        def points(count: int) -> Array:
            sequence = qmc.Sobol(len(domains) - 1, scramble=True, rng=rng)
            return break_sticks(sequence.random_base2(int(np.ceil(np.log2(count)))))

        return first_rows(
            distinct_rows(feasible.draw_inside(points, constraints, n, rng)), n, "sobol"
        )


def break_sticks(cube: Array) -> Array:
    """Points (n, K - 1) of the cube as points (n, K) of the simplex; uniform stays uniform."""
    count, size = cube.shape
    exponents = (1.0 / np.arange(size, 0, -1)).tolist()  # the C library's power: see simplex.temper
    roots = [math.pow(u, e) for row in cube.tolist() for u, e in zip(row, exponents, strict=True)]
    parts = 1.0 - np.reshape(roots, cube.shape)
    left = np.cumprod(np.hstack([np.ones((count, 1)), 1.0 - parts]), axis=1)
    return np.asarray(np.hstack([left[:, :-1] * parts, left[:, -1:]]), dtype=np.float64)
