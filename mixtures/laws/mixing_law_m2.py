"""Mixing law M2: `L_m(r) = c_m + k_m sum_j exp(t_mj r_j)`.

Source: Ye et al. 2024, "Data Mixing Laws" (arXiv 2403.16952), candidate M2: as M1 with one k per
target. k is written `exp(kappa)`, so that it is positive and the sign of a domain's effect lies
in t alone.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws import Law, curves
from cuvee.mixtures.laws.curves import FittedCurve, Form
from cuvee.mixtures.registry import register

STARTS = ((0.0, -2.0), (0.0, 0.0), (-3.0, 0.0), (-1.0, -8.0))  # of (kappa, t)


@register("law")
@dataclass(frozen=True)
class MixingLawM2(Law):
    """The law without parameters."""

    name = "mixing_law_m2"

    def rows(self, domains: int) -> int:
        return domains + 3

    def fit(self, W: Array, Y: Array, noise: Array, rng: np.random.Generator) -> FittedCurve:
        k = np.shape(W)[1]
        prior = np.diag(np.concatenate([[0.0, 0.1], np.full(k, 0.03)]))
        center = np.concatenate([[0.0, 0.0], np.full(k, -2.0)])
        form = Form(_curve, prior, center, _starts)
        return curves.fitted_form("mixing_law_m2", form, self.rows(k), (W, Y, noise), rng)


def _curve(p: Array, W: Array) -> tuple[Array, Array]:
    scale = np.exp(np.minimum(p[:, 1], curves.EXPONENT))[:, None, None]
    terms = scale * np.exp(np.minimum(p[:, None, 2:] * W, curves.EXPONENT))
    total = terms.sum(axis=2)
    ones = np.ones((len(p), len(W), 1))
    return p[:, :1] + total, np.concatenate([ones, total[:, :, None], terms * W], axis=2)


def _starts(W: Array, y: Array) -> Array:
    m, k = len(y), W.shape[1]
    return np.stack(
        [
            np.column_stack([-k * np.exp(np.full(m, kappa)), np.full(m, kappa), np.full((m, k), t)])
            for kappa, t in STARTS
        ]
    )
