"""Mixing law M3: `L_m(r) = c_m + k_m exp(prod_j t_mj r_j)`.

Source: Ye et al. 2024, "Data Mixing Laws" (arXiv 2403.16952), candidate M3. The product of the t is
all that the equation knows of them, and it multiplies the product of the shares, so that the law
has three parameters: `c + k exp(T prod_j K r_j)` with `T = prod_j t_j / K`. (K r_j is 1 at equal
shares, which keeps T of order 1.) It cannot tell one domain from another and is constant wherever
any share is 0: it is here to be compared, as in the paper, not to be used.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws import Law, curves
from cuvee.mixtures.laws.curves import FittedCurve, Form
from cuvee.mixtures.registry import register

STARTS = ((1.0, -1.0), (-1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))  # of (k, T)


@register("law")
@dataclass(frozen=True)
class MixingLawM3(Law):
    """The law without parameters."""

    name = "mixing_law_m3"

    def rows(self, domains: int) -> int:
        return 4

    def fit(self, W: Array, Y: Array, noise: Array, rng: np.random.Generator) -> FittedCurve:
        form = Form(_curve, np.diag([0.0, 0.1, 0.1]), np.zeros(3), _starts)
        rows = self.rows(np.shape(W)[1])
        return curves.fitted_form("mixing_law_m3", form, rows, (W, Y, noise), rng)


def _curve(p: Array, W: Array) -> tuple[Array, Array]:
    product = np.prod(W * W.shape[1], axis=1)
    e = np.exp(np.clip(p[:, 2:] * product, -curves.EXPONENT, curves.EXPONENT))
    scaled = p[:, 1:2] * e
    return p[:, :1] + scaled, np.stack([np.ones_like(e), e, scaled * product], axis=2)


def _starts(_: Array, y: Array) -> Array:
    m = len(y)
    return np.stack(
        [np.column_stack([np.full(m, -k), np.full(m, k), np.full(m, t)]) for k, t in STARTS]
    )
