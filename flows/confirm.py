"""The test of a recommendation: fresh runs of it and of its baselines, paired by seed."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mixtures.errors import EvidenceError
from mixtures.history import Failed, Outcome, RunResult, RunSpec, table
from mixtures.problem import Problem
from mixtures.recommendation import Recommendation
from tasks.confirmation import confirmation
from tasks.study import RECOMMENDED, Confirmation, ConfirmedRun

FRESH = 1_000_003  # added to the study's seed: no run that the recommendation rests on has these


def confirm(
    problem: Problem,
    recommendation: Recommendation,
    trainings: Callable[[Sequence[RunSpec], str, str], Sequence[Outcome]],
    *,
    seeds: tuple[int, ...],
    extra: Mapping[str, Mapping[str, float]],
) -> Confirmation:
    """Train the recommended, natural, uniform and named mixtures, and take paired differences.

    Args:
        problem: what the recommendation is for.
        recommendation: what is tested; its average mixture is trained.
        trainings: trains the specs.
        seeds: fresh seeds; every mixture is trained with each of them.
        extra: further mixtures by name, shares by domain.

    Raises:
        EvidenceError: fewer than two seeds finished with the recommended mixture and a baseline.
    """
    mixtures = {
        RECOMMENDED: recommendation.weights,
        "natural": problem.domains.natural,
        "uniform": problem.domains.uniform,
        **{name: problem.domains.vector(shares) for name, shares in extra.items()},
    }
    specs = {
        (name, seed): problem.spec(tuple(weights), seed)
        for seed in seeds
        for name, weights in mixtures.items()
    }
    wanted = tuple(specs.values())
    outcomes = dict(zip(specs, trainings(wanted, "Confirmation", "confirmation"), strict=True))
    done = {key: run for key, run in outcomes.items() if isinstance(run, RunResult)}
    natural = [run for (name, _), run in done.items() if name == "natural"]
    if not natural:
        raise EvidenceError("no run of the natural mixture finished, so nothing can be confirmed")
    reference = table(tuple(natural), problem.targets)[1].mean(axis=0)
    runs = tuple(
        ConfirmedRun(name, _objective(problem, run, reference), run)
        for (name, _), run in done.items()
    )
    return confirmation(
        runs,
        problem.targets,
        failed=[run for run in outcomes.values() if isinstance(run, Failed)],
        baselines=[name for name in mixtures if name != RECOMMENDED],
    )


def fresh_seeds(seed: int, count: int) -> tuple[int, ...]:
    """Seeds that no run of the search has."""
    return tuple(seed + FRESH + i for i in range(count))


def _objective(problem: Problem, run: RunResult, reference: np.ndarray) -> float:
    row = table((run,), problem.targets)[1][0]
    return float(problem.objective.value(row, problem.targets, reference))
