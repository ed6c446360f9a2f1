"""Implicit law: `L_m(r) = c_m + sum_i s_mi exp(sum_j t_mij r_j)`, a mixture of I exponentials.

Source: Ye et al. 2024, "Data Mixing Laws" (arXiv 2403.16952), section 3.3: a validation set whose
domains are unknown is a mixture of implicit domains, each with a log-linear law. s and the
components' own k fold into t, as in `log_linear`.

Departures: the paper trains 30 components as a network, boosts 30 networks and keeps the best of 16
seeds by its training error. We take few components, since each costs K parameters and runs are
dear, the priors of `log_linear`, and starts that follow from the log-linear start: component i
begins with its exponents stretched by `STRETCHES[i]`, which tells the components apart without
chance.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import curves
from cuvee.mixtures.laws.curves import EquationLaw, Form
from cuvee.mixtures.laws.log_linear import exponents_at
from cuvee.mixtures.registry import register

STRETCHES = (1.0, 3.0, -1.0, 0.3, 6.0, -3.0)
PARTS = (0.1, 0.5)  # starts: offsets below the lowest score, in ranges


@register("law")
@dataclass(frozen=True)
class Implicit(EquationLaw):
    """The law without parameters.

    Take it where a target is a blend of unlike texts and there are a hundred runs or more; from
    fewer it has too many parameters.

    Attributes:
        components: exponentials in the mixture, I, at most 6.
    """

    name = "implicit"

    components: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.components <= len(STRETCHES):
            raise RecipeError(
                f"implicit.components lies between 1 and {len(STRETCHES)}; got {self.components}"
            )

    def rows(self, domains: int) -> int:
        return self.components * domains + 2

    def form(self, k: int) -> Form:
        size = 1 + self.components * k
        prior = np.zeros((size, size))
        for i in range(self.components):
            first = 1 + i * k
            prior += curves.centering_prior(size, first, first + k)
            prior[first : first + k, first : first + k] += 1e-3 / k  # a vanishing component
        starts = partial(_starts, self.components)
        return Form(_curve, prior, np.zeros(size), starts, corners=curves.CORNERS)


def _curve(p: Array, W: Array) -> tuple[Array, Array]:
    k = W.shape[1]
    t = p[:, 1:].reshape(len(p), -1, k)
    e = np.exp(np.minimum(np.einsum("bik,nk->bni", t, W), curves.EXPONENT))
    slopes = (e[:, :, :, None] * W[:, None, :]).reshape(len(p), len(W), -1)
    return p[:, :1] + e.sum(axis=2), np.concatenate(
        [np.ones_like(slopes[:, :, :1]), slopes], axis=2
    )


def _starts(components: int, W: Array, y: Array) -> Array:
    starts = []
    for c in curves.start_offsets(y, PARTS):
        t = exponents_at(y, W, c)
        mean = t.mean(axis=1, keepdims=True)
        parts = [mean - np.log(components) + STRETCHES[i] * (t - mean) for i in range(components)]
        starts.append(np.column_stack([c, *parts]))
    return np.stack(starts)
