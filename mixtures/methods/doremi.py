"""DoReMi: a small model under group DRO finds the weights for a large one.

Source: Xie et al. 2023, "DoReMi: Optimizing data mixtures speeds up language model pretraining"
(arXiv 2305.10429). A reference model is trained at the reference weights; a proxy starts at the
uniform weights and is trained under `group_dro` against it; the answer is the running mean of the
proxy's weights. In the iterated form (section 4) the answer is the next round's reference weights,
until no weight moves by more than a tolerance.

Departures: several seeds per round, whose mean answers, since a single small proxy's weights are
mostly noise; the paper stops at a change of 1e-3, below the spread over seeds of small proxies, so
the default here is 0.02; a trial of the answer (`mixtures.methods.moving`).
"""

from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures.controllers.group_dro import GroupDRO
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.inference import paired_trial
from cuvee.mixtures.methods import Method, RemainingRuns, controlled
from cuvee.mixtures.methods.controlled import Answer
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs import History, RunSpec


@register("method")
@dataclass(frozen=True)
class DoReMi(Method):
    """Rounds of a reference run and controlled runs.

    Attributes:
        reference: weights of the first reference run, "natural" or "uniform".
        rounds: at most.
        tolerance: change of a share between rounds below which they stop.
        seeds: controlled runs of a round.
        trials: seeds of the answer's trial.
        rate: eta of `group_dro`, per nat.
        smoothing: its eps.
        interval: its steps between updates.
    """

    name = "doremi"
    directed = False  # it reads training losses, not the objective

    reference: str = "natural"
    rounds: int = 3
    tolerance: float = 0.02
    seeds: int = 3
    trials: int = 3
    rate: float = 1.0
    smoothing: float = 1e-3
    interval: int = 1

    def __post_init__(self) -> None:
        controlled.check(seeds=self.seeds, trials=self.trials)
        self._controller(np.zeros(0))
        if self.reference not in controlled.BASELINES or self.rounds < 1 or self.tolerance < 0:
            raise RecipeError(
                "doremi needs reference natural or uniform, rounds >= 1 and tolerance >= 0; "
                f"got {self.reference!r}, {self.rounds} and {self.tolerance}"
            )

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        first = self._reference(problem, self._first(problem))
        needed = controlled.lacking(history, (first, *controlled.baselines(problem, self.trials)))
        if needed:
            return needed
        wanted, answers, _ = self._rounds(problem, history)
        if wanted:
            return wanted
        return controlled.lacking(
            history, controlled.trial(problem, answers[-1].stages, self.trials)
        )

    def remaining(self, problem: Problem) -> RemainingRuns:
        """Each round but the first has a reference run of its own."""
        words = (
            f"up to {self.rounds} rounds of {self.seeds} controlled runs, a reference run for each "
            f"after the first, and {self.trials} of the answer"
        )
        return RemainingRuns(self.rounds * self.seeds + self.rounds - 1 + self.trials, words)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        wanted, answers, changes = self._rounds(problem, history)
        if not answers:
            raise EvidenceError(
                f"the first round is not complete: {len(wanted)} of its runs are missing"
            )
        return paired_trial.conclude(self, problem, history, self._judged(answers, changes))

    def _first(self, problem: Problem) -> Array:
        domains = problem.domains
        return domains.natural if self.reference == "natural" else domains.uniform

    def _reference(self, problem: Problem, weights: Array) -> RunSpec:
        return controlled.fixed(problem, weights, controlled.FIRST)

    def _controlled(self, problem: Problem, reference: RunSpec) -> tuple[RunSpec, ...]:
        """A round's runs under the controller, one per seed."""
        return tuple(
            controlled.controlled(
                problem,
                self._controller(reference.weights),
                problem.domains.uniform,
                controlled.FIRST + seed,
                reference.fingerprint,
            )
            for seed in range(self.seeds)
        )

    def _controller(self, reference: Array) -> GroupDRO:
        weights = tuple(map(float, reference))
        return GroupDRO(self.rate, self.smoothing, self.interval, weights)

    def _rounds(
        self, problem: Problem, history: History
    ) -> tuple[tuple[RunSpec, ...], list[Answer], list[float]]:
        """The runs that a round lacks, each finished round's answer, and how far each moved."""
        weights = self._first(problem)
        answers: list[Answer] = []
        changes: list[float] = []
        for _ in range(self.rounds):
            reference = self._reference(problem, weights)
            if needed := controlled.lacking(history, (reference,)):
                return needed, answers, changes
            controlled.results(history, (reference,), "reference run")
            specs = self._controlled(problem, reference)
            if needed := controlled.lacking(history, specs):
                return needed, answers, changes
            runs = controlled.results(history, specs, "controlled run")
            answers.append(controlled.answered(problem, runs, 1))
            changes.append(float(np.abs(answers[-1].weights - weights).max()))
            weights = answers[-1].weights
            if changes[-1] <= self.tolerance:
                break
        return (), answers, changes

    def _judged(self, answers: list[Answer], changes: list[float]) -> Answer:
        """The last answer, with what the rounds say of it."""
        answer = answers[-1]
        if len(changes) > 1:
            told = ", ".join(f"{change:.3f}" for change in changes)
            note = f"largest change of a share by round, the first against the reference: {told}"
            answer = replace(answer, notes=(*answer.notes, note))
        if self.rounds > 1 and changes[-1] > self.tolerance:
            alarm = (
                f"no convergence: the last of {len(changes)} rounds still moved a share by "
                f"{changes[-1]:.3f}, more than {self.tolerance:g}"
            )
            answer = replace(answer, alarms=(*answer.alarms, alarm))
        return answer
