"""DoGE: a domain gets weight for how much its gradient agrees with the target's.

Source: Fan et al. 2024, "DoGE: Domain reweighting with generalization estimation" (arXiv
2310.15393), algorithm 1, as coded by Aioli's authors (HazyResearch/aioli, `trainer/
doge_trainer.py`), whose constants these are:

    W_d = gradient of domain d . gradient of the target
    score_d = min(max(lr W_d / (mean length of the domains' gradients + 1e-6), 0), 5 lr)
    p <- softmax(log p + score / mu);  p <- (1 - eps) p + eps / K

with mu = 0.1 and eps = 0. The paper divides nothing and clips nothing; the code was followed, since
without the length the step depends on the size of the model. Weights act on the losses, which is
the code's p-weighted sum of the domains' gradients.

Departure: gradients are taken of a few sequences of each domain every `interval` steps, all domains
at once on the pack axis, not of every step's batch by one backward pass per domain.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.controllers import Controller, ControllerEvidence, State, clip_scores
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register


@register("controller")
@dataclass(frozen=True)
class DogeController(Controller):
    """Weights by agreement of gradients.

    Take it through the method `doge`.

    Attributes:
        evaluated: targets, each alike; empty for each domain's own held-out text.
        strength: mu; smaller moves the weights more.
        smoothing: eps, the part of the weights that is spread evenly.
        interval: training steps between two updates of the weights.
    """

    name = "doge"
    evaluates = True
    moves = "loss"
    gradients = True

    evaluated: tuple[str, ...] = ()
    strength: float = 0.1
    smoothing: float = 0.0
    interval: int = 20

    def __post_init__(self) -> None:
        if self.strength <= 0 or not 0 <= self.smoothing < 1 or self.interval < 1:
            raise RecipeError(
                "doge needs strength > 0, smoothing in [0, 1) and interval >= 1; "
                f"got {self.strength}, {self.smoothing} and {self.interval}"
            )

    def start(self, domains: Sequence[str], weights: Sequence[float], steps: int) -> State:
        return {"weights": [float(w) for w in weights], "due": self.interval}

    def update(self, state: State, evidence: ControllerEvidence) -> State:
        agreement = clip_scores(evidence.products).mean(axis=1)
        length = float(clip_scores(evidence.norms).mean())
        rate = evidence.rate
        score = np.clip(rate * agreement / (length + 1e-6), 0.0, 5 * rate)
        moved = simplex.tilt(np.asarray(state["weights"]), score / self.strength)
        smoothed = (1 - self.smoothing) * moved + self.smoothing / len(moved)
        return {"weights": smoothed.tolist(), "due": evidence.step + self.interval}
