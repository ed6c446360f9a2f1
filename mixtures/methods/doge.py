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
        seeds: controlled runs.
        trials: seeds of the answer's trial.
        stages: of the answer.
        strength: mu of `doge`.
        train: mu_train of `grape`.
        target: mu_target of `grape`.
        interval: steps between updates.
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
