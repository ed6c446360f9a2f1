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

The settings were chosen on worlds with an eye on trained ladders, which therefore do not judge them
from outside: docs/results/scale.md.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError

if TYPE_CHECKING:
    from cuvee.mixtures.scaling import Scaling, ScalingRuns

GROWTH = 0.75  # G
LEVEL, ORDER = 0.02, 0.005  # prior medians of the deviations at a factor e, relative
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
class _HeldOut:
    """What one fit predicted of one scale: residuals and the fit's own variances (n, M)."""

    residuals: Array
    variances: Array
    growth: float
    weight: float

    def level_density(self, sd: Array) -> Array:
        """(G, M) log density of the mean error under deviations (G,)."""
        variance = self.variances.mean(axis=0) + (sd[:, None] * self.growth) ** 2
        error = self.residuals.mean(axis=0)
        return np.asarray(-0.5 * self.weight * (np.log(variance) + error**2 / variance))

    def order_density(self, sd: Array) -> Array:
        """(G, M) log density of the errors around their mean."""
        variance = self.variances.mean(axis=0) + (sd[:, None] * self.growth) ** 2
        n = len(self.residuals)
        squares = n * self.residuals.var(axis=0)
        density = (n - 1) * np.log(variance) + squares / variance
        return np.asarray(-0.5 * self.weight * ROWS * density)


def learn_discrepancy(law: "Scaling", runs: "ScalingRuns", rng: np.random.Generator) -> Discrepancy:
    """What back-tests of a law on its own runs say of its errors beyond them.

    Args:
        law: is fitted by its cheaper variant.
        runs: that it is fitted to; what is held out are ends of runs.
        rng: the only source of chance.
    """
    top = (float(runs.parameters.max()), float(runs.tokens.max()))
    coarse, found, reasons = law.coarse(), {}, []
    cuts = list(_cuts(runs))
    for below, child in zip(cuts, rng.spawn(len(cuts)), strict=True):
        rest = runs.take(below)
        try:
            held = _held_out(coarse, rest, runs.take(~below).ends, child)
        except EvidenceError as error:
            reasons.append(str(error))
            continue
        found[float(rest.parameters.max()), float(rest.tokens.max())] = held
    every = [part for parts in found.values() for part in parts]
    if not every:
        why = reasons[-1] if reasons else "all runs are of one size and number of tokens"
        nothing = np.zeros(runs.Y.shape[1])
        return Discrepancy(nothing, nothing, top, {}, f"no back-test can be made: {why}")
    level = _deviation(LEVEL, [part.level_density(LEVEL * GRID) for part in every])
    order = _deviation(ORDER, [part.order_density(ORDER * GRID) for part in every])
    scores = {at: _score(parts, level, order) for at, parts in found.items()}
    return Discrepancy(level, order, top, scores)


def _cuts(runs: "ScalingRuns") -> Iterator[NDArray[np.bool_]]:
    """Which rows (N,) lie below each of the upper sizes, and each of the upper token counts."""
    made: list[NDArray[np.bool_]] = []
    for values in (runs.parameters, runs.ends.tokens):
        for most in np.unique(values)[:-1][-TESTS:]:
            below = (runs.parameters if values is runs.parameters else runs.tokens) <= most
            if not any(np.array_equal(below, other) for other in made):
                made.append(below)
                yield below


def _held_out(
    law: "Scaling", rest: "ScalingRuns", held: "ScalingRuns", rng: np.random.Generator
) -> list[_HeldOut]:
    """What a law that was fitted to some runs predicts of others, scale by scale."""
    fitted = law.fit(rest, rng)
    top = (rest.parameters.max(), rest.tokens.max())
    scales = sorted(set(zip(held.parameters.tolist(), held.tokens.tolist(), strict=True)))
    found = []
    for size, tokens in scales:
        own = held.take((held.parameters == size) & (held.tokens == tokens))
        said = fitted.predict(own.W, own.parameters, own.tokens)
        growth = float(_distance(size, tokens, top)[0]) ** GROWTH
        relative = (said.sd / said.mean) ** 2
        found.append(_HeldOut(np.log(own.Y / said.mean), relative, growth, 1.0 / len(scales)))
    return found


def _deviation(center: float, densities: list[Array]) -> Array:
    """(M,) root of the posterior mean variance, of log densities (G, M) over the grid."""
    total = np.sum(densities, axis=0)
    total = (1.0 - POOL) * total + POOL * total.mean(axis=1, keepdims=True)
    posterior = total - 0.5 * (np.log(GRID)[:, None] / SPREAD) ** 2
    weights = np.exp(posterior - posterior.max(axis=0))
    variance = (weights * (center * GRID[:, None]) ** 2).sum(axis=0) / weights.sum(axis=0)
    return np.asarray(np.sqrt(variance), dtype=np.float64)


def _score(parts: list[_HeldOut], level: Array, order: Array) -> float:
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
