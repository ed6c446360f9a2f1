"""Programs: what searches solve by SLSQP, with gradients; convex where the law is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from scipy.optimize import minimize

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Constraints
from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws import FittedLaw, predicted_means
from cuvee.mixtures.objectives import Scalarized

BROKEN = 1e6  # merit of a broken floor, per bit per byte: far above any objective
STEP = 1e-5  # towards each vertex, where slopes are differences


class Curve(Protocol):
    """A law as a program needs it.

    Attributes:
        patience: options of the solver.
    """

    patience: ClassVar[Mapping[str, float]]

    def scores(self, w: Array) -> Array:
        """y (M,)."""

    def slope(self, w: Array) -> Array:
        """dy/dw (M, K), up to a constant for each score, since shares sum to 1."""


@dataclass(frozen=True, eq=False)
class Exponentials:
    """`y = c + exp(A w)`, with offsets c (M,) and exponents A (M, K)."""

    offsets: Array
    exponents: Array
    patience: ClassVar[Mapping[str, float]] = {"maxiter": 300, "ftol": 1e-12}

    def scores(self, w: Array) -> Array:
        return np.asarray(self.offsets + np.exp(self.exponents @ w), dtype=np.float64)

    def slope(self, w: Array) -> Array:
        return np.asarray(np.exp(self.exponents @ w)[:, None] * self.exponents, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class AnyLaw:
    """A law of any form, asked about mixtures alone; its slopes are differences."""

    law: FittedLaw
    patience: ClassVar[Mapping[str, float]] = {"maxiter": 60, "ftol": 1e-8}
    known: dict[bytes, Array] = field(default_factory=dict)  # a solver asks the same many times

    def scores(self, w: Array) -> Array:
        return np.asarray(self._around(w)[0], dtype=np.float64)

    def slope(self, w: Array) -> Array:
        values = self._around(w)
        return np.asarray((values[1:] - values[0]).T / STEP, dtype=np.float64)

    def _around(self, w: Array) -> Array:
        """Scores (1 + K, M) of a mixture, and a step from it towards each vertex."""
        if (key := w.tobytes()) not in self.known:
            inside = simplex.normalized(np.maximum(w, 0.0))
            points = np.vstack([inside, (1 - STEP) * inside + STEP * np.eye(w.size)])
            self.known[key] = predicted_means(self.law, points)
        return self.known[key]


@dataclass(frozen=True, eq=False)
class Program:
    """`max_p (r_p . y(w) - o_p) + kl_reg KL(w || prior)` under floors.

    Attributes:
        curve: y(w); the problem is convex where it is.
        scalar: rows r and offsets o of the objective, and its floors.
        prior: (K,).
        kl_reg: bits per byte per nat.
    """

    curve: Curve
    scalar: Scalarized
    prior: Array
    kl_reg: float

    def scores(self, w: Array) -> Array:
        """y (M,)."""
        return self.curve.scores(w)

    def slope(self, w: Array) -> Array:
        """dy/dw (M, K)."""
        return self.curve.slope(w)

    def merit(self, w: Array) -> float:
        """What is minimised, with a broken floor priced so that it never pays."""
        y = self.scores(w)
        value = float(self.scalar.relaxed(y)) + self.penalty(w)[0]
        return value + BROKEN * max(float(self.scalar.violation(y)) - 1e-9, 0.0)

    def penalty(self, w: Array) -> tuple[float, Array]:
        """`kl_reg KL(w || prior)` and its gradient (K,)."""
        if self.kl_reg <= 0:
            return 0.0, np.zeros_like(w)
        value = float(simplex.kl(w, self.prior))
        return self.kl_reg * value, self.kl_reg * simplex.kl_slope(w, self.prior)

    def solve(self, constraints: Constraints, start: Array) -> Array:
        """One run of SLSQP from a feasible start (K,); the result may leave the set by rounding.

        With several rows the largest is bounded by one more variable t: `r_p . y - o_p <= t`.
        """
        many = len(self.scalar.rows) > 1
        first = np.append(start, self.scalar.relaxed(self.scores(start))) if many else start
        result = minimize(
            self._epigraph if many else self._single,
            first,
            jac=True,
            bounds=[(0.0, 1.0)] * start.size + [(None, None)] * many,
            constraints=self._conditions(constraints, start.size, many),
            method="SLSQP",
            options=self.curve.patience,
        )
        return np.asarray(result.x[: start.size], dtype=np.float64)

    def _single(self, w: Array) -> tuple[float, Array]:
        value, gradient = self.penalty(w)
        row = self.scalar.rows[0]
        return float(row @ self.scores(w)) + value, row @ self.slope(w) + gradient

    def _epigraph(self, x: Array) -> tuple[float, Array]:
        value, gradient = self.penalty(x[:-1])
        return float(x[-1]) + value, np.append(gradient, 1.0)

    def _conditions(self, constraints: Constraints, size: int, many: bool) -> list[dict[str, Any]]:
        """Conditions as SLSQP takes them: `fun(x) >= 0`, x being w or (w, t)."""
        pad = np.zeros(1) if many else np.zeros(0)
        rows, bounds = constraints.matrix
        wide = np.hstack([rows, np.zeros((len(rows), pad.size))])
        ones = np.append(np.ones(size), pad)
        found: list[dict[str, Any]] = [
            {"type": "eq", "fun": lambda x: x[:size].sum() - 1.0, "jac": lambda x: ones}
        ]
        if len(rows):
            found.append(
                {"type": "ineq", "fun": lambda x: bounds - wide @ x, "jac": lambda x: -wide}
            )
        if many:
            found.append({"type": "ineq", "fun": self._below_top, "jac": self._below_top_slope})
        if len(floors := self.scalar.floors):
            beside = np.zeros((len(floors), pad.size))
            found.append(
                {
                    "type": "ineq",
                    "fun": lambda x: self.scalar.bounds - floors @ self.scores(x[:size]),
                    "jac": lambda x: -np.hstack([floors @ self.slope(x[:size]), beside]),
                }
            )
        if constraints.most_kl is not None:
            prior, most = np.asarray(constraints.prior), constraints.most_kl
            found.append(
                {
                    "type": "ineq",
                    "fun": lambda x: most - simplex.kl(np.maximum(x[:size], 0.0), prior),
                    "jac": lambda x: -np.append(simplex.kl_slope(x[:size], prior), pad),
                }
            )
        return found

    def _below_top(self, x: Array) -> Array:
        return np.asarray(
            x[-1] - (self.scalar.rows @ self.scores(x[:-1]) - self.scalar.offsets), dtype=np.float64
        )

    def _below_top_slope(self, x: Array) -> Array:
        slope = self.scalar.rows @ self.slope(x[:-1])
        return np.hstack([-slope, np.ones((len(slope), 1))])
