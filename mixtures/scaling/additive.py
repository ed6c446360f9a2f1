"""Additive joint law: `L = E + 1 / sum_i C_i h_i^g_i + A / N^a + B / D^b`.

Source: Shukor et al. 2025, "Scaling Laws for Optimal Data Mixtures" (arXiv 2507.09404), the
additive law: Chinchilla's terms in the parameters N and tokens D, and one term of the mixture h.
Under it the best mixture for a target is the same at every scale.

Departures: a Huber loss on log scale with a weak normal prior on every parameter instead of
basin-hopping (`equations.py`); with the tokens of a ladder tied to its sizes, A / N^a and B / D^b
cannot be told apart by data, and the prior shares the fall between them.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.registry import register
from cuvee.mixtures.scaling import equations
from cuvee.mixtures.scaling.equations import Equation, EquationScaling

RATE = 0.3  # where a and b are drawn to: 0.34 and 0.28 in Hoffmann et al. 2022
PARTS = ((0.5, 0.2, 0.5), (0.2, 0.5, 0.5), (0.5, 0.3, 0.2), (0.7, 0.1, 1.0))
# starts: E and the mixture's term as parts of the mean score, and g


@register("scaling")
@dataclass(frozen=True)
class AdditiveScaling(EquationScaling):
    """The law without parameters.

    Take it first: it has the fewest parameters, and under it the best mixture is the same at every
    scale.
    """

    name = "additive"

    def rows(self, domains: int) -> int:
        return 2 * domains + 5

    def equation(self, k: int) -> Equation:
        center, deviation = mixture_prior(k)
        scale = [np.log(0.15), np.log(RATE)]
        starts = []
        for floor, part, g in PARTS:
            left = np.log(max(1.0 - floor - part, 0.05) / 2)
            own = mixture_start(k, floor, part, g)
            starts.append(np.concatenate([own, [left, np.log(RATE)] * 2]))
        return Equation(
            curve=_curve,
            center=np.concatenate([center, scale, scale]),
            deviation=np.concatenate([deviation, [1.0, 0.4], [1.0, 0.4]]),
            starts=np.array(starts),
        )


def mixture_prior(k: int) -> tuple[Array, Array]:
    """Mean and deviation of log E, log C (K) and log g (K), for scores of mean 1."""
    center = np.concatenate([[np.log(0.4)], np.full(k, np.log(5.0)), np.full(k, np.log(0.5))])
    return center, np.concatenate([[1.0], np.full(k, 2.0), np.full(k, 0.5)])


def mixture_start(k: int, floor: float, part: float, g: float) -> Array:
    """log E, log C and log g at which the mixture's term of uniform shares is `part`."""
    each = -np.log(part * k) + g * np.log(k)
    return np.concatenate([[np.log(floor)], np.full(k, each), np.full(k, np.log(g))])


def mixture_terms(p: Array, W: Array) -> tuple[Array, Array]:
    """`E + 1 / sum_i C_i h_i^g_i` for parameters that begin with log E, log C, log g.

    Returns:
        Values (B, n) and derivatives (B, n, 1 + 2 K).
    """
    k = W.shape[1]
    floor = np.exp(np.clip(p[:, :1], -equations.EXPONENT, equations.EXPONENT))
    g = np.exp(np.clip(p[:, None, 1 + k : 1 + 2 * k], -5.0, 2.0))
    logs = np.log(np.where(W > 0, W, 1.0))
    exponents = np.clip(p[:, None, 1 : 1 + k] + g * logs, -equations.EXPONENT, equations.EXPONENT)
    parts = np.where(W > 0, np.exp(exponents), 0.0)
    term = 1.0 / parts.sum(axis=2)
    by_c = -parts * (term**2)[:, :, None]
    by_floor = np.broadcast_to(floor, term.shape)[:, :, None]
    return floor + term, np.concatenate([by_floor, by_c, by_c * g * logs], axis=2)


def _curve(p: Array, X: Array) -> tuple[Array, Array]:
    k = X.shape[1] - 2
    values, jacobian = mixture_terms(p, X[:, :k])
    at = 1 + 2 * k
    parts = [jacobian]
    for j in range(2):
        first = at + 2 * j
        term, by_rate = equations.scale_term(
            p[:, first : first + 1], p[:, first + 1 : first + 2], X[:, k + j]
        )
        values = values + term
        parts.append(np.stack([term, by_rate], axis=2))
    return np.log(values), np.concatenate(parts, axis=2) / values[:, :, None]
