"""What a fitted law says of mixtures, as one number each: shared by the searches."""

from typing import Any, cast

import numpy as np

from mixtures import ties
from mixtures.domains import Array
from mixtures.errors import ConstraintError
from mixtures.laws import Exponential, FittedLaw
from mixtures.objectives import Shape
from mixtures.problem import Problem


def exponential(law: FittedLaw) -> Exponential | None:
    """The law as a sum of exponentials, if it has that form."""
    if hasattr(law, "offsets") and hasattr(law, "exponents"):
        return cast(Exponential, law)
    return None


def shape(problem: Problem, reference: Array) -> Shape:
    """The problem's objective as numbers."""
    return problem.objective.shape(problem.targets, reference)


def values(law: FittedLaw, points: Array, form: Shape) -> Array:
    """Predicted objective (n,) of points (n, K); infinite where a floor is broken."""
    return form.value(law.predict(points).mean)


def best_of(law: FittedLaw, points: Array, form: Shape) -> Array:
    """The point (K,) with the lowest predicted objective; of those that tie, the first.

    Raises:
        ConstraintError: every point breaks a floor; says by how much the nearest does.
    """
    scores = law.predict(points).mean
    found = form.value(scores)
    if not np.isfinite(found).any():
        short = float(form.excess(scores).min())
        raise ConstraintError(
            "no feasible mixture is predicted to keep all floors: the best breaks one by "
            f"{short:.4g} bits per byte. Raise the tolerances or relax the constraints"
        )
    return np.asarray(points[ties.lowest(found, float(np.abs(scores).max()))], dtype=np.float64)


def settled(law: FittedLaw, found: Array, problem: Problem, form: Shape) -> Array:
    """A search's answer, or the natural mixture if that is feasible and predicted to be better.

    A search may then never recommend what its own law holds for worse than doing nothing.
    """
    natural = problem.constraints.project(problem.domains.natural)
    return best_of(law, np.stack([found, natural]), form)


def coarser(part: Any) -> Any:
    """A search's or law's cheaper variant for refits, if it has one."""
    return part.coarse() if hasattr(part, "coarse") else part
