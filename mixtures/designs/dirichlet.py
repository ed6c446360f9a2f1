"""Dirichlet design around the natural shares: the scheme of RegMix and, by its fields, of Olmix.

    prior = natural ** temperature / sum,   w ~ Dirichlet(prior * s),   s log-spaced in [0.1, 5]

Sources: RegMix (arXiv 2407.01492), `mixture_config/synthesize_mixture.py`: temperature 0.5, minimum
2e-4, 100 draws for each mixture kept. Olmix, `olmix/generate/synthesize_mixture.py`: temperature
1, minimum 0.002, 10 draws for each. Both draw at 15 strengths, reject what breaks a cap before and
after rounding, and set shares below the minimum to zero.

Departures: shares are rounded to multiples of the minimum by largest remainder, so that they sum to
one exactly (the originals round each share and renormalize); where rejection would hardly ever
accept, draws are pulled into the feasible set (`constraints.feasible`), and a draw that rounding
would push out of it is kept unrounded.
"""

import math
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Constraints, feasible
from cuvee.mixtures.designs import Design, distinct_rows, first_rows
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register


@register("design")
@dataclass(frozen=True)
class Dirichlet(Design):
    """Random mixtures around the natural one, from nearly single domains to nearly natural.

    Take it unless you have a reason: random mixtures from nearly one domain to nearly natural. It
    is the default.

    Attributes:
        temperature: exponent on the natural shares; 1 keeps them, 0 makes them equal.
        least_strength: smallest concentration of the Dirichlet; small values give mixtures of few
            domains.
        most_strength: largest concentration; large values stay near the natural shares.
        strengths: how many concentrations are taken between the two, log-spaced.
        minimum: shares below it become zero, the rest are multiples of it; 0 leaves shares alone.
        oversample: mixtures drawn for each one kept.
    """

    name = "dirichlet"

    temperature: float = 0.5
    least_strength: float = 0.1
    most_strength: float = 5.0
    strengths: int = 15
    minimum: float = 2e-4
    oversample: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.least_strength <= self.most_strength:
            raise RecipeError(
                "a Dirichlet design needs 0 < least_strength <= most_strength; "
                f"got {self.least_strength} and {self.most_strength}"
            )
        if not 0 <= self.minimum < 0.5 or self.strengths < 1 or self.oversample < 1:
            raise RecipeError(
                "a Dirichlet design needs 0 <= minimum < 0.5, strengths >= 1 and oversample >= 1; "
                f"got {self.minimum}, {self.strengths} and {self.oversample}"
            )

    def draw(
        self, domains: DomainSet, constraints: Constraints, n: int, rng: np.random.Generator
    ) -> Array:
        prior = simplex.temper(domains.natural, self.temperature)
        pool = feasible.draw_inside(
            lambda count: self.raw(prior, count, rng), constraints, n * self.oversample, rng
        )
        rounded = round_shares(pool, self.minimum)
        fits = constraints.satisfied(rounded)
        # A wide set loses little by rejecting the rest, as published; a narrow one would be empty.
        pool = rounded[fits] if fits.mean() > 0.1 else np.where(fits[:, None], rounded, pool)
        unique = distinct_rows(pool)
        return first_rows(unique[rng.permutation(len(unique))], n, "dirichlet")

    def raw(self, prior: Array, count: int, rng: np.random.Generator) -> Array:
        """At least `count` draws (n, K) of the whole simplex, equally many at each strength."""
        grid = strength_grid(self.least_strength, self.most_strength, self.strengths)
        each = -(-count // self.strengths)
        draws = np.concatenate([draw_dirichlet(prior * s, each, rng) for s in grid])
        return draws[rng.permutation(len(draws))]


def strength_grid(least: float, most: float, n: int) -> list[float]:
    """Concentrations, log-spaced; as `simplex.temper`, the same digits on every processor."""
    inner = np.linspace(math.log10(least), math.log10(most), n).tolist()[1:-1]
    return [least, *(math.pow(10.0, x) for x in inner), most][:n]


def draw_dirichlet(alpha: Array, n: int, rng: np.random.Generator) -> Array:
    """Draws (n, K) of a Dirichlet; domains with a concentration of 0 get 0."""
    result = np.zeros((n, alpha.size))
    positive = alpha > 0
    result[:, positive] = rng.dirichlet(np.maximum(alpha[positive], 1e-8), size=n)
    return result


def round_shares(points: Array, minimum: float) -> Array:
    """Shares below `minimum` to zero, the rest to multiples of it that sum to one exactly."""
    if minimum <= 0:
        return points
    total = round(1.0 / minimum)
    kept = np.where(points < minimum, 0.0, points)
    exact = kept / kept.sum(axis=1, keepdims=True) * total
    whole = np.floor(exact + 1e-9)
    order = np.argsort(-np.round(exact - whole, 9), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    missing = total - whole.sum(axis=1, keepdims=True)
    return np.asarray((whole + (rank < missing)) / total, dtype=np.float64)
