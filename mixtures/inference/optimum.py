"""Optimum: what a fitted law and its refits choose, and what they predict of it.

Each law is searched alike, so that what refits find differs by the data alone. Gains are compared
in pairs, refit by refit; intervals on targets are for one new run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.laws import FittedLaw, predicted_means
from cuvee.mixtures.laws.bounds import Bounds
from cuvee.mixtures.objectives import Asked
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import (
    BEYOND,
    KEPT,
    LEVEL,
    RECOMMENDED,
    REFERENCE,
    START,
    Candidate,
    Demand,
    Estimate,
    MixtureStep,
)
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.mixtures.searches import Search, score
from cuvee.mixtures.searches.auto import MANY
from cuvee.mixtures.threads import each_part

STRICTER = 5  # searches at most until what was asked for is certain


@dataclass(frozen=True, eq=False)
class Optimum:
    """What a fitted law and its refits choose and predict.

    Attributes:
        weights: recommended shares (K,).
        points: (P, K) the mixtures compared, the recommended one first.
        names: of these.
        levels: (P,) their predicted objective.
        refit_weights: (B, K) what each refit recommends.
        refit_levels: (B or more, P) what each refit, and others that were not searched, predict of
            `points`.
        refit_gains: (B, B) what refit b predicts that the optimum of refit a gains over the
            recommended mixture.
        demands: what was asked for, and what the law and its refits predict of it.
        step: how far it lies from where it started, where that was to be near.
        cut: a warning where predictions ran off, and were held to what scores can be.
    """

    weights: Array
    points: Array
    names: tuple[str, ...]
    levels: Array
    refit_weights: Array
    refit_levels: Array
    refit_gains: Array
    demands: tuple[Demand, ...] = ()
    step: MixtureStep | None = None
    cut: tuple[str, ...] = ()


def search_law(law: FittedLaw, search: Search, problem: Problem, seed: int) -> tuple[Array, Array]:
    """What a fitted law chooses (K,), and what it predicts of the reference mixture (M,)."""
    reference = _of_reference(law, problem)
    return search.choose(law, problem, reference, np.random.default_rng(seed)), reference


def _of_reference(law: FittedLaw, problem: Problem) -> Array:
    return np.asarray(predicted_means(law, problem.reference[None])[0], dtype=np.float64)


def search_refits(
    laws: tuple[FittedLaw, Sequence[FittedLaw]],
    search: Search,
    posed: tuple[Problem, Bounds],
    baselines: Mapping[str, Array],
    *,
    rng: np.random.Generator,
    more: Sequence[FittedLaw] = (),
) -> Optimum:
    """What a fitted law and its refits choose.

    Args:
        laws: fitted to all runs, and to bootstrap samples of them or drawn from their posterior.
        search: its cheaper variant searches the refits.
        posed: the problem with the targets that the laws predict, and what these scores can be.
        baselines: P - 1 mixtures (K,) to compare with, by name.
        rng: every search starts from the same state of it.
        more: refits or draws that are not searched, and only say what they predict of the mixtures.
    """
    seed = int(rng.integers(2**31))
    (problem, bounds), (fitted, again) = posed, laws
    first, (weights, reference) = search, search_law(fitted, search, problem, seed)
    every_law = (fitted, *again, *more)
    margins = _margins(every_law, first, problem, weights)
    for _ in range(STRICTER if search.certain and again else 0):
        stricter = search.stricter(np.quantile(margins[1:], (1 - LEVEL) / 2, axis=0))
        if stricter is search:
            break
        search, (weights, _) = stricter, search_law(fitted, stricter, problem, seed)
        margins = _margins(every_law, first, problem, weights)
    points = np.vstack([weights, *baselines.values()])
    levels, beyond = objective_levels(fitted, points, posed, reference)
    coarse = search.coarse()
    large = len(problem.domains) > MANY
    found = each_part(lambda refit: search_law(refit, coarse, problem, seed), again, large)
    optima = np.array([w for w, _ in found])
    said = [
        objective_levels(refit, np.vstack([points, optima]), posed, ref)
        for refit, (_, ref) in zip(again, found, strict=True)
    ]
    every = np.array([value for value, _ in said])
    others = each_part(lambda law: objective_levels(law, points, posed), more, large)
    strayed = sum(bool(over[: len(points)].any()) for _, over in (*said, *others))
    levels_again = np.array([*every[:, : len(points)], *(value for value, _ in others)])
    return Optimum(
        weights=weights,
        points=points,
        names=(RECOMMENDED, *baselines),
        levels=levels,
        refit_weights=optima,
        refit_levels=levels_again,
        refit_gains=every[:, :1] - every[:, len(points) :],
        demands=_demands(first.held(fitted, problem, reference).asked, margins),
        step=_step(first.begins(problem), weights, baselines),
        cut=_cut(bool(beyond.any()), strayed, len(levels_again), bounds.ranges),
    )


def _margins(laws: Sequence[FittedLaw], search: Search, problem: Problem, weights: Array) -> Array:
    """By how much each law says that each floor is kept (B, F)."""
    found, points = [], np.stack([weights, problem.reference])
    for law in laws:
        scores, reference = predicted_means(law, points)
        held = search.held(law, problem, reference)
        found.append(held.bounds - held.floors @ scores)
    return np.array(found)


def _demands(asked: Sequence[Asked], margins: Array) -> tuple[Demand, ...]:
    refits = margins[1:] if len(margins) > 1 else margins
    sure = (refits >= -KEPT).mean(axis=0)
    return tuple(
        Demand(
            one.name,
            one.kind,
            one.amount,
            refit_interval(margins[0, f], refits[:, f]),
            float(sure[f]),
        )
        for f, one in enumerate(asked)
    )


def _step(
    begin: Array | None, weights: Array, baselines: Mapping[str, Array]
) -> MixtureStep | None:
    if begin is None:
        return None
    name = next((n for n, w in baselines.items() if np.abs(w - begin).max() <= simplex.SAME), START)
    moved = float(np.abs(weights - begin).sum() / 2)
    return MixtureStep(name, moved, float(simplex.kl(weights, simplex.without_zeros(begin))))


def compared_mixtures(problem: Problem, search: Search, observed: Array) -> dict[str, Array]:
    """The mixtures that a recommendation is compared with, by name.

    Beside natural, uniform and the best observed: the objective's reference and the start of a
    step, where these are others.
    """
    found = {"natural": problem.domains.natural, "uniform": problem.domains.uniform}
    for name, shares in ((REFERENCE, problem.reference), (START, search.begins(problem))):
        if shares is not None and not any(
            np.abs(shares - known).max() <= simplex.SAME for known in found.values()
        ):
            found[name] = shares
    return found | {"best observed": observed}


def objective_levels(
    law: FittedLaw, points: Array, posed: tuple[Problem, Bounds], reference: Array | None = None
) -> tuple[Array, Array]:
    """The objective (n,) that a law predicts within what scores can be, and where it runs off.

    Args:
        law: fitted.
        points: (n, K) mixtures.
        posed: the problem with the targets that the law predicts, and what these scores can be.
        reference: what it predicts of the reference mixture (M,), where that is known already.
    """
    problem, bounds = posed
    reference = _of_reference(law, problem) if reference is None else reference
    scalar, mean = score.scalarize(problem, bounds.hold(reference)), predicted_means(law, points)
    return scalar.relaxed(bounds.hold(mean)), np.asarray(bounds.run_off(law, points))


def _cut(fitted: bool, strayed: int, refits: int, ranges: float) -> tuple[str, ...]:
    if not fitted and not strayed:
        return ()
    who = (
        BEYOND
        if fitted
        else f"{strayed} of {refits} refits of the law predict scores that no run comes near"
    )
    return (
        f"{who}: they are held to at most {ranges:g} times the range of the runs' scores beyond "
        "these, and so are intervals",
    )


def refit_interval(mean: float, values: Array) -> Estimate:
    """A value with the central interval of its refits, widened to hold the value itself."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(mean), float(min(low, mean)), float(max(high, mean)))


def draw_interval(mean: float, draws: Array) -> Estimate:
    """A value with a central interval as wide as draws of a posterior vary: `mean +- 1.645 sd`."""
    half = diagnostics.Z * float(draws.std(ddof=1))
    return Estimate(float(mean), float(mean) - half, float(mean) + half)


def gains_over(
    chosen: Optimum, interval: Callable[[float, Array], Estimate] = refit_interval
) -> tuple[tuple[str, Estimate], ...]:
    """The gain of the recommended mixture over each other, with an interval of the differences
    that refits or draws have in pairs."""
    over = chosen.levels - chosen.levels[0]
    refits = chosen.refit_levels - chosen.refit_levels[:, :1]
    return tuple((n, interval(over[p], refits[:, p])) for p, n in enumerate(chosen.names) if p)


def answer_of(problem: Problem, chosen: Optimum, law: FittedLaw, bounds: Bounds) -> dict[str, Any]:
    """The fields of a recommendation that follow from the optimum, but its gains.

    Args:
        problem: what is asked.
        chosen: the optimum.
        law: fitted to all targets.
        bounds: what the scores of all targets can be.
    """
    weights = simplex.without_rounding(chosen.weights)
    pairs = zip(weights, chosen.refit_weights.T, strict=True)
    shares = [refit_interval(weight, refits) for weight, refits in pairs]
    return {
        "stages": (Stage(tuple(map(float, weights))),),
        "intervals": tuple((share.low, share.high) for share in shares),
        "candidates": _candidates(chosen, law, bounds),
        "demands": chosen.demands,
        "step": chosen.step,
        "active": problem.constraints.active(weights),
        "epochs": tuple(map(float, problem.domains.epochs(weights, problem.full_tokens))),
    }


def _candidates(chosen: Optimum, fitted: FittedLaw, bounds: Bounds) -> tuple[Candidate, ...]:
    """The mixtures compared, with intervals: of the objective by refits, of targets by the law.

    Both lie within what the targets' scores can be.
    """
    prediction = fitted.predict(chosen.points)
    mean, half = bounds.hold(prediction.mean), diagnostics.Z * prediction.sd
    low, high = bounds.hold(mean - half), bounds.hold(mean + half)
    return tuple(
        Candidate(
            name=name,
            weights=tuple(map(float, chosen.points[p])),
            objective=refit_interval(chosen.levels[p], chosen.refit_levels[:, p]),
            targets=tuple(
                Estimate(*map(float, ends)) for ends in zip(mean[p], low[p], high[p], strict=True)
            ),
        )
        for p, name in enumerate(chosen.names)
    )
