"""Skill-It: estimate what teaches what, then sample what still helps.

Source: Chen et al. 2023, "Skill-it! A data-driven skills framework for understanding and training
language models" (arXiv 2307.14430). The graph is estimated from runs (`mixtures.skills`), the rule
and its departures are in `mixtures.controllers.skill_it`. Evaluated skills are the objective's
held-out texts: with some of the domains that is Skill-It with a target set, with all of them the
rule without one. Departure: a column of the graph is multiplied by its target's weight in the
objective (over the mean weight), so that equal weights give the published rule. Tasks cannot be
scored while a proxy trains; a graph over tasks is had from `mixtures.skills` alone.
"""

import dataclasses
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import skill_graph
from cuvee.mixtures.controllers.skill_it import SkillItController as Controller
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import UnknownName
from cuvee.mixtures.inference import paired_trial
from cuvee.mixtures.methods import Method, RemainingRuns, controlled
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs import History, RunSpec
from cuvee.mixtures.skill_graph import SkillGraph


@register("method")
@dataclass(frozen=True)
class SkillIt(Method):
    """A skill graph and controlled runs on it, from the uniform weights.

    Attributes:
        graph: how it is estimated: `single`, `pairwise` or `continual`.
        seeds: controlled runs.
        trials: seeds of the answer's trial.
        stages: of the answer.
        rate: eta.
        updates: of the weights in a run.
        window: evaluations that count.
        scheduled: whether eta grows as the losses fall.
        normalized: whether losses are divided by those at the start.
        halved: whether off-diagonal edges are halved at each update.
    """

    name = "skill_it"
    graph: str = "single"
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
        controlled.check(seeds=self.seeds, trials=self.trials, stages=self.stages)
        if self.graph not in skill_graph.KINDS:
            raise UnknownName("kind of skill graph", self.graph, skill_graph.KINDS)
        self._controller((), (), averaged=False)

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        first = skill_graph.graph_runs(problem, self.graph, controlled.FIRST)
        needed = controlled.lacking(history, (*first, *controlled.baselines(problem, self.trials)))
        if needed:
            return needed
        specs = self._controlled(problem, self.estimate(problem, history))
        if needed := controlled.lacking(history, specs):
            return needed
        runs = controlled.results(history, specs, "controlled run")
        stages = controlled.answered(problem, runs, self.stages).stages
        return controlled.lacking(history, controlled.trial(problem, stages, self.trials))

    def remaining(self, problem: Problem) -> RemainingRuns:
        words = f"{self.seeds} runs that follow the skill graph and {self.trials} of the answer"
        return RemainingRuns(self.seeds + self.trials, words)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        graph = self.estimate(problem, history)
        specs = self._controlled(problem, graph)
        answer = controlled.answered(
            problem, controlled.results(history, specs, "controlled run"), self.stages
        )
        found = paired_trial.conclude(self, problem, history, answer)
        return dataclasses.replace(found, skills=graph)

    def estimate(self, problem: Problem, history: History) -> SkillGraph:
        """The skill graph that the history gives."""
        targets = controlled.measurable(problem)
        if self.graph != "single":
            own = tuple(f"domain/{name}" for name in problem.domains.names)
            targets = own if set(own) <= set(problem.targets) else targets
        return skill_graph.estimate_graph(problem, history, self.graph, targets, controlled.FIRST)

    def _controlled(self, problem: Problem, graph: SkillGraph) -> tuple[RunSpec, ...]:
        table = np.array(graph.edges) * importance(problem, graph.columns)
        edges = tuple(tuple(map(float, row)) for row in table)
        everything = len(graph.columns) >= len(problem.domains)
        controller = self._controller(edges, graph.columns, averaged=not everything)
        start = problem.domains.uniform
        return tuple(
            controlled.controlled(problem, controller, start, controlled.FIRST + seed)
            for seed in range(self.seeds)
        )

    def _controller(
        self, edges: tuple[tuple[float, ...], ...], evaluated: tuple[str, ...], *, averaged: bool
    ) -> Controller:
        return Controller(
            graph=edges,
            evaluated=evaluated,
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
