"""Sobol design: a low-discrepancy sequence carried onto the simplex.

A scrambled Sobol point u in the cube of K dimensions becomes `w_k = log u_k / sum_j log u_j`, which
is uniform on the simplex for uniform u, and treats all domains alike. Source of the sequence:
scipy's `qmc.Sobol` (Joe and Kuo 2008, Owen scrambling). Constraints are met as in every design: by
rejection, then by pulling (`mixtures.feasible`), which costs some of the evenness.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from mixtures import feasible
from mixtures.constraints import Constraints
from mixtures.designs.distinct import distinct, enough
from mixtures.domains import Array, DomainSet
from mixtures.registry import register


@register("design", "sobol")
@dataclass(frozen=True)
class Sobol:
    """Evenly spread mixtures of all domains."""

    def draw(
        self, domains: DomainSet, constraints: Constraints, n: int, rng: np.random.Generator
    ) -> Array:
        def points(count: int) -> Array:
            sequence = qmc.Sobol(len(domains), scramble=True, rng=rng)
            cube = sequence.random_base2(int(np.ceil(np.log2(count))))
            spacing = -np.log(np.clip(cube, 1e-12, 1.0 - 1e-12))
            return np.asarray(spacing / spacing.sum(axis=1, keepdims=True), dtype=np.float64)

        return enough(distinct(feasible.sample(points, constraints, n, rng)), n, "sobol")
