"""Group DRO: the domain whose loss exceeds the reference's most gets the most weight.

Source: Xie et al. 2023, "DoReMi" (arXiv 2305.10429), algorithm 1, as coded in sangmichaelxie/doremi
(`trainer.py`, `update_domain_weights`):

    score_d = mean over the domain's tokens of max(loss - reference loss, 0)
    a <- softmax(log a + eta * score);  a <- (1 - eps) a + eps / K

with eta = 1 and eps = 1e-3, as the paper has them. The public script for 120M sets eps = 1e-4; the
paper's was followed, whose results are the published ones. The field `smoothing` has either. The
clip is per token, before the mean. A domain without a sequence in a step keeps its last score.
Sequences stay at the starting weights; the loss is reweighted by `a / starting weight`, which eps
keeps from falling to 0, and divided by the sum of those factors in the batch, as in the code. The
paper's algorithm and the code of Aioli (`doremi_trainer.py`) weigh the mean loss of each domain
instead; in expectation both are the same, and the former was followed as the authors' own.

Departure: a step's losses move the weights of the next step, in the code those of the same step.
The answer is the running mean of the weights, which is made of the run's trajectory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.controllers import Controller, ControllerEvidence, State, latest_losses
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register


@register("controller")
@dataclass(frozen=True)
class GroupDRO(Controller):
    """Group distributionally robust weights over excess losses.

    Take it through the method `doremi`: it needs a reference's losses.

    Attributes:
        rate: eta, per nat of excess.
        smoothing: eps, the part of the weights that is spread evenly.
        interval: training steps between two updates of the weights.
        reference: weights (K,) of the reference run, for the record; empty if they are unknown.
    """

    name = "group_dro"
    moves = "loss"
    compares = True
    by_domain = ("reference",)

    rate: float = 1.0
    smoothing: float = 1e-3
    interval: int = 1
    reference: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.rate <= 0 or not 0 <= self.smoothing < 1 or self.interval < 1:
            raise RecipeError(
                "group_dro needs rate > 0, smoothing in [0, 1) and interval >= 1; "
                f"got {self.rate}, {self.smoothing} and {self.interval}"
            )

    def start(self, domains: Sequence[str], weights: Sequence[float], steps: int) -> State:
        return {
            "weights": [float(w) for w in weights],
            "scores": [0.0] * len(weights),
            "due": self.interval,
        }

    def update(self, state: State, evidence: ControllerEvidence) -> State:
        scores = latest_losses(evidence.excess, state["scores"])
        moved = simplex.tilt(np.asarray(state["weights"]), self.rate * np.asarray(scores))
        smoothed = (1 - self.smoothing) * moved + self.smoothing / len(moved)
        return {
            "weights": smoothed.tolist(),
            "scores": scores,
            "due": evidence.step + self.interval,
        }
