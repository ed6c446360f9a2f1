"""Skill-It: sample the skills that still teach what is still lost.

Source: Chen et al. 2023, "Skill-it! A data-driven skills framework" (arXiv 2307.14430), algorithm
1, as coded in HazyResearch/skill-it, `trainer/mw_trainer.py`. With a graph A (K, M), its rows the
training skills and its columns the skills evaluated, and L the M held-out losses:

    at the start:  p ~ w0 exp(eta A 1)
    at update t:   p ~ w0 exp(eta_t A sum of the last `window` L)

so the weights restart from w0 at each update: the code refuses the cumulative rule of
multiplicative weights, and the code was followed. With a target set the window is averaged, not
summed. One evaluation is made per update; in the code a window counts evaluations, of which its
scripts may make several per update.

w0 are the run's starting weights (ones in the code unless `--mw_prior`). The code's replacement of
off-diagonal entries of exactly 1 by 0.5 belongs to hand-made graphs and is left out: ours are
estimated (`mixtures.skill_graph`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.controllers import (
    Controller,
    ControllerEvidence,
    State,
    clip_scores,
    even_steps,
    next_time,
)
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import register


@register("controller")
@dataclass(frozen=True)
class SkillItController(Controller):
    """Windowed multiplicative weights on a skill graph.

    Take it through the method `skill_it`, which estimates the graph.

    Attributes:
        graph: A (K, M); empty for the identity over the domains.
        evaluated: the M targets of its columns; empty for each domain's own held-out text.
        rate: eta, how far the weights move per nat of loss.
        updates: updates of the weights after the start.
        window: latest evaluations that count in an update.
        averaged: whether the window is averaged, as with a target set, or summed.
        scheduled: eta_t = eta / (sum L_t / sum L_0), the code's `--eta_schedule`.
        normalized: losses are divided by those at the start, its `--normalize_loss`.
        halved: entries between different skills are halved at each update, its
            `--dynamic_lambda`. A domain and its own held-out text are one skill, whatever the
            shape of the graph; in a graph of tasks alone every entry is halved.
    """

    name = "skill_it"
    evaluates = True
    by_domain = ("graph",)

    graph: tuple[tuple[float, ...], ...] = ()
    evaluated: tuple[str, ...] = ()
    rate: float = 0.5
    updates: int = 5
    window: int = 3
    averaged: bool = False
    scheduled: bool = False
    normalized: bool = False
    halved: bool = False

    def __post_init__(self) -> None:
        if self.rate <= 0 or self.updates < 1 or self.window < 1:
            raise RecipeError(
                "skill_it needs rate > 0, updates >= 1 and window >= 1; "
                f"got {self.rate}, {self.updates} and {self.window}"
            )
        if any(len(row) != len(self.evaluated) for row in self.graph):
            raise RecipeError(
                f"every row of a skill graph has one entry per evaluated skill "
                f"({len(self.evaluated)}); got rows of {sorted({len(r) for r in self.graph})}"
            )

    def start(self, domains: Sequence[str], weights: Sequence[float], steps: int) -> State:
        if self.graph and len(self.graph) != len(domains):
            raise RecipeError(
                f"the skill graph has {len(self.graph)} rows for {len(domains)} domains"
            )
        prior = [float(w) for w in weights]
        own = [[f"domain/{name}" == target for target in self.evaluated] for name in domains]
        graph = self._at(0, own)
        first = simplex.tilt(np.asarray(prior), clip_scores(self.rate * graph.sum(axis=1)))
        times = even_steps(steps, self.updates)
        return {
            "weights": first.tolist(),
            "prior": prior,
            "window": [],
            "first": [],
            "round": 0,
            "times": times,
            "steps": steps,
            "due": 0 if self.scheduled or self.normalized else next_time(times, 0, steps),
            **({"own": own} if self.halved and self.graph else {}),
        }

    def update(self, state: State, evidence: ControllerEvidence) -> State:
        times, steps = state["times"], state["steps"]
        losses = clip_scores(evidence.held_out)
        due = next_time(times, evidence.step, steps)
        if evidence.step == 0:
            return {**state, "first": losses.tolist(), "due": due}
        first = np.asarray(state["first"]) if state["first"] else losses
        positive = np.where(first > 0, first, 1.0)
        window = [*state["window"], losses.tolist()][-self.window :]
        terms = np.asarray(window) / positive if self.normalized else np.asarray(window)
        total = terms.mean(axis=0) if self.averaged else terms.sum(axis=0)
        rate = self.rate
        if self.scheduled and losses.sum() > 0 and first.sum() > 0:
            rate = self.rate * float(first.sum() / losses.sum())
        number = state["round"] + 1
        prior = np.asarray(state["prior"])
        size = len(prior)  # states of a version that halved square graphs alone lack their own
        halves = np.eye(size) if size == len(self.evaluated) else np.ones((size, 1))
        own = state.get("own", halves.tolist())
        scores = clip_scores(rate * (self._at(number, own) @ total))
        return {
            **state,
            "weights": simplex.tilt(prior, scores).tolist(),
            "window": window,
            "round": number,
            "due": due,
        }

    def _at(self, number: int, own: Sequence[Any]) -> Array:
        """The graph at an update, (K, M); `own` has a row of each domain (whether an entry is of
        its own skill) where entries are halved."""
        if not self.graph:
            return np.eye(len(own))
        graph = np.array(self.graph, dtype=np.float64)
        return np.asarray(np.where(own, graph, graph * 0.5**number)) if self.halved else graph
