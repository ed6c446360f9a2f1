"""Ladder steps: the runs of one size and number of tokens in a study of several."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import History, RunResult, finished_runs, score_table
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.mixtures.scaling import ScalingRuns


@dataclass(frozen=True)
class LadderStep:
    """A size, the tokens that its models are trained on, and how many mixtures are tried.

    Attributes:
        size: a step of the ladder.
        tokens: per run.
        runs: mixtures.
        repeats: runs beside these, which repeat mixtures over seeds.
    """

    size: str
    tokens: int
    runs: int
    repeats: int = 0


def at_step(problem: Problem, step: LadderStep) -> Problem:
    """The problem with a step's size and tokens as its proxy."""
    return replace(problem, proxy=replace(problem.proxy, size=step.size, tokens=step.tokens))


def in_step(problem: Problem, spec: RunSpec, step: LadderStep) -> bool:
    """Whether a run is one of a fixed mixture at a step, on the problem's data."""
    if len(spec.stages) != 1 or spec.controller or spec.domains != problem.domains.names:
        return False
    return spec == problem.spec(spec.stages[0].weights, spec.seed, step.size, step.tokens)


def step_runs(problem: Problem, history: History, step: LadderStep) -> tuple[RunResult, ...]:
    """The finished runs of a step."""
    return tuple(run for run in finished_runs(history) if in_step(problem, run.spec, step))


def scaling_runs(problem: Problem, history: History, steps: Sequence[LadderStep]) -> ScalingRuns:
    """The runs of all steps as a scaling law sees them.

    The points of a run's curve are rows of its own group, where they hold every target. Before the
    decay of a schedule, or before what is averaged, they are `stable` (see `ScalingRuns`).

    A score's noise is the deviation over seeds of the step itself, or of the first step where the
    step has no repeats, in proportion to the score.

    Raises:
        EvidenceError: a run lacks a target, or nothing has finished.
        RecipeError: the problem does not know a size's parameters.
    """
    own = [(step, run) for step in steps for run in step_runs(problem, history, step)]
    W, Y, _ = score_table(tuple(run for _, run in own), problem.targets)
    sizes = np.array([problem.parameters(step.size) for step, _ in own], dtype=np.float64)
    noise, first = np.zeros_like(Y), np.zeros(Y.shape[1])
    for step in steps:
        rows = np.array([r is step for r, _ in own])
        if not rows.any():
            continue
        sd, degrees = diagnostics.pooled_deviation(Y[rows], simplex.group_rows(W[rows]))
        relative = sd / Y[rows].mean(axis=0) if degrees else first
        first = relative if step is steps[0] else first
        noise[rows] = relative * Y[rows]
    tokens = np.array([step.tokens for step, _ in own], dtype=np.float64)
    along = [
        (i, float(seen), [scores[name] for name in problem.targets])
        for i, (step, run) in enumerate(own)
        for seen, scores in run.points
        if seen < step.tokens and all(name in scores for name in problem.targets)
    ]
    rows = np.array([*range(len(own)), *(i for i, _, _ in along)])
    on_the_way = np.arange(len(rows)) >= len(own)
    values = np.vstack([Y, *(np.array([scores]) for _, _, scores in along)])
    apart = problem.proxy.schedule != "constant" or problem.proxy.average > 0
    return ScalingRuns(
        W=W[rows],
        parameters=sizes[rows],
        tokens=np.concatenate([tokens, [seen for _, seen, _ in along]]),
        Y=values,
        noise=(noise / Y)[rows] * values,
        groups=rows,
        stable=on_the_way if along and apart else None,
        available=_available(problem, W, tokens),
        names=tuple(f"{run.spec.fingerprint[:12]} ({step.size})" for step, run in own),
    )


def _available(problem: Problem, W: Array, tokens: Array) -> Array | None:
    """Tokens that exist of each domain (K,), by which a law counts repeats.

    None where runs repeat something else: a part of each domain, to match the full run, or a sample
    that is smaller than what they drew from it.
    """
    domains = problem.domains
    drawn = (W * tokens[:, None]).max(axis=0)
    repeated = (domains.stored < domains.tokens) & (drawn > domains.stored)
    return None if problem.proxy.repetition < 1.0 or repeated.any() else domains.tokens
