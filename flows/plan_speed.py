"""How fast a study's proxies will train: from the store's runs, or from a second tried here."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence

import numpy as np

from cuvee.flows.execution.budget import tokens_per_second
from cuvee.flows.execution.pack_resources import (
    most_models,
    refused_memory,
    run_memory,
    usable_memory,
)
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.multiscale.steps import LadderStep
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import Outcome, RunResult
from cuvee.mixtures.units import bytes_text
from cuvee.proxies import ladder
from cuvee.proxies.data.objects import within
from cuvee.proxies.train import batching, device
from cuvee.proxies.train.branching import BranchPlan
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.prepared import Prepared

OWN, TRIED = "measured on earlier runs of this size", "measured for a second on this machine"
UNKNOWN = "not known before a first run of this size or trainer"
LONG_STEP = 5e12  # FLOPs: a minute of a core


def measure_rate(
    recipe: Recipe, prepared: Prepared, problem: Problem, home: Workspace, store: Store
) -> float:
    """Tokens per second and core of the recipe's proxies, by training a pack for a second here.

    0 where the store holds runs of their size, whose speed is known, and where a second is not
    enough: for another trainer, for a cluster that may have GPUs, and for a step that this machine
    cannot hold or finish soon.
    """
    proxy = problem.proxy
    if proxy.trainer or tokens_per_second(
        runs_of_cost(store.outcomes(), proxy.size, prepared.corpus.vocabulary)
    ):
        return 0.0
    from cuvee.tasks.train_pack import training_speed  # torch, which nothing else in a plan needs

    where = device.training_device(recipe.proxy.device)
    if planned_devices(recipe.proxy.device) != [where]:
        return 0.0
    shares, vocabulary = tuple(map(float, problem.domains.uniform)), prepared.corpus.vocabulary
    here, run = device.this_device(where), problem.spec(shares, recipe.seed)
    plan = ladder.training_plan(proxy.size, proxy.tokens, vocabulary)
    slow = where == "cpu" and plan.flops / plan.steps > LONG_STEP
    if slow or run_memory(run, vocabulary, where).total > usable_memory(here):
        return 0.0
    wish = recipe.proxy.pack or batching.pack_limit(proxy.size, where, vocabulary)
    count = min(wish, most_models(run, vocabulary, here))
    specs = tuple(problem.spec(shares, recipe.seed + k) for k in range(count))
    job = PackJob(
        specs=specs,
        corpus=str(prepared.corpus.root),
        suite=prepared.suite,
        checkpoints="",
        device=where,
        branch=BranchPlan(starts=str(within(home.checkpoints, "starts"))),
    )
    return training_speed(job)


def memory_sentences(
    recipe: Recipe, problem: Problem, vocabulary: int, steps: Sequence[LadderStep]
) -> list[str]:
    """What a proxy of each size takes of a device, and whether this machine's have it.

    On a cluster nobody is asked before the run begins, which refuses what fits nowhere.
    """
    if recipe.proxy.trainer:
        return []
    lines, places = [], planned_devices(recipe.proxy.device)
    confirmed = recipe.confirm.sizes if recipe.confirm else ()
    sizes = {problem.proxy.size: problem.proxy.tokens}
    sizes |= {step.size: step.tokens for step in (*steps, *confirmed)}
    run = problem.spec(tuple(map(float, problem.domains.uniform)), recipe.seed)
    for (size, tokens), where in itertools.product(sizes.items(), places):
        spec = dataclasses.replace(run, size=size, tokens=tokens)
        needed = run_memory(spec, vocabulary, where)
        lines.append(
            f"Memory: a proxy of size {size} takes {bytes_text(needed.total)} of a "
            f"{'GPU' if where == 'cuda' else 'machine for each core'} while it trains "
            f"({bytes_text(needed.state)} of it parameters, gradients and moments)"
        )
        own = None if os.environ.get("RAY_ADDRESS") else device.this_device(where)
        if own and needed.total > usable_memory(own):
            lines.append(
                f"`cuvee run` will refuse: {refused_memory(size, needed, own, vocabulary)}"
            )
    return lines


def planned_devices(wish: str) -> list[str]:
    """Where a study may train, "cpu" or "cuda": a cluster is not asked before the run begins."""
    if os.environ.get("RAY_ADDRESS"):
        return ["cpu", "cuda"] if wish == "auto" else [wish]
    return [device.training_device(wish)]


def expected_speed(
    store: Store, plan: ladder.TrainingPlan, vocabulary: int, tried: float, trainer: str = ""
) -> tuple[float, str]:
    """Tokens per second and core at a size, and where that is from.

    A size that was never trained is taken to do as many FLOPs per second as the sizes that were,
    which larger matrices beat and more memory may not.

    Args:
        store: of results, whose speed goes before.
        plan: of a training at the size.
        vocabulary: tokens of the tokenizer.
        tried: what a trial on this machine gave for the size; 0 where none was needed.
        trainer: identity of what trains; 0 is given where it has trained nothing.
    """
    runs = [run for run in store.outcomes() if run.spec.trainer == trainer]
    own = tokens_per_second(runs_of_cost(runs, plan.model_size.size, vocabulary, trainer))
    if own:
        return own, OWN
    if tried:
        return tried, TRIED
    rates: dict[str, list[float]] = {}
    for run in runs:
        if isinstance(run, RunResult) and run.seconds > 0:
            rates.setdefault(run.spec.size, []).append(run.flops / run.seconds)
    if not rates:
        return 0.0, UNKNOWN
    guess = float(np.median([np.median(of_size) for of_size in rates.values()]))
    return guess / plan.model_size.flops(1, vocabulary), "from the FLOPs of other sizes"


def runs_of_cost(
    outcomes: Iterable[Outcome], size: str, vocabulary: int, trainer: str = ""
) -> list[Outcome]:
    """Runs whose every token cost what it does at a size and a vocabulary, to a twentieth.

    A run of fewer tokens than its spec asks for, by less than a step, is among them. Runs of
    another trainer count their own FLOPs.
    """
    each = ladder.model_size(size).flops(1, vocabulary)
    return [
        run
        for run in outcomes
        if isinstance(run, RunResult)
        and (run.spec.size, run.spec.trainer) == (size, trainer)
        and (bool(trainer) or 0.94 < run.flops / (run.spec.tokens * each) < 1.06)
    ]
