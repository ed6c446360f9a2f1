"""Bounds of predictions: no law says a score that its runs give no ground for.

Equations run off where no run holds them: an exponential fitted to twelve runs may promise a loss
of -3, or of 1e19. Scores of a swarm do not: between the runs' mixtures and the worst corner of the
simplex they moved by less than their own range on every table that we know. So what a fitted law
predicts is left as it is within the range R of the scores that it was fitted to and half of it
further, and from there is bent towards a bound that lies one R beyond the scores, or at 0 where all
of them are positive:

    y -> e + r (2 / pi) atan(pi (y - e) / (2 r))     for y > e = high + R / 2, r = R / 2

and alike below, where r is half the distance to the bound. The bend keeps value, slope and
curvature where it begins and never turns, so that it changes no order of two mixtures by one
target; of a mean of targets it can, where some are predicted far beyond what was seen. Below the
range it is convex as well, so that a convex law stays one there. A deviation says no more than
the distance of the two bounds.

Every registered law is fitted through `bound_fits`, one of another package too. What a score can be
at all, such as an accuracy between 0 and 1, is declared where it is read (`Problem.limits`) and
narrows these bounds (`declared`).
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.domains import Array
from cuvee.mixtures.laws import (
    FittedLaw,
    Prediction,
    log_slopes,
    posterior_draws,
    predicted_means,
)

C = TypeVar("C", bound=type)
Limits = tuple[tuple[str, float, float], ...]  # (target, least, most) of a score, as declared
RANGES = 1.0  # of the observed scores, how far beyond them a prediction may lie
KEPT = 0.5  # part of the way to a bound on which predictions are left as they are
SIZES = 10.0  # the same at a size beyond the runs', where a score has good reason to leave them
POSITIVE = 1e-3  # part of the lowest score that a positive score keeps


def score_limits(targets: Sequence[str], limits: Limits) -> Array | None:
    """(M, 2) least and most that each target's score can be; None where none is declared."""
    if not limits:
        return None
    known = {name: (low, high) for name, low, high in limits}
    return np.array([known.get(name, (-np.inf, np.inf)) for name in targets])


@dataclass(frozen=True, eq=False)
class Bounds:
    """What scores can be, for all that the runs say.

    Attributes:
        low: (M,) the lowest score observed.
        high: (M,) the highest.
        ranges: how many of these a prediction may lie beyond them.
        limits: (M, 2) least and most that a score can be at all, as declared; infinite where not.
    """

    low: Array
    high: Array
    ranges: float = RANGES
    limits: Array | None = None

    @classmethod
    def of(cls, Y: Array, ranges: float = RANGES, limits: Array | None = None) -> "Bounds":
        """The bounds that scores (N, M), and what is declared of them, give."""
        return cls(Y.min(axis=0), Y.max(axis=0), ranges, limits)

    @property
    def least(self) -> Array:
        """(M,) what no prediction falls below: positive where all scores are."""
        least = self.low - self.ranges * (self.high - self.low)
        held = np.where(self.low > 0, np.maximum(least, POSITIVE * self.low), least)
        if self.limits is not None:
            held = np.minimum(np.maximum(held, self.limits[:, 0]), self.low)
        return np.asarray(held, dtype=np.float64)

    @property
    def most(self) -> Array:
        """(M,) what none rises above."""
        most = self.high + self.ranges * (self.high - self.low)
        if self.limits is not None:
            most = np.maximum(np.minimum(most, self.limits[:, 1]), self.high)
        return np.asarray(most, dtype=np.float64)

    def bend(self, mean: Array) -> Array:
        """Predictions (n, M), bent towards the bounds where they are far beyond the runs."""
        below, above = self.low - self.least, self.most - self.high
        inside = np.clip(mean, self.low - KEPT * below, self.high + KEPT * above)
        reach = (1 - KEPT) * np.where(mean > inside, above, below)
        reach = np.maximum(reach, np.finfo(np.float64).tiny)
        with np.errstate(over="ignore"):
            bent = reach * (2 / np.pi) * np.arctan(np.pi / 2 * ((mean - inside) / reach))
        return np.asarray(np.clip(inside + bent, self.least, self.most), dtype=np.float64)

    def bend_slope(self, mean: Array) -> Array:
        """Derivative (n, M) of `bend`."""
        below, above = self.low - self.least, self.most - self.high
        over = mean - np.clip(mean, self.low - KEPT * below, self.high + KEPT * above)
        reach = np.maximum((1 - KEPT) * np.where(over > 0, above, below), 1e-300)
        with np.errstate(over="ignore"):
            return np.asarray(1.0 / (1.0 + (np.pi / 2 * over / reach) ** 2), dtype=np.float64)

    def narrow(self, sd: Array) -> Array:
        """Deviations (n, M) of at most the distance of the bounds, where that is any."""
        width = self.most - self.least
        return np.asarray(np.minimum(sd, np.where(width > 0, width, np.inf)), dtype=np.float64)

    def hold(self, values: Array) -> Array:
        """Values (n, M) within the bounds."""
        return np.asarray(np.clip(values, self.least, self.most), dtype=np.float64)

    def run_off(self, law: FittedLaw, W: Array) -> NDArray[np.bool_]:
        """(n,) of which mixtures (n, K) a law, as its equation has it, says what no score can be.

        Of nearly constant targets no rounding is told.
        """
        mean = predicted_means(unbounded(law), W)
        beyond = np.abs(self.hold(mean) - mean) > 1e-9 + 1e-6 * np.abs(mean)
        return np.asarray(beyond.any(axis=1))


@dataclass(frozen=True)
class BoundedLaw:
    """A fitted law within its bounds.

    Attributes:
        law: as it was fitted.
        bounds: of the scores that it was fitted to.
    """

    law: FittedLaw
    bounds: Bounds

    def predict(self, W: Array) -> Prediction:
        found = self.law.predict(W)
        return Prediction(self.bounds.bend(found.mean), self.bounds.narrow(found.sd))

    def means(self, W: Array) -> Array:
        """Predicted scores (n, M) alone."""
        return self.bounds.bend(predicted_means(self.law, W))

    def slopes(self, W: Array) -> tuple[Array, Array] | None:
        """As `laws.log_slopes`."""
        found = log_slopes(self.law, W)
        if found is None:
            return None
        mean, slope = found
        return self.bounds.bend(mean), slope * self.bounds.bend_slope(mean)[:, :, None]

    def draws(self, count: int, rng: np.random.Generator) -> "list[BoundedLaw] | None":
        """As `laws.posterior_draws`."""
        found = posterior_draws(self.law, count, rng)
        return None if found is None else [BoundedLaw(law, self.bounds) for law in found]


def unbounded(law: FittedLaw) -> FittedLaw:
    """A fitted law as its equation has it."""
    return law.law if isinstance(law, BoundedLaw) else law


def declared(law: FittedLaw, limits: Array | None) -> FittedLaw:
    """A fitted law within what is declared of its scores (M, 2) too."""
    if limits is None or not isinstance(law, BoundedLaw):
        return law
    return replace(law, bounds=replace(law.bounds, limits=limits))


def bound_fits(cls: C) -> C:
    """A class of laws whose fits are bounded: what its registration makes of it."""
    fit: Callable[..., FittedLaw] = cls.fit  # type: ignore[attr-defined]  # a Law

    @functools.wraps(fit)
    def bounded(self: Any, W: Array, Y: Array, *others: Any, **named: Any) -> FittedLaw:
        found = fit(self, W, Y, *others, **named)
        if isinstance(found, BoundedLaw):  # registered twice, such as by an entry point too
            return found
        return BoundedLaw(found, Bounds.of(np.asarray(Y, dtype=np.float64)))

    cls.fit = bounded  # type: ignore[attr-defined]
    return cls
