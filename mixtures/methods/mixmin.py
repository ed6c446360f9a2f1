"""MixMin: one model per source, and the convex mixture of them.

Source: Thudi et al. 2025, "MixMin: finding data mixtures via convex minimization" (arXiv
2502.10510); the problem and its departures are in `mixtures.controllers.mixmin`. The method asks
for a run on each domain alone, under every seed, then for a run per seed that solves the problem
over that seed's models and trains at its solution. The targets are the objective's held-out texts.
"""

from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.controllers.mixmin import MixMinController
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.inference.paired_trial import baseline_specs
from cuvee.mixtures.methods import RemainingRuns
from cuvee.mixtures.methods.controlled import Controlled, check_counts, followed_targets
from cuvee.mixtures.problem import FIRST_SEED, Problem
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs.run_results import History, finished_runs
from cuvee.mixtures.runs.run_spec import RunSpec


@register("method")
@dataclass(frozen=True)
class MixMin(Controlled):
    """Runs on single domains, then the convex problem.

    Take it where the objective is held-out text and no more than a run or two per domain can be
    paid.

    Attributes:
        seeds: of the sources and of what is mixed of them; one, as published, has no interval.
        trials: seeds of the trial that compares the answer with natural and uniform shares,
            paired.
        rate: step of the exponentiated gradient that solves the convex problem.
        rounds: steps of that gradient at most.
        tolerance: fall of the objective, nats per example, below which it ends.
    """

    name = "mixmin"
    runs_are = "run on mixed sources"

    seeds: int = 2
    trials: int = 3
    rate: float = 1.0
    rounds: int = 100
    tolerance: float = 1e-4

    def check(self) -> None:
        check_counts(seeds=max(2, self.seeds), trials=self.trials)
        if self.seeds < 1:
            raise RecipeError(f"mixmin needs seeds >= 1; got {self.seeds}")
        self.controller(())

    def first_round(self, problem: Problem) -> tuple[RunSpec, ...]:
        sources = [spec for seed in range(self.seeds) for spec in self._sources(problem, seed)]
        return (*sources, *baseline_specs(problem, self.trials))

    def controlled(self, problem: Problem, history: History) -> tuple[RunSpec, ...]:
        """A run per seed whose sources all finished.

        Raises:
            EvidenceError: every seed lacks a source.
        """
        known = {run.spec.fingerprint for run in finished_runs(history)}
        targets, specs = followed_targets(problem), []
        for seed in range(self.seeds):
            names = tuple(spec.fingerprint for spec in self._sources(problem, seed))
            if known.issuperset(names):
                specs.append(self.seeded(problem, self.controller(targets, names))[seed])
        if not specs:
            raise EvidenceError(
                f"each of {self.seeds} seeds lacks a finished run on a single domain; lower "
                "proxy.rate if they diverge"
            )
        return tuple(specs)

    def remaining(self, problem: Problem) -> RemainingRuns:
        words = f"{self.seeds} runs on mixed sources and {self.trials} of the answer"
        return RemainingRuns(self.seeds + self.trials, words)

    def _sources(self, problem: Problem, seed: int) -> tuple[RunSpec, ...]:
        """A run on each domain alone."""
        corners = np.eye(len(problem.domains)).tolist()
        return tuple(problem.spec(corner, FIRST_SEED + seed) for corner in corners)

    def controller(
        self, targets: tuple[str, ...], sources: tuple[str, ...] = ()
    ) -> MixMinController:
        return MixMinController(
            sources=sources,
            evaluated=targets,
            rate=self.rate,
            rounds=self.rounds,
            tolerance=self.tolerance,
        )
