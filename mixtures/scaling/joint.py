"""Joint law: `L = E + 1 / sum_i C_i h_i^g_i + A(h) / N^a + B(h) / D^b`.

Here `A(h) = (sum_i A_i h_i)^q` and `B(h) = (sum_i B_i h_i)^r`: how much size and data help
depends on the mixture, so that the best mixture moves with scale.

Source: Shukor et al. 2025, "Scaling Laws for Optimal Data Mixtures" (arXiv 2507.09404), the joint
law. Departures: as in `additive.py`; and the logarithms of A_i and B_i have a prior towards each
other, at the additive law, from which a ladder must move them.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.registry import register
from cuvee.mixtures.scaling import additive, equations
from cuvee.mixtures.scaling.equations import Equation, EquationScaling

APART = 0.7  # prior deviation of a domain's log A_i or log B_i


@register("scaling")
@dataclass(frozen=True)
class JointScaling(EquationScaling):
    """The law without parameters.

    Take it where the best mixture may move with scale; to show it, a ladder needs three sizes or
    more.
    """

    name = "joint"

    def rows(self, domains: int) -> int:
        return 2 * domains + 7

    def equation(self, k: int) -> Equation:
        center, deviation = additive.mixture_prior(k)
        rate = np.log(additive.RATE)
        scale = np.concatenate([[np.log(0.15), rate, 0.0], np.zeros(k)])
        spread = np.concatenate([[1.0, 0.4, 0.3], np.full(k, APART)])
        starts = []
        for floor, part, g in additive.PARTS:
            left = np.log(max(1.0 - floor - part, 0.05) / 2)
            own = np.concatenate([[left, rate, 0.0], np.zeros(k)])
            starts.append(np.concatenate([additive.mixture_start(k, floor, part, g), own, own]))
        return Equation(
            curve=_curve,
            center=np.concatenate([center, scale, scale]),
            deviation=np.concatenate([deviation, spread, spread]),
            starts=np.array(starts),
        )


def _curve(p: Array, X: Array) -> tuple[Array, Array]:
    """Parameters: those of the mixture, then twice log amplitude, log rate, log power, K logs."""
    k = X.shape[1] - 2
    W = X[:, :k]
    values, jacobian = additive.mixture_terms(p, W)
    parts = [jacobian]
    for j in range(2):
        first = 1 + 2 * k + j * (k + 3)
        q = p[:, first : first + k + 3]
        each = np.exp(np.clip(q[:, 3:], -20.0, 20.0))
        total = each @ W.T
        bend = np.exp(np.clip(q[:, 2:3], -4.0, 2.0))
        log_total = np.log(total)
        term, by_rate = equations.scale_term(q[:, :1] + bend * log_total, q[:, 1:2], X[:, k + j])
        by_each = (each[:, None, :] * W) * (term * bend / total)[:, :, None]
        values = values + term
        scalars = np.stack([term, by_rate, term * bend * log_total], axis=2)
        parts.append(np.concatenate([scalars, by_each], axis=2))
    return np.log(values), np.concatenate(parts, axis=2) / values[:, :, None]
