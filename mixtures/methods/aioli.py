"""Aioli: estimate the mixing dynamics while training, and follow them.

Source: Chen et al. 2024, "Aioli: a unified optimization framework for language model data mixing"
(arXiv 2411.05735); the rule and its departures are in `mixtures.controllers.aioli`. The losses that
count are those of the objective's held-out texts, each alike as in the paper (a task cannot be
scored while a proxy trains). The paper trains the final model itself this way; here small runs do,
and the mean of their weights (or a schedule in stages) is the answer. That mean holds the probes
too, since the run was trained on them: they are even on the whole, so the answer lies nearer to
uniform than the weights between them.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.controllers.aioli import AioliController as Controller
from cuvee.mixtures.domains import Array
from cuvee.mixtures.methods import Method, RemainingRuns, controlled, online
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs import History, RunSpec


@register("method")
@dataclass(frozen=True)
class Aioli(Method):
    """Controlled runs under `aioli`, from the uniform weights.

    Attributes:
        seeds: controlled runs.
        trials: seeds of the answer's trial.
        stages: of the answer.
        rounds: estimates of the dynamics in a run.
        sweeps: passes over the domains in an estimate.
        probe: share of a round's steps that an estimate takes.
        one_hot: share of the probed domain.
        rate: eta.
        ema: of the dynamics, or None.
        normalized: whether the dynamics are shifted and divided to sum to 1.
    """

    name = "aioli"
    seeds: int = 3
    trials: int = 3
    stages: int = 1
    rounds: int = 4
    sweeps: int = 1
    probe: float = 0.4
    one_hot: float = 0.75
    rate: float = 1.0
    ema: float | None = 0.1
    normalized: bool = True

    def __post_init__(self) -> None:
        controlled.check(seeds=self.seeds, trials=self.trials, stages=self.stages)
        self._made(())

    def start(self, problem: Problem) -> Array:
        """The uniform weights."""
        return problem.domains.uniform

    def controller(self, problem: Problem) -> Controller:
        """The estimator."""
        return self._made(controlled.measurable(problem))

    def _made(self, evaluated: tuple[str, ...]) -> Controller:
        return Controller(
            evaluated=evaluated,
            rounds=self.rounds,
            sweeps=self.sweeps,
            probe=self.probe,
            one_hot=self.one_hot,
            rate=self.rate,
            ema=self.ema,
            normalized=self.normalized,
        )

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        return online.ask(self, problem, history)

    def remaining(self, problem: Problem) -> RemainingRuns:
        return online.remaining(self)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        return online.recommend(self, problem, history)
