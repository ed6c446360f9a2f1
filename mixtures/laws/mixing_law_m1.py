"""Mixing law M1: `L_m(r) = c_m + sum_j k_mj exp(t_mj r_j)`.

Source: Ye et al. 2024, "Data Mixing Laws" (arXiv 2403.16952), candidate M1: every domain acts on
its own. Where t is small, k and t are known only by their product, and c absorbs the sum of k; a
weak quadratic prior around (k, t) = (1/2, -2) makes the answer unique.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws import Law, curves
from cuvee.mixtures.laws.curves import FittedCurve, Form
from cuvee.mixtures.registry import register

SLOPES = (-2.0, -8.0, 2.0)  # starts of t


@register("law")
@dataclass(frozen=True)
class MixingLawM1(Law):
    """The law without parameters."""

    name = "mixing_law_m1"

    def rows(self, domains: int) -> int:
        return 2 * domains + 2

    def fit(self, W: Array, Y: Array, noise: Array, rng: np.random.Generator) -> FittedCurve:
        k = np.shape(W)[1]
        prior = np.diag(np.concatenate([[0.0], np.ones(k), np.full(k, 0.03)]))
        center = np.concatenate([[0.0], np.full(k, 0.5), np.full(k, -2.0)])
        form = Form(_curve, prior, center, _starts)
        return curves.fitted_form("mixing_law_m1", form, self.rows(k), (W, Y, noise), rng)


def _curve(p: Array, W: Array) -> tuple[Array, Array]:
    k = W.shape[1]
    exponent = np.minimum(p[:, None, 1 + k :] * W, curves.EXPONENT)
    e = np.exp(exponent)
    terms = p[:, None, 1 : 1 + k] * e
    ones = np.ones((len(p), len(W), 1))
    return p[:, :1] + terms.sum(axis=2), np.concatenate([ones, e, terms * W], axis=2)


def _starts(W: Array, y: Array) -> Array:
    m, k = len(y), W.shape[1]
    blocks = [np.zeros((m, 1)), np.full((m, k), 0.5)]
    return np.stack([np.concatenate([*blocks, np.full((m, k), t)], axis=1) for t in SLOPES])
