"""The world of skills: every domain is learned from its own text and from related ones.

Each of K targets is one domain's held-out loss, a falling power of what it was taught:

    y_k = e_k + a_k (1 + r (T w)_k) ^ -b_k

with T the transfer, 1 on its diagonal. What one domain is taught is not lost by another, so the
order of training does not matter, and a schedule is as good as its mean.
"""

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register
from cuvee.mixtures.worlds.truth import Answers


@functools.lru_cache(maxsize=64)
def _parameters(size: int, transfer: float, seed: int) -> tuple[Array, Array, Array, Array]:
    """e (K,), a (K,), b (K,) and T (K, K): a few domains teach others a good deal."""
    rng = np.random.default_rng([seed, size, 5])
    floor = rng.uniform(0.5, 1.5, size)
    scale, power = rng.uniform(1.0, 3.0, size), rng.uniform(0.15, 0.6, size)
    related = rng.uniform(0.0, transfer, (size, size)) * (rng.uniform(size=(size, size)) < 0.4)
    np.fill_diagonal(related, 1.0)
    return floor, scale, power, related


@register("world")
@dataclass(frozen=True)
class Learning(Answers):
    """K domains that are also the K targets, without noise.

    Attributes:
        size: K.
        transfer: most that one domain teaches another, as a part of what it teaches itself.
        rate: r, how far the whole run goes down the curves.
        seed: of the parameters.
    """

    name: ClassVar[str] = "learning"

    size: int = 5
    transfer: float = 0.8
    rate: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < 2 or self.transfer < 0 or self.rate <= 0:
            raise RecipeError(
                "a world needs size >= 2, transfer >= 0 and rate > 0; "
                f"got {self.size}, {self.transfer} and {self.rate}"
            )

    @property
    def count(self) -> int:
        return self.size

    @property
    def related(self) -> Array:
        """T (K, K): row k is what each domain teaches domain k."""
        return _parameters(self.size, self.transfer, self.seed)[3]

    def truth(self, W: Array, epochs: Array) -> Array:
        floor, scale, power, related = _parameters(self.size, self.transfer, self.seed)
        taught = W @ related.T
        return np.asarray(floor + scale * (1.0 + self.rate * taught) ** -power, dtype=np.float64)
