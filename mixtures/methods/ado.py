"""ADO: draw from the domains whose loss still falls fast.

Source: Jiang et al. 2024, "Adaptive data optimization" (arXiv 2410.11820); the rule and its
departures are in `mixtures.controllers.ado`. The paper trains the final model itself this way;
here small runs do, and the mean of their weights (or a schedule in stages) is the answer.
"""

from dataclasses import dataclass

from cuvee.mixtures.controllers.ado import AdoController
from cuvee.mixtures.methods.controlled import Controlled
from cuvee.mixtures.registry import register


@register("method")
@dataclass(frozen=True)
class Ado(Controlled):
    """Controlled runs under `ado`, with the natural weights as the prior.

    Take it to compare with adaptive data optimization. It follows the losses of training text and
    never sees the objective, so it can end worse than uniform on it.

    Attributes:
        seeds: runs under the controller, one per seed, whose mean weights are the answer.
        trials: seeds of the trial that compares the answer with natural and uniform shares,
            paired.
        stages: stages of the answer: 1 for one mixture, more for a schedule of equal parts of the
            run.
        interval: training steps between two updates of the weights.
        refits: how often the laws are fitted anew in a run.
        ignored: share of the run whose losses are left out of the fits.
    """

    name = "ado"
    begins = "natural"
    directed = False  # it reads training losses, not the objective

    seeds: int = 3
    trials: int = 3
    stages: int = 1
    interval: int = 4
    refits: int = 6
    ignored: float = 0.1

    def controller(self, targets: tuple[str, ...]) -> AdoController:
        return AdoController(self.interval, self.refits, self.ignored)
