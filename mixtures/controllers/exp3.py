"""EXP3 over domains: online data mixing.

Source: Albalak et al. 2023, "Efficient online data mixing" (arXiv 2312.02406), as coded in
alon-albalak/online-data-mixing, `Exp3WeightUpdater`. At update t, with K domains:

    reward_d = training loss of the domain / 10
    R_d <- R_d + reward_d / p_d
    eps_t = min(1 / K, sqrt(ln K / (K t)))
    p_d = (1 - K eps_t) exp(eps_{t-1} R_d) / sum + eps_t

where the paper smooths the reward by a moving average, the code adds, and the code was followed.
Departure: the rule is that of one domain drawn per update. A batch holds several, and giving each
its full `1 / p_d` would reward a domain that is in every batch 1 / p_d times too often; so the
importance weight counts the realised share of the batch, `R_d += reward_d share_d / p_d`, whose
expectation is `reward_d` as before. For a batch of one sequence the two are the same.

The code waits 2000 of 100 000 steps at the given weights; here that is a share of the run.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.controllers import Controller, ControllerEvidence, State, clip_scores
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register


@register("controller")
@dataclass(frozen=True)
class Exp3(Controller):
    """A bandit over domains whose reward is the training loss.

    Take it through the method `odm`.

    Attributes:
        scale: nats per token that count as a reward of 1.
        warmup: share of the run at the starting weights.
        interval: training steps between two updates of the weights.
    """

    name = "exp3"

    scale: float = 10.0
    warmup: float = 0.02
    interval: int = 1

    def __post_init__(self) -> None:
        if self.scale <= 0 or not 0 <= self.warmup < 1 or self.interval < 1:
            raise RecipeError(
                "exp3 needs scale > 0, warmup in [0, 1) and interval >= 1; "
                f"got {self.scale}, {self.warmup} and {self.interval}"
            )

    def start(self, domains: Sequence[str], weights: Sequence[float], steps: int) -> State:
        return {
            "weights": [float(w) for w in weights],
            "rewards": [0.0] * len(weights),
            "updates": 0,
            "due": max(self.interval, math.ceil(self.warmup * steps)),
        }

    def update(self, state: State, evidence: ControllerEvidence) -> State:
        p, rewards = np.asarray(state["weights"]), np.asarray(state["rewards"])
        drawn = sum(evidence.counts)
        for d, (loss, count) in enumerate(zip(evidence.losses, evidence.counts, strict=True)):
            if loss is not None and count and p[d] > 0:
                rewards[d] += float(clip_scores(loss)) / self.scale * (count / drawn) / p[d]
        rewards = clip_scores(rewards)
        time, size = state["updates"] + 1, len(p)
        chance, before = exploration_rate(size, time), exploration_rate(size, max(1, time - 1))
        greedy = simplex.tilt(np.full(size, 1.0 / size), before * rewards)
        moved = (1 - size * chance) * greedy + chance
        return {
            "weights": simplex.normalized(moved).tolist(),
            "rewards": rewards.tolist(),
            "updates": time,
            "due": evidence.step + self.interval,
        }


def exploration_rate(size: int, time: int) -> float:
    """eps_t, the chance that every one of `size` domains keeps at update `time` (from 1)."""
    return min(1.0 / size, math.sqrt(math.log(size) / (size * time)))
