"""Hierarchical design: a Dirichlet at each level of `source:topic:quality` names.

    w_leaf = w_source * w_topic|source * w_quality|topic,   each level ~ Dirichlet(prior * s)

Source: Olmix, `olmix/generate/synthesize_mixture.py`: one strength per draw, priors from the tokens
below each node. A flat Dirichlet over leaves would give a source with many topics nearly its
natural share in every run; here sources move as much as topics do.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Constraints, feasible
from cuvee.mixtures.designs import Design, distinct_rows, first_rows
from cuvee.mixtures.designs.dirichlet import draw_dirichlet, round_shares, strength_grid
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register


@register("design")
@dataclass(frozen=True)
class Hierarchical(Design):
    """Random mixtures that vary at every level of the domains' names.

    Take it where the names of domains have levels, such as `web:science:high`, so that sources
    move as much as topics do.

    Attributes:
        temperature: exponent on the natural shares within each level.
        least_strength: smallest concentration of the Dirichlets; small values give mixtures of few
            domains.
        most_strength: largest concentration; large values stay near the natural shares.
        strengths: how many concentrations are taken between the two, log-spaced.
        minimum: shares below it become zero; see `dirichlet`.
        oversample: mixtures drawn for each one kept.
        separator: what parts the levels of a domain's name.
    """

    name = "hierarchical"

    temperature: float = 1.0
    least_strength: float = 0.1
    most_strength: float = 5.0
    strengths: int = 15
    minimum: float = 0.002
    oversample: int = 10
    separator: str = ":"

    def __post_init__(self) -> None:
        if not 0 <= self.minimum < 0.5 or min(self.strengths, self.oversample) < 1:
            raise RecipeError(
                "hierarchical needs 0 <= minimum < 0.5, strengths >= 1 and oversample >= 1; "
                f"got {self.minimum}, {self.strengths} and {self.oversample}"
            )
        if not 0 < self.least_strength <= self.most_strength or not self.separator:
            raise RecipeError(
                "hierarchical needs 0 < least_strength <= most_strength and a separator; "
                f"got {self.least_strength}, {self.most_strength} and {self.separator!r}"
            )

    def draw(
        self, domains: DomainSet, constraints: Constraints, n: int, rng: np.random.Generator
    ) -> Array:
        pool = feasible.draw_inside(
            lambda count: self.raw(domains, count, rng), constraints, n * self.oversample, rng
        )
        rounded = round_shares(pool, self.minimum)
        fits = constraints.satisfied(rounded)
        unique = distinct_rows(np.where(fits[:, None], rounded, pool))
        return first_rows(unique[rng.permutation(len(unique))], n, "hierarchical")

    def raw(self, domains: DomainSet, count: int, rng: np.random.Generator) -> Array:
        """At least `count` draws (n, K) of the whole simplex, equally many at each strength."""
        paths = [tuple(name.split(self.separator)) for name in domains.names]
        grid = strength_grid(self.least_strength, self.most_strength, self.strengths)
        each = -(-count // len(grid))
        rows = [self._level(paths, domains.natural, s, each, rng) for s in grid]
        drawn = np.concatenate(rows)
        return drawn[rng.permutation(len(drawn))]

    def _level(
        self,
        paths: list[tuple[str, ...]],
        mass: Array,
        strength: float,
        count: int,
        rng: np.random.Generator,
    ) -> Array:
        """Shares (count, leaves) of the leaves below one node."""
        heads = list(dict.fromkeys(path[0] for path in paths))
        members = {head: [i for i, path in enumerate(paths) if path[0] == head] for head in heads}
        prior = simplex.normalized([mass[members[head]].sum() for head in heads])
        shares = draw_dirichlet(simplex.temper(prior, self.temperature) * strength, count, rng)
        result = np.zeros((count, len(paths)))
        for column, head in enumerate(heads):
            leaves = members[head]
            below = [paths[i][1:] or ("",) for i in leaves]
            inner = (
                np.ones((count, 1))
                if len(leaves) == 1
                else self._level(below, mass[leaves], strength, count, rng)
            )
            result[:, leaves] = shares[:, [column]] * inner
        return result
