"""DoGE and GRAPE: weights by how well gradients of domains and targets agree.

Source: Fan et al. 2024 (arXiv 2310.15393) and 2025 (arXiv 2505.20380); the rules and their
departures are in `mixtures.controllers.doge` and `grape`. A proxy is trained under the rule from
the uniform weights; the answer is the mean of its weights over the run, here over several
seeds. The targets are the objective's held-out texts (a task's gradient is not taken).
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.controllers import Controller
from cuvee.mixtures.controllers.doge import DogeController as Rule
from cuvee.mixtures.controllers.grape import Grape
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import UnknownName
from cuvee.mixtures.methods import Method, RemainingRuns, controlled, online
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs import History, RunSpec

RULES = ("doge", "grape")


@register("method")
@dataclass(frozen=True)
class Doge(Method):
    """Controlled runs under `doge` or `grape`, from the uniform weights.

    Attributes:
        rule: `doge`, or `grape` for several targets of which the laggards count most.
        seeds: controlled runs.
        trials: seeds of the answer's trial.
        stages: of the answer.
        strength: mu of `doge`.
        train: mu_train of `grape`.
        target: mu_target of `grape`.
        interval: steps between updates.
    """

    name = "doge"
    rule: str = "doge"
    seeds: int = 3
    trials: int = 3
    stages: int = 1
    strength: float = 0.1
    train: float = 1.5
    target: float = 5.0
    interval: int = 20

    def __post_init__(self) -> None:
        controlled.check(seeds=self.seeds, trials=self.trials, stages=self.stages)
        if self.rule not in RULES:
            raise UnknownName("rule of method 'doge'", self.rule, RULES)
        self._made(())

    def start(self, problem: Problem) -> Array:
        """The uniform weights."""
        return problem.domains.uniform

    def controller(self, problem: Problem) -> Controller:
        """The rule."""
        return self._made(controlled.measurable(problem))

    def _made(self, evaluated: tuple[str, ...]) -> Controller:
        if self.rule == "doge":
            return Rule(evaluated=evaluated, strength=self.strength, interval=self.interval)
        return Grape(
            evaluated=evaluated, train=self.train, target=self.target, interval=self.interval
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
