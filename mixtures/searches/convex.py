"""Convex program: what the exact search solves, with its gradients."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from cuvee.mixtures import simplex
from cuvee.mixtures.constraints import Constraints
from cuvee.mixtures.domains import Array
from cuvee.mixtures.objectives import Scalarized

BROKEN = 1e6  # merit of a broken floor, per bit per byte: far above any objective


@dataclass(frozen=True, eq=False)
class Program:
    """`max_p (r_p . y(w) - o_p) + kl_reg KL(w || prior)` with `y = c + exp(A w)`, under floors.

    Attributes:
        offsets: c (M,).
        exponents: A (M, K).
        scalar: rows r and offsets o of the objective, and its floors.
        prior: (K,).
        kl_reg: bits per byte per nat.
    """

    offsets: Array
    exponents: Array
    scalar: Scalarized
    prior: Array
    kl_reg: float

    def scores(self, w: Array) -> Array:
        """y (M,)."""
        return np.asarray(self.offsets + np.exp(self.exponents @ w), dtype=np.float64)

    def slope(self, w: Array) -> Array:
        """dy/dw (M, K)."""
        return np.asarray(np.exp(self.exponents @ w)[:, None] * self.exponents, dtype=np.float64)

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
            options={"maxiter": 300, "ftol": 1e-12},
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
