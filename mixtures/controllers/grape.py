"""GRAPE: DoGE towards several targets, of which the ones that improve least count most.

Source: Fan et al. 2025, "GRAPE: Optimize data mixture for group robust multi-target adaptive
pretraining" (arXiv 2505.20380), as coded in Olivia-fsm's repository of it, with the constants of
its configuration for CLIMB's clusters. Both sides use gradients of the logarithm of the targets'
losses, h_n = gradient of loss n / loss n:

    log z_n <- log z_n - mu_target  h_n . (sum_d p_d g_d);  z <- (1 - eps) z + eps / M
    log p_d <- log p_d + mu_train   g_d . (sum_n z_n h_n);  p <- (1 - eps) p + eps / K

with mu_train = 1.5, mu_target = 5, eps = 1e-3, every 100 steps; no learning rate, no clipping. In
the code z is updated before p, and so it is here, and a loss is that of the very sequences whose
gradient is taken. Weights act on the losses, as in `doge`, whose departure is also this one's; the
interval is shorter because proxies take fewer steps.
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
class Grape(Controller):
    """Weights of domains and of targets, by gradients.

    Take it through the method `doge` with `rule: grape`, for several targets.

    Attributes:
        evaluated: targets; empty for each domain's own held-out text.
        train: mu_train: how far the weights of domains move.
        target: mu_target: how far the weights of targets move.
        smoothing: eps, the part of both weights that is spread evenly.
        interval: training steps between two updates of the weights.
    """

    name = "grape"
    evaluates = True
    moves = "loss"
    gradients = True

    evaluated: tuple[str, ...] = ()
    train: float = 1.5
    target: float = 5.0
    smoothing: float = 1e-3
    interval: int = 20

    def __post_init__(self) -> None:
        if self.train <= 0 or self.target < 0 or not 0 <= self.smoothing < 1 or self.interval < 1:
            raise RecipeError(
                "grape needs train > 0, target >= 0, smoothing in [0, 1) and interval >= 1; "
                f"got {self.train}, {self.target}, {self.smoothing} and {self.interval}"
            )

    def start(self, domains: Sequence[str], weights: Sequence[float], steps: int) -> State:
        count = len(self.targets(domains))
        return {
            "weights": [float(w) for w in weights],
            "importance": [1.0 / count] * count,
            "due": self.interval,
        }

    def update(self, state: State, evidence: ControllerEvidence) -> State:
        p, z = np.asarray(state["weights"]), np.asarray(state["importance"])
        losses = clip_scores(evidence.held_out)
        relative = clip_scores(evidence.products) / np.where(losses > 0, losses, 1.0)
        z = simplex.tilt(z, clip_scores(-self.target * (p @ relative)))
        z = (1 - self.smoothing) * z + self.smoothing / len(z)
        p = simplex.tilt(p, clip_scores(self.train * (relative @ z)))
        p = (1 - self.smoothing) * p + self.smoothing / len(p)
        return {
            "weights": p.tolist(),
            "importance": z.tolist(),
            "due": evidence.step + self.interval,
        }
