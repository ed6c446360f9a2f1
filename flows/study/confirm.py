"""The test of a recommendation: fresh runs of it and of its baselines, paired by seed."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cuvee.flows.recipe.aim_parts import ConfirmPart
from cuvee.mixtures import simplex
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs.run_results import Failed, Outcome, RunResult, score_table
from cuvee.mixtures.runs.run_spec import RunSpec, Stage
from cuvee.tasks.study.study import same_mixture
from cuvee.tasks.validation.paired import (
    AVERAGE,
    BEST,
    RECOMMENDED,
    Confirmation,
    ConfirmedRun,
    paired_confirmation,
)

FRESH = 1_000_003  # added to the study's seed: no run that the recommendation rests on has these

Schedules = Mapping[str, tuple[Stage, ...]]
Runs = Mapping[tuple[str, int], RunSpec]  # by name of the mixture and seed
Sized = tuple[tuple[Problem, Runs], ...]  # the problem at a size, and the runs of that size
Trainings = Callable[[Sequence[RunSpec], str, Mapping[str, str]], Sequence[Outcome]]


def fresh_seeds(seed: int, count: int) -> tuple[int, ...]:
    """Seeds that no run of the search has."""
    return tuple(seed + FRESH + i for i in range(count))


def compared_schedules(problem: Problem, answer: Recommendation, part: ConfirmPart) -> Schedules:
    """What is trained, by name: the recommendation as it is, and what it stands against.

    A schedule is trained as its stages, and its own average shares beside it, since a schedule that
    does not beat them adds nothing. The best observed mixture is left out where it is the
    recommended one.

    Raises:
        CuveeError: a named mixture has unknown domains, is no mixture, or bears a taken name.
    """
    domains = problem.domains

    def fixed(weights: Sequence[float] | np.ndarray) -> tuple[Stage, ...]:
        checked = simplex.check_mixture(np.asarray(weights), domains.names)
        return (Stage(tuple(float(w) for w in checked)),)

    found = {RECOMMENDED: answer.stages}
    found |= {"natural": fixed(domains.natural), "uniform": fixed(domains.uniform)}
    moves = any(not same_mixture(stage.weights, answer.weights) for stage in answer.stages)
    if moves:
        found[AVERAGE] = fixed(answer.weights)
    observed = [c.weights for c in answer.candidates if c.name == BEST]
    if part.best_observed and observed and (moves or not same_mixture(observed[0], answer.weights)):
        found[BEST] = fixed(observed[0])
    return found | {name: fixed(domains.vector(w)) for name, w in part.mixtures.items()}


def problem_at_size(problem: Problem, size: str, tokens: int) -> Problem:
    """The problem with other proxies; repetition follows their tokens where it is matched."""
    proxy = problem.proxy
    matched = min(1.0, tokens / problem.full_tokens) if proxy.repetition < 1 else 1.0
    return dataclasses.replace(
        problem,
        proxy=dataclasses.replace(proxy, size=size, tokens=tokens, repetition=matched),
    )


def confirmation_count(part: ConfirmPart | None) -> int:
    """Runs of a confirmation at one size, if the answer is one mixture.

    A schedule is trained beside its own average too, which is known only when it is.
    """
    if part is None:
        return 0
    return part.seeds * (3 + part.best_observed + len(part.mixtures))


def confirmation_runs(
    problem: Problem, schedules: Schedules, seeds: Sequence[int]
) -> dict[tuple[str, int], RunSpec]:
    """The runs of a confirmation by name and seed, at the problem's own size."""
    return {
        (name, seed): problem.staged(stages, seed)
        for seed in seeds
        for name, stages in schedules.items()
    }


def mixture_names(runs: Runs) -> dict[str, str]:
    """The mixture of every run, by fingerprint, for the record."""
    return {spec.fingerprint: name for (name, _), spec in runs.items()}


def confirm(
    problem: Problem, schedules: Schedules, trainings: Trainings, *, seeds: Sequence[int]
) -> Confirmation:
    """Train every schedule with every seed, and take paired differences.

    Args:
        problem: what the recommendation is for; its proxy says at which size it is tested.
        schedules: what is trained, from `compared_schedules`.
        trainings: trains the specs.
        seeds: fresh seeds; every schedule is trained with each of them.

    Raises:
        EvidenceError: no run of the natural mixture finished, or no baseline shares two seeds with
            the recommended one.
    """
    runs = confirmation_runs(problem, schedules, seeds)
    return conclude_confirmation(problem, train_confirmation(runs, trainings))


def train_confirmation(runs: Runs, trainings: Trainings) -> dict[tuple[str, int], Outcome]:
    """The outcomes of a confirmation's runs at one size, by name and seed."""
    outcomes = trainings(tuple(runs.values()), "Confirmation", mixture_names(runs))
    return dict(zip(runs, outcomes, strict=True))


def runs_of_sizes(
    problem: Problem, schedules: Schedules, part: ConfirmPart, seeds: Sequence[int]
) -> Sized:
    """The runs of every larger size of a recipe: the problem at that size, and its runs."""
    places = [problem_at_size(problem, step.size, step.tokens) for step in part.sizes]
    return tuple((place, confirmation_runs(place, schedules, seeds)) for place in places)


def train_larger_sizes(
    runs: Sized, trainings: Trainings
) -> tuple[tuple[Confirmation, ...], tuple[str, ...]]:
    """Train all runs of all sizes, and conclude each size by itself.

    Args:
        runs: from `runs_of_sizes`.
        trainings: trains the specs; it is asked once, so that no core waits between two sizes.

    Returns:
        The confirmations, and a sentence for each size of which nothing can be said.

    Raises:
        EvidenceError: nothing can be said of any size.
    """
    every = tuple(spec for _, specs in runs for spec in specs.values())
    called = {mark: name for _, specs in runs for mark, name in mixture_names(specs).items()}
    outcomes = {run.spec.fingerprint: run for run in trainings(every, "Confirmation", called)}
    steps: list[Confirmation] = []
    lost: list[str] = []
    for place, specs in runs:
        own = {key: outcomes[spec.fingerprint] for key, spec in specs.items()}
        try:
            steps.append(conclude_confirmation(place, own))
        except EvidenceError as error:
            lost.append(f"{place.proxy.size} and {place.proxy.tokens:,} tokens: {error}")
    if not steps:
        raise EvidenceError(f"nothing could be confirmed: {'; '.join(lost)}")
    return tuple(steps), tuple(lost)


def conclude_confirmation(
    problem: Problem, outcomes: Mapping[tuple[str, int], Outcome]
) -> Confirmation:
    """A confirmation from the outcomes of its runs, by name and seed; see `confirm`."""
    done = {key: run for key, run in outcomes.items() if isinstance(run, RunResult)}
    natural = [run for (name, _), run in done.items() if name == "natural"]
    if not natural:
        raise EvidenceError("no run of the natural mixture finished, so nothing can be confirmed")
    reference = score_table(tuple(natural), problem.targets)[1].mean(axis=0)
    return paired_confirmation(
        tuple(
            ConfirmedRun(name, _objective(problem, run, reference), run)
            for (name, _), run in done.items()
        ),
        problem.targets,
        failed=[run for run in outcomes.values() if isinstance(run, Failed)],
        baselines=[name for name in dict.fromkeys(n for n, _ in outcomes) if name != RECOMMENDED],
        objective=problem.objective,
    )


def _objective(problem: Problem, run: RunResult, reference: np.ndarray) -> float:
    row = score_table((run,), problem.targets)[1][0]
    return float(problem.objective.scalarize(problem.targets, reference).relaxed(row))
