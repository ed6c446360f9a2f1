"""Optimal design: the mixtures that determine a law's parameters or predictions best.

    D:  max log det (X'X)          I:  min trace( (X'X)^-1 E[x x'] ),  E over the feasible set

x is the law's gradient. For the log-linear law at equal exponents it is proportional to w, which is
Scheffe's linear mixture model (order 1); order 2 adds the products w_i w_j, for laws with
interactions. Points are taken from a pool of feasible draws and vertices, greedily, then exchanged
while that helps (Fedorov 1972). Departure: exponents are taken as equal, since they are not known
before the runs.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from cuvee.mixtures import ties
from cuvee.mixtures.constraints import Constraints, feasible
from cuvee.mixtures.designs import Design, distinct_rows, first_rows
from cuvee.mixtures.designs.vertices import vertex
from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register

RIDGE = 1e-4  # keeps the first few points' information invertible
PASSES = 3


@register("design")
@dataclass(frozen=True)
class DOptimal(Design):
    """Mixtures chosen for what they tell.

    Take it where the law is settled beforehand, close to log-linear, and every run is dear.

    Attributes:
        criterion: "d" (parameters) or "i" (predictions over the feasible set).
        order: 1 for `w`, 2 for `w` and all products of two shares.
        oversample: mixtures drawn into the pool for each one kept.
    """

    name = "d_optimal"

    criterion: Annotated[str, Literal["d", "i"]] = "d"
    order: Annotated[int, Literal[1, 2]] = 1
    oversample: int = 20

    def __post_init__(self) -> None:
        if self.criterion not in ("d", "i") or self.order not in (1, 2) or self.oversample < 2:
            raise RecipeError(
                "d_optimal needs criterion 'd' or 'i', order 1 or 2 and oversample >= 2; "
                f"got {self.criterion!r}, {self.order} and {self.oversample}"
            )

    def draw(
        self, domains: DomainSet, constraints: Constraints, n: int, rng: np.random.Generator
    ) -> Array:
        alpha = np.full(len(domains), 0.5)
        draws = feasible.draw_inside(
            lambda count: rng.dirichlet(alpha, count),
            constraints,
            min(n * self.oversample, 3000),
            rng,
        )
        corners = np.array([vertex(domains, constraints, k) for k in range(len(domains))])
        pool = distinct_rows(np.vstack([corners[constraints.satisfied(corners)], draws]))
        if len(pool) <= n:
            return first_rows(pool, n, "d_optimal")
        return np.asarray(pool[self._select(law_gradient(pool, self.order), n)], dtype=np.float64)

    def _select(self, X: Array, n: int) -> list[int]:
        moments = X.T @ X / len(X)
        inverse = np.eye(X.shape[1]) / RIDGE
        chosen: list[int] = []
        for _ in range(n):
            gain = self._gain(X, inverse, moments)
            gain[chosen] = -np.inf
            chosen.append(ties.highest(gain))
            inverse = _updated(inverse, X[chosen[-1]], 1.0)
        for _ in range(PASSES):
            moved = False
            for place in range(n):
                without = _updated(inverse, X[chosen[place]], -1.0)
                gain = self._gain(X, without, moments)
                gain[[c for c in chosen if c != chosen[place]]] = -np.inf
                best = ties.highest(gain)
                if gain[best] > gain[chosen[place]] * (1 + 1e-6):
                    chosen[place], moved = best, True
                inverse = _updated(without, X[chosen[place]], 1.0)
            if not moved:
                break
        return chosen

    def _gain(self, X: Array, inverse: Array, moments: Array) -> Array:
        """What each point adds: `x'Vx` for D; the fall of `trace(V E[xx'])` for I."""
        variance = np.einsum("np,pq,nq->n", X, inverse, X)
        if self.criterion == "d":
            return np.asarray(variance, dtype=np.float64)
        spread = inverse @ moments @ inverse
        return np.asarray(
            np.einsum("np,pq,nq->n", X, spread, X) / (1.0 + variance), dtype=np.float64
        )


def law_gradient(W: Array, order: int) -> Array:
    """The gradient of the law: shares, and for order 2 their products."""
    if order == 1:
        return W
    first, second = np.triu_indices(W.shape[1], k=1)
    return np.hstack([W, W[:, first] * W[:, second]])


def _updated(inverse: Array, x: Array, sign: float) -> Array:
    """The inverse after adding (+1) or removing (-1) a point: Sherman and Morrison."""
    v = inverse @ x
    return np.asarray(inverse - sign * np.outer(v, v) / (1.0 + sign * float(x @ v)))
