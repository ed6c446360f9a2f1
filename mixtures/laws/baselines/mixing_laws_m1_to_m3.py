"""The other candidates of "Data Mixing Laws": M1, M2 and M3; M4 is `log_linear`.

    M1: L_m(r) = c_m + sum_j k_mj exp(t_mj r_j)
    M2: L_m(r) = c_m + k_m sum_j exp(t_mj r_j)
    M3: L_m(r) = c_m + k_m exp(prod_j t_mj r_j)

Source: Ye et al. 2024 (arXiv 2403.16952).

* In M1 every domain acts on its own. Where t is small, k and t are known only by their product, and
  c absorbs the sum of k; a weak quadratic prior around (k, t) = (1/2, -2) makes the answer unique.
* M2 has one k per target. It is written `exp(kappa)`, so that it is positive and the sign of a
  domain's effect lies in t alone.
* M1 and M2 have the prior on the simplex's corners that `log_linear` has. In M3, where corners say
  nothing of T, the strength of the prior on it does not fall below 0.01.
* In M3 the product of the t is all that the equation knows of them, and it multiplies the product
  of the shares, so that the law has three parameters: `c + k exp(T prod_j K r_j)` with
  `T = prod_j t_j / K`. (K r_j is 1 at equal shares, which keeps T of order 1.) It cannot tell one
  domain from another and is constant wherever any share is 0: it is here to be compared, as in the
  paper, not to be used.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws.curves import CORNERS, EXPONENT, STRENGTHS, EquationLaw, Form
from cuvee.mixtures.registry import register

M1_SLOPES = (-2.0, -8.0, 2.0)  # starts of t
M2_STARTS = ((0.0, -2.0), (0.0, 0.0), (-3.0, 0.0), (-1.0, -8.0))  # of (kappa, t)
M3_STARTS = ((1.0, -1.0), (-1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))  # of (k, T)


@register("law")
@dataclass(frozen=True)
class MixingLawM1(EquationLaw):
    """M1 of Data Mixing Laws: `L_m(r) = c_m + sum_j k_mj exp(t_mj r_j)`.

    Take it to compare with the paper's other candidates; `log_linear`, its M4, needs half the
    runs.
    """

    name = "mixing_law_m1"
    baseline: ClassVar[bool] = True

    def rows(self, domains: int) -> int:
        return 2 * domains + 2

    def form(self, k: int) -> Form:
        prior = np.diag(np.concatenate([[0.0], np.ones(k), np.full(k, 0.03)]))
        center = np.concatenate([[0.0], np.full(k, 0.5), np.full(k, -2.0)])
        return Form(_m1_curve, prior, center, _m1_starts, corners=CORNERS)


@register("law")
@dataclass(frozen=True)
class MixingLawM2(EquationLaw):
    """M2 of Data Mixing Laws: `L_m(r) = c_m + k_m sum_j exp(t_mj r_j)`.

    Take it to compare with the paper's other candidates; it ranks about as `log_linear` does and
    has no exact search.
    """

    name = "mixing_law_m2"
    baseline: ClassVar[bool] = True

    def rows(self, domains: int) -> int:
        return domains + 3

    def form(self, k: int) -> Form:
        prior = np.diag(np.concatenate([[0.0, 0.1], np.full(k, 0.03)]))
        center = np.concatenate([[0.0, 0.0], np.full(k, -2.0)])
        return Form(_m2_curve, prior, center, _m2_starts, corners=CORNERS)


@register("law")
@dataclass(frozen=True)
class MixingLawM3(EquationLaw):
    """M3 of Data Mixing Laws: `L_m(r) = c_m + k_m exp(prod_j t_mj r_j)`.

    Take it for the comparison alone: it cannot tell one domain from another, so it ranks nothing.
    """

    name = "mixing_law_m3"
    baseline: ClassVar[bool] = True

    def rows(self, domains: int) -> int:
        return 4

    def form(self, k: int) -> Form:
        return Form(_m3_curve, np.diag([0.0, 0.1, 0.1]), np.zeros(3), _m3_starts, STRENGTHS[:3])


def _m1_curve(p: Array, W: Array) -> tuple[Array, Array]:
    k = W.shape[1]
    exponent = np.minimum(p[:, None, 1 + k :] * W, EXPONENT)
    e = np.exp(exponent)
    terms = p[:, None, 1 : 1 + k] * e
    ones = np.ones((len(p), len(W), 1))
    return p[:, :1] + terms.sum(axis=2), np.concatenate([ones, e, terms * W], axis=2)


def _m1_starts(W: Array, y: Array) -> Array:
    m, k = len(y), W.shape[1]
    blocks = [np.zeros((m, 1)), np.full((m, k), 0.5)]
    return np.stack([np.concatenate([*blocks, np.full((m, k), t)], axis=1) for t in M1_SLOPES])


def _m2_curve(p: Array, W: Array) -> tuple[Array, Array]:
    scale = np.exp(np.minimum(p[:, 1], EXPONENT))[:, None, None]
    terms = scale * np.exp(np.minimum(p[:, None, 2:] * W, EXPONENT))
    total = terms.sum(axis=2)
    ones = np.ones((len(p), len(W), 1))
    return p[:, :1] + total, np.concatenate([ones, total[:, :, None], terms * W], axis=2)


def _m2_starts(W: Array, y: Array) -> Array:
    m, k = len(y), W.shape[1]
    return np.stack(
        [
            np.column_stack([-k * np.exp(np.full(m, kappa)), np.full(m, kappa), np.full((m, k), t)])
            for kappa, t in M2_STARTS
        ]
    )


def _m3_curve(p: Array, W: Array) -> tuple[Array, Array]:
    product = np.prod(W * W.shape[1], axis=1)
    e = np.exp(np.clip(p[:, 2:] * product, -EXPONENT, EXPONENT))
    scaled = p[:, 1:2] * e
    return p[:, :1] + scaled, np.stack([np.ones_like(e), e, scaled * product], axis=2)


def _m3_starts(_: Array, y: Array) -> Array:
    m = len(y)
    return np.stack(
        [np.column_stack([np.full(m, -k), np.full(m, k), np.full(m, t)]) for k, t in M3_STARTS]
    )
