"""The ladder of a recipe on its own corpus: its largest rung is trained only to check the others.

The recipe's ladder without its largest rung recommends for that rung's size and tokens. Then the
largest rung is trained, and the recommended mixture beside it: rank correlation of the objective
between sizes, the back-test of the laws, and how much worse the recommended mixture is than the
best of the largest rung.
"""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.mixtures import loop
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.inference.diagnostics import decision_accuracy, spearman
from cuvee.mixtures.methods.ladder import Ladder
from cuvee.mixtures.multiscale.steps import LadderStep, step_runs
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import History, RunResult, score_table

SEED = 0  # of the runs that are compared, the design's own


def measured(recipe: Path, home: Path) -> dict[str, Any]:
    """The corpus's keys of the last line.

    Raises:
        RecipeError: the recipe is no ladder of at least two rungs.
    """
    from cuvee.flows.workspace import QUIET

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)  # before Prefect is imported
    import fresh

    from cuvee.flows.recipe.load import load_recipe
    from cuvee.flows.workspace import Workspace

    given, _ = load_recipe(recipe)
    method = given.build_method().method
    if not isinstance(method, Ladder) or len(method.rungs) < 2:
        raise RecipeError(f"{recipe} is no ladder of at least two rungs beside its first")
    setting = fresh.bench(
        recipe, Workspace(home.resolve()), size=given.proxy.size, tokens=given.proxy.tokens,
        held_out=given.evaluation.heldout_tokens,
    )  # fmt: skip
    steps = method.steps(setting.problem)
    small, problem = aimed(method, setting.problem, steps[-1])
    answer, _ = loop.search(small, problem, setting.train, setting.seed)
    print(f"recommended by {answer.scale.chosen}: {shares(problem, answer.weights)}", flush=True)
    whole, history = loop.search(method, problem, setting.train, setting.seed)
    found = figures(problem, history, steps, whole)
    spec = problem.spec(answer.weights, SEED, steps[-1].size, steps[-1].tokens)
    (outcome,) = setting.train([spec])
    return {**found, "regret": regret(problem, history, steps[-1], outcome)}


def aimed(method: Ladder, problem: Problem, top: LadderStep) -> tuple[Ladder, Problem]:
    """The ladder without its largest rung, for an answer at that rung's scale."""
    parameters = problem.parameters(top.size)
    task = replace(problem, full_parameters=parameters, full_tokens=top.tokens)
    return replace(method, rungs=method.rungs[:-1]), task


def figures(
    problem: Problem, history: History, steps: tuple[LadderStep, ...], whole: Any
) -> dict[str, Any]:
    """Rank transfer between sizes and the back-test of the laws on the largest."""
    transfer = {}
    last = levels(problem, history, steps[-1])
    for rung in steps[:-1]:
        own = levels(problem, history, rung)
        both = [key for key in last if key in own]
        pair = np.array([[own[key], last[key]] for key in both])
        transfer[f"{rung.size} to {steps[-1].size}"] = {
            "spearman": spearman(pair[:, 1], pair[:, 0]),
            "decision_accuracy": decision_accuracy(pair[:, 1], pair[:, 0]),
            "mixtures": len(both),
        }
        print(f"{rung.size} to {steps[-1].size}: {transfer[f'{rung.size} to {steps[-1].size}']}",
              flush=True)  # fmt: skip
    trials = {trial.law: trial for trial in whole.scale.trials}
    for trial in trials.values():
        print(
            f"{trial.law}: decision accuracy {trial.decision_accuracy:.3f}, gain {trial.gain:+.3f} "
            f"({trial.low:+.3f} to {trial.high:+.3f}), Spearman {trial.spearman:.3f}, error "
            f"{trial.error:.4f} {trial.refused}",
            flush=True,
        )
    print(whole.scale.verdict, flush=True)
    accuracy = {n: None if t.refused else t.decision_accuracy for n, t in trials.items()}
    return {"rank_transfer": transfer, "decision_accuracy": accuracy}


def levels(problem: Problem, history: History, rung: LadderStep) -> dict[tuple[float, ...], float]:
    """Objective of each mixture of a rung under the design's seed."""
    runs = [run for run in step_runs(problem, history, rung) if run.spec.seed == SEED]
    _, Y, _ = score_table(tuple(runs), problem.targets)
    found = problem.objective.scalarize(problem.targets, Y.mean(axis=0)).relaxed(Y)
    return {run.spec.stages[0].weights: float(x) for run, x in zip(runs, found, strict=True)}


def regret(problem: Problem, history: History, top: LadderStep, outcome: Any) -> float | None:
    """Objective of the recommended mixture at the largest size minus the best of its rung."""
    if not isinstance(outcome, RunResult):
        print(f"the recommended mixture failed at {top.size}: {outcome.reason}", flush=True)
        return None
    every = levels(problem, (*history, outcome), top)
    mine = every.pop(outcome.spec.stages[0].weights)
    print(f"recommended at {top.size}: {mine:.4f}, best of the rung {min(every.values()):.4f}",
          flush=True)  # fmt: skip
    return mine - min(every.values())


def shares(problem: Problem, weights: Any) -> str:
    """Shares in words."""
    pairs = zip(problem.domains.names, weights, strict=True)
    return ", ".join(f"{name} {w:.1%}" for name, w in pairs if w >= 0.005)
