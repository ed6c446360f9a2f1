"""DoGE and GRAPE: weights by how well gradients of domains and targets agree.

Source: Fan et al. 2024 (arXiv 2310.15393) and 2025 (arXiv 2505.20380); the rules and their
departures are in `mixtures.controllers.doge` and `grape`. A proxy is trained under the rule from
the uniform weights; the answer is the mean of its weights over the run, here over several
seeds. The targets are the objective's held-out texts (a task's gradient is not taken).
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from cuvee.mixtures.controllers import Controller
from cuvee.mixtures.controllers.doge import DogeController
from cuvee.mixtures.controllers.grape import Grape
from cuvee.mixtures.errors import UnknownName
from cuvee.mixtures.methods.controlled import Controlled
from cuvee.mixtures.registry import register

RULES = ("doge", "grape")


@register("method")
@dataclass(frozen=True)
class Doge(Controlled):
    """Controlled runs under `doge` or `grape`, from the uniform weights.

    Take it where only a handful of runs can be paid and the objective is held-out text; with
    `rule: grape` for several targets of which the laggards count most. In short runs it hardly
    moves.

    Attributes:
        rule: `doge`, or `grape` for several targets of which the laggards count most.
        seeds: runs under the controller, one per seed, whose mean weights are the answer.
        trials: seeds of the trial that compares the answer with natural and uniform shares,
            paired.
        stages: stages of the answer: 1 for one mixture, more for a schedule of equal parts of the
            run.
        strength: mu of rule `doge`; smaller moves the weights more.
        train: mu_train of rule `grape`: how far the weights of domains move.
        target: mu_target of rule `grape`: how far the weights of targets move.
        interval: training steps between two updates of the weights.
    """

    name = "doge"

    rule: Annotated[str, Literal[RULES]] = "doge"
    seeds: int = 3
    trials: int = 3
    stages: int = 1
    strength: float = 0.1
    train: float = 1.5
    target: float = 5.0
    interval: int = 20

    def __post_init__(self) -> None:
        self.check()
        if self.rule not in RULES:
            raise UnknownName("rule of method 'doge'", self.rule, RULES)

    def controller(self, targets: tuple[str, ...]) -> Controller:
        if self.rule == "doge":
            return DogeController(evaluated=targets, strength=self.strength, interval=self.interval)
        return Grape(
            evaluated=targets, train=self.train, target=self.target, interval=self.interval
        )
