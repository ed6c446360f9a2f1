"""MixMin: the mixture of sources whose mixture of models predicts the target best.

Source: Thudi et al. 2025, "MixMin: finding data mixtures via convex minimization" (arXiv
2502.10510), as coded in LLM_DataMixing, `mixmin_gen.py`. One model per source; for a target's
examples x, of log-probabilities log p_k(x) and lengths |x|,

    min over w of  -mean_x log(sum_k w_k p_k(x)) / |x|

is convex, and is solved by exponentiated gradient from even weights: rate 1, 100 steps, or until
the objective falls by less than 1e-4. As a controller it moves once, before the first step, and the
run is then trained at the weights that were found.

Departures: the objective is multiplied by the mean length, so that a step does not shrink with the
length of the examples (in nats per token, windows of 256 tokens end at the tolerance after one
step, far from the minimum; the minimum is the same). Examples are held-out windows. The code's
split of a target's examples into 80 % to fit and 20 % to report is not made, because the answer is
tried by training.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from cuvee.mixtures import simplex
from cuvee.mixtures.controllers import Controller, ControllerEvidence, State, clip_scores
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register


@register("controller")
@dataclass(frozen=True)
class MixMinController(Controller):
    """Weights by a convex problem over models of single sources.

    Take it through the method `mixmin`, which trains the models that it mixes.

    Attributes:
        sources: fingerprints of the runs on each domain alone, in the order of the domains.
        evaluated: targets, each alike; empty for each domain's own held-out text.
        rate: step of the exponentiated gradient.
        rounds: steps of that gradient at most.
        tolerance: fall of the objective, nats per example, below which it ends.
    """

    name = "mixmin"
    evaluates = True
    mixes = True
    by_domain = ("sources",)

    sources: tuple[str, ...] = ()
    evaluated: tuple[str, ...] = ()
    rate: float = 1.0
    rounds: int = 100
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.rounds < 1 or self.tolerance < 0:
            raise RecipeError(
                "mixmin needs rate > 0, rounds >= 1 and tolerance >= 0; "
                f"got {self.rate}, {self.rounds} and {self.tolerance}"
            )

    def start(self, domains: Sequence[str], weights: Sequence[float], steps: int) -> State:
        if self.sources and len(self.sources) != len(domains):
            raise RecipeError(
                f"mixmin needs one source run per domain; got {len(self.sources)} for "
                f"{len(domains)} domains"
            )
        return {"weights": [float(w) for w in weights], "steps": steps, "due": 0}

    def update(self, state: State, evidence: ControllerEvidence) -> State:
        if not evidence.likelihoods:
            return {**state, "due": state["steps"]}
        logs, lengths = clip_scores(evidence.likelihoods), np.asarray(evidence.lengths, dtype=float)
        found = self.solve(logs, lengths)
        return {**state, "weights": found.tolist(), "due": state["steps"]}

    def solve(self, logs: Array, lengths: Array) -> Array:
        """Weights (K,) for log-probabilities (n, K) of examples of some lengths (n,), in tokens."""
        weights = np.full(logs.shape[1], 1.0 / logs.shape[1])
        lengths = lengths / lengths.mean()
        before = np.inf
        for _ in range(self.rounds):
            joint = logs + np.log(np.maximum(weights, 1e-300))
            total = logsumexp(joint, axis=1, keepdims=True)
            value = -float((total[:, 0] / lengths).mean())
            if before - value < self.tolerance:
                break
            before = value
            # -gradient_k = mean of p_k(x) / sum_j w_j p_j(x) / |x|, lengths having a mean of 1
            ascent = (np.exp(np.minimum(logs - total, 700.0)) / lengths[:, None]).mean(axis=0)
            weights = simplex.tilt(weights, clip_scores(self.rate * ascent))
        return weights
