"""MixMin: one model per source, and the convex mixture of them.

Source: Thudi et al. 2025, "MixMin: finding data mixtures via convex minimization" (arXiv
2502.10510); the problem and its departures are in `mixtures.controllers.mixmin`. The method asks
for a run on each domain alone, under every seed, then for a run per seed that solves the problem
over that seed's models and trains at its solution. The targets are the objective's held-out texts.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.controllers.mixmin import MixMinController as Controller
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.inference import paired_trial
from cuvee.mixtures.methods import Method, RemainingRuns, controlled
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs import History, RunSpec, finished_runs


@register("method")
@dataclass(frozen=True)
class MixMin(Method):
    """Runs on single domains, then the convex problem.

    Attributes:
        seeds: of the sources and of what is mixed of them; one, as published, has no interval.
        trials: seeds of the answer's trial.
        rate: of the exponentiated gradient.
        rounds: its steps at most.
        tolerance: fall of the objective, nats per example, below which it ends.
    """

    name = "mixmin"
    seeds: int = 2
    trials: int = 3
    rate: float = 1.0
    rounds: int = 100
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        controlled.check(seeds=max(2, self.seeds), trials=self.trials)
        if self.seeds < 1:
            raise RecipeError(f"mixmin needs seeds >= 1; got {self.seeds}")
        self._controller((), ())

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        sources = [spec for seed in range(self.seeds) for spec in self._sources(problem, seed)]
        needed = controlled.lacking(
            history, (*sources, *controlled.baselines(problem, self.trials))
        )
        if needed:
            return needed
        specs = self._mixed(problem, history)
        if needed := controlled.lacking(history, specs):
            return needed
        runs = controlled.results(history, specs, "run on mixed sources")
        stages = controlled.answered(problem, runs, 1).stages
        return controlled.lacking(history, controlled.trial(problem, stages, self.trials))

    def remaining(self, problem: Problem) -> RemainingRuns:
        words = f"{self.seeds} runs on mixed sources and {self.trials} of the answer"
        return RemainingRuns(self.seeds + self.trials, words)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        runs = controlled.results(history, self._mixed(problem, history), "run on mixed sources")
        answer = controlled.answered(problem, runs, 1)
        return paired_trial.conclude(self, problem, history, answer)

    def _sources(self, problem: Problem, seed: int) -> tuple[RunSpec, ...]:
        """A run on each domain alone."""
        corners = np.eye(len(problem.domains))
        return tuple(
            controlled.fixed(problem, corner, controlled.FIRST + seed) for corner in corners
        )

    def _mixed(self, problem: Problem, history: History) -> tuple[RunSpec, ...]:
        """A run per seed whose sources all finished.

        Raises:
            EvidenceError: every seed lacks a source.
        """
        known = {run.spec.fingerprint for run in finished_runs(history)}
        targets, specs = controlled.measurable(problem), []
        for seed in range(self.seeds):
            names = tuple(spec.fingerprint for spec in self._sources(problem, seed))
            if known.issuperset(names):
                controller = self._controller(names, targets)
                start = problem.domains.uniform
                specs.append(
                    controlled.controlled(problem, controller, start, controlled.FIRST + seed)
                )
        if not specs:
            raise EvidenceError(
                f"each of {self.seeds} seeds lacks a finished run on a single domain; lower "
                "proxy.rate if they diverge"
            )
        return tuple(specs)

    def _controller(self, sources: tuple[str, ...], evaluated: tuple[str, ...]) -> Controller:
        return Controller(
            sources=sources,
            evaluated=evaluated,
            rate=self.rate,
            rounds=self.rounds,
            tolerance=self.tolerance,
        )
