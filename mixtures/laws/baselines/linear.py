"""Linear law: `L_m(r) = sum_j t_mj r_j`.

The baseline of Liu et al. 2024, "RegMix" (arXiv 2407.01492), section 3.2, where it is a ridge
regression. As the shares sum to 1, an intercept is the mean of t. The ridge is on the differences
among the coefficients of a target; its strength is chosen by leave-one-out error.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws import curves
from cuvee.mixtures.laws.curves import EquationLaw, Form
from cuvee.mixtures.registry import register


@register("law")
@dataclass(frozen=True)
class LinearLaw(EquationLaw):
    """The linear law without parameters.

    Take it as the baseline that a law should beat: its best mixture is always at a corner of what
    the constraints allow.
    """

    name = "linear"
    baseline: ClassVar[bool] = True

    def rows(self, domains: int) -> int:
        return domains + 1

    def form(self, k: int) -> Form:
        prior = curves.centering_prior(k, 0, k)
        return Form(_curve, prior, np.zeros(k), _starts)


def _curve(p: Array, W: Array) -> tuple[Array, Array]:
    return p @ W.T, np.broadcast_to(W, (len(p), *W.shape)).copy()


def _starts(W: Array, y: Array) -> Array:
    return np.zeros((1, len(y), W.shape[1]))
