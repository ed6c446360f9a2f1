"""Worlds around a world: synergies, noise that is not the same everywhere, and repetition."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import Registered, build, register
from cuvee.mixtures.worlds.additive import Additive
from cuvee.mixtures.worlds.truth import Around


@register("world")
@dataclass(frozen=True)
class Interacting(Around):
    """Pairs of domains that help each other: `y_m -= strength * s_mij w_i w_j`, s in [0, 1].

    Attributes:
        world: what is wrapped.
        strength: bits per byte; a pair at one half each gains up to a quarter of it.
        seed: of the pairs.
    """

    name: ClassVar[str] = "interacting"

    world: Annotated[Any, Registered("world")] = field(default_factory=Additive)
    strength: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "world", build("world", self.world))

    def truth(self, W: Array, epochs: Array) -> Array:
        rng = np.random.default_rng([self.seed, self.size, self.count, 1])
        pairs = np.triu(rng.uniform(size=(self.count, self.size, self.size)), k=1)
        synergy = np.einsum("ni,mij,nj->nm", W, pairs, W)
        return np.asarray(self.world.truth(W, epochs) - self.strength * synergy, dtype=np.float64)


@register("world")
@dataclass(frozen=True)
class Noisy(Around):
    """Noise over seeds that grows towards the corners: `sd * (1 + spread * max_k w_k)`.

    Attributes:
        world: what is wrapped.
        sd: standard deviation, bits per byte.
        spread: how much noisier a single domain is; 0 is the same noise everywhere.
    """

    name: ClassVar[str] = "noisy"

    world: Annotated[Any, Registered("world")] = field(default_factory=Additive)
    sd: float = 0.01
    spread: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "world", build("world", self.world))
        if self.sd < 0 or self.spread < 0:
            raise RecipeError(f"noise cannot be negative; got sd {self.sd}, spread {self.spread}")

    def noise(self, W: Array) -> Array:
        own = self.sd * (1.0 + self.spread * W.max(axis=1, keepdims=True))
        return np.asarray(np.hypot(self.world.noise(W), own), dtype=np.float64)


@register("world")
@dataclass(frozen=True)
class Repeating(Around):
    """Repetition that hurts: `y_m += price * sum_k w_k max(0, log2(epochs_k / free))`.

    Attributes:
        world: what is wrapped.
        price: bits per byte per doubling beyond the free passes, for a run of one domain.
        free: passes that cost nothing.
    """

    name: ClassVar[str] = "repeating"

    world: Annotated[Any, Registered("world")] = field(default_factory=Additive)
    price: float = 0.2
    free: float = 4.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "world", build("world", self.world))
        if self.price < 0 or self.free <= 0:
            raise RecipeError(
                f"repetition needs price >= 0 and free > 0; got {self.price} and {self.free}"
            )

    def truth(self, W: Array, epochs: Array) -> Array:
        doublings = np.log2(np.maximum(epochs / self.free, 1.0))
        cost = self.price * (W * doublings).sum(axis=1, keepdims=True)
        return np.asarray(self.world.truth(W, epochs) + cost, dtype=np.float64)
