"""Scores of mixtures by a fitted law, as one number each: shared by the searches."""

import dataclasses
import typing
from collections.abc import Sequence
from typing import cast

import numpy as np

from cuvee.mixtures import ties
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import ConstraintError, RecipeError
from cuvee.mixtures.laws import Exponential, FittedLaw, Law, log_slopes, predicted_means
from cuvee.mixtures.laws.bounds import unbounded
from cuvee.mixtures.objectives import Scalarized
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.searches import Search
from cuvee.mixtures.searches.convex import AnyLaw, Curve, Exponentials

PRICE = 20.0  # of a broken floor while a search descends; its answer keeps the floors
NUDGE = 1e-6  # of a score in a difference


def exponential(law: FittedLaw) -> Exponential | None:
    """The law as a sum of exponentials, if it has that form."""
    law = unbounded(law)
    if hasattr(law, "offsets") and hasattr(law, "exponents"):
        return cast(Exponential, law)
    return None


def curve_of(law: FittedLaw) -> Curve:
    """The law as a program needs it: as exponentials where it is of them, else by differences."""
    convex = exponential(law)
    if convex is None:
        return AnyLaw(law)
    return Exponentials(*(np.asarray(x, dtype=float) for x in (convex.offsets, convex.exponents)))


def scalarize(problem: Problem, reference: Array) -> Scalarized:
    """The problem's objective as numbers."""
    return problem.objective.scalarize(problem.targets, reference)


def predict_objective(law: FittedLaw, points: Array, scalar: Scalarized) -> Array:
    """Predicted objective (n,) of points (n, K); infinite where a floor is broken."""
    return scalar.value(predicted_means(law, points))


def merit(scores: Array, scalar: Scalarized) -> Array:
    """The objective (n,) of scores (n, M), broken floors at a price: there is a way back."""
    return np.asarray(scalar.relaxed(scores) + PRICE * scalar.violation(scores), dtype=np.float64)


def merit_slopes(law: FittedLaw, points: Array, scalar: Scalarized) -> tuple[Array, Array] | None:
    """Merit (n,) of points (n, K) and its derivatives by log shares (n, K); None where the law has
    none."""
    found = log_slopes(law, points)
    if found is None:
        return None
    scores, slopes = found
    value, small = merit(scores, scalar), NUDGE * (1.0 + np.abs(scores))
    nudged = scores[:, None, :] + small[:, None, :] * np.eye(scores.shape[1])
    weights = (merit(nudged, scalar) - value[:, None]) / small
    return value, np.einsum("nm,nmk->nk", weights, slopes)


def best_point(law: FittedLaw, points: Array, scalar: Scalarized) -> Array:
    """The point (K,) with the lowest predicted objective; of those that tie, the first.

    Raises:
        ConstraintError: every point breaks a floor; says by how much the nearest does.
    """
    scores = predicted_means(law, points)
    found = scalar.value(scores)
    if not np.isfinite(found).any():
        short = float(scalar.violation(scores).min())
        raise ConstraintError(
            "no feasible mixture is predicted to keep all floors: the best breaks one by "
            f"{short:.4g} bits per byte. Raise the tolerances or relax the constraints"
        )
    size = float(np.abs(scores[int(np.argmin(found))]).max())  # of what the lowest is made of
    return np.asarray(points[ties.lowest(found, size)], dtype=np.float64)


def check_laws(search: Search, laws: Sequence[Law]) -> None:
    """Hold laws to what a search takes (`convex_only`), before anything is trained.

    Raises:
        RecipeError: a law that is known not to be a sum of exponentials, for a search of those.
    """
    for law in laws if search.convex_only else ():
        fitted = typing.get_type_hints(type(law).fit).get("return")
        names = (
            {f.name for f in dataclasses.fields(fitted)} if dataclasses.is_dataclass(fitted) else ()
        )
        if names and not all(n in names or hasattr(fitted, n) for n in ("offsets", "exponents")):
            raise RecipeError(
                f"the search {search.name!r} needs laws of the form c + exp(A.w), and {law.name!r} "
                "is none: use the search `auto` or `simulate`, or the law `log_linear`"
            )
