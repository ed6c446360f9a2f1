"""Aioli: estimate what each domain does to each loss while training, and follow it.

Source: Chen et al. 2024, "Aioli: a unified optimization framework for language model data mixing"
(arXiv 2411.05735), algorithm 1, as coded in HazyResearch/aioli, `trainer/aioli_trainer.py`. The
model of a short stretch of training is linear, `loss_i falls by sum_j A_ij p_j`. Each round
estimates A: for every domain j train a few steps at p = f on j and (1 - f) / (K - 1) elsewhere,
and take the fall of every held-out loss,

    G[:, j] += fall;  G /= sweeps;  A_i = solve(P, G_i)      (rows of P: those mixtures)
    A -= min(A) if that is negative;  A /= sum(A)            (`--aioli_normalize_A`)
    Abar = (1 - m) A + m Abar;  p ~ exp(eta colsum(Abar))    (`--ema m`; restarts from ones)

Without a moving average the code goes on from the last weights, `p ~ p exp(eta colsum(A))`; so does
this with `ema: null`. The constants are those of its run on seven domains of SlimPajama, with steps
as shares of the run. The order of domains in a sweep is drawn from their names and the round, so
that it is the same for a run that is resumed and does not depend on how domains are numbered.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.controllers import Controller, ControllerEvidence, State, clip_scores
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register


@register("controller")
@dataclass(frozen=True)
class AioliController(Controller):
    """Estimated linear mixing dynamics.

    Take it through the method `aioli`.

    Attributes:
        evaluated: targets whose losses count; empty for each domain's own held-out text.
        rounds: estimates of the dynamics A in a run.
        sweeps: passes over the domains in an estimate.
        probe: share of a round's steps that an estimate takes, all of its probes together.
        one_hot: f, the share of the domain that is probed.
        rate: eta, how far the weights follow A.
        ema: m, the share of the earlier A that is kept; null to go on from the last weights.
        normalized: whether A is shifted and divided to sum to 1.
    """

    name = "aioli"
    evaluates = True

    evaluated: tuple[str, ...] = ()
    rounds: int = 4
    sweeps: int = 1
    probe: float = 0.4
    one_hot: float = 0.75
    rate: float = 1.0
    ema: float | None = 0.1
    normalized: bool = True

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.sweeps < 1 or self.rate <= 0 or not 0 < self.probe <= 1:
            raise RecipeError(
                "aioli needs rounds >= 1, sweeps >= 1, rate > 0 and probe in (0, 1]; "
                f"got {self.rounds}, {self.sweeps}, {self.rate} and {self.probe}"
            )
        if not 0 < self.one_hot <= 1 or not (self.ema is None or 0 <= self.ema < 1):
            raise RecipeError(
                f"aioli needs one_hot in (0, 1] and ema in [0, 1) or null; got {self.one_hot} "
                f"and {self.ema}"
            )

    def start(self, domains: Sequence[str], weights: Sequence[float], steps: int) -> State:
        size = len(domains)
        if self.one_hot <= 1.0 / size:
            raise RecipeError(
                f"aioli's one_hot must exceed an even share of {size} domains, {1 / size:.3g}; "
                f"got {self.one_hot}"
            )
        length = int(self.probe * steps / (self.rounds * self.sweeps * size))
        if length < 1:
            raise RecipeError(
                f"aioli cannot probe {size} domains {self.rounds * self.sweeps} times within "
                f"{self.probe:.0%} of {steps} steps: lower `rounds` or `sweeps`, or train longer"
            )
        return {
            "weights": [float(w) for w in weights],
            "domains": list(domains),
            "steps": steps,
            "length": length,
            "round": 0,
            "place": -1,  # of the probe under way in the round's order; -1: none
            "base": [float(w) for w in weights],
            "losses": [],
            "falls": [],
            "average": [],
            "due": 0,
        }

    def update(self, state: State, evidence: ControllerEvidence) -> State:
        losses = clip_scores(evidence.held_out)
        order = self._order(state)
        place, falls = state["place"], state["falls"]
        if place < 0:
            falls = np.zeros((len(losses), len(state["weights"]))).tolist()
        else:
            drop = np.asarray(state["losses"]) - losses
            table = np.asarray(falls)
            table[:, order[place]] += drop / self.sweeps
            falls = table.tolist()
        place += 1
        if place == len(order):
            return self._conclude({**state, "falls": falls}, evidence.step)
        probed = probe_mixtures(len(state["weights"]), self.one_hot)[order[place]]
        return {
            **state,
            "weights": probed.tolist(),
            "place": place,
            "losses": losses.tolist(),
            "falls": falls,
            "due": evidence.step + state["length"],
        }

    def _conclude(self, state: State, step: int) -> State:
        """The weights from a round's falls, until the next round."""
        dynamics = linear_dynamics(np.asarray(state["falls"]), self.one_hot, self.normalized)
        start, average = np.asarray(state["base"]), dynamics
        if self.ema is not None:
            start = np.full(len(start), 1.0 / len(start))
            if state["average"]:
                average = (1 - self.ema) * dynamics + self.ema * np.asarray(state["average"])
        moved = simplex.tilt(start, clip_scores(self.rate * average.sum(axis=0))).tolist()
        number = state["round"] + 1
        begin = round(number * state["steps"] / self.rounds)
        return {
            **state,
            "weights": moved,
            "base": moved,
            "average": average.tolist(),
            "round": number,
            "place": -1,
            "losses": [],
            "falls": [],
            "due": max(begin, step + 1) if number < self.rounds else state["steps"],
        }

    def _order(self, state: State) -> list[int]:
        """Domain of each probe of the round."""
        names, number = state["domains"], state["round"]

        def key(sweep: int, name: str) -> bytes:
            return hashlib.sha256(f"{number}/{sweep}/{name}".encode()).digest()

        return [
            i
            for sweep in range(self.sweeps)
            for i in sorted(range(len(names)), key=lambda j: key(sweep, names[j]))
        ]


def probe_mixtures(size: int, one_hot: float) -> Array:
    """P (K, K): row j is the mixture that probes domain j."""
    rest = (1.0 - one_hot) / (size - 1)
    return np.asarray(np.full((size, size), rest) + (one_hot - rest) * np.eye(size))


def linear_dynamics(falls: Array, one_hot: float, normalized: bool) -> Array:
    """A (M, K) from the falls G (M, K) of the losses under each probe."""
    found = np.linalg.solve(probe_mixtures(falls.shape[1], one_hot), falls.T).T
    if not normalized:
        return np.asarray(found)
    shifted = found - min(0.0, float(found.min()))
    total = float(shifted.sum())
    return np.asarray(shifted / total if total > 0 else np.full(found.shape, 1.0 / found.size))
