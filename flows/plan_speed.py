"""How fast a study's proxies will train: from the store's runs, or from a second tried here."""

from collections.abc import Iterable

import numpy as np

from cuvee.flows.execution.budget import tokens_per_second
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import Outcome, RunResult
from cuvee.proxies import ladder
from cuvee.proxies.data.objects import within
from cuvee.proxies.train import batching, device
from cuvee.proxies.train.branching import BranchPlan
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.prepared import Prepared

OWN, TRIED = "measured on earlier runs of this size", "measured for a second on this machine"
UNKNOWN = "not known before a first run of this trainer"


def measure_rate(
    recipe: Recipe, prepared: Prepared, problem: Problem, home: Workspace, store: Store
) -> float:
    """Tokens per second and core of the recipe's proxies, by training a pack for a second here.

    0 where the store holds runs of their size, whose speed is known, and for another trainer, which
    cannot be tried for a second.
    """
    proxy = problem.proxy
    if proxy.trainer or tokens_per_second(
        runs_of_cost(store.outcomes(), proxy.size, prepared.corpus.vocabulary)
    ):
        return 0.0
    from cuvee.tasks.train_pack import training_speed  # torch, which nothing else in a plan needs

    shares = tuple(map(float, problem.domains.uniform))
    where = "cuda" if recipe.proxy.device != "cpu" and device.has_gpu() else "cpu"
    count = recipe.proxy.pack or batching.pack_limit(
        problem.proxy.size, where, prepared.corpus.vocabulary
    )
    job = PackJob(
        specs=tuple(problem.spec(shares, recipe.seed + k) for k in range(count)),
        corpus=str(prepared.corpus.root),
        suite=prepared.suite,
        checkpoints="",
        device=where,
        branch=BranchPlan(starts=str(within(home.checkpoints, "starts"))),
    )
    return training_speed(job)


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
