"""Log-linear mixing law: `L_m(r) = c_m + k_m exp(sum_j t_mj r_j)`.

Source: Ye et al. 2024, "Data Mixing Laws" (arXiv 2403.16952), equation M4. As the shares sum to 1,
k is folded into t: `c + exp(sum_j (t_j + log k) r_j)`, which is how Olmix writes it
(`exp(c) + exp(x . t)`). With `offset: positive`, Olmix's variant, c is the exponential of a
parameter; with `free` (default) c is any number, so that scores that may be negative can be fitted.

Departures:
* Both codes run L-BFGS from hundreds of random starts on a Huber loss of fixed width. We start
  from the ridge solution of `log(y - c) = t . r` at several c, which is linear, and polish by
  Levenberg-Marquardt: the same minimum, without chance, and the same for any order of domains.
* The Huber loss's width is `huber` robust deviations of the residuals, so it needs no unit.
* K + 1 parameters from little more than K + 1 runs interpolate the noise. A quadratic prior
  `lambda sum_j (t_j - mean t)^2` pulls the exponents of a target together (the mean, that is log k,
  is free); lambda is chosen per target by linearized leave-one-out error, down to practically none.
  Where runs are few that says little, and exponents run off towards domains that hardly any run
  drew from: the prior on the simplex's corners (`curves.Form`) holds them.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import Law, Prediction, curves
from cuvee.mixtures.laws.curves import FittedCurve, Form
from cuvee.mixtures.laws.observations import observe
from cuvee.mixtures.registry import register

PARTS = (0.02, 0.1, 0.3, 1.0, 3.0)  # starts: offsets below the lowest score, in ranges
POSITIVE_PARTS = (0.3, 0.6, 0.9)  # starts: offsets as parts of the lowest score


@dataclass(frozen=True)
class FittedLogLinear:
    """A fitted log-linear law; it is of the `Exponential` form.

    Attributes:
        fitted: the equation in scaled scores, with c as its first parameter.
    """

    fitted: FittedCurve

    @property
    def offsets(self) -> Array:
        """c (M,), in the unit of the scores."""
        f = self.fitted
        return np.asarray(f.center + f.spread * f.p[:, 0], dtype=np.float64)

    @property
    def exponents(self) -> Array:
        """A (M, K): k is folded into it, and so is the unit of the scores."""
        f = self.fitted
        return np.asarray(f.p[:, 1:] + np.log(f.spread)[:, None], dtype=np.float64)

    def predict(self, W: Array) -> Prediction:
        return self.fitted.predict(W)

    def means(self, W: Array) -> Array:
        """Predicted scores (n, M) alone."""
        return self.fitted.means(W)

    def slopes(self, W: Array) -> tuple[Array, Array]:
        """As `laws.log_slopes`."""
        f, mean = self.fitted, self.means(W)
        rest = mean - (f.center + f.spread * f.p[:, 0])
        return mean, rest[:, :, None] * f.p[:, 1:] * W[:, None, :]


@register("law")
@dataclass(frozen=True)
class LogLinear(Law):
    """The log-linear law without parameters.

    Take it where each domain acts on a score by itself, where an exact optimum is wanted, and for
    schedules; it needs the fewest runs and is wrong where domains help or hurt one another.

    Attributes:
        offset: the constant c of a target: "free" for any number, "positive" as in Olmix.
        huber: residuals beyond this many robust deviations lose weight; 0 is plain least squares.
    """

    name = "log_linear"

    offset: Annotated[str, Literal["free", "positive"]] = "free"
    huber: float = curves.HUBER

    def __post_init__(self) -> None:
        if self.offset not in ("free", "positive"):
            raise RecipeError(f"log_linear.offset is free or positive; got {self.offset!r}")
        if self.huber < 0:
            raise RecipeError(f"log_linear.huber is at least 0; got {self.huber}")

    def rows(self, domains: int) -> int:
        return domains + 2

    def fit(self, W: Array, Y: Array, noise: Array, rng: np.random.Generator) -> FittedLogLinear:
        size = np.shape(W)[1] + 1
        data = observe(self, W, Y, noise)
        prior = curves.centering_prior(size, 1, size)
        if self.offset == "free":
            form = Form(_free, prior, np.zeros(size), _free_starts, corners=curves.CORNERS)
            return FittedLogLinear(curves.fit_form(data, form, rng, self.huber))
        if data.Y.min() <= 0:
            raise RecipeError(
                "log_linear with a positive offset needs positive scores; the lowest is "
                f"{data.Y.min():.4g}: set offset to free"
            )
        form = Form(_positive, prior, np.zeros(size), _positive_starts, corners=curves.CORNERS)
        return FittedLogLinear(
            _unlogged(curves.fit_form(replace(data, shifted=False), form, rng, self.huber))
        )


def _free(p: Array, W: Array) -> tuple[Array, Array]:
    e = np.exp(np.minimum(p[:, 1:] @ W.T, curves.EXPONENT))
    jacobian = np.empty((len(p), len(W), p.shape[1]))
    jacobian[:, :, 0] = 1.0
    jacobian[:, :, 1:] = e[:, :, None] * W
    return p[:, :1] + e, jacobian


def _positive(p: Array, W: Array) -> tuple[Array, Array]:
    c = np.exp(np.minimum(p[:, :1], curves.EXPONENT))
    values, jacobian = _free(np.column_stack([c, p[:, 1:]]), W)
    jacobian[:, :, 0] = c
    return values, jacobian


def exponents_at(y: Array, W: Array, c: Array) -> Array:
    """(M, K) exponents: the ridge solution of `log(y - c) = t . r` around its mean."""
    logs, value = np.log(y - c[:, None]), (y - c[:, None]) ** 2
    # The variance of log(y - c) goes as 1 / (y - c)^2, hence the weights.
    gram = np.einsum("nj,mn,nk->mjk", W, value, W)
    ridge = 1e-3 * np.trace(gram, axis1=1, axis2=2)[:, None, None] / W.shape[1]
    mean = np.average(logs, axis=1, weights=value)[:, None]
    right = np.einsum("nj,mn->mj", W, value * (logs - mean))[:, :, None]
    t = np.linalg.solve(gram + ridge * np.eye(W.shape[1]), right)[:, :, 0] + mean
    return np.asarray(t, dtype=np.float64)


def _free_starts(W: Array, y: Array) -> Array:
    return np.stack(
        [np.column_stack([c, exponents_at(y, W, c)]) for c in curves.start_offsets(y, PARTS)]
    )


def _positive_starts(W: Array, y: Array) -> Array:
    low = y.min(axis=1)
    return np.stack(
        [np.column_stack([np.log(p * low), exponents_at(y, W, p * low)]) for p in POSITIVE_PARTS]
    )


def _unlogged(f: FittedCurve) -> FittedCurve:
    """The same law with c in place of log c as its first parameter."""
    c = np.exp(f.p[:, 0])
    scale = np.ones_like(f.p)
    scale[:, 0] = c
    covariance = f.covariance * scale[:, :, None] * scale[:, None, :]
    p = np.column_stack([c, f.p[:, 1:]])
    return FittedCurve(_free, p, covariance, f.noise, f.center, f.spread)
