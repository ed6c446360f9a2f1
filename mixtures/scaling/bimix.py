"""BiMix with its scale: `L_m = sum_j F_mj (h_j + e_m)^(-s_mj) (1 + A_m / N^a_m + B_m / D^b_m)`.

Source: Ge et al. 2024, "BiMix" (arXiv 2405.14908): a domain's own loss is
`A / r^alpha (B / s^beta + C)` in its share r and the steps s of training. As in
`mixtures/laws/baselines/bimix.py`, a target that is no domain is a sum over domains, and e keeps a
share of 0 finite.

Departures: the paper's bracket has steps only; a ladder has sizes as well, so it takes a term in N
of Chinchilla's form; and tokens stand for steps. C is absorbed by F. Priors as in `equations.py`.
The bracket multiplies, so that the best mixture for one target is the same at every scale.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.registry import register
from cuvee.mixtures.scaling import additive, equations
from cuvee.mixtures.scaling.equations import Equation, EquationScaling

STARTS = ((0.3, 1e-2), (0.1, 1e-2), (0.3, 1e-1))  # of (exponent of a share, e)


@register("scaling")
@dataclass(frozen=True)
class BiMixScaling(EquationScaling):
    """The law without parameters.

    Take it to compare with BiMix: size and tokens multiply what the mixture gives, so that the
    best mixture for one target does not move with scale.
    """

    name = "bimix"

    def rows(self, domains: int) -> int:
        return 2 * domains + 5

    def equation(self, k: int) -> Equation:
        rate, amplitude = np.log(additive.RATE), np.log(0.2)
        each = np.log(0.7 / k)
        starts = []
        for power, e in STARTS:
            logs = each + power * np.log(1 / k + e)
            own = np.concatenate([[np.log(e)], np.full(k, logs), np.full(k, np.log(power))])
            starts.append(np.concatenate([own, [amplitude, rate] * 2]))
        center = np.concatenate([[np.log(1e-2)], np.full(k, each), np.full(k, np.log(0.2))])
        deviation = np.concatenate([[1.5], np.full(k, 2.0), np.full(k, 1.0)])
        return Equation(
            curve=_curve,
            center=np.concatenate([center, [amplitude, rate] * 2]),
            deviation=np.concatenate([deviation, [1.0, 0.4] * 2]),
            starts=np.array(starts),
        )


def _curve(p: Array, X: Array) -> tuple[Array, Array]:
    """Parameters: log e, log F (K), log exponents (K), log A, log a, log B, log b."""
    k = X.shape[1] - 2
    e = np.exp(np.clip(p[:, :1, None], -16.0, 1.0))
    power = np.exp(np.clip(p[:, None, 1 + k : 1 + 2 * k], -8.0, 1.5))
    logs = np.log(X[:, :k] + e)
    exponents = np.clip(
        p[:, None, 1 : 1 + k] - power * logs, -equations.EXPONENT, equations.EXPONENT
    )
    terms = np.exp(exponents)
    total = terms.sum(axis=2)
    by_e = (-power * terms / (X[:, :k] + e) * e).sum(axis=2, keepdims=True)
    own = np.concatenate([by_e, terms, -terms * power * logs], axis=2) / total[:, :, None]
    bracket, parts = np.ones_like(total), []
    for j in range(2):
        q = p[:, 1 + 2 * k + 2 * j :]
        term, by_rate = equations.scale_term(q[:, :1], q[:, 1:2], X[:, k + j])
        bracket = bracket + term
        parts.append(np.stack([term, by_rate], axis=2))
    scale = np.concatenate(parts, axis=2) / bracket[:, :, None]
    return np.log(total) + np.log(bracket), np.concatenate([own, scale], axis=2)
