"""Paired trial: what the answer of a method without a law is worth, measured.

Beside the runs that it is made of, such a method asks for runs of its answer and of the natural and
uniform mixtures at the study's own size, under the same seeds; its gains are their paired
differences. The intervals on the shares are those of the mean over the seeds of the controlled run
(Student's t), not over refits of a law.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.objectives import Scalarized
from cuvee.mixtures.problem import FIRST_SEED, Problem
from cuvee.mixtures.recommendation import LEVEL, Candidate, Estimate, Recommendation
from cuvee.mixtures.registry import describe
from cuvee.mixtures.runs.run_results import Failed, History, RunResult, finished_runs
from cuvee.mixtures.runs.run_spec import RunSpec, Stage, canonical_json

RECOMMENDED = "recommended"
BASELINES = ("natural", "uniform")


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


def baseline_shares(problem: Problem, name: str) -> Array:
    """Shares (K,) of a mixture of `BASELINES`."""
    return problem.domains.natural if name == "natural" else problem.domains.uniform


def baseline_specs(problem: Problem, trials: int) -> tuple[RunSpec, ...]:
    """Runs of the baselines, one mixture after the other, under the seeds of a trial."""
    return tuple(
        problem.spec(baseline_shares(problem, name).tolist(), FIRST_SEED + s)
        for name in BASELINES
        for s in range(trials)
    )


def trial_specs(problem: Problem, stages: tuple[Stage, ...], trials: int) -> tuple[RunSpec, ...]:
    """Runs of an answer under the seeds of a trial."""
    seeds = range(FIRST_SEED, FIRST_SEED + trials)
    if len(stages) == 1:
        return tuple(problem.spec(stages[0].weights, seed) for seed in seeds)
    return tuple(problem.staged(stages, seed) for seed in seeds)


def missing_specs(history: History, specs: Iterable[RunSpec]) -> tuple[RunSpec, ...]:
    """The specs that a history has no outcome for, each once. A failed run is an outcome."""
    known = {run.spec.fingerprint for run in history}
    unique = {spec.fingerprint: spec for spec in specs}
    return tuple(spec for name, spec in unique.items() if name not in known)


def runs_of(history: History, specs: Iterable[RunSpec]) -> tuple[RunResult, ...]:
    """The finished runs of specs, in the order of the specs."""
    known = {run.spec.fingerprint: run for run in finished_runs(history)}
    return tuple(known[s.fingerprint] for s in specs if s.fingerprint in known)


def require_runs(history: History, specs: Iterable[RunSpec], what: str) -> tuple[RunResult, ...]:
    """As `runs_of`, where a method cannot go on without.

    Raises:
        EvidenceError: none finished; names `what` they were for.
    """
    found = runs_of(history, specs)
    if not found:
        reasons = sorted({run.reason for run in history if isinstance(run, Failed)})
        raise EvidenceError(
            f"no {what} finished, so the method cannot go on: "
            f"{'; '.join(reasons[:3]) or 'none was trained'}"
        )
    return found


def conclude_trial(
    method: Any,
    problem: Problem,
    history: History,
    answer: Answer,
    others: Mapping[str, Sequence[RunSpec]] | None = None,
) -> Recommendation:
    """A recommendation from an answer and its trial.

    Args:
        method: whose answer it is; its field `trials` counts the seeds of the trial.
        problem: what was asked.
        history: holds the trial's runs.
        answer: the method's.
        others: further mixtures that were run under the same seeds, by name.

    Raises:
        EvidenceError: no run of the answer or of the natural mixture finished.
    """
    baselines = baseline_specs(problem, method.trials)
    named = {
        RECOMMENDED: trial_specs(problem, answer.stages, method.trials),
        "natural": baselines[: method.trials],
        "uniform": baselines[method.trials :],
        **(others or {}),
    }
    for name in (RECOMMENDED, "natural"):
        require_runs(history, named[name], f"run of the {name} mixture")
    runs = {name: runs_of(history, specs) for name, specs in named.items()}
    values = {name: run_scores(found, problem) for name, found in runs.items() if found}
    scalar = problem.objective.scalarize(problem.targets, values["natural"].mean(axis=0))
    gains, unpaired = _gains(runs, scalar, problem)
    every = list({run.spec.fingerprint: run for found in runs.values() for run in found}.values())
    fixed = [run for run in every if len(run.spec.stages) == 1]
    W = np.array([run.spec.weights for run in fixed])
    draft = Recommendation(
        domains=problem.domains.names,
        targets=problem.targets,
        stages=answer.stages,
        intervals=_intervals(answer),
        candidates=tuple(
            measured_candidate(name, named[name][0].weights, found, scalar)
            for name, found in values.items()
        ),
        gains=gains,
        noise=diagnostics.noise_floor(W, run_scores(fixed, problem), problem.targets, scalar),
        active=problem.constraints.active(answer.weights),
        epochs=tuple(map(float, problem.domains.epochs(answer.weights, problem.full_tokens))),
        evidence=tuple(run.spec.fingerprint for run in finished_runs(history)),
        failed=sum(isinstance(run, Failed) for run in history),
        method=canonical_json(describe(method)),
        trajectory=answer.trajectory,
    )
    return _judged(draft, answer, unpaired)


def run_scores(runs: Sequence[RunResult], problem: Problem) -> Array:
    """Scores (n, M) of runs."""
    return np.array([[run.scores[t].value for t in problem.targets] for run in runs])


def _intervals(answer: Answer) -> tuple[tuple[float, float], ...]:
    return tuple(
        (max(0.0, min(e.low, w)), min(1.0, max(e.high, w)))
        for e, w in (
            (student_interval(answer.samples[:, k]), float(answer.weights[k]))
            for k in range(answer.samples.shape[1])
        )
    )


def student_interval(values: Array) -> Estimate:
    """The mean of values with Student's interval at `LEVEL`; one value is its own interval."""
    mean = float(values.mean())
    if len(values) < 2:
        return Estimate(mean, mean, mean)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, len(values) - 1) * stats.sem(values))
    return Estimate(mean, mean - half, mean + half)


def measured_candidate(name: str, weights: Array, values: Array, scalar: Scalarized) -> Candidate:
    """A mixture (K,) by the scores (n, M) of its runs."""
    return Candidate(
        name=name,
        weights=tuple(map(float, weights)),
        objective=student_interval(scalar.relaxed(values)),
        targets=tuple(student_interval(values[:, m]) for m in range(values.shape[1])),
    )


def _gains(
    runs: Mapping[str, Sequence[RunResult]], scalar: Scalarized, problem: Problem
) -> tuple[tuple[tuple[str, Estimate], ...], tuple[str, ...]]:
    """Gains over every other mixture, paired by seed; and the names that had fewer than 2 pairs."""

    def levels(name: str) -> dict[int, float]:
        found = runs[name]
        values: list[float] = scalar.relaxed(run_scores(found, problem)).tolist() if found else []
        return {run.spec.seed: float(v) for run, v in zip(found, values, strict=True)}

    ours, gains, unpaired = levels(RECOMMENDED), [], []
    for name in runs:
        if name == RECOMMENDED:
            continue
        theirs = levels(name)
        pairs = [theirs[seed] - ours[seed] for seed in sorted(ours.keys() & theirs.keys())]
        if len(pairs) < 2:
            unpaired.append(name)
            continue
        gain = diagnostics.paired_mean(pairs)
        gains.append((name, Estimate(gain.mean, gain.low, gain.high)))
    return tuple(gains), tuple(unpaired)


def _judged(draft: Recommendation, answer: Answer, unpaired: Sequence[str]) -> Recommendation:
    """The recommendation with its verdict and warnings, alarms first."""
    gain = dict(draft.gains).get("natural")
    warnings = [*answer.alarms, *answer.notes]
    warnings += [f"fewer than two pairs of runs against the {name} mixture" for name in unpaired]
    if draft.failed:
        warnings.append(f"{draft.failed} runs failed and are not part of the evidence")
    if len(answer.samples) < 2:
        warnings.append("one answer only: the shares have no interval")
    warnings.append(
        "no law was fitted: scores and gains are measured, by proxies under paired seeds, and the "
        "intervals on shares are those of the mean over seeds"
    )
    if answer.alarms:
        verdict = "weak: do not use this yet; " + "; ".join(answer.alarms)
    elif gain is None:
        verdict = "draft: the trial has fewer than two pairs of runs against natural"
    elif gain.low == gain.high == 0:
        verdict = "weak: the answer is the natural mixture itself; nothing is gained by it"
    elif gain.low <= 0:
        verdict = (
            f"weak: do not use this yet; the measured gain over natural {gain.mean:.4f} "
            f"[{gain.low:.4f}, {gain.high:.4f}] may be nothing"
        )
    else:
        verdict = (
            f"strong: ready to be confirmed; measured gain over natural {gain.mean:.4f} "
            f"[{gain.low:.4f}, {gain.high:.4f}] bits per byte"
        )
    return dataclasses.replace(draft, verdict=verdict, warnings=tuple(warnings))
