"""Rungs: the runs of one size and number of tokens in a study of several."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs import History, RunResult, RunSpec, finished_runs, score_table
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


def at_step(problem: Problem, rung: LadderStep) -> Problem:
    """The problem with a rung's size and tokens as its proxy."""
    return replace(problem, proxy=replace(problem.proxy, size=rung.size, tokens=rung.tokens))


def in_step(problem: Problem, spec: RunSpec, rung: LadderStep) -> bool:
    """Whether a run is one of a fixed mixture at a rung, on the problem's data."""
    if len(spec.stages) != 1 or spec.controller or spec.domains != problem.domains.names:
        return False
    return spec == problem.spec(spec.stages[0].weights, spec.seed, rung.size, rung.tokens)


def step_runs(problem: Problem, history: History, rung: LadderStep) -> tuple[RunResult, ...]:
    """The finished runs of a rung."""
    return tuple(run for run in finished_runs(history) if in_step(problem, run.spec, rung))


def scaling_runs(problem: Problem, history: History, rungs: Sequence[LadderStep]) -> ScalingRuns:
    """The runs of all rungs as a scaling law sees them.

    The points of a run's curve are rows of its own group, where they hold every target. Before the
    decay of a schedule, or before what is averaged, they are `stable` (see `ScalingRuns`).

    A score's noise is the deviation over seeds of the rung itself, or of the first rung where the
    rung has no repeats, in proportion to the score.

    Raises:
        EvidenceError: a run lacks a target, or nothing has finished.
        RecipeError: the problem does not know a size's parameters.
    """
    own = [(rung, run) for rung in rungs for run in step_runs(problem, history, rung)]
    W, Y, _ = score_table(tuple(run for _, run in own), problem.targets)
    sizes = np.array([problem.parameters(rung.size) for rung, _ in own], dtype=np.float64)
    noise, first = np.zeros_like(Y), np.zeros(Y.shape[1])
    for rung in rungs:
        rows = np.array([r is rung for r, _ in own])
        if not rows.any():
            continue
        sd, degrees = diagnostics.pooled_deviation(Y[rows], simplex.group_rows(W[rows]))
        relative = sd / Y[rows].mean(axis=0) if degrees else first
        first = relative if rung is rungs[0] else first
        noise[rows] = relative * Y[rows]
    whole = problem.proxy.repetition == 1.0
    tokens = np.array([rung.tokens for rung, _ in own], dtype=np.float64)
    along = [
        (i, float(seen), [scores[name] for name in problem.targets])
        for i, (rung, run) in enumerate(own)
        for seen, scores in run.points
        if seen < rung.tokens and all(name in scores for name in problem.targets)
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
        available=np.array([d.tokens for d in problem.domains], dtype=np.float64)
        if whole and all(d.tokens > 0 for d in problem.domains)
        else None,
        names=tuple(f"{run.spec.fingerprint[:12]} ({rung.size})" for rung, run in own),
    )
