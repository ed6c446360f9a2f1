"""Screening: which targets are mostly noise, and an objective without them.

A target's signal to noise is its spread over mixtures against its spread over seeds, the latter
from the mixtures that were run with several seeds. What lies below a stated ratio is named. It is
left out of the objective only on request, and then of the recommendation alone: which runs are
asked for does not change, so that a study can be screened after the fact without training anew.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.inference import dataset, diagnostics, evidence_grade
from cuvee.mixtures.objectives import Objective, WeightedMean
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Noise, Recommendation
from cuvee.mixtures.runs.run_results import History, finished_runs, score_table
from cuvee.mixtures.runs.run_spec import RunSpec

if TYPE_CHECKING:
    from cuvee.mixtures.methods import Method


@dataclass(frozen=True)
class Screened:
    """A method whose recommendation names noisy targets, or does without them.

    Attributes:
        method: what chooses.
        least_signal: ratio of spreads below which a target is mostly noise.
        drop: whether such targets are left out of the objective, which must then be a mean.
    """

    method: "Method"
    least_signal: float = evidence_grade.RATIO
    drop: bool = False

    def __post_init__(self) -> None:
        if not self.least_signal >= 0:
            raise RecipeError(f"least_signal is a ratio of at least 0; got {self.least_signal}")

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        """What the method asks for; nothing is left out here."""
        return self.method.ask(problem, history, rng)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        """What the method recommends for the problem that is left, with what was left out.

        Raises:
            EvidenceError: nothing is left of the objective, or as the method raises.
            RecipeError: the objective is not a mean.
        """
        left = self.problem(problem, history)
        answer = self.method.recommend(left, history, rng)
        targets = left.objective.targets
        usual = evidence_grade.noisy_targets(answer.noise, targets, evidence_grade.RATIO)
        kept = tuple(line for line in answer.warnings if line not in usual)
        flagged = evidence_grade.noisy_targets(answer.noise, targets, self.least_signal)
        dropped = _without(problem.objective.targets, targets)
        first = tuple(line for line in kept if line.startswith("not measured: "))
        rest = tuple(line for line in kept if line not in first)
        said = self._said(dropped, answer.noise)
        return replace(answer, warnings=(*first, *said, *flagged, *rest))

    def problem(self, problem: Problem, history: History) -> Problem:
        """The problem without the targets that are left out; the same one if none is.

        Raises:
            EvidenceError: every target of the objective is mostly noise.
            RecipeError: the objective is not a mean.
        """
        problem = self.method.problem(problem, history)
        if not self.drop:
            return problem
        targets = problem.objective.targets
        noisy = tuple(n.target for n in self.noisy(problem, history) if n.target in targets)
        if not noisy:
            return problem
        return replace(problem, objective=drop_targets(problem.objective, noisy))

    def noisy(self, problem: Problem, history: History) -> tuple[Noise, ...]:
        """Targets below the ratio, of the objective or not; none where no seed was repeated."""
        runs = tuple(r for r in finished_runs(history) if dataset.is_evidence(problem, r.spec))
        if not runs:
            return ()
        W, Y, _ = score_table(runs, problem.targets)
        scalar = problem.objective.scalarize(problem.targets, Y.mean(axis=0))
        floor = diagnostics.noise_floor(W, Y, problem.targets, scalar)
        return tuple(
            n for n in floor if n.target in problem.targets and n.ratio < self.least_signal
        )

    def _said(self, dropped: tuple[str, ...], noise: tuple[Noise, ...]) -> tuple[str, ...]:
        if not dropped:
            return ()
        ratios = {n.target: n.ratio for n in noise}
        named = ", ".join(
            f"{name} ({ratios[name]:.2f})" if name in ratios else name for name in dropped
        )
        return (
            "left out of the objective as mostly noise (signal to noise below "
            f"{self.least_signal:g}, as the recipe asks): {named}",
        )


def drop_targets(objective: Objective, dropped: tuple[str, ...]) -> WeightedMean:
    """A mean without some of its targets. What is left of a family keeps the family's weight.

    Raises:
        EvidenceError: nothing is left.
        RecipeError: the objective is not a mean.
    """
    mean = require_mean(objective)
    members = {name: _without(targets, dropped) for name, targets in mean.families}
    weights = tuple(
        (name, weight) for name, weight in mean.weights if members.get(name, name not in dropped)
    )
    if not weights:
        raise EvidenceError(
            "nothing is left of the objective: every target of it is mostly noise "
            f"({', '.join(dropped)}): train longer or larger proxies, choose other targets, lower "
            "limits.least_signal, or set limits.drop_noisy to false"
        )
    return WeightedMean(weights, tuple((name, left) for name, left in members.items() if left))


def require_mean(objective: Objective) -> WeightedMean:
    """The objective as a mean, of which targets can be left out.

    Raises:
        RecipeError: it is not a mean.
    """
    if not isinstance(objective, WeightedMean):
        raise RecipeError(
            "limits.drop_noisy leaves targets out of an objective `mean` only; the objective is "
            f"{type(objective).__name__}: use a mean, or set drop_noisy to false"
        )
    return objective


def _without(names: tuple[str, ...], dropped: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name not in dropped)
