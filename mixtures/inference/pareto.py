"""The Pareto front that a report shows beside a recommendation.

Between the first two parts of the objective (targets or families); where it has one part only,
between the objective and the distance from the natural mixture, KL(w || natural) in nats. The law
is fitted anew to the scores concerned alone, to at most `ROWS` runs and in its cheaper variant if
it has one: a front is a picture of the choice, not the choice.
"""

from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Constraints
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import ConstraintError
from cuvee.mixtures.inference.diagnostics import RunTable
from cuvee.mixtures.laws import FittedLaw, Law, Prediction
from cuvee.mixtures.objectives import Objective, WeightedMean
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import DISTANCE, Front
from cuvee.mixtures.searches import score
from cuvee.mixtures.searches.exact import Exact
from cuvee.mixtures.searches.pareto import compromise, pareto_front, undominated

POINTS = 32  # of a front at most; of a path, each one exact solution
WANTED = 48  # of a front between two scores: some coincide, and 20 are wanted to be left
TIE = 1e-3  # weight of the other score: at an end of the front it decides between equals
ROWS = 256  # runs fitted at most: the time of some laws grows with the cube of their number


@dataclass(frozen=True, eq=False)
class Distant:
    """A fitted law whose last score is the distance from the natural mixture.

    Attributes:
        law: of the other scores.
        natural: shares (K,).
    """

    law: FittedLaw
    natural: Array

    def predict(self, W: Array) -> Prediction:
        found, distance = self.law.predict(W), natural_distance(W, self.natural)[:, None]
        return Prediction(
            np.hstack([found.mean, distance]), np.hstack([found.sd, np.zeros_like(distance)])
        )


def natural_distance(W: Array, natural: Array) -> Array:
    """KL(w || natural) in nats of mixtures W (n, K), shape (n,); rows of one support at once."""
    found = np.empty(len(W))
    supports, kind = np.unique(W > 0, axis=0, return_inverse=True)
    for i, support in enumerate(supports):
        rows = kind.ravel() == i
        found[rows] = simplex.kl(np.ascontiguousarray(W[rows][:, support]), natural[support])
    return found


def report_front(
    law: Law,
    problem: Problem,
    sample: RunTable,
    marks: tuple[tuple[str, Array], ...],
    rng: np.random.Generator,
) -> Front | None:
    """The front, or None where the constraints leave no room to draw one.

    Args:
        law: without parameters.
        problem: what is chosen, from what, within what.
        sample: the runs, with the problem's targets.
        marks: (name, shares (K,)) of the candidates.
        rng: the only source of chance.
    """
    objective, natural = problem.objective, problem.domains.natural
    first, second, targets = _pair(objective)
    restricted = sample.columns([problem.targets.index(name) for name in targets])
    fit_rng, draw_rng = rng.spawn(2)
    every = np.arange(len(restricted.W))[:: -(-len(restricted.W) // ROWS)]
    fitted = restricted.fit(law.coarse(), every, fit_rng)
    shown = Distant(fitted, natural)
    reference = shown.predict(natural[None]).mean[0]
    posed = replace(problem, targets=(*targets, DISTANCE), objective=first)
    scalars = [aim.scalarize(posed.targets, reference) for aim in (first, second)]

    def values(points: Array) -> Array:
        return np.column_stack([s.relaxed(shown.predict(points).mean) for s in scalars])

    try:
        rows = _rows(fitted, shown, posed, second, draw_rng)
    except ConstraintError:
        return None
    rows = rows[undominated(values(rows))]
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, POINTS).round().astype(int))]
    seen = values(rows)
    named = values(np.array([weights for _, weights in marks]))
    return Front(
        first=first.parts[0],
        second=second.parts[0],
        points=tuple(compromise(w, v) for w, v in zip(rows, seen, strict=True)),
        marks=tuple(compromise(w, v, name) for (name, w), v in zip(marks, named, strict=True)),
    )


def _pair(objective: Objective) -> tuple[Objective, Objective, tuple[str, ...]]:
    """The two aims, and the targets that a law must predict for them."""
    names = objective.parts
    if len(names) == 1:
        return objective, WeightedMean(((DISTANCE, 1.0),)), objective.targets
    first, second = (WeightedMean(((name, 1.0),), objective.families) for name in names[:2])
    return first, second, tuple(dict.fromkeys((*first.targets, *second.targets)))


def _rows(
    fitted: FittedLaw, shown: Distant, posed: Problem, second: Objective, rng: np.random.Generator
) -> Array:
    """Mixtures (n, K) near or on the front; `posed` has the distance as its last target."""
    convex = score.exponential(fitted) is not None and posed.constraints.most_domains is None
    apart = DISTANCE not in second.targets
    if convex and not apart:
        return _path(fitted, replace(posed, targets=posed.targets[:-1]), rng)
    law = fitted if apart else shown
    problem = replace(posed, targets=posed.targets[:-1]) if apart else posed
    reference = law.predict(problem.domains.natural[None]).mean[0]
    pair = (posed.objective, second)
    if apart:
        pair = (_tied(pair[0], pair[1]), _tied(pair[1], pair[0]))
    found = pareto_front(law, problem, pair, reference=reference, rng=rng, points=WANTED)
    return np.array([point.weights for point in found])


def _tied(aim: Objective, other: Objective) -> Objective:
    """An aim of one part that prefers, among its optima, those that serve the other too."""
    return WeightedMean(((aim.parts[0], 1.0), (other.parts[0], TIE)), aim.families)


def _path(law: FittedLaw, problem: Problem, rng: np.random.Generator) -> Array:
    """Optima (n, K) of a convex law within balls around the natural mixture, evenly grown.

    Radii are even in the root of the distance: near the natural mixture a gain grows with it.
    """
    natural = problem.domains.natural
    search, limits = Exact(starts=1), problem.constraints
    reference = law.predict(natural[None]).mean[0]
    free = search.choose(law, problem, reference, rng)
    prior = tuple(map(float, natural))
    nearest = replace(limits, prior=prior).nearest_to_prior()
    least, most = natural_distance(np.array([nearest, free]), natural)
    rows = [free]
    for root in np.linspace(np.sqrt(most), np.sqrt(least), POINTS)[1:-1]:
        ball: Constraints = replace(limits, prior=prior, most_kl=float(root**2))
        rows.append(search.choose(law, replace(problem, constraints=ball), reference, rng))
    return np.array([*rows, nearest])
