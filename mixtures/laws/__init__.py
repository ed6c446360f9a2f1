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


def predicted_means(law: FittedLaw, W: Array) -> Array:
    """Predicted scores (n, M) of mixtures (n, K) alone.

    A law that has a method `means(W)` is spared its deviations, which can be most of the work.
    """
    own = getattr(law, "means", None)
    return np.asarray(law.predict(W).mean if own is None else own(W), dtype=np.float64)


def log_slopes(law: FittedLaw, W: Array) -> tuple[Array, Array] | None:
    """Predicted scores (n, M) and their derivatives by the logarithms of the shares (n, M, K).

    Of a law with a method `slopes(W)`; None of others. By logarithms, because a derivative by the
    share itself may be without bound where there is none of it.
    """
    own = getattr(law, "slopes", None)
    return None if own is None else own(W)


def posterior_draws(
    law: FittedLaw, count: int, rng: np.random.Generator
) -> "list[FittedLaw] | None":
    """Laws as they may as well be, given the runs: what `draws(count, rng)` gives; None of others.

    They stand for fits to other samples of runs, at a part of the work.
    """
    own = getattr(law, "draws", None)
    return None if own is None else own(count, rng)


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
