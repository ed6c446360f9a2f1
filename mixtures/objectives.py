"""Objectives: one number for a row of scores, lower is better.

Scores are bits per byte, so that domains and tasks can be averaged; a score of which more is better
must be turned round before it comes here. Every objective can be `Scalarized`: the largest of a few
weighted sums of the scores, under floors. That is all that a search needs to know of it, and it
keeps a convex law's problem convex.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.designs.anchors import Anchor
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import ByName, register

Weights = tuple[tuple[str, float], ...]
Families = tuple[tuple[str, tuple[str, ...]], ...]
WrittenWeights = Annotated[Weights, ByName]
WrittenFamilies = Annotated[Families, Mapping[str, tuple[str, ...]] | Families]
NEEDED = {"needed": True}  # of a field whose default is refused, so that a recipe must give it
SLACK = 1e-6  # bits per byte by which a floor may be passed: a solver's rounding
PRICE = 1e3  # of a floor that yields, per bit per byte by which it is broken: no gain is worth it
OBJECTIVE = "objective"  # what the whole is called where targets are named
FLOOR, MOST, GAIN = "floor", "most", "gain"  # what may be asked of a target


@dataclass(frozen=True)
class Asked:
    """What is asked of a target, a family or the objective.

    Attributes:
        name: of whom.
        kind: `floor`: lose at most so much; `most`: score at most so much; `gain`: gain at least so
            much.
        amount: how much, bits per byte.
    """

    name: str
    kind: str
    amount: float


@dataclass(frozen=True, eq=False)
class Scalarized:
    """An objective as numbers: `max_p (rows_p . y - offsets_p)` where `floors_f . y <= bounds_f`.

    Attributes:
        rows: (P, M) weights, none negative.
        offsets: (P,).
        floors: (F, M) weights, none negative; F may be 0.
        bounds: (F,).
        asked: what each floor holds.
        yields: whether floors that cannot be kept are broken as little as can be, where others
            leave no answer.
    """

    rows: Array
    offsets: Array
    floors: Array
    bounds: Array
    asked: tuple[Asked, ...] = ()
    yields: bool = False

    def relaxed(self, scores: Array) -> Array:
        """The value (...) of scores (..., M) as if there were no floors: always finite."""
        return np.asarray((scores @ self.rows.T - self.offsets).max(axis=-1), dtype=np.float64)

    @property
    def without_floors(self) -> "Scalarized":
        """The same where every mixture is allowed."""
        none = _no_floors(self.rows.shape[1])
        return replace(self, floors=none[0], bounds=none[1], asked=())

    @property
    def broken_least(self) -> "Scalarized":
        """The objective of breaking the worst of the floors by as little as can be."""
        return replace(self, rows=self.floors, offsets=self.bounds).without_floors

    def violation(self, scores: Array) -> Array:
        """By how much the worst floor is broken (...), 0 where none is; bits per byte."""
        if not len(self.floors):
            return np.zeros(np.shape(scores)[:-1])
        over = scores @ self.floors.T - self.bounds
        return np.asarray(np.maximum(over, 0.0).max(axis=-1), dtype=np.float64)

    def value(self, scores: Array) -> Array:
        """The value (...), infinite where a floor is broken, or at a price if floors yield."""
        over, value = self.violation(scores), self.relaxed(scores)
        priced = value + PRICE * over if self.yields else np.inf
        return np.where(over > SLACK, priced, value)


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
            reference: (M,) scores of the mixture that it is relative to; see `reference_shares`.

        Returns:
            (...) values; lower is better, infinite where a floor is broken.
        """
        return self.scalarize(targets, reference).value(scores)

    def reference_shares(self, domains: DomainSet) -> Array:
        """The mixture (K,) that its gains and floors are relative to: the natural one.

        Raises:
            ConstraintError, DataError: shares that a recipe gives are no mixture of the domains.
        """
        return domains.natural

    def relative_to(self, shares: Weights) -> "Objective":
        """The same objective over other domains, where its reference is this mixture of them."""
        return self

    def row(self, name: str, targets: Sequence[str]) -> Array:
        """Weights (M,) of one of its targets or families, or of itself by the name `objective`.

        Raises:
            RecipeError: it does not read the name, or is no mean and so has no weights of its own.
        """
        if name != OBJECTIVE:
            if not set(_members(name, self.families)) <= set(self.targets):
                raise RecipeError(
                    f"the objective does not read {name!r}: give it a weight or a floor there; "
                    f"it reads {', '.join(self.targets)}"
                )
            return _row(targets, ((name, 1.0),), self.families)
        rows = self.scalarize(targets, np.zeros(len(targets))).rows
        if len(rows) > 1:
            raise RecipeError(
                f"a gain of the whole objective needs a mean, and {self.name!r} is none: name "
                f"targets, such as {self.parts[0]}"
            )
        return np.asarray(rows[0], dtype=np.float64)

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


def written_numbers(values: Mapping[str, float] | Sequence[tuple[str, float]]) -> Weights:
    """Numbers by name, as a recipe writes them, as pairs.

    Raises:
        RecipeError: they are no finite numbers by name.
    """
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
        object.__setattr__(self, "weights", written_numbers(self.weights))
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
        object.__setattr__(self, "best", written_numbers(self.best))
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
            object.__setattr__(self, name, written_numbers(getattr(self, name)))
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
        relative = len(self.floors)
        bounds[:relative] += rows[:relative] @ reference
        kinds = [FLOOR] * relative + [MOST] * len(self.most)
        asked = (Asked(name, kind, x) for (name, x), kind in zip(named, kinds, strict=True))
        return Scalarized(mean[None], np.zeros(1), rows, bounds, tuple(asked))


@register("objective")
@dataclass(frozen=True)
class Hinge(Objective):
    """A mean that gains without bound; guardrails count only where they lose more than tolerated.

    Take it where the answer goes to someone who asks what was made worse: guardrails are floors
    that no gain can buy, relative to natural or to the mixture that is in use. Where no mixture
    keeps them all, the answer is the one whose worst loss is least, and the report says which
    guardrail loses how much; `floors` refuses there.

    Attributes:
        weights: of targets or families in the mean, positive; they need not sum to 1.
        floors: guardrails: tolerance by target or family, in bits per byte, or their names alone.
        tolerance: how much worse than the reference a guardrail named alone may become, in bits per
            byte; that of a pair of runs differs by noise too, which the report shows.
        reference: the mixture that guardrails are relative to: `natural`, `uniform`, or shares by
            domain, such as those in use; put it among the method's `anchors` so that it is run.
        families: targets by family; a family counts as the plain mean of its targets.
        most: highest score allowed by target or family, as `floors` has it.
    """

    name = "hinge"

    weights: WrittenWeights = field(default=(), metadata=NEEDED)
    floors: Annotated[Weights, ByName | tuple[str, ...]] = field(default=(), metadata=NEEDED)
    tolerance: float = 0.0
    reference: Annotated[Any, Anchor] = "natural"
    families: WrittenFamilies = ()
    most: WrittenWeights = ()

    def __post_init__(self) -> None:
        given: Any = (self.floors,) if isinstance(self.floors, str) else self.floors
        if not isinstance(given, Mapping) and all(isinstance(name, str) for name in given):
            given = tuple((name, self.tolerance) for name in given)
        if not (np.isfinite(self.tolerance) and self.tolerance >= 0):
            raise RecipeError(f"a tolerance is 0 or more; got {self.tolerance}")
        object.__setattr__(self, "floors", written_numbers(given))
        for name in ("weights", "most"):
            object.__setattr__(self, name, written_numbers(getattr(self, name)))
        object.__setattr__(self, "families", _families(self.families))
        object.__setattr__(
            self, "reference", simplex.written_mixture(self.reference, "hinge.reference")
        )
        if not (self.floors or self.most):
            raise RecipeError("a hinge needs in `floors` what may not lose; else take `mean`")
        WeightedMean(self.weights, self.families)

    @property
    def _strict(self) -> Floors:
        """The same objective with floors that do not yield."""
        return Floors(self.weights, self.floors, self.families, self.most)

    @property
    def parts(self) -> tuple[str, ...]:
        return self._strict.parts

    def reference_shares(self, domains: DomainSet) -> Array:
        return simplex.written_shares(self.reference, domains)

    def relative_to(self, shares: Weights) -> "Hinge":
        return replace(self, reference=shares)

    def turned(self, names: Sequence[str]) -> "Hinge":
        return replace(self, most=self._strict.turned(names).most)

    def floored(self, most: Weights) -> "Hinge":
        return replace(self, most=(*self.most, *most))

    def scalarize(self, targets: Sequence[str], reference: Array) -> Scalarized:
        return replace(self._strict.scalarize(targets, reference), yields=True)
