"""Objectives: one number for a row of scores, lower is better.

Scores are bits per byte, so that domains and tasks can be averaged; a score of which more is better
must be turned round before it comes here. Every objective can be `Scalarized`: the largest of a few
weighted sums of the scores, under floors. That is all that a search needs to know of it, and it
keeps a convex law's problem convex.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Protocol

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import ByName, register

Weights = tuple[tuple[str, float], ...]
Families = tuple[tuple[str, tuple[str, ...]], ...]
WrittenWeights = Annotated[Weights, ByName]
WrittenFamilies = Annotated[Families, Mapping[str, tuple[str, ...]] | Families]
NEEDED = {"needed": True}  # of a field whose default is refused, so that a recipe must give it
SLACK = 1e-6  # bits per byte by which a floor may be passed: a solver's rounding


@dataclass(frozen=True, eq=False)
class Scalarized:
    """An objective as numbers: `max_p (rows_p . y - offsets_p)` where `floors_f . y <= bounds_f`.

    Attributes:
        rows: (P, M) weights, none negative.
        offsets: (P,).
        floors: (F, M) weights, none negative; F may be 0.
        bounds: (F,).
    """

    rows: Array
    offsets: Array
    floors: Array
    bounds: Array

    def relaxed(self, scores: Array) -> Array:
        """The value (...) of scores (..., M) as if there were no floors: always finite."""
        return np.asarray((scores @ self.rows.T - self.offsets).max(axis=-1), dtype=np.float64)

    def violation(self, scores: Array) -> Array:
        """By how much the worst floor is broken (...), 0 where none is; bits per byte."""
        if not len(self.floors):
            return np.zeros(np.shape(scores)[:-1])
        over = scores @ self.floors.T - self.bounds
        return np.asarray(np.maximum(over, 0.0).max(axis=-1), dtype=np.float64)

    def value(self, scores: Array) -> Array:
        """The value (...), infinite where a floor is broken."""
        return np.where(self.violation(scores) > SLACK, np.inf, self.relaxed(scores))


class Objective(Protocol):
    """What is minimised. Its fields are its hyper-parameters.

    A class that names this one as its base needs `name`, `families`, `parts` and `scalarize` only.

    Attributes:
        name: in recipes.
        families: (family, targets) pairs that `parts` may name; a family counts as their mean.
    """

    name: ClassVar[str]
    families: Families

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """The targets and families that it names, in the order of the recipe, each once."""

    @property
    def targets(self) -> tuple[str, ...]:
        """The targets whose scores it reads."""
        return tuple(dict.fromkeys(m for name in self.parts for m in _members(name, self.families)))

    @abstractmethod
    def scalarize(self, targets: Sequence[str], reference: Array) -> Scalarized:
        """The objective as numbers, for the given columns and reference (M,) scores."""

    def value(self, scores: Array, targets: Sequence[str], reference: Array) -> Array:
        """The objective of rows of scores.

        Args:
            scores: (..., M) values of all targets of a problem.
            targets: names of the M columns.
            reference: (M,) scores of the natural mixture, for objectives that are relative to it.

        Returns:
            (...) values; lower is better, infinite where a floor is broken.
        """
        return self.scalarize(targets, reference).value(scores)

    def linear(self, targets: Sequence[str]) -> Array | None:
        """Weights (M,) if the value is their dot product with the scores, else None."""
        return None

    def turned(self, names: Sequence[str]) -> "Objective":
        """The same objective where the scores of these targets were read with their sign turned.

        Raises:
            RecipeError: a family of which only some members are turned has no one score.
        """
        return self

    def floored(self, most: Weights) -> "Objective | None":
        """The same objective where these targets score at most so much; None if it cannot be."""
        return None


def _pairs(values: Mapping[str, float] | Sequence[tuple[str, float]]) -> Weights:
    pairs = values.items() if isinstance(values, Mapping) else values
    try:
        found = tuple((str(name), float(weight)) for name, weight in pairs)
    except (TypeError, ValueError) as error:
        raise RecipeError(
            "an objective takes its numbers as a mapping, such as {domain/code: 1, task/piqa: 2}, "
            f"or as a list of pairs of a name and a number; got {values!r}"
        ) from error
    for name, weight in found:
        if not np.isfinite(weight):
            raise RecipeError(
                f"the number of {name!r} in an objective must be finite; got {weight}"
            )
    return found


def _families(values: Mapping[str, Sequence[str]] | Families) -> Families:
    pairs = values.items() if isinstance(values, Mapping) else values
    families = tuple((str(name), tuple(map(str, members))) for name, members in pairs)
    for name, members in families:
        if not members:
            raise RecipeError(f"family {name!r} has no members")
    for name, given in pairs:
        if isinstance(given, str):
            raise RecipeError(f"family {name!r} needs a list of targets, [{given}]; got {given!r}")
    return families


def _members(name: str, families: Families) -> tuple[str, ...]:
    """A family's targets, or the target itself."""
    return dict(families).get(name, (name,))


def _column(targets: Sequence[str], name: str) -> int:
    if name not in targets:
        raise RecipeError(f"no target {name!r}; measured: {', '.join(targets)}")
    return list(targets).index(name)


def _row(targets: Sequence[str], weights: Weights, families: Families) -> Array:
    """Weights (M,) of a mean in which a family counts as the plain mean of its members."""
    row = np.zeros(len(targets))
    for name, weight in weights:
        members = _members(name, families)
        for member in members:
            row[_column(targets, member)] += weight / len(members)
    return np.asarray(row / row.sum(), dtype=np.float64)


def _rows(targets: Sequence[str], names: Iterable[str], families: Families) -> Array:
    """Weights (P, M) of targets and families, one a row."""
    return np.stack([_row(targets, ((name, 1.0),), families) for name in names])


def _named(*pairs: Weights) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in pairs for name, _ in group))


def _turned(pairs: Weights, families: Families, names: Sequence[str]) -> Weights:
    """Scores by target or family where those of some targets have their sign turned.

    Raises:
        RecipeError: of a family only some members are turned, so that it has no one score.
    """
    found = []
    for name, value in pairs:
        turned = {member in names for member in _members(name, families)}
        if len(turned) > 1:
            raise RecipeError(
                f"family {name!r} mixes targets of which more is better with others, so that "
                "its best score has no meaning; name them apart"
            )
        found.append((name, -value if turned == {True} else value))
    return tuple(found)


def _no_floors(size: int) -> tuple[Array, Array]:
    return np.zeros((0, size)), np.zeros(0)


@register("objective")
@dataclass(frozen=True)
class WeightedMean(Objective):
    """Weighted mean of targets: `sum_m v_m y_m / sum_m v_m`.

    Take it unless some target must not suffer for the others.

    Attributes:
        weights: of targets or families in the mean, positive; they need not sum to 1.
        families: targets by family; a family counts as the plain mean of its targets.
    """

    name = "mean"

    weights: WrittenWeights = field(default=(), metadata=NEEDED)
    families: WrittenFamilies = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _pairs(self.weights))
        object.__setattr__(self, "families", _families(self.families))
        if not self.weights or any(w <= 0 for _, w in self.weights):
            raise RecipeError(
                f"a mean needs at least one target, each with a positive weight; got {self.weights}"
            )

    @property
    def parts(self) -> tuple[str, ...]:
        return _named(self.weights)

    def scalarize(self, targets: Sequence[str], reference: Array) -> Scalarized:
        return Scalarized(self.linear(targets)[None], np.zeros(1), *_no_floors(len(targets)))

    def value(self, scores: Array, targets: Sequence[str], reference: Array) -> Array:
        return np.asarray(scores @ self.linear(targets), dtype=np.float64)

    def linear(self, targets: Sequence[str]) -> Array:
        return _row(targets, self.weights, self.families)

    def floored(self, most: Weights) -> "Floors":
        return Floors(self.weights, families=self.families, most=most)


@register("objective")
@dataclass(frozen=True)
class Worst(Objective):
    """The worst target or family, relative to the natural mixture: `max_m (y_m - reference_m)`.

    Take it where every target should gain over the natural mixture, the least gainer first.

    Differences are taken because bits per byte of unlike texts cannot be compared.

    Attributes:
        members: targets or families, of which the worst counts.
        families: targets by family; a family counts as the plain mean of its targets.
    """

    name = "worst"

    members: tuple[str, ...] = field(default=(), metadata=NEEDED)
    families: WrittenFamilies = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "families", _families(self.families))
        if isinstance(self.members, str):
            raise RecipeError(f"`members` is a list of targets, [{self.members}]; got one name")
        if not self.members:
            raise RecipeError("a worst-case objective needs at least one target in `members`")

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.members))

    def scalarize(self, targets: Sequence[str], reference: Array) -> Scalarized:
        rows = _rows(targets, self.members, self.families)
        return Scalarized(rows, rows @ reference, *_no_floors(len(targets)))


@register("objective")
@dataclass(frozen=True)
class Regret(Objective):
    """The worst loss against each target's own best: `max_m (y_m - best_m)`.

    Take it where you know the best score that each target reaches with a mixture made for it
    alone, and none should stay far from its own.

    Attributes:
        best: best score known by target or family, such as what a mixture made for that target
            alone reached; bits per byte.
        families: targets by family; a family counts as the plain mean of its targets.
    """

    name = "regret"

    best: WrittenWeights = field(default=(), metadata=NEEDED)
    families: WrittenFamilies = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "best", _pairs(self.best))
        object.__setattr__(self, "families", _families(self.families))
        if not self.best:
            raise RecipeError("a regret needs in `best` a finite best score per target; got ()")

    @property
    def parts(self) -> tuple[str, ...]:
        return _named(self.best)

    def turned(self, names: Sequence[str]) -> "Regret":
        return Regret(_turned(self.best, self.families, names), self.families)

    def scalarize(self, targets: Sequence[str], reference: Array) -> Scalarized:
        rows = _rows(targets, [name for name, _ in self.best], self.families)
        best = np.array([value for _, value in self.best])
        return Scalarized(rows, best, *_no_floors(len(targets)))


@register("objective")
@dataclass(frozen=True)
class Floors(Objective):
    """A mean under floors: no listed target worse than natural, or than a score, by more than x.

    Take it where a mean should improve and named targets must not become worse.

    Attributes:
        weights: of targets or families in the mean, positive; they need not sum to 1.
        floors: tolerance by target or family: how much worse than natural it may become, in bits
            per byte.
        families: targets by family; a family counts as the plain mean of its targets.
        most: highest score allowed by target or family, in bits per byte: floors under what was
            measured before, such as a checkpoint's scores.
    """

    name = "floors"

    weights: WrittenWeights = field(default=(), metadata=NEEDED)
    floors: WrittenWeights = ()
    families: WrittenFamilies = ()
    most: WrittenWeights = ()

    def __post_init__(self) -> None:
        for name in ("weights", "floors", "most"):
            object.__setattr__(self, name, _pairs(getattr(self, name)))
        object.__setattr__(self, "families", _families(self.families))
        WeightedMean(self.weights, self.families)
        if not (self.floors or self.most):
            raise RecipeError("an objective with floors needs at least one in `floors` or `most`")

    @property
    def parts(self) -> tuple[str, ...]:
        return _named(self.weights, self.floors, self.most)

    def turned(self, names: Sequence[str]) -> "Floors":
        return replace(self, most=_turned(self.most, self.families, names))

    def floored(self, most: Weights) -> "Floors":
        return replace(self, most=(*self.most, *most))

    def scalarize(self, targets: Sequence[str], reference: Array) -> Scalarized:
        mean = _row(targets, self.weights, self.families)
        named = (*self.floors, *self.most)
        rows = _rows(targets, [name for name, _ in named], self.families)
        bounds = np.array([value for _, value in named])
        natural = len(self.floors)
        bounds[:natural] += rows[:natural] @ reference
        return Scalarized(mean[None], np.zeros(1), rows, bounds)
