"""BiMix at a fixed number of steps: `L_m(r) = c_m + sum_j F_mj (r_j + e_m)^(-alpha_mj)`.

Source: Ge et al. 2024, "BiMix" (arXiv 2405.14908): a domain's own loss is
`A / r^alpha (B / s^beta + C)` in its share r and the steps s; at one s the bracket is a constant.
Olmix fits a target that is none of the domains by the sum over domains,
`sum_j F_j r_j^(-alpha_j)`, and so do we.

Departures: a share of 0 would cost infinitely much, so e, one per target, is fitted; c is fitted as
well, so that scores need not be all reducible. F and alpha are exponentials of parameters with
a quadratic prior; the simplex's corners have one too (`curves.Form`).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws import curves
from cuvee.mixtures.laws.curves import EquationLaw, Form
from cuvee.mixtures.registry import register

STARTS = ((0.3, 1e-2), (1.0, 1e-2), (0.3, 1e-1))  # of (alpha, e)


@register("law")
@dataclass(frozen=True)
class BiMixLaw(EquationLaw):
    """The law without parameters.

    Take it to compare with BiMix; `saturating_power` costs less and ranked better.
    """

    name = "bimix"
    baseline: ClassVar[bool] = True

    def rows(self, domains: int) -> int:
        return 2 * domains + 3

    def form(self, k: int) -> Form:
        prior = np.diag(np.concatenate([[0.0, 0.3], np.ones(k), np.ones(k)]))
        center = np.concatenate([[0.0, np.log(1e-2)], np.full(k, -4.0), np.full(k, np.log(0.3))])
        return Form(_curve, prior, center, _starts, corners=curves.CORNERS)


def _curve(p: Array, W: Array) -> tuple[Array, Array]:
    k = W.shape[1]
    e = np.exp(np.clip(p[:, 1:2, None], -16.0, 3.0))
    alpha = np.exp(np.clip(p[:, None, 2 + k :], -8.0, 2.0))
    logs = np.log(W + e)
    terms = np.exp(np.minimum(p[:, None, 2 : 2 + k] - alpha * logs, curves.EXPONENT))
    by_e = (-alpha * terms / (W + e) * e).sum(axis=2, keepdims=True)
    ones = np.ones_like(by_e)
    jacobian = np.concatenate([ones, by_e, terms, -terms * alpha * logs], axis=2)
    return p[:, :1] + terms.sum(axis=2), jacobian


def _starts(W: Array, y: Array) -> Array:
    m, k = len(y), W.shape[1]
    return np.stack(
        [
            np.column_stack(
                [
                    np.full((m, 1), -1.0),
                    np.full((m, 1), np.log(e)),
                    np.full((m, k), -np.log(k) - 1.0),
                    np.full((m, k), np.log(alpha)),
                ]
            )
            for alpha, e in STARTS
        ]
    )
