"""AutoScale at a fixed number of tokens: `L_m(r) = c_m + a_m sum_j (n_mj + r_j)^(-g_mj)`.

Source: Kang et al. 2024, "AutoScale" (arXiv 2407.20177), section 4, and Olmix's version of it,
`sum_j (N0_j + N r_j)^(-g_j) + L`: N0_j are the tokens of domain j that the other domains are worth.

Departures: with one N in the data, N cannot be told from the scale of the terms, so we write
`n_j = N0_j / N` and one free scale a per target. All three are exponentials of parameters with a
quadratic prior. Extrapolation in N is another law's business.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws import curves
from cuvee.mixtures.laws.curves import EquationLaw, Form
from cuvee.mixtures.registry import register

STARTS = ((0.3, 1e-1), (0.1, 1e-2), (1.0, 3e-1))  # of (g, n)


@register("law")
@dataclass(frozen=True)
class AutoScale(EquationLaw):
    """The law without parameters.

    Take it to compare with AutoScale; `saturating_power` costs less and ranked better.
    """

    name = "autoscale"
    baseline: ClassVar[bool] = True

    def rows(self, domains: int) -> int:
        return 2 * domains + 3

    def form(self, k: int) -> Form:
        prior = np.diag(np.concatenate([[0.0, 0.1], np.full(k, 0.3), np.ones(k)]))
        center = np.concatenate([[0.0, 0.0], np.full(k, np.log(0.1)), np.full(k, np.log(0.1))])
        return Form(_curve, prior, center, _starts)


def _curve(p: Array, W: Array) -> tuple[Array, Array]:
    k = W.shape[1]
    a = np.exp(np.clip(p[:, 1:2], -curves.EXPONENT, curves.EXPONENT))
    n = np.exp(np.clip(p[:, None, 2 : 2 + k], -16.0, 3.0))
    g = np.exp(np.clip(p[:, None, 2 + k :], -8.0, 2.0))
    logs = np.log(W + n)
    terms = a[:, :, None] * np.exp(np.minimum(-g * logs, curves.EXPONENT))
    total = terms.sum(axis=2)
    parts = [np.ones_like(terms[:, :, :1]), total[:, :, None]]
    jacobian = np.concatenate([*parts, -g * terms / (W + n) * n, -terms * g * logs], axis=2)
    return p[:, :1] + total, jacobian


def _starts(W: Array, y: Array) -> Array:
    m, k = len(y), W.shape[1]
    parts = []
    for g, n in STARTS:
        shares = [np.full((m, k), np.log(n)), np.full((m, k), np.log(g))]
        parts.append(np.column_stack([np.full((m, 1), -1.0), np.zeros((m, 1)), *shares]))
    return np.stack(parts)
