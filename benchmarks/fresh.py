"""Answers of methods on a real corpus, trained fresh at a larger size: resumable, a run per core.

Every run is kept in a home's store as soon as it is there, and one under way in its checkpoints, so
that a comparison that was stopped goes on where it was. Nothing but the trainer and the scorer of a
study's workers is used: no Ray, no server. The scores are the objective's own targets and every
domain's held-out text.
"""

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from contenders import BASELINES, Answer, Budget, answer, baselines, configured

from cuvee.flows.recipe.load import load_recipe
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import prepare as preparing
from cuvee.flows.study.confirm import fresh_seeds
from cuvee.flows.workspace import QUIET, Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.controllers import required_runs
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import Outcome, RunResult, score_table
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies import ladder
from cuvee.proxies.data.objects import remove_folder
from cuvee.proxies.train import branching
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.prepared import Prepared
from cuvee.tasks.train_pack import run_pack

Trained = Callable[[Sequence[RunSpec]], Sequence[Outcome]]
Scores = dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Fresh:
    """How answers are trained.

    Attributes:
        size: a step of the ladder above that of the proxies.
        tokens: of each run.
        seeds: that no proxy has; answers are paired by them.
    """

    size: str
    tokens: int
    seeds: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Bench:
    """A recipe's problem and what trains for it.

    Attributes:
        problem: the recipe's, at the size and length of the proxies.
        train: trains and scores runs, or finds them in the store.
        seed: of every random choice of the methods.
    """

    problem: Problem
    train: Trained
    seed: int

    @property
    def budget_steps(self) -> int:
        """Steps of a proxy."""
        proxy = self.problem.proxy
        plan = ladder.training_plan(proxy.size, proxy.tokens, 1024, schedule=proxy.schedule)
        return int(plan.steps)


class Keeper:
    """Trains runs, one process per core, and keeps each: the `evaluate` of this comparison."""

    def __init__(self, prepared: Prepared, home: Workspace) -> None:
        self._prepared, self._store, self._home = prepared, Store(home.store), home
        self._cores = len(os.sched_getaffinity(0))
        self._pool: ProcessPoolExecutor | None = None
        self.trained = 0

    def __call__(self, specs: Sequence[RunSpec]) -> tuple[Outcome, ...]:
        missing = [s for s in dict.fromkeys(specs) if self._store.get(s.fingerprint) is None]
        trunks = self._home.checkpoints / "trunks"
        waiting = branching.plan_packs(missing, trunks)
        running: dict[Future[list[Outcome]], branching.PlannedPack] = {}
        while waiting or running:
            coming = {n for batch in (*waiting, *running.values()) for n in batch.branch.keep}
            ready = [batch for batch in waiting if not coming & set(batch.branch.needs)]
            for batch in ready[: self._cores - len(running)]:
                waiting.remove(batch)
                running[self._submit(self._job(batch))] = batch
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                self._keep(running.pop(done), done.result())
        remove_folder(trunks)
        found = [self._store.get(spec.fingerprint) for spec in specs]
        return tuple(run for run in found if run is not None)

    def _job(self, batch: branching.PlannedPack) -> PackJob:
        wanted = [self._store.get(name) for spec in batch.specs for name in required_runs(spec)]
        return PackJob(
            specs=batch.specs,
            corpus=str(self._prepared.corpus.root),
            suite=self._prepared.suite,
            checkpoints="",
            limits=self._prepared.limits,
            references=tuple(run.spec for run in wanted if run is not None),
            models=str(self._home.checkpoints / "references"),
            branch=batch.branch,
        ).at(self._home.checkpoints)

    def _submit(self, job: PackJob) -> "Future[list[Outcome]]":
        """In a process of its own where there are cores for several."""
        if self._cores == 1:
            done: Future[list[Outcome]] = Future()
            done.set_result(_train(job))
            return done
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._cores, mp_context=get_context("spawn"))
        return self._pool.submit(_train, job)

    def _keep(self, batch: branching.PlannedPack, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self._store.put(outcome)
            self.trained += 1
        remove_folder(Path(self._job(batch).checkpoints))


def _train(job: PackJob) -> list[Outcome]:
    return list(run_pack(job, lambda _: None))


def quiet_home(out: Path) -> Workspace:
    """The home of a program that trains: `CUVEE_HOME`, else one beside what it writes; one thread,
    and nothing that reports home."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    torch.set_num_threads(1)
    return Workspace(Path(os.environ.get("CUVEE_HOME", out / "home")).resolve())


def bench(path: Path, home: Workspace, *, size: str, tokens: int, held_out: int) -> Bench:
    """The problem of a recipe at a size and length, scored on what its objective names.

    The corpus is the recipe's own, decontaminated against all of its benchmarks.

    Args:
        path: of the recipe.
        home: where corpora, results and checkpoints are.
        size: of the proxies.
        tokens: of each proxy.
        held_out: tokens of each domain that are scored.
    """
    recipe, _ = load_recipe(path)
    recipe = recipe.model_copy(
        update={
            "proxy": recipe.proxy.model_copy(update={"size": size, "tokens": tokens}),
            "evaluation": recipe.evaluation.model_copy(update={"heldout_tokens": held_out}),
        }
    )
    prepared = preparing.prepare(recipe, home)
    prepared = dataclasses.replace(prepared, suite=_narrowed(recipe, prepared))
    return Bench(preparing.pose_problem(recipe, prepared), Keeper(prepared, home), recipe.seed)


def _narrowed(recipe: Recipe, prepared: Prepared) -> Any:
    """The recipe's tasks that its objective names."""
    wanted = set(recipe.build_objective().targets)
    suite = prepared.suite
    tasks = tuple(task for task in suite.tasks if f"task/{task.removesuffix('_offline')}" in wanted)
    return dataclasses.replace(suite, tasks=tasks)


def compared(
    names: Sequence[str], runs: int, setting: Bench, fresh: Fresh
) -> Iterator[tuple[str, Answer, Scores]]:
    """Each answer with its fresh scores, the baselines first, as soon as they are there."""
    problem = setting.problem
    natural: list[RunResult] = []
    for name, found in baselines(problem).items():
        outcomes = trained(found, name, setting, fresh)
        natural = natural or outcomes
        yield name, found, _scores(problem, outcomes, natural)
    budget = Budget(runs, len(problem.domains), setting.budget_steps, scheduled=True)
    for name in dict.fromkeys((BASELINES[-1], *names)):
        began = time.monotonic()
        method = configured(name, budget)
        found = answer(*loop.search(method, problem, setting.train, setting.seed))
        spent = time.monotonic() - began
        print(f"{name}: {found.runs} runs, {found.flops:.2e} FLOPs, {spent:.0f} s", flush=True)
        yield name, found, _scores(problem, trained(found, name, setting, fresh), natural)


def trained(found: Answer, name: str, setting: Bench, fresh: Fresh) -> list[RunResult]:
    """Runs of an answer: its stages as they are, if it is a schedule."""
    specs = [
        setting.problem.staged(found.stages, seed, fresh.size, fresh.tokens) for seed in fresh.seeds
    ]
    outcomes = [run for run in setting.train(specs) if isinstance(run, RunResult)]
    if len(outcomes) < len(specs):
        raise SystemExit(f"{len(specs) - len(outcomes)} fresh runs of {name} failed")
    return outcomes


def _scores(
    problem: Problem, outcomes: Sequence[RunResult], natural: Sequence[RunResult]
) -> Scores:
    """By seed: the objective, the worst of its targets, and the mean of all held-out texts."""
    scores = score_table(tuple(outcomes), problem.targets)[1]
    reference = score_table(tuple(natural), problem.targets)[1].mean(axis=0)
    level = problem.objective.scalarize(problem.targets, reference).relaxed(scores)
    own = [problem.targets.index(target) for target in problem.objective.targets]
    texts = [i for i, target in enumerate(problem.targets) if target.startswith("domain/")]
    return {
        "mean": level.tolist(),
        "worst": scores[:, own].max(axis=1).tolist(),
        "even": scores[:, texts].mean(axis=1).tolist(),
    }


def seeds(recipe_seed: int, count: int) -> tuple[int, ...]:
    """Seeds of the fresh runs."""
    return fresh_seeds(recipe_seed, count)
