"""Moving: what methods under controllers share.

They ask for what they are made of, for a trial of their answer (`mixtures.methods.trial`), and
average the weights that controllers gave. All is a function of the history alone.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.controllers import Controller, dump_controller
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.inference.weight_warnings import unit_warnings, weight_warnings
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs import Failed, History, RunResult, RunSpec, Stage, finished_runs

FIRST = 0  # first seed; the same as a swarm's, so that their runs are shared in a store
BASELINES = ("natural", "uniform")


def check(*, seeds: int, trials: int, stages: int = 1) -> None:
    """Hold the numbers that these methods share to their range.

    Raises:
        RecipeError: one is out of it.
    """
    if seeds < 2 or trials < 2 or stages < 1:
        raise RecipeError(
            "intervals need seeds >= 2 and trials >= 2, and an answer has stages >= 1; "
            f"got {seeds}, {trials} and {stages}"
        )


def measurable(problem: Problem) -> tuple[str, ...]:
    """The objective's targets that can be followed while a proxy trains: all but tasks.

    If it has tasks only, every target of the study that is not one.

    Raises:
        RecipeError: the study measures nothing but tasks.
    """
    wanted = [t for t in problem.objective.targets if not t.startswith("task/")]
    found = tuple(wanted or [t for t in problem.targets if not t.startswith("task/")])
    if not found:
        raise RecipeError(
            "this method follows held-out text while it trains, and the study measures tasks only: "
            f"{', '.join(problem.targets)}"
        )
    return found


def fixed(problem: Problem, weights: Array, seed: int) -> RunSpec:
    """The spec of a run at fixed shares (K,)."""
    return problem.spec(weights.tolist(), seed)


def controlled(
    problem: Problem, controller: Controller, start: Array, seed: int, reference: str = ""
) -> RunSpec:
    """The spec of a run under a controller."""
    return dataclasses.replace(
        fixed(problem, start, seed), controller=dump_controller(controller), reference=reference
    )


def baselines(problem: Problem, trials: int) -> tuple[RunSpec, ...]:
    """Runs of the natural and uniform mixtures under the seeds of a trial."""
    shares = (problem.domains.natural, problem.domains.uniform)
    return tuple(fixed(problem, w, FIRST + s) for w in shares for s in range(trials))


def lacking(history: History, specs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    """The specs that a history has no outcome for, each once. A failed run is an outcome."""
    known = {run.spec.fingerprint for run in history}
    unique = {spec.fingerprint: spec for spec in specs}
    return tuple(spec for name, spec in unique.items() if name not in known)


def results(history: History, specs: Iterable[RunSpec], what: str) -> tuple[RunResult, ...]:
    """The finished runs of specs, in the order of the specs.

    Raises:
        EvidenceError: none finished; names `what` they were for.
    """
    known = {run.spec.fingerprint: run for run in finished_runs(history)}
    found = tuple(known[s.fingerprint] for s in specs if s.fingerprint in known)
    if not found:
        reasons = sorted({run.reason for run in history if isinstance(run, Failed)})
        raise EvidenceError(
            f"no {what} finished, so the method cannot go on: "
            f"{'; '.join(reasons[:3]) or 'none was trained'}"
        )
    return found


def stretches(run: RunResult, count: int) -> Array:
    """Mean weights (count, K) of a controlled run in equal stretches of its tokens.

    Raises:
        EvidenceError: the run has no trajectory.
    """
    if not run.trajectory:
        raise EvidenceError(
            f"run {run.spec.fingerprint[:12]} has no trajectory of weights, so it was not trained "
            "under its controller; remove its result and train it again"
        )
    total = float(sum(run.tokens) or run.spec.tokens)
    begins = np.array([tokens for tokens, _ in run.trajectory], dtype=np.float64)
    ends = np.append(begins[1:], total)
    weights = np.array([w for _, w in run.trajectory])
    rows = []
    for i in range(count):
        low, high = total * i / count, total * (i + 1) / count
        length = np.clip(np.minimum(ends, high) - np.maximum(begins, low), 0.0, None)
        rows.append(simplex.normalized(length @ weights))
    return np.array(rows)


@dataclass(frozen=True, eq=False)
class Answer:
    """What controlled runs, or anything else that gives one answer per seed, say.

    Attributes:
        samples: mixture of each seed (S, K), averaged over its run.
        stages: feasible mixtures over time.
        alarms: what is wrong with it; a reader must see them first.
        notes: what else a reader must know.
        trajectory: of the first run.
    """

    samples: Array
    stages: tuple[Stage, ...]
    alarms: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    trajectory: tuple[tuple[int, tuple[float, ...]], ...] = ()

    @property
    def weights(self) -> Array:
        """The feasible mixture (K,) over the whole run."""
        return np.asarray(sum(np.asarray(s.weights) * s.share for s in self.stages))


def answered(problem: Problem, runs: Sequence[RunResult], count: int) -> Answer:
    """The answer of controlled runs: the mean over seeds of their weights, within constraints."""
    parts = np.array([stretches(run, count) for run in runs])  # (S, count, K)
    mean = parts.mean(axis=0)
    stages = tuple(
        Stage(tuple(map(float, problem.constraints.project(row))), 1.0 / count) for row in mean
    )
    samples = parts.mean(axis=1)
    start = np.asarray(runs[0].spec.stages[0].weights)
    last = np.array([run.trajectory[-1][1] for run in runs])
    found = Answer(
        samples=samples,
        stages=stages,
        alarms=weight_warnings(problem.domains, start, samples, last),
        trajectory=runs[0].trajectory,
    )
    moved = float(np.abs(found.weights - samples.mean(axis=0)).max())
    notes = unit_warnings(problem.domains, found.weights)
    if moved > 1e-6:
        notes += (
            f"the weights that the runs gave break a constraint; the nearest feasible ones are "
            f"taken (largest change of a share {moved:.3f})",
        )
    return dataclasses.replace(found, notes=notes)


def trial(problem: Problem, stages: tuple[Stage, ...], trials: int) -> tuple[RunSpec, ...]:
    """Runs of an answer under the seeds of a trial."""
    specs = (fixed(problem, problem.domains.uniform, FIRST + s) for s in range(trials))
    if len(stages) == 1:
        return tuple(problem.spec(stages[0].weights, spec.seed) for spec in specs)
    return tuple(dataclasses.replace(spec, stages=stages) for spec in specs)
