"""Law surface: what a law predicts everywhere, in a form that a page can compute.

A fitted law needs Python. What a reader moves on a page needs a few hundred numbers: the law's
means and the logarithms of its standard deviations at `CENTERS` feasible mixtures, interpolated
with cubic radial functions and a linear trend (polyharmonic splines),

    f(w) = a_0 + a . x + sum_i c_i |x - x_i|^3,   x = w^p,

where p is 1 or 1/2, whichever is nearer to the law at mixtures that the interpolation has not
seen. The error there is kept with the surface, and widens its intervals: nothing that the page
shows is more certain than the law.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.constraints import Constraints, feasible
from cuvee.mixtures.designs.dirichlet import draw_dirichlet
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import ConstraintError
from cuvee.mixtures.laws import FittedLaw, Prediction

CENTERS, CHECKS = 360, 180  # mixtures interpolated, and mixtures that judge the interpolation
POWERS = (1.0, 0.5)
STRENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 24.0)  # concentrations of the draws, times the domains
DIGITS = 10  # significant digits kept: cubic sums cancel, so that fewer would show
LEAST = 1e-12  # bits per byte: a standard deviation of 0 has no logarithm

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Surface:
    """An interpolated law over K domains and M targets.

    Attributes:
        power: p of the coordinates x = w^p.
        centers: shares of the n interpolated mixtures (n, K).
        mean: coefficients (n + 1 + K, M) of the predicted scores: of the radial functions, of the
            constant, of the coordinates.
        spread: the same of the logarithm of the law's standard deviation.
        error: root mean square (M,) of surface minus law, at mixtures not interpolated.
    """

    power: float
    centers: Rows
    mean: Rows
    spread: Rows
    error: tuple[float, ...]

    def predict(self, W: Array) -> Prediction:
        """Scores of mixtures W (n, K), with the interpolation's own error in the deviation."""
        basis = _basis(np.asarray(W, dtype=np.float64), np.array(self.centers), self.power)
        law = np.exp(basis @ np.array(self.spread))
        return Prediction(basis @ np.array(self.mean), np.hypot(law, np.array(self.error)))


def law_surface(
    law: FittedLaw, constraints: Constraints, known: Array, rng: np.random.Generator
) -> Surface | None:
    """The surface of a fitted law, or None where too few feasible mixtures differ.

    Args:
        law: what is interpolated.
        constraints: the surface is made for feasible mixtures, and for `known` ones.
        known: mixtures (P, K) that must be among the centers, such as the candidates.
        rng: the only source of chance.
    """
    try:
        drawn = _draws(constraints, known, rng)
    except ConstraintError:
        return None
    size = len(constraints.domains)
    if len(drawn) < 2 * (size + 1) + CHECKS:
        return None
    checks, rest = drawn[:CHECKS], drawn[CHECKS : CHECKS + CENTERS]
    centers = _distinct(np.vstack([known, rest]))
    truth, seen = law.predict(checks), law.predict(centers)
    spread = np.log(np.maximum(seen.sd, LEAST))
    best: tuple[float, Surface] | None = None
    for power in POWERS:
        mean = _solve(centers, seen.mean, power)
        error = _basis(checks, centers, power) @ mean - truth.mean
        score = float(np.median(np.abs(error) / np.maximum(truth.sd, LEAST)))
        if best is None or score < best[0]:
            rms = np.sqrt((error**2).mean(axis=0))
            made = Surface(
                power=power,
                centers=_rows(centers),
                mean=_rows(mean),
                spread=_rows(_solve(centers, spread, power)),
                error=_rows(rms[None])[0],
            )
            best = (score, made)
    return best[1] if best else None


def _draws(constraints: Constraints, known: Array, rng: np.random.Generator) -> Array:
    """Feasible mixtures (n, K): around the known ones and around the middle, near and far."""
    size = len(constraints.domains)
    middles = [np.full(size, 1.0 / size), *known]

    def raw(count: int) -> Array:
        each = -(-count // (len(STRENGTHS) * len(middles)))
        drawn = [
            draw_dirichlet(size * strength * (middle + 0.02), each, rng)
            for strength in STRENGTHS
            for middle in middles
        ]
        every = np.concatenate(drawn)
        return np.asarray(every[rng.permutation(len(every))], dtype=np.float64)

    return _distinct(feasible.draw_inside(raw, constraints, CENTERS + CHECKS, rng))


def _distinct(points: Array) -> Array:
    """Mixtures without repeats, in their order: equal centers would make the system singular."""
    _, first = np.unique(np.round(points, 6), axis=0, return_index=True)
    return np.asarray(points[np.sort(first)], dtype=np.float64)


def _basis(points: Array, centers: Array, power: float) -> Array:
    """The n + 1 + K functions at mixtures (m, K), shape (m, n + 1 + K)."""
    x, at = np.maximum(points, 0.0) ** power, np.maximum(centers, 0.0) ** power
    radius = np.sqrt(((x[:, None] - at[None]) ** 2).sum(axis=-1))
    return np.hstack([radius**3, np.ones((len(x), 1)), x])


def _solve(centers: Array, values: Array, power: float) -> Array:
    """Coefficients (n + 1 + K, M) that pass through the values; the least ones where many do."""
    basis = _basis(centers, centers, power)
    n, extra = len(centers), basis.shape[1] - len(centers)
    system = np.block([[basis], [basis[:, n:].T, np.zeros((extra, extra))]])
    right = np.vstack([values, np.zeros((extra, values.shape[1]))])
    return np.asarray(np.linalg.lstsq(system, right, rcond=None)[0], dtype=np.float64)


def _rows(values: Array) -> Rows:
    return tuple(tuple(float(f"{v:.{DIGITS}g}") for v in row) for row in values)
