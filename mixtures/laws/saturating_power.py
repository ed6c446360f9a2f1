"""Saturating power law: `L_m(r) = c_m + (b_m0 + sum_j b_mj r_j^p_m)^(-g_m)`.

As `power`, but a domain's tokens are worth less the more there are of them: the effective data is
that of a constant elasticity of substitution (Arrow et al. 1961, "Capital-labor substitution
and economic efficiency", equation 13), with one exponent per target. b_m0 is what a mixture without
anything useful is worth.

This law is our own, so there is nothing to depart from. On the RegMix tables p lies near 0.6, and
for these two parameters more than `power` it halves the error; one exponent per domain and target
fitted worse from few runs. A quadratic prior draws the log b of a target together; its strength
is chosen by leave-one-out error. log g and log p are drawn weakly to log 0.5 and log 0.6,
and the simplex's corners to the mean (`curves.Form`).
"""

from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws import curves
from cuvee.mixtures.laws.curves import EquationLaw, Form
from cuvee.mixtures.laws.power import EXPONENT, LIMIT, STARTS, effective_data, falling_power
from cuvee.mixtures.registry import register

SATURATION = 0.6  # where p is drawn to
STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-5)


@register("law")
@dataclass(frozen=True)
class SaturatingPower(EquationLaw):
    """The law without parameters.

    Take it where fits must take a second, or where an equation is wanted that can be printed: of
    the plain equations it ranks best.
    """

    name = "saturating_power"

    def rows(self, domains: int) -> int:
        return domains + 5

    def form(self, k: int) -> Form:
        return replace(saturating_form(k), corners=curves.CORNERS)


def saturating_form(k: int) -> Form:
    """The law over k domains; parameters c, log g, log p, log b_0, log b_1 .. log b_k."""
    prior = curves.centering_prior(k + 4, 3, k + 4)
    prior[1, 1], prior[2, 2] = 3.0, 30.0
    center = np.zeros(k + 4)
    center[1], center[2] = np.log(EXPONENT), np.log(SATURATION)
    return Form(_curve, prior, center, _starts, STRENGTHS, slopes=_slopes)


def _curve(p: Array, W: Array) -> tuple[Array, Array]:
    exponent = np.exp(np.clip(p[:, 2:3], -3.0, 1.0))[:, :, None]
    b = np.exp(np.clip(p[:, None, 3:], -LIMIT, LIMIT))
    logs = np.log(np.maximum(W, 1e-300))
    terms = np.where(W > 0, np.exp(exponent * logs), 0.0) * b[:, :, 1:]
    total = b[:, :, 0] + terms.sum(axis=2)
    values, by_g, by_log = falling_power(total, p)
    slope = (by_log / total)[:, :, None]
    jacobian = np.empty((len(p), len(W), p.shape[1]))
    jacobian[:, :, 0], jacobian[:, :, 1] = 1.0, by_g
    jacobian[:, :, 3], jacobian[:, :, 4:] = slope[:, :, 0] * b[:, :, 0], slope * terms
    jacobian[:, :, 2] = (jacobian[:, :, 4:] * logs).sum(axis=2) * exponent[:, :, 0]
    return values, jacobian


def _slopes(p: Array, W: Array) -> Array:
    exponent = np.exp(np.clip(p[:, 2:3], -3.0, 1.0))[:, :, None]
    return np.asarray(_curve(p, W)[1][:, :, 4:] * exponent, dtype=np.float64)


def _starts(W: Array, y: Array) -> Array:
    starts = []
    for part, g in STARTS:
        c = curves.start_offsets(y, (part,))[0]
        b = np.log(effective_data(W**SATURATION, y, c, g))
        exponents = np.tile(np.log([g, SATURATION]), (len(y), 1))
        starts.append(np.column_stack([c, exponents, b.mean(axis=1) - 3.0, b]))
    return np.stack(starts)
