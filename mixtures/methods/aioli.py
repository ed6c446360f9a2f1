"""Aioli: estimate the mixing dynamics while training, and follow them.

Source: Chen et al. 2024, "Aioli: a unified optimization framework for language model data mixing"
(arXiv 2411.05735); the rule and its departures are in `mixtures.controllers.aioli`. The losses that
count are those of the objective's held-out texts, each alike as in the paper (a task cannot be
scored while a proxy trains). The paper trains the final model itself this way; here small runs do,
and the mean of their weights (or a schedule in stages) is the answer. That mean holds the probes
too, since the run was trained on them: they are even on the whole, so the answer lies nearer to
uniform than the weights between them.
"""

from dataclasses import dataclass

from cuvee.mixtures.controllers.aioli import AioliController
from cuvee.mixtures.methods.controlled import Controlled
from cuvee.mixtures.registry import register


@register("method")
@dataclass(frozen=True)
class Aioli(Controlled):
    """Controlled runs under `aioli`, from the uniform weights.

    Take it where only a handful of runs can be paid and the objective is held-out text; it
    measures in each run what every domain does to every loss. In short runs it hardly moves.

    Attributes:
        seeds: runs under the controller, one per seed, whose mean weights are the answer.
        trials: seeds of the trial that compares the answer with natural and uniform shares,
            paired.
        stages: stages of the answer: 1 for one mixture, more for a schedule of equal parts of the
            run.
        rounds: how often the dynamics are estimated in a run.
        sweeps: passes over the domains in one estimate.
        probe: share of a round's steps that an estimate takes.
        one_hot: share of the domain that is probed, from 0 to 1; the others divide the rest.
        rate: eta, how far the weights follow an estimate; larger moves them more.
        ema: share of the earlier dynamics that is kept at each estimate; null to go on from the
            last weights.
        normalized: whether the dynamics are shifted and divided to sum to 1.
    """

    name = "aioli"

    seeds: int = 3
    trials: int = 3
    stages: int = 1
    rounds: int = 4
    sweeps: int = 1
    probe: float = 0.4
    one_hot: float = 0.75
    rate: float = 1.0
    ema: float | None = 0.1
    normalized: bool = True

    def controller(self, targets: tuple[str, ...]) -> AioliController:
        return AioliController(
            evaluated=targets,
            rounds=self.rounds,
            sweeps=self.sweeps,
            probe=self.probe,
            one_hot=self.one_hot,
            rate=self.rate,
            ema=self.ema,
            normalized=self.normalized,
        )
