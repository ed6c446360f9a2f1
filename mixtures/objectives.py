"""Objectives: one number for a row of scores, lower is better.

Scores are bits per byte, so that domains and tasks can be averaged; a score of which more is better
must be turned round before it comes here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mixtures.domains import Array
from mixtures.errors import RecipeError
from mixtures.registry import register

Weights = tuple[tuple[str, float], ...]


class Objective(Protocol):
    """What is minimised. Its fields are its hyper-parameters."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets whose scores it reads."""
        ...

    def value(self, scores: Array, targets: Sequence[str], reference: Array) -> Array:
        """The objective of rows of scores.

        Args:
            scores: (..., M) values of all targets of a problem.
            targets: names of the M columns.
            reference: (M,) scores of the natural mixture, for objectives that are relative to it.

        Returns:
            (...) values; lower is better, infinite where a floor is broken.
        """
        ...

    def linear(self, targets: Sequence[str]) -> Array | None:
        """Weights (M,) if the value is their dot product with the scores, else None."""
        ...


def _pairs(values: Mapping[str, float] | Sequence[tuple[str, float]]) -> Weights:
    pairs = values.items() if isinstance(values, Mapping) else values
    return tuple((str(name), float(weight)) for name, weight in pairs)


def _column(targets: Sequence[str], name: str) -> int:
    if name not in targets:
        raise RecipeError(f"no target {name!r}; measured: {', '.join(targets)}")
    return list(targets).index(name)


@register("objective", "mean")
@dataclass(frozen=True)
class WeightedMean:
    """Weighted mean of targets: `sum_m v_m y_m / sum_m v_m`.

    Attributes:
        weights: (target, weight) pairs or a mapping; weights are positive and need not sum to 1.
    """

    weights: Weights = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _pairs(self.weights))
        if not self.weights or any(not np.isfinite(w) or w <= 0 for _, w in self.weights):
            raise RecipeError(
                f"a mean needs at least one target, each with a positive weight; got {self.weights}"
            )

    @property
    def targets(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.weights)

    def value(self, scores: Array, targets: Sequence[str], reference: Array) -> Array:
        return np.asarray(scores @ self.linear(targets), dtype=np.float64)

    def linear(self, targets: Sequence[str]) -> Array:
        row = np.zeros(len(targets))
        for name, weight in self.weights:
            row[_column(targets, name)] += weight
        return np.asarray(row / row.sum(), dtype=np.float64)


@register("objective", "worst")
@dataclass(frozen=True)
class Worst:
    """The worst target, each relative to the natural mixture: `max_m (y_m - reference_m)`.

    Differences are taken because bits per byte of unlike texts cannot be compared.
    """

    members: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.members:
            raise RecipeError("a worst-case objective needs at least one target in `members`")

    @property
    def targets(self) -> tuple[str, ...]:
        return self.members

    def value(self, scores: Array, targets: Sequence[str], reference: Array) -> Array:
        columns = [_column(targets, name) for name in self.members]
        excess = scores[..., columns] - reference[columns]
        return np.asarray(excess.max(axis=-1), dtype=np.float64)

    def linear(self, targets: Sequence[str]) -> Array | None:
        return None


@register("objective", "floors")
@dataclass(frozen=True)
class Floors:
    """A mean under floors: no listed target worse than at the natural mixture by more than
    `tolerance`.

    Attributes:
        weights: as in `WeightedMean`.
        floors: (target, tolerance in bits per byte) pairs or a mapping.
    """

    weights: Weights = field(default=())
    floors: Weights = field(default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _pairs(self.weights))
        object.__setattr__(self, "floors", _pairs(self.floors))
        WeightedMean(self.weights)
        if not self.floors:
            raise RecipeError("an objective with floors needs at least one in `floors`")

    @property
    def targets(self) -> tuple[str, ...]:
        names = [name for name, _ in self.weights] + [name for name, _ in self.floors]
        return tuple(dict.fromkeys(names))

    def value(self, scores: Array, targets: Sequence[str], reference: Array) -> Array:
        mean = WeightedMean(self.weights).value(scores, targets, reference)
        columns = [_column(targets, name) for name, _ in self.floors]
        allowed = np.array([tolerance for _, tolerance in self.floors])
        broken = scores[..., columns] - reference[columns] > allowed
        return np.where(broken.any(axis=-1), np.inf, mean)

    def linear(self, targets: Sequence[str]) -> Array | None:
        return None
