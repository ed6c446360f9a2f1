"""The world around a world whose targets are measured on items, each run on the same ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import Registered, build, register
from cuvee.mixtures.runs.unit_scores import UnitScores
from cuvee.mixtures.worlds.additive import Additive
from cuvee.mixtures.worlds.truth import Around, world_targets


@register("world")
@dataclass(frozen=True)
class Itemized(Around):
    """Items whose scores differ by item, by what the mixture has of each domain, and by chance.

    With y the score of a run as the world within has it, b_i an item's bytes, d_i its difficulty,

        bits_i = b_i (y + d_i + sd sum_k w_k z_ik + chance e_i),    score = sum bits / sum b

    so that two mixtures differ on other items by `sd |w - v|`, and one mixture under two names by
    chance alone. The truth is over all items that there could be; `seed` draws those at hand. It is
    the outermost of the worlds around a world.

    Attributes:
        world: what is wrapped.
        items: of each target.
        sd: bits per byte by which a whole domain favors one item before others.
        chance: standard deviation of one item's score over runs, bits per byte.
        seed: of the items.
    """

    name: ClassVar[str] = "itemized"

    world: Annotated[Any, Registered("world")] = field(default_factory=Additive)
    items: int = 100
    sd: float = 0.2
    chance: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "world", build("world", self.world))
        if self.items < 2 or min(self.sd, self.chance) < 0:
            raise RecipeError(
                f"a world's items are 2 or more, and their noise is not negative; got {self}"
            )

    def noise(self, W: Array) -> Array:
        """Standard deviation over seeds (n, M) on the same items, of equal bytes."""
        own = self.chance / np.sqrt(self.items)
        return np.asarray(np.hypot(self.world.noise(W), own), dtype=np.float64)

    def unit_scores(
        self, weights: Array, truth: Array, rng: np.random.Generator
    ) -> Mapping[str, UnitScores]:
        """By target the items of one run of weights (K,), whose scores without noise are (M,)."""
        found = {}
        values = truth + self.world.noise(weights[None])[0] * rng.standard_normal(self.count)
        for m, name in enumerate(world_targets(self)):
            drawn = np.random.default_rng([self.seed, m, self.items])
            sizes = np.exp(0.5 * drawn.standard_normal(self.items)) * 100
            difficulty = 0.5 * drawn.standard_normal(self.items)
            own = self.sd * drawn.standard_normal((self.items, self.size)) @ weights
            luck = self.chance * rng.standard_normal(self.items)
            keys = np.arange(self.items, dtype=np.uint64) + np.uint64(m * self.items)
            found[name] = UnitScores(keys, sizes * (values[m] + difficulty + own + luck), sizes)
        return found
