"""Mirror descent: exponentiated gradient on the simplex, for any smooth law.

    w <- w * exp(-eta * g) / sum,   then the KL projection onto the limits

(Beck and Teboulle 2003, with the entropy as mirror map.) Where the law has derivatives, all starts
descend together by them. Else the gradient is numerical, towards the vertices, so that the law is
only ever asked about mixtures: `g_k = (f((1 - h) w + h e_k) - f(w)) / h`, which is the gradient up
to a constant that the update ignores; derivatives by log share are turned into much the same. The
step grows while it helps and shrinks when it does not. Laws that are constant in pieces, such as
trees, have no gradient: they keep the best start, and `simulate` serves them better.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.constraints import Constraints, feasible, polytope
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import FittedLaw, predicted_means
from cuvee.mixtures.objectives import Scalarized
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.registry import register
from cuvee.mixtures.searches import Search, score
from cuvee.mixtures.searches.exact import best_under_floors, settled

STEP = 1e-3  # h: small against any share that matters, large against rounding
TINY = 1e-12  # share below which a derivative counts no more
LEAST = 1e-6  # step at which a descent has ended


@register("search")
@dataclass(frozen=True)
class Mirror(Search):
    """Descent from several starts; the best mixture seen is the answer.

    Take it for a smooth law over many domains, where random draws hardly come near the best.

    Attributes:
        steps: updates from each start, at most.
        starts: starting points: natural, the set's centre, then the best of random draws.
        draws: random feasible mixtures among which starts are chosen.
    """

    name = "mirror"

    steps: int = 150
    starts: int = 4
    draws: int = 512

    def __post_init__(self) -> None:
        if self.steps < 1 or self.starts < 1 or self.draws < self.starts:
            raise RecipeError(
                "mirror needs steps >= 1, starts >= 1 and at least as many draws; "
                f"got {self.steps}, {self.starts} and {self.draws}"
            )

    def coarse(self) -> "Mirror":
        """The same search from two starts of fewer draws, a third as long, for refits."""
        few = min(self.starts, 2)
        return replace(self, starts=few, steps=-(-self.steps // 3), draws=max(few, self.draws // 4))

    def choose(
        self, law: FittedLaw, problem: Problem, reference: Array, rng: np.random.Generator
    ) -> Array:
        scalar, known = settled(law, problem, reference, rng)
        constraints = problem.constraints
        size = len(problem.domains)
        pool = feasible.draw_inside(
            lambda count: rng.dirichlet(np.ones(size), count), constraints, self.draws, rng
        )
        merit = _merit(law, pool, scalar)
        best = pool[ties.sort_order(merit)[: self.starts]]
        starts = np.vstack([known, best])[: self.starts]
        if score.merit_slopes(law, starts[:1], scalar) is None:
            found = np.array([self._descend(law, start, constraints, scalar) for start in starts])
        else:
            found = self._descend_together(law, starts, constraints, scalar)
        points = np.vstack([found, pool, known])
        return best_under_floors(law, problem, points, scalar)

    def _descend(
        self, law: FittedLaw, start: Array, constraints: Constraints, scalar: Scalarized
    ) -> Array:
        if constraints.most_domains is not None:
            constraints = feasible.on_support(constraints, tuple(np.flatnonzero(start > 0)))
        region = feasible.region_of(constraints)
        w = start
        value = float(_merit(law, w[None], scalar)[0])
        eta = 1.0
        for _ in range(self.steps):
            gradient = _gradient(law, w, scalar)
            spread = float(np.ptp(gradient[w > 0]))
            if spread <= 0 or eta < LEAST:
                break
            moved = _inside(simplex.tilt(w, -eta * gradient / spread), constraints, region)
            trial = float(_merit(law, moved[None], scalar)[0])
            if trial < value:
                w, value, eta = moved, trial, eta * 1.5
            else:
                eta /= 3.0
        return w

    def _descend_together(
        self, law: FittedLaw, starts: Array, constraints: Constraints, scalar: Scalarized
    ) -> Array:
        """The ends (n, K) of descents from all starts (n, K), by the law's derivatives."""
        sets = [constraints] * len(starts)
        if constraints.most_domains is not None:
            sets = [feasible.on_support(constraints, tuple(np.flatnonzero(w > 0))) for w in starts]
        regions = [feasible.region_of(each) for each in sets]

        def told(points: Array) -> tuple[Array, Array]:
            found = score.merit_slopes(law, points, scalar)
            assert found is not None
            return found[0], found[1] * (np.sqrt(1.0 + STEP / np.maximum(points, TINY)) - 1.0)

        w, eta = starts.copy(), np.ones(len(starts))
        value, slope = told(w)
        for _ in range(self.steps):
            spread = np.ptp(slope, axis=1)
            active = np.flatnonzero((spread > 0) & (eta >= LEAST))
            if not active.size:
                break
            tilts = [simplex.tilt(w[i], -eta[i] * slope[i] / spread[i]) for i in active]
            moved = np.array(
                [
                    _inside(tilt, sets[i], regions[i], polytope.least_kl_dual)
                    for i, tilt in zip(active, tilts, strict=True)
                ]
            )
            trial, ahead = told(moved)
            better = trial < value[active]
            chosen = active[better]
            w[chosen], value[chosen], slope[chosen] = moved[better], trial[better], ahead[better]
            eta[active] *= np.where(better, 1.5, 1.0 / 3.0)
        return w


def _merit(law: FittedLaw, points: Array, scalar: Scalarized) -> Array:
    return score.merit(predicted_means(law, points), scalar)


def _gradient(law: FittedLaw, w: Array, scalar: Scalarized) -> Array:
    """Slopes (K,) towards each vertex."""
    points = np.vstack([w, (1 - STEP) * w + STEP * np.eye(w.size)])
    values = _merit(law, points, scalar)
    return np.asarray((values[1:] - values[0]) / STEP, dtype=np.float64)


def _inside(
    w: Array,
    constraints: Constraints,
    region: feasible.Region,
    nearest: Callable[[Array, Array, Array], Array] = polytope.least_kl,
) -> Array:
    """The feasible mixture with the least KL to `w`; the rest by the line to the centre."""
    if bool(constraints.satisfied(w, slack=0.0)):
        return w
    rows, bounds = constraints.matrix
    near = _in_ball(w, constraints)
    if len(rows):
        near = nearest(near, rows, bounds)
    return np.asarray(feasible.clamp_inside(near[None], region)[0], dtype=np.float64)


def _in_ball(w: Array, constraints: Constraints) -> Array:
    """The mixture of the KL ball with the least KL to `w`.

    It is the geometric mean `w^(1 - t) prior^t`, normalized, at the smallest t that is inside.
    """
    if constraints.most_kl is None or constraints.divergence(w) <= constraints.most_kl:
        return w
    prior = np.asarray(constraints.prior)
    both = (w > 0) & (prior > 0)
    if not both.any():
        return prior
    logs = np.where(both, np.log(np.where(both, w / np.where(both, prior, 1.0), 1.0)), 0.0)
    base = np.where(both, prior, 0.0)
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = 0.5 * (low + high)
        inside = constraints.divergence(simplex.tilt(base, (1 - middle) * logs))
        low, high = (low, middle) if inside <= constraints.most_kl else (middle, high)
    return simplex.tilt(base, (1 - high) * logs)
