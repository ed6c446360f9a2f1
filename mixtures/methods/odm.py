"""ODM: online data mixing, a bandit that draws from domains with a high training loss.

Source: Albalak et al. 2023, "Efficient online data mixing for language model pre-training" (arXiv
2312.02406); the rule and its departures are in `mixtures.controllers.exp3`. The paper trains the
final model itself under the bandit; here small runs do, and the mean of their weights (or a
schedule in stages) is the answer.
"""

from dataclasses import dataclass

from cuvee.mixtures.controllers.exp3 import Exp3
from cuvee.mixtures.methods.controlled import Controlled
from cuvee.mixtures.registry import register


@register("method")
@dataclass(frozen=True)
class Odm(Controlled):
    """Controlled runs under `exp3`, from the natural weights.

    Take it to compare with online data mixing. It follows the losses of training text and never
    sees the objective; in short runs it hardly moves.

    Attributes:
        seeds: runs under the controller, one per seed, whose mean weights are the answer.
        trials: seeds of the trial that compares the answer with natural and uniform shares,
            paired.
        stages: stages of the answer: 1 for one mixture, more for a schedule of equal parts of the
            run.
        scale: nats per token that count as a reward of 1.
        warmup: share of the run at the starting weights, from 0 to 1.
        interval: training steps between two updates of the weights.
    """

    name = "odm"
    begins = "natural"
    directed = False  # it reads training losses, not the objective

    seeds: int = 3
    trials: int = 3
    stages: int = 1
    scale: float = 10.0
    warmup: float = 0.02
    interval: int = 1

    def controller(self, targets: tuple[str, ...]) -> Exp3:
        return Exp3(self.scale, self.warmup, self.interval)
