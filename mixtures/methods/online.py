"""Online: what methods share whose answer is what one controller did, run by run.

They ask for the baselines and a controlled run per seed, then for the trial of what came of it.
"""

from typing import Protocol

import numpy as np

from cuvee.mixtures.controllers import Controller
from cuvee.mixtures.inference import paired_trial
from cuvee.mixtures.methods import RemainingRuns
from cuvee.mixtures.methods import controlled as moving
from cuvee.mixtures.methods.controlled import Answer
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs import History, RunSpec


class Online(Protocol):
    """The fields of a method that is one controller."""

    @property
    def seeds(self) -> int:
        """Controlled runs."""
        ...

    @property
    def trials(self) -> int:
        """Seeds of the answer's trial."""
        ...

    @property
    def stages(self) -> int:
        """Stages of the answer: 1 is a fixed mixture, more are a schedule."""
        ...

    def start(self, problem: Problem) -> np.ndarray:
        """Starting weights (K,)."""
        ...

    def controller(self, problem: Problem) -> Controller:
        """What moves them."""
        ...


def controlled(method: Online, problem: Problem) -> tuple[RunSpec, ...]:
    """The controlled run of every seed."""
    start, controller = method.start(problem), method.controller(problem)
    return tuple(
        moving.controlled(problem, controller, start, moving.FIRST + seed)
        for seed in range(method.seeds)
    )


def ask(method: Online, problem: Problem, history: History) -> tuple[RunSpec, ...]:
    """The runs that are not in the history, round by round."""
    specs = controlled(method, problem)
    needed = moving.lacking(history, (*moving.baselines(problem, method.trials), *specs))
    if needed:
        return needed
    stages = answer(method, problem, history).stages
    return moving.lacking(history, moving.trial(problem, stages, method.trials))


def remaining(method: Online) -> RemainingRuns:
    """What follows the controlled runs."""
    return RemainingRuns(method.trials, f"{method.trials} runs of the answer")


def answer(method: Online, problem: Problem, history: History) -> Answer:
    """What the controlled runs say."""
    runs = moving.results(history, controlled(method, problem), "controlled run")
    return moving.answered(problem, runs, method.stages)


def recommend(method: Online, problem: Problem, history: History) -> Recommendation:
    """The mean over seeds of what the controller did."""
    return paired_trial.conclude(method, problem, history, answer(method, problem, history))
