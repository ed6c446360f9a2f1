"""Stack: a convex combination of other laws, chosen by cross-validation.

Source: Wolpert 1992, "Stacked generalization"; Breiman 1996, "Stacked regressions", section 3: the
weights are not negative and sum to one, and minimize the error of held-out predictions.

Departures: one vector of weights per target, found on residuals in units of their spread with a
small pull to equal weights, since few runs cannot tell similar laws apart.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws import FittedLaw, Law, Prediction, calibration
from cuvee.mixtures.laws.observations import observe
from cuvee.mixtures.registry import Registered, build, register

PULL = 1e-2  # to equal weights, relative to the mean squared residual


@dataclass(frozen=True)
class FittedStack:
    """Fitted members and their weights.

    Attributes:
        members: fitted laws.
        weights: (M, members), each row a convex combination.
        factor: (M,) on the deviations, from the same cross-validation.
    """

    members: tuple[FittedLaw, ...]
    weights: Array
    factor: Array

    def predict(self, W: Array) -> Prediction:
        means, sds = _predictions(self.members, np.asarray(W, dtype=np.float64))
        mean = np.einsum("ml,lnm->nm", self.weights, means)
        sd = np.einsum("ml,lnm->nm", self.weights, sds) * self.factor
        return Prediction(mean, sd)


@register("law")
@dataclass(frozen=True)
class Stack(Law):
    """The stack without data.

    Take it where several laws seem equally right and minutes of fitting do not matter: it ranks as
    `kriging` does at many times the cost.

    Attributes:
        members: registered names of laws, each with its default settings.
        folds: folds of the cross-validation that weighs the members.
    """

    name = "stack"

    members: tuple[Annotated[str, Registered("law", named=True)], ...] = (
        "log_linear",
        "power",
        "saturating_power",
        "gaussian_process",
    )
    folds: int = 5

    def __post_init__(self) -> None:
        if isinstance(self.members, str) or not all(isinstance(m, str) for m in self.members):
            raise RecipeError(f"stack.members is a list of names of laws; got {self.members!r}")
        if len(self.members) < 2 or "stack" in self.members or self.folds < 2:
            raise RecipeError(
                "a stack needs at least two members other than itself and at least 2 folds; got "
                f"{', '.join(self.members) or 'none'} and {self.folds} folds"
            )

    @property
    def laws(self) -> tuple[Law, ...]:
        """The members, unfitted."""
        return tuple(build("law", member) for member in self.members)

    def rows(self, domains: int) -> int:
        most = max(law.rows(domains) for law in self.laws)
        # the largest fold is held out, and what is left must do for every member
        return next(n for n in range(most, 2 * most + 3) if n - -(-n // self.folds) >= most)

    def fit(self, W: Array, Y: Array, noise: Array, rng: np.random.Generator) -> FittedStack:
        data = observe(self, W, Y, noise)
        shape = (len(self.members), *data.Y.shape)
        means, sds = np.empty(shape), np.empty(shape)
        for kept, fold in calibration.random_folds(len(data.W), self.folds, rng):
            tables = (data.W[kept], data.Y[kept], data.noise[kept])
            fitted = tuple(law.fit(*tables, rng) for law in self.laws)
            means[:, fold], sds[:, fold] = _predictions(fitted, data.W[fold])
        residuals = (data.Y - means) / data.spread
        noise_weight = 1.0 / np.sqrt(data.scaled_noise**2 + np.median(residuals**2) + 1e-12)
        weights = np.stack(
            [_equal_drawn(residuals[:, :, m] * noise_weight[:, m]) for m in range(data.Y.shape[1])]
        )
        mean = np.einsum("ml,lnm->nm", weights, means)
        sd = np.einsum("ml,lnm->nm", weights, sds)
        members = tuple(law.fit(data.W, data.Y, data.noise, rng) for law in self.laws)
        return FittedStack(members, weights, calibration.width_factor(data.Y - mean, sd))


def _predictions(members: tuple[FittedLaw, ...], W: Array) -> tuple[Array, Array]:
    """Means and deviations (members, n, M)."""
    found = [member.predict(W) for member in members]
    return np.stack([f.mean for f in found]), np.stack([f.sd for f in found])


def _equal_drawn(residuals: Array) -> Array:
    """Weights (members,) of least squared residuals (members, N), drawn to equal ones."""
    center = np.full(len(residuals), 1.0 / len(residuals))
    return calibration.convex_weights(residuals, center, PULL * float(np.mean(residuals**2)))
