"""Skill-It: estimate what teaches what, then sample what still helps.

Source: Chen et al. 2023, "Skill-it! A data-driven skills framework for understanding and training
language models" (arXiv 2307.14430). The graph is estimated from runs (`skill_graph`), the rule
and its departures are in `mixtures.controllers.skill_it`. Evaluated skills are the objective's
held-out texts: with some of the domains that is Skill-It with a target set, with all of them the
rule without one. Departure: a column of the graph is multiplied by its target's weight in the
objective (over the mean weight), so that equal weights give the published rule. Tasks cannot be
scored while a proxy trains; a graph over tasks is had from `mixtures.skill_graph` alone.
"""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from cuvee.mixtures import skill_graph
from cuvee.mixtures.controllers.skill_it import SkillItController
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import UnknownName
from cuvee.mixtures.inference.paired_trial import baseline_specs, conclude_trial
from cuvee.mixtures.methods import RemainingRuns
from cuvee.mixtures.methods.controlled import Controlled, followed_targets
from cuvee.mixtures.problem import FIRST_SEED, Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs.run_results import History
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.mixtures.skill_graph import SkillGraph


@register("method")
@dataclass(frozen=True)
class SkillIt(Controlled):
    """A skill graph and controlled runs on it, from the uniform weights.

    Take it where domains build on one another and the graph of what teaches what is wanted beside
    the answer; it costs one run per domain for the graph.

    Attributes:
        graph: how it is estimated: `single`, `pairwise` or `continual`.
        seeds: runs under the controller, one per seed, whose mean weights are the answer.
        trials: seeds of the trial that compares the answer with natural and uniform shares,
            paired.
        stages: stages of the answer: 1 for one mixture, more for a schedule of equal parts of the
            run.
        rate: eta, how far the weights move per nat of loss.
        updates: how often the weights are updated in a run.
        window: latest evaluations that count in an update.
        scheduled: whether eta grows as the losses fall.
        normalized: whether losses are divided by those at the start.
        halved: whether edges between different skills are halved at each update; a domain and its
            own held-out text are one skill.
    """

    name = "skill_it"

    graph: Annotated[str, Literal[skill_graph.KINDS]] = "single"
    seeds: int = 3
    trials: int = 3
    stages: int = 1
    rate: float = 0.5
    updates: int = 5
    window: int = 3
    scheduled: bool = False
    normalized: bool = False
    halved: bool = False

    def __post_init__(self) -> None:
        self.check()
        if self.graph not in skill_graph.KINDS:
            raise UnknownName("kind of skill graph", self.graph, skill_graph.KINDS)

    def first_round(self, problem: Problem) -> tuple[RunSpec, ...]:
        specs = skill_graph.graph_runs(problem, self.graph, FIRST_SEED)
        return (*specs, *baseline_specs(problem, self.trials))

    def controlled(self, problem: Problem, history: History) -> tuple[RunSpec, ...]:
        graph = self.estimate(problem, history)
        table = np.array(graph.edges) * importance(problem, graph.columns)
        edges = tuple(tuple(map(float, row)) for row in table)
        fewer = len(graph.columns) < len(problem.domains)
        return self.seeded(problem, self.controller(graph.columns, edges, averaged=fewer))

    def remaining(self, problem: Problem) -> RemainingRuns:
        words = f"{self.seeds} runs that follow the skill graph and {self.trials} of the answer"
        return RemainingRuns(self.seeds + self.trials, words)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        found = conclude_trial(self, problem, history, self.answer(problem, history))
        return dataclasses.replace(found, skills=self.estimate(problem, history))

    def estimate(self, problem: Problem, history: History) -> SkillGraph:
        """The skill graph that the history gives."""
        targets = followed_targets(problem)
        if self.graph != "single":
            own = tuple(f"domain/{name}" for name in problem.domains.names)
            targets = own if set(own) <= set(problem.targets) else targets
        return skill_graph.estimate_graph(problem, history, self.graph, targets, FIRST_SEED)

    def controller(
        self,
        targets: tuple[str, ...],
        edges: tuple[tuple[float, ...], ...] = (),
        *,
        averaged: bool = False,
    ) -> SkillItController:
        return SkillItController(
            graph=edges,
            evaluated=targets,
            rate=self.rate,
            updates=self.updates,
            window=self.window,
            averaged=averaged,
            scheduled=self.scheduled,
            normalized=self.normalized,
            halved=self.halved,
        )


def importance(problem: Problem, targets: tuple[str, ...]) -> Array:
    """Weights (M,) of targets in the objective over their mean; ones if it is not a mean."""
    row = problem.objective.linear(problem.targets)
    if row is None:
        return np.ones(len(targets))
    found = np.array([row[problem.targets.index(name)] for name in targets])
    return np.asarray(found / found.mean() if found.mean() > 0 else np.ones(len(targets)))
