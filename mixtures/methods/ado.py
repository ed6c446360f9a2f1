"""ADO: draw from the domains whose loss still falls fast.

Source: Jiang et al. 2024, "Adaptive data optimization" (arXiv 2410.11820); the rule and its
departures are in `mixtures.controllers.ado`. The paper trains the final model itself this way;
here small runs do, and the mean of their weights (or a schedule in stages) is the answer.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.controllers.ado import AdoController as Controller
from cuvee.mixtures.domains import Array
from cuvee.mixtures.methods import Method, RemainingRuns, controlled, online
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs import History, RunSpec


@register("method")
@dataclass(frozen=True)
class Ado(Method):
    """Controlled runs under `ado`, with the natural weights as the prior.

    Attributes:
        seeds: controlled runs.
        trials: seeds of the answer's trial.
        stages: of the answer.
        interval: steps between updates.
        refits: of the laws in a run.
        ignored: share of the run whose losses are left out of the fits.
    """

    name = "ado"
    directed = False  # it reads training losses, not the objective

    seeds: int = 3
    trials: int = 3
    stages: int = 1
    interval: int = 4
    refits: int = 6
    ignored: float = 0.1

    def __post_init__(self) -> None:
        controlled.check(seeds=self.seeds, trials=self.trials, stages=self.stages)
        Controller(self.interval, self.refits, self.ignored)

    def start(self, problem: Problem) -> Array:
        """The natural weights, which are also the prior."""
        return problem.domains.natural

    def controller(self, problem: Problem) -> Controller:
        """The laws."""
        return Controller(self.interval, self.refits, self.ignored)

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
