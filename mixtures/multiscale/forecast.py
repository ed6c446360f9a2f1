"""Forecast: what a ladder's runs say of gains at a scale that was not asked for.

A recommendation states its gains at one scale. A confirmation tests it at others, and what is
predicted there must come from the same law, fitted to the same runs, not from another scale.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.optimum import refit_interval
from cuvee.mixtures.multiscale import extrapolation
from cuvee.mixtures.multiscale.steps import LadderStep
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Estimate
from cuvee.mixtures.runs.run_results import History
from cuvee.mixtures.scaling import FittedScaling, Scaling
from cuvee.mixtures.scaling.average import fit_average

Gains = Mapping[str, Estimate]


def gains_at(
    laws: Sequence[Scaling],
    steps: Sequence[LadderStep],
    problem: Problem,
    history: History,
    *,
    points: Mapping[str, Array],
    scales: Sequence[tuple[int, int]],
    rng: np.random.Generator,
    refits: int | None = None,
) -> tuple[Gains, ...]:
    """Predicted gain of the first mixture over each of the others, scale by scale.

    Args:
        laws: the scaling laws whose average the answer rests on.
        steps: of the ladder, the smallest first.
        problem: what was to be chosen.
        history: outcomes of its runs.
        points: (K,) mixtures by name; the first is the one whose gain is told.
        scales: (parameters, tokens) of each.
        rng: of the resampled runs; the interval is that of their refits, set off at random by
            what back-tests found of errors at such a distance.
        refits: how many; None: `extrapolation.REFITS`.

    Returns:
        For each scale the gains by name, in units of the objective.

    Raises:
        EvidenceError: the runs do not suffice for any law.
    """
    evidence = extrapolation.scale_data(problem, history, tuple(steps))
    fit_rng, boot_rng = rng.spawn(2)
    average = fit_average(laws, evidence.restricted, fit_rng)
    drawn = average.refits(evidence.restricted, refits or extrapolation.REFITS, boot_rng)
    fits: list[FittedScaling] = [average, *drawn]
    W = np.array(list(points.values()))
    told = []
    for scale in scales:
        levels = np.array([evidence.scalar.relaxed(fit.at(*scale).predict(W).mean) for fit in fits])
        over = levels - levels[:, :1]
        told.append(
            {
                name: refit_interval(over[0, p], over[1:, p])
                for p, name in enumerate(points)
                if p > 0
            }
        )
    return tuple(told)
