"""DoReMi: a small model under group DRO finds the weights for a large one.

Source: Xie et al. 2023, "DoReMi: Optimizing data mixtures speeds up language model pretraining"
(arXiv 2305.10429). A reference model is trained at the reference weights; a proxy starts at the
uniform weights and is trained under `group_dro` against it; the answer is the running mean of the
proxy's weights. In the iterated form (section 4) the answer is the next round's reference weights,
until no weight moves by more than a tolerance.

Departures: several seeds per round, whose mean answers, since a single small proxy's weights are
mostly noise; the paper stops at a change of 1e-3, below the spread over seeds of small proxies, so
the default here is 0.02; a trial of the answer (`mixtures.inference.paired_trial`).
"""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np

from cuvee.mixtures.controllers.group_dro import GroupDRO
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.inference import paired_trial
from cuvee.mixtures.inference.paired_trial import BASELINES, Answer
from cuvee.mixtures.methods import RemainingRuns
from cuvee.mixtures.methods.controlled import Controlled, average_runs
from cuvee.mixtures.problem import FIRST_SEED, Problem
from cuvee.mixtures.registry import register
from cuvee.mixtures.runs.run_results import History
from cuvee.mixtures.runs.run_spec import RunSpec


@register("method")
@dataclass(frozen=True)
class DoReMi(Controlled):
    """Rounds of a reference run and controlled runs.

    Take it to compare with DoReMi. It evens out losses of training text over a reference's and
    never sees the objective, so it can end worse than uniform on it.

    Attributes:
        reference: weights of the first reference run, "natural" or "uniform".
        rounds: rounds of a reference and controlled runs, at most.
        tolerance: change of a share between rounds below which they stop.
        seeds: controlled runs of a round, one per seed.
        trials: seeds of the trial that compares the answer with natural and uniform shares,
            paired.
        rate: eta, how far the weights move per nat of excess loss.
        smoothing: part of the weights that is spread evenly at each update.
        interval: training steps between two updates of the weights.
    """

    name = "doremi"
    directed = False  # it reads training losses, not the objective

    reference: Annotated[str, Literal[BASELINES]] = "natural"
    rounds: int = 3
    tolerance: float = 0.02
    seeds: int = 3
    trials: int = 3
    rate: float = 1.0
    smoothing: float = 1e-3
    interval: int = 1

    def __post_init__(self) -> None:
        self.check()
        if self.reference not in BASELINES or self.rounds < 1 or self.tolerance < 0:
            raise RecipeError(
                "doremi needs reference natural or uniform, rounds >= 1 and tolerance >= 0; "
                f"got {self.reference!r}, {self.rounds} and {self.tolerance}"
            )

    def controller(self, targets: tuple[str, ...], reference: tuple[float, ...] = ()) -> GroupDRO:
        return GroupDRO(self.rate, self.smoothing, self.interval, reference)

    def first_round(self, problem: Problem) -> tuple[RunSpec, ...]:
        first = problem.spec(
            paired_trial.baseline_shares(problem, self.reference).tolist(), FIRST_SEED
        )
        return (first, *paired_trial.baseline_specs(problem, self.trials))

    def controlled(self, problem: Problem, history: History) -> tuple[RunSpec, ...]:
        """What the round that is not complete lacks, reference run or controlled runs."""
        return self._rounds(problem, history)[0]

    def answer(self, problem: Problem, history: History) -> Answer:
        """The last round's answer, with what the rounds say of it.

        Raises:
            EvidenceError: no round is complete.
        """
        wanted, answers, changes = self._rounds(problem, history)
        if not answers:
            raise EvidenceError(
                f"the first round is not complete: {len(wanted)} of its runs are missing"
            )
        return self._judged(answers[-1], changes)

    def remaining(self, problem: Problem) -> RemainingRuns:
        """Each round but the first has a reference run of its own."""
        words = (
            f"up to {self.rounds} rounds of {self.seeds} controlled runs, a reference run for each "
            f"after the first, and {self.trials} of the answer"
        )
        return RemainingRuns(self.rounds * self.seeds + self.rounds - 1 + self.trials, words)

    def _rounds(
        self, problem: Problem, history: History
    ) -> tuple[tuple[RunSpec, ...], list[Answer], list[float]]:
        """The runs that a round lacks, each finished round's answer, and how far each moved."""
        weights = paired_trial.baseline_shares(problem, self.reference)
        answers: list[Answer] = []
        changes: list[float] = []
        for _ in range(self.rounds):
            reference = problem.spec(weights.tolist(), FIRST_SEED)
            if missing := paired_trial.missing_specs(history, (reference,)):
                return missing, answers, changes
            paired_trial.require_runs(history, (reference,), "reference run")
            controller = self.controller((), tuple(map(float, reference.weights)))
            specs = self.seeded(problem, controller, reference.fingerprint)
            if missing := paired_trial.missing_specs(history, specs):
                return missing, answers, changes
            runs = paired_trial.require_runs(history, specs, self.runs_are)
            answers.append(average_runs(problem, runs, 1))
            changes.append(float(np.abs(answers[-1].weights - weights).max()))
            weights = answers[-1].weights
            if changes[-1] <= self.tolerance:
                break
        return (), answers, changes

    def _judged(self, answer: Answer, changes: list[float]) -> Answer:
        """The last answer, with what the rounds say of it."""
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
