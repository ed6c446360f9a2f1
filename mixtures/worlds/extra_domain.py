"""The world with one domain more, of known worth: a copy of the first one, or noise."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import Registered, build, register
from cuvee.mixtures.worlds.learning import Learning
from cuvee.mixtures.worlds.truth import Around

EXTRAS = ("copy", "noise")


@register("world")
@dataclass(frozen=True)
class ExtraDomain(Around):
    """A last domain: a `copy` teaches what the first does, so that either covers for the other;
    `noise` teaches nothing and takes tokens from the rest.

    Attributes:
        world: what is wrapped; one that is true at exposures that sum to less than 1.
        extra: `copy` or `noise`.
    """

    name: ClassVar[str] = "extra_domain"

    world: Annotated[Any, Registered("world")] = field(default_factory=Learning)
    extra: Annotated[str, Literal[EXTRAS]] = "copy"

    def __post_init__(self) -> None:
        object.__setattr__(self, "world", build("world", self.world))
        if self.extra not in EXTRAS:
            raise RecipeError(f"an extra domain is one of {', '.join(EXTRAS)}; got {self.extra!r}")

    @property
    def size(self) -> int:
        """K domains, the extra one last."""
        return int(self.world.size) + 1

    def _inner(self, rows: Array) -> Array:
        """Rows (n, K) of the world that is wrapped: what a copy has is the first domain's."""
        own = rows[:, :-1].copy()
        if self.extra == "copy":
            own[:, 0] += rows[:, -1]
        return own

    def truth(self, W: Array, epochs: Array) -> Array:
        return np.asarray(self.world.truth(self._inner(W), self._inner(epochs)), dtype=np.float64)
