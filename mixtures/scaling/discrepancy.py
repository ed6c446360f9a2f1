"""Discrepancy: how far a scaling law errs beyond the sizes it saw, learned from back-tests.

What a fit says of its own error supposes that its form is right. So the law is fitted to the runs
up to a size, or up to a number of tokens, for each of the upper ones in turn, and predicts what is
above. Log scores at a distance d beyond the fitted runs (d^2 = log^2 of the factor in parameters +
log^2 of that in tokens) are off by

    level_m d^G  +  order_m d^G

a level error that all mixtures of one scale share, so that it cancels in gains, and an error of the
order, which each mixture has for itself. The deviations of both are found per target: the
posterior mean of the variance over a grid, under a log-normal prior, so that one back-test
gives neither 0 nor infinity. Other targets' errors count by a part, since a form that is wrong
for one seldom is right for the rest; one fit counts once however many scales it predicts.

The settings were chosen by coverage on worlds and on four Pile domains, and judged on this
project's ladder, and the other way round: docs/results/scale.md.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.laws import Prediction

if TYPE_CHECKING:
    from cuvee.mixtures.scaling import FittedScaling, Scaling, ScalingRuns

GROWTH = 0.75  # G
LEVEL, ORDER = 0.014, 0.005  # prior medians of the deviations at a factor e, relative
SPREAD = 1.5  # prior deviation of their logarithms
POOL = 0.3  # weight of the mean over all targets in a target's likelihood
ROWS = 0.3  # how much one mixture's error of the order says: those of one size err alike
TESTS = 3  # back-tests along each axis, the uppermost
GRID = np.exp(np.linspace(-4.0, 4.0, 33))  # deviations tried, times the prior median


@dataclass(frozen=True, eq=False)
class Discrepancy:
    """Errors of a law beyond the runs that it was fitted to.

    Attributes:
        level: (M,) deviation of a log score that all mixtures share, at a factor e beyond.
        order: (M,) that each mixture has for itself.
        top: most parameters and tokens that were fitted.
        scores: mean log density of what each back-test held out, by the top that it was fitted to.
        refused: why no back-test could be made; then there is no interval beyond the top.
    """

    level: Array
    order: Array
    top: tuple[float, float]
    scores: dict[tuple[float, float], float]
    refused: str = ""

    def errors(self, parameters: Any, tokens: Any) -> tuple[Array, Array]:
        """Deviations (n, M) of level and order at scales (n,); infinite if nothing tested them."""
        growth = _distance(parameters, tokens, self.top)[:, None] ** GROWTH
        if self.refused:
            nothing = np.where(growth > 0, np.inf, 0.0) * np.ones_like(self.level)
            return nothing, nothing
        return growth * self.level, growth * self.order


@dataclass(frozen=True, eq=False)
class _Scale:
    """What one fit predicted of one scale: residuals and the fit's own variances (n, M)."""

    residuals: Array
    variances: Array
    growth: float
    weight: float

    def density(self, deviations: Array, count: float, squares: Array) -> Array:
        """(G, M) log density, under deviations (G,), of so many errors by their squares' sum."""
        variance = self.variances.mean(axis=0) + (deviations[:, None] * self.growth) ** 2
        return np.asarray(-0.5 * self.weight * (count * np.log(variance) + squares / variance))


def attempts(
    calls: Mapping[Any, Callable[[np.random.Generator], Any]], rng: np.random.Generator
) -> tuple[dict[Any, Any], dict[Any, str]]:
    """What fits gave, each with a generator of its own, and why others could not be made."""
    found, refused = {}, {}
    for (key, call), child in zip(calls.items(), rng.spawn(len(calls)), strict=True):
        try:
            found[key] = call(child)
        except EvidenceError as error:
            refused[key] = str(error)
    return found, refused


def hold_out(
    law: "Scaling", rest: "ScalingRuns", held: "ScalingRuns", rng: np.random.Generator
) -> tuple["FittedScaling", Prediction]:
    """A law fitted to some runs, and what it predicts of others."""
    fitted = law.fit(rest, rng)
    return fitted, fitted.predict(held.W, held.parameters, held.tokens)


def learn_discrepancy(law: "Scaling", runs: "ScalingRuns", rng: np.random.Generator) -> Discrepancy:
    """What back-tests of a law on its own runs say of its errors beyond them.

    Args:
        law: is fitted by its cheaper variant.
        runs: that it is fitted to; what is held out are ends of runs.
        rng: the only source of chance.
    """
    cuts = {_top(runs.take(below)): below for below in _cuts(runs)}
    held = {at: runs.take(~below).ends for at, below in cuts.items()}
    calls = {
        at: partial(hold_out, law.coarse(), runs.take(below), held[at])
        for at, below in cuts.items()
    }
    told, refused = attempts(calls, rng)
    found = {at: list(_scales(held[at], said, at)) for at, (_, said) in told.items()}
    every = [part for parts in found.values() for part in parts]
    if not every:
        why = ["all runs are of one size and number of tokens", *refused.values()][-1]
        nothing = np.zeros(runs.Y.shape[1])
        return Discrepancy(nothing, nothing, _top(runs), {}, f"no back-test can be made: {why}")
    level = _deviation(LEVEL, [
        part.density(LEVEL * GRID, 1.0, part.residuals.mean(axis=0) ** 2) for part in every
    ])  # fmt: skip
    order = _deviation(ORDER, [
        ROWS * part.density(ORDER * GRID, n - 1.0, n * part.residuals.var(axis=0))
        for part in every
        for n in [len(part.residuals)]
    ])  # fmt: skip
    scores = {at: _score(parts, level, order) for at, parts in found.items()}
    return Discrepancy(level, order, _top(runs), scores)


def _top(runs: "ScalingRuns") -> tuple[float, float]:
    return float(runs.parameters.max()), float(runs.tokens.max())


def _cuts(runs: "ScalingRuns") -> Iterator[NDArray[np.bool_]]:
    """Which rows (N,) lie below each of the upper sizes, and each of the upper token counts."""
    for column, values in ((runs.parameters, runs.parameters), (runs.tokens, runs.ends.tokens)):
        yield from (column <= most for most in np.unique(values)[:-1][-TESTS:])


def _scales(held: "ScalingRuns", said: Prediction, top: tuple[float, float]) -> Iterator[_Scale]:
    """What was predicted of held-out runs, scale by scale."""
    scales, member = np.unique([held.parameters, held.tokens], axis=1, return_inverse=True)
    residuals, variances = np.log(held.Y / said.mean), (said.sd / said.mean) ** 2
    for i, (size, tokens) in enumerate(scales.T):
        growth, own = float(_distance(size, tokens, top)[0]) ** GROWTH, member.ravel() == i
        yield _Scale(residuals[own], variances[own], growth, 1.0 / scales.shape[1])


def _deviation(center: float, densities: list[Array]) -> Array:
    """(M,) root of the posterior mean variance, of log densities (G, M) over the grid."""
    total = np.sum(densities, axis=0)
    total = (1.0 - POOL) * total + POOL * total.mean(axis=1, keepdims=True)
    posterior = total - 0.5 * (np.log(GRID)[:, None] / SPREAD) ** 2
    weights = np.exp(posterior - posterior.max(axis=0))
    variance = (weights * (center * GRID[:, None]) ** 2).sum(axis=0) / weights.sum(axis=0)
    return np.asarray(np.sqrt(variance), dtype=np.float64)


def _score(parts: list[_Scale], level: Array, order: Array) -> float:
    """Mean log density of what a back-test held out, a scale counted once."""
    densities = []
    for part in parts:
        variance = part.variances + part.growth**2 * (level**2 + order**2)
        densities.append(-0.5 * np.mean(np.log(variance) + part.residuals**2 / variance))
    return float(np.mean(densities))


def _distance(parameters: Any, tokens: Any, top: tuple[float, float]) -> Array:
    """(n,) distance of scales beyond the fitted runs, in factors e."""
    sizes = np.maximum(np.log(np.atleast_1d(parameters) / top[0]), 0.0)
    return np.asarray(np.hypot(sizes, np.maximum(np.log(np.atleast_1d(tokens) / top[1]), 0.0)))
