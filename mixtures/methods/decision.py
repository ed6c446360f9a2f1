"""Decision: what a fitted law and its refits choose, and what they predict of it.

Each law is searched alike, so that what refits find differs by the data alone. Gains are compared
in pairs, refit by refit; intervals on targets are for one new run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixtures import diagnostics
from mixtures.domains import Array
from mixtures.laws import FittedLaw
from mixtures.problem import Problem
from mixtures.recommendation import LEVEL, Candidate, Estimate
from mixtures.searches import Search, score


@dataclass(frozen=True, eq=False)
class Chosen:
    """What a fitted law and its refits choose and predict.

    Attributes:
        weights: recommended shares (K,).
        points: (P, K) the mixtures compared, the recommended one first.
        levels: (P,) their predicted objective.
        refit_weights: (B, K) what each refit recommends.
        refit_levels: (B, P) what each refit predicts of `points`.
        refit_gains: (B, B) what refit b predicts that the optimum of refit a gains over the
            recommended mixture.
    """

    weights: Array
    points: Array
    levels: Array
    refit_weights: Array
    refit_levels: Array
    refit_gains: Array


def decide(law: FittedLaw, search: Search, problem: Problem, seed: int) -> tuple[Array, Array]:
    """What a fitted law chooses (K,), and what it predicts of the natural mixture (M,)."""
    reference = law.predict(problem.domains.natural[None]).mean[0]
    return search.choose(law, problem, reference, np.random.default_rng(seed)), reference


def decided(
    laws: tuple[FittedLaw, Sequence[FittedLaw]],
    search: Search,
    problem: Problem,
    baselines: Array,
    *,
    rng: np.random.Generator,
) -> Chosen:
    """What a fitted law and its refits choose.

    Args:
        laws: fitted to all runs, and to bootstrap samples of them.
        search: its cheaper variant searches the refits.
        problem: with the targets that the laws predict.
        baselines: (P - 1, K) mixtures to compare with.
        rng: every search starts from the same state of it.
    """
    seed = int(rng.integers(2**31))
    fitted, again = laws
    weights, reference = decide(fitted, search, problem, seed)
    points = np.vstack([weights, baselines])
    levels = _levels(fitted, points, problem, reference)
    coarse = score.coarser(search)
    found = [decide(refit, coarse, problem, seed) for refit in again]
    optima = np.array([w for w, _ in found])
    every = np.array(
        [
            _levels(refit, np.vstack([points, optima]), problem, ref)
            for refit, (_, ref) in zip(again, found, strict=True)
        ]
    )
    return Chosen(
        weights=weights,
        points=points,
        levels=levels,
        refit_weights=optima,
        refit_levels=every[:, : len(points)],
        refit_gains=every[:, :1] - every[:, len(points) :],
    )


def _levels(law: FittedLaw, points: Array, problem: Problem, reference: Array) -> Array:
    return score.shape(problem, reference).level(law.predict(points).mean)


def around(mean: float, values: Array) -> Estimate:
    """A value with the central interval of its refits, widened to hold the value itself."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(mean), float(min(low, mean)), float(max(high, mean)))


def gains_of(names: tuple[str, ...], chosen: Chosen) -> tuple[tuple[str, Estimate], ...]:
    """Predicted gain over each baseline, with the interval of the refits' paired differences."""
    over = chosen.levels - chosen.levels[0]
    refits = chosen.refit_levels - chosen.refit_levels[:, :1]
    return tuple((names[p], around(over[p], refits[:, p])) for p in range(1, len(names)))


def candidates_of(
    names: tuple[str, ...], chosen: Chosen, fitted: FittedLaw
) -> tuple[Candidate, ...]:
    """The mixtures compared, with intervals: of the objective by refits, of targets by the law."""
    prediction = fitted.predict(chosen.points)
    half = diagnostics.Z * prediction.sd
    return tuple(
        Candidate(
            name=name,
            weights=tuple(map(float, chosen.points[p])),
            objective=around(chosen.levels[p], chosen.refit_levels[:, p]),
            targets=tuple(
                Estimate(float(mean), float(mean - h), float(mean + h))
                for mean, h in zip(prediction.mean[p], half[p], strict=True)
            ),
        )
        for p, name in enumerate(names)
    )
