"""Controlled: what methods have in common whose answer is what a controller did, run by run.

They ask for what their controllers are made of, for a controlled run per seed, and for a trial of
the mean of the weights that these gave (`mixtures.inference.paired_trial`). All is a function of
the history alone.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.controllers import Controller, dump_controller
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.inference import paired_trial
from cuvee.mixtures.inference.paired_trial import Answer
from cuvee.mixtures.inference.weight_warnings import unit_warnings, weight_warnings
from cuvee.mixtures.methods import Method, RemainingRuns
from cuvee.mixtures.problem import FIRST_SEED, Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs.run_results import History, RunResult
from cuvee.mixtures.runs.run_spec import RunSpec, Stage


class Controlled(Method):
    """A first round, controlled runs that follow from it, a trial of what these did.

    Attributes:
        begins: the mixture of `BASELINES` at which controlled runs start.
        runs_are: what a controlled run is called where none has finished.
        seeds: controlled runs.
        trials: seeds of the answer's trial.
        stages: of the answer: 1 is a fixed mixture, more are a schedule.
    """

    begins: ClassVar[str] = "uniform"
    runs_are: ClassVar[str] = "controlled run"
    seeds: int
    trials: int
    stages: int = 1

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Hold the numbers of method and controller to their range.

        Raises:
            RecipeError: one is out of it.
        """
        check_counts(seeds=self.seeds, trials=self.trials, stages=self.stages)
        self.controller(())

    @abstractmethod
    def controller(self, targets: tuple[str, ...]) -> Controller:
        """What moves the weights, following held-out targets where the method is directed."""

    def first_round(self, problem: Problem) -> tuple[RunSpec, ...]:
        """What is asked for whatever the history."""
        return (*paired_trial.baseline_specs(problem, self.trials), *self.controlled(problem, ()))

    def controlled(self, problem: Problem, history: History) -> tuple[RunSpec, ...]:
        """The controlled runs that follow from the first round."""
        targets = followed_targets(problem) if self.directed else ()
        return self.seeded(problem, self.controller(targets))

    def seeded(
        self, problem: Problem, controller: Controller, reference: str = ""
    ) -> tuple[RunSpec, ...]:
        """A run under a controller for every seed."""
        start = paired_trial.baseline_shares(problem, self.begins).tolist()
        return tuple(
            dataclasses.replace(
                problem.spec(start, FIRST_SEED + seed),
                controller=dump_controller(controller),
                reference=reference,
            )
            for seed in range(self.seeds)
        )

    def answer(self, problem: Problem, history: History) -> Answer:
        """What the controlled runs say: the mean over seeds of their weights."""
        runs = paired_trial.require_runs(history, self.controlled(problem, history), self.runs_are)
        return average_runs(problem, runs, self.stages)

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        if missing := paired_trial.missing_specs(history, self.first_round(problem)):
            return missing
        if missing := paired_trial.missing_specs(history, self.controlled(problem, history)):
            return missing
        stages = self.answer(problem, history).stages
        return paired_trial.missing_specs(
            history, paired_trial.trial_specs(problem, stages, self.trials)
        )

    def remaining(self, problem: Problem) -> RemainingRuns:
        return RemainingRuns(self.trials, f"{self.trials} runs of the answer")

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        return paired_trial.conclude_trial(self, problem, history, self.answer(problem, history))


def check_counts(*, seeds: int, trials: int, stages: int = 1) -> None:
    """Hold seeds and stages to their range.

    Raises:
        RecipeError: one is out of it.
    """
    if seeds < 2 or trials < 2 or stages < 1:
        raise RecipeError(
            "intervals need seeds >= 2 and trials >= 2, and an answer has stages >= 1; "
            f"got {seeds}, {trials} and {stages}"
        )


def followed_targets(problem: Problem) -> tuple[str, ...]:
    """The objective's targets that can be followed while a proxy trains: all but tasks.

    If it has tasks only, every target of the study that is not one.

    Raises:
        RecipeError: the study measures nothing but tasks.
    """
    wanted = [t for t in problem.objective.targets if not t.startswith("task/")]
    found = tuple(wanted or [t for t in problem.targets if not t.startswith("task/")])
    if not found:
        raise RecipeError(
            "this method follows held-out text while it trains, and the study measures tasks only: "
            f"{', '.join(problem.targets)}"
        )
    return found


def mean_weights(run: RunResult, count: int) -> Array:
    """Mean weights (count, K) of a controlled run in equal stretches of its tokens.

    Raises:
        EvidenceError: the run has no trajectory.
    """
    if not run.trajectory:
        raise EvidenceError(
            f"run {run.spec.fingerprint[:12]} has no trajectory of weights, so it was not trained "
            "under its controller; remove its result and train it again"
        )
    total = float(sum(run.tokens) or run.spec.tokens)
    begins = np.array([tokens for tokens, _ in run.trajectory], dtype=np.float64)
    ends = np.append(begins[1:], total)
    weights = np.array([w for _, w in run.trajectory])
    rows = []
    for i in range(count):
        low, high = total * i / count, total * (i + 1) / count
        length = np.clip(np.minimum(ends, high) - np.maximum(begins, low), 0.0, None)
        rows.append(simplex.normalized(length @ weights))
    return np.array(rows)


def average_runs(problem: Problem, runs: Sequence[RunResult], count: int) -> Answer:
    """The answer of controlled runs: the mean over seeds of their weights, within constraints."""
    parts = np.array([mean_weights(run, count) for run in runs])  # (S, count, K)
    mean = parts.mean(axis=0)
    stages = tuple(
        Stage(tuple(map(float, problem.constraints.project(row))), 1.0 / count) for row in mean
    )
    samples = parts.mean(axis=1)
    start = np.asarray(runs[0].spec.stages[0].weights)
    last = np.array([run.trajectory[-1][1] for run in runs])
    found = Answer(
        samples=samples,
        stages=stages,
        alarms=weight_warnings(problem.domains, start, samples, last),
        trajectory=runs[0].trajectory,
    )
    moved = float(np.abs(found.weights - samples.mean(axis=0)).max())
    notes = unit_warnings(problem.domains, found.weights)
    if moved > 1e-6:
        notes += (
            f"the weights that the runs gave break a constraint; the nearest feasible ones are "
            f"taken (largest change of a share {moved:.3f})",
        )
    return dataclasses.replace(found, notes=notes)
