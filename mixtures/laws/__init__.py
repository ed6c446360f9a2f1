"""Laws: how scores depend on the mixture. One file each, named as its paper names it."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np

from cuvee.mixtures.domains import Array


@dataclass(frozen=True)
class Prediction:
    """What a law says of n mixtures and M targets.

    Attributes:
        mean: (n, M) predicted scores.
        sd: (n, M) standard deviations of a new observation: the law's own uncertainty and noise.
    """

    mean: Array
    sd: Array


class FittedLaw(Protocol):
    """A law with its parameters. Immutable and picklable."""

    def predict(self, W: Array) -> Prediction:
        """Scores of mixtures W (n, K)."""
        ...


class Law(Protocol):
    """A law without parameters: it cannot predict. Its fields are its hyper-parameters.

    Attributes:
        name: in recipes.
    """

    name: ClassVar[str]

    def coarse(self) -> Self:
        """A cheaper variant, for refits; itself where there is none."""
        return self

    @abstractmethod
    def rows(self, domains: int) -> int:
        """Fewest runs from which it can be fitted to K domains."""

    @abstractmethod
    def fit(self, W: Array, Y: Array, noise: Array, rng: np.random.Generator) -> FittedLaw:
        """Fit all targets.

        Args:
            W: (N, K) shares of tokens.
            Y: (N, M) scores, lower is better.
            noise: (M,) or (N, M) standard deviation of a score over seeds; 0 where unknown.
            rng: the only source of chance.

        Raises:
            EvidenceError: fewer rows than `rows(K)`; says how many are needed.
        """


class Exponential(Protocol):
    """A fitted law of the form `c_m + exp(A_m . w)`: convex in the mixture, so solved exactly."""

    @property
    def offsets(self) -> Array:
        """c (M,)."""
        ...

    @property
    def exponents(self) -> Array:
        """A (M, K)."""
        ...
