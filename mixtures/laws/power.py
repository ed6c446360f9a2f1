"""Power law in effective data: `L_m(r) = c_m + a_m (sum_j b_mj r_j)^(-g_m)`.

A scaling law in the tokens that count for target m, `sum_j b_mj r_j` (tokens are shares times a
constant), as in Hernandez et al. 2021, "Scaling laws for transfer" (arXiv 2102.01293), equation
1.1, where one domain stands in for another. a is the scale of b:
`c + (sum_j exp(beta_j) r_j)^(-g)`.

A quadratic prior draws the beta of a target together; its strength is chosen by leave-one-out
error. log g is drawn weakly to log 0.5, and the simplex's corners to the mean (`curves.Form`).
"""

from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws import curves
from cuvee.mixtures.laws.curves import EquationLaw, Form
from cuvee.mixtures.registry import register

STARTS = ((0.1, 0.3), (0.5, 1.0))  # (offset below the lowest score in ranges, g)
EXPONENT = 0.5  # where g is drawn to
LIMIT = 40.0  # of |beta|: e^40 is beyond any ratio of usefulness


@register("law")
@dataclass(frozen=True)
class Power(EquationLaw):
    """The law without parameters.

    Take it to see what saturation brings: it is `saturating_power` without it, and ranks a little
    worse.
    """

    name = "power"

    def rows(self, domains: int) -> int:
        return domains + 3

    def form(self, k: int) -> Form:
        return replace(power_form(k), corners=curves.CORNERS)


def power_form(k: int) -> Form:
    """The law over k domains; parameters c, log g, log b_1 .. log b_k."""
    prior = curves.centering_prior(k + 2, 2, k + 2)
    prior[1, 1] = 3.0
    center = np.zeros(k + 2)
    center[1] = np.log(EXPONENT)
    return Form(_curve, prior, center, _starts, slopes=_slopes)


def falling_power(total: Array, p: Array) -> tuple[Array, Array, Array]:
    """`c + total^(-g)` for parameters that begin with c, log g.

    Returns:
        Values, derivatives by log g, derivatives by the logarithm of the total; all (B, n).
    """
    g = np.exp(np.clip(p[:, 1:2], -5.0, 3.0))
    logs = np.log(total)
    e = np.exp(np.minimum(-g * logs, curves.EXPONENT))
    return p[:, :1] + e, -g * logs * e, -g * e


def effective_data(W: Array, y: Array, c: Array, g: float) -> Array:
    """(M, K) mean of the effective data that the scores imply, over each domain's use."""
    implied = np.power(y - c[:, None], -1.0 / g)
    return np.asarray((implied @ W + 1e-9) / (W.sum(axis=0) + 1e-9), dtype=np.float64)


def _curve(p: Array, W: Array) -> tuple[Array, Array]:
    b = np.exp(np.clip(p[:, 2:], -LIMIT, LIMIT))
    total = b @ W.T
    values, by_g, by_log = falling_power(total, p)
    parts = b[:, None, :] * W * (by_log / total)[:, :, None]
    return values, np.concatenate([np.ones_like(by_g)[:, :, None], by_g[:, :, None], parts], axis=2)


def _slopes(p: Array, W: Array) -> Array:
    return _curve(p, W)[1][:, :, 2:]


def _starts(W: Array, y: Array) -> Array:
    starts = []
    for part, g in STARTS:
        c = curves.start_offsets(y, (part,))[0]
        b = np.log(effective_data(W, y, c, g))
        starts.append(np.column_stack([c, np.full(len(y), np.log(g)), b]))
    return np.stack(starts)
