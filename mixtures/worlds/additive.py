"""The world of the log-linear law: each target is taught by a few domains."""

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register
from cuvee.mixtures.worlds.truth import Answers


@functools.lru_cache(maxsize=64)
def _parameters(size: int, count: int, seed: int) -> tuple[Array, Array]:
    """c (M,) and A (M, K): each target is taught most by a few domains, hardly by the rest."""
    rng = np.random.default_rng([seed, size, count])
    offsets = rng.uniform(1.0, 2.0, size=count)
    exponents = rng.uniform(-0.5, 0.5, size=(count, size))
    for m in range(count):
        taught = rng.choice(size, size=min(2, size), replace=False)
        exponents[m, taught] -= rng.uniform(1.0, 3.0, size=taught.size)
    return offsets, exponents


@register("world")
@dataclass(frozen=True)
class Additive(Answers):
    """The log-linear truth `y_m = c_m + exp(A_m . w)`, without noise.

    Attributes:
        size: K domains.
        count: M targets.
        seed: of the parameters.
    """

    name: ClassVar[str] = "additive"

    size: int = 5
    count: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 2 or self.count < 1:
            raise RecipeError(
                f"a world needs size >= 2 and count >= 1; got {self.size} and {self.count}"
            )

    def truth(self, W: Array, epochs: Array) -> Array:
        offsets, exponents = _parameters(self.size, self.count, self.seed)
        return np.asarray(offsets + np.exp(W @ exponents.T), dtype=np.float64)
