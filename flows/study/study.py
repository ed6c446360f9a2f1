"""Runs one study, in order: prepare, search, confirm, report, record.

`run_study` is a plain function, in whatever process, with whatever executor and tracker; a flow of
Prefect only wraps it. It never learns which method it runs: every one goes through
`mixtures.loop.search`.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.flows.execution.budget import Budget, tokens_per_second
from cuvee.flows.execution.evaluator import Evaluator
from cuvee.flows.execution.executor import Executor
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.recipe.trainer_parts import check_controllers, study_program
from cuvee.flows.study import continual
from cuvee.flows.study.confirm import (
    compared_schedules,
    conclude_confirmation,
    confirmation_count,
    confirmation_runs,
    fresh_seeds,
    train_confirmation,
)
from cuvee.flows.study.finished import set_aside, snapshot
from cuvee.flows.study.live_progress import live_progress
from cuvee.flows.study.prediction import with_remembered
from cuvee.flows.study.prepare import corpus_parts, pose_problem, prepare
from cuvee.flows.study.superseded_runs import superseded_sentences
from cuvee.flows.study.suspicious_items import look_for_benchmarks, with_matches
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop, recommendation
from cuvee.mixtures.errors import BudgetError, EvidenceError, StorageError
from cuvee.mixtures.loop import Strategy
from cuvee.mixtures.methods import Method
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs.run_records import outcome_to_json
from cuvee.mixtures.runs.run_results import History
from cuvee.mixtures.runs.run_spec import RunSpec, canonical_json
from cuvee.proxies import ladder
from cuvee.tasks.extras import installed_versions
from cuvee.tasks.report import page
from cuvee.tasks.store.provenance import code_version
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.study.prepared import Prepared, remember_drawn
from cuvee.tasks.study.study import Study
from cuvee.tasks.study.summary import study_summary
from cuvee.tasks.study.worth import worths_from_untrained
from cuvee.tasks.tracking.fields import study_params
from cuvee.tasks.tracking.mlflow import open_tracker
from cuvee.tasks.tracking.tracker import Tracker
from cuvee.tasks.validation.paired import Confirmation


@dataclasses.dataclass(frozen=True)
class RememberingMethod:
    """A method whose recommendation is kept in the store under everything that determines it.

    `recommend` is a pure function, so what it gave for the same method, problem, history and code
    it gives again.
    """

    method: Strategy
    store: Store
    budget: Budget
    workspace: Workspace

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        """What the method asks for; nothing more once the budget is spent."""
        return () if self.budget.reached else self.method.ask(problem, history, rng)

    def recommend(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> Recommendation:
        """What the method recommends, computed once."""
        key = _key(self.method, problem, history, rng)
        known = self.store.recall("recommendations", key)
        if known is not None:
            return recommendation.revive_recommendation(known)
        with self.workspace.display.step("Fits"):
            fit = self.workspace.step("fit", self.method.recommend)
            fresh: Recommendation = _within(self.budget, fit, problem, history, rng)
        self.store.remember("recommendations", key, fresh.to_json())
        return recommendation.revive_recommendation(json.loads(json.dumps(fresh.to_json())))


@dataclasses.dataclass(frozen=True)
class StudyRun:
    """What came of a study, and what it was made from.

    Attributes:
        study: everything that came of it.
        prepared: what it was trained on and scored.
        complete: whether the budget sufficed.
    """

    study: Study
    prepared: Prepared
    complete: bool


def run_study(
    recipe: Recipe,
    executor: Executor,
    tracker: Tracker,
    workspace: Workspace,
    *,
    text: str,
    note: str = "",
) -> StudyRun:
    """A study from its recipe to its result, of which nothing but runs and fits is kept yet.

    Args:
        recipe: says what is searched, by which method.
        executor: trains; it is let go when nothing more is to be trained.
        tracker: is told of the study and of every run.
        workspace: where the data lie.
        text: of the recipe, YAML.
        note: what a reader of the report must know besides.

    Raises:
        Interrupted: the executor was cancelled.
        CuveeError: what is wrong with the recipe, its data, or its evidence.
    """
    begin, started = time.monotonic(), datetime.datetime.now(datetime.UTC)
    store = Store(workspace.store)  # before text is read: one that cannot be opened is told at once
    with let_go_on_error(executor):
        study_program(recipe, workspace.trainings, workspace.shared)  # one that may not be run
        prepared = prepare(recipe, workspace, executor=executor)
        matches = look_for_benchmarks(recipe, prepared, workspace, executor)
    problem, method = pose_problem(recipe, prepared), recipe.build_method()
    asked = method.ask(problem, (), loop.generator(recipe.seed, 0))
    check_controllers(recipe, asked)
    _begin(recipe, problem, asked, store, workspace)
    params = study_params(text, problem, recipe.seed)
    tracker.start_study(recipe.name, params, {"method": str(recipe.method["name"])})
    with executor, abandoned_on_error(tracker):
        evaluator = Evaluator(recipe, prepared, store, tracker, executor, workspace)
        evaluator.require_memory(asked, method.method.steps(problem))
        workspace.monitor.expect(_later_flops(recipe, method.method, problem, prepared))
        remembering = RememberingMethod(method, store, evaluator.budget, workspace)
        answer, history = loop.search(remembering, problem, evaluator, recipe.seed)
        problem = method.problem(problem, history)  # what the answer is for is what is confirmed
        confirmation, inconclusive = _confirmed(recipe, problem, answer, evaluator)
        untrained = _untrained(recipe, prepared, history, evaluator)
    answer = _noted(answer, evaluator.budget, note)
    study = dataclasses.replace(
        assemble_study(recipe, text, prepared, problem, answer, history),
        confirmation=confirmation,
        inconclusive=inconclusive,
        untrained=untrained,
        chance=prepared.chance,
        minutes=(time.monotonic() - begin) / 60,
        trained_now=evaluator.trained,
        reused=evaluator.reused,
        call_cost=evaluator.cost,
        started=started.isoformat(timespec="seconds"),
    )
    study = with_remembered(study, recipe.confirm, store, workspace.display.say)
    study = worths_from_untrained(with_matches(study, matches))
    return StudyRun(study, prepared, complete=not evaluator.budget.reached)


def _untrained(
    recipe: Recipe, prepared: Prepared, history: History, evaluator: Evaluator
) -> Mapping[str, float] | None:
    """Scores before training: those of the checkpoint, or of a proxy; None where nobody knows."""
    if prepared.start:
        return prepared.start.scores
    known = history and not recipe.proxy.trainer
    return evaluator.untrained(history[0].spec) if known else None


def _begin(
    recipe: Recipe,
    problem: Problem,
    asked: tuple[RunSpec, ...],
    store: Store,
    workspace: Workspace,
) -> None:
    """Tells what no longer counts, if anything is to be trained; keeps what is drawn at."""
    if store.missing(asked):
        lost = superseded_sentences(store, problem, workspace.corpora, asked)
        for line in (*problem.size_notes, *lost):
            workspace.display.say(line)  # of what could have been there, if nothing had changed
    remember_drawn(store, recipe.name, problem.domains)


def save_study(
    run: StudyRun, recipe: Recipe, tracker: Tracker, workspace: Workspace
) -> dict[str, Any]:
    """Keep what came of a study: in the store, as files, and in the record.

    Args:
        run: from `run_study`.
        recipe: that a person wrote, of which a schedule may have made the one that was run.
        tracker: concludes the record.
        workspace: has the study's folder.

    Returns:
        The study's summary, as in `summary.json`.
    """
    study, store, folder = run.study, Store(workspace.store), workspace.study(run.study.name)
    set_aside(folder, recipe.digest, workspace.display.say)
    kept = finished.to_finished_study(study, recipe.digest, recipe.purpose)
    finished.save_finished(store, kept, folder)
    summary = conclude_study(study, folder, tracker, workspace)
    if run.complete:  # a schedule rests on what has its report and its record, and on nothing less
        finished.save_finished(
            store, dataclasses.replace(kept, snapshot=snapshot(recipe, run.prepared))
        )
    return summary


def search_mixture(
    recipe: Recipe,
    executor: Executor,
    workspace: Workspace,
    *,
    text: str,
    asked: Recipe | None = None,
    note: str = "",
    tracker: Tracker | None = None,
) -> dict[str, Any]:
    """Run a study and save it; arguments and result as above; the record is in MLflow by default.

    Meanwhile `cuvee status` shows how far it is.
    """
    tracker = tracker or open_tracker(workspace.record, workspace.display.say)
    with live_progress(recipe, workspace, tracker) as within:
        run = run_study(recipe, executor, tracker, within, text=text, note=note)
        return save_study(run, asked or recipe, tracker, within)


def assemble_study(
    recipe: Recipe,
    text: str,
    prepared: Prepared | None,
    problem: Problem,
    answer: Recommendation,
    history: History,
) -> Study:
    """What every study knows of itself; without what was prepared where it came from tables."""
    return Study(
        name=recipe.name,
        recipe_text=text,
        problem=problem,
        recommendation=answer,
        history=history,
        corpus=corpus_parts(prepared) if prepared else {},
        versions=installed_versions(),
        tokens_per_second=tokens_per_second(history),
        seed=recipe.seed,
        least_signal=recipe.limits.least_signal,
        continual=continual.continual_start(recipe, prepared) if prepared else None,
        vocabulary=prepared.corpus.vocabulary if prepared else 0,
        held_out=None if (given := recipe.evaluation.held_out_targets) is None else tuple(given),
    )


def _later_flops(recipe: Recipe, method: Method, problem: Problem, prepared: Prepared) -> float:
    """FLOPs of what is trained after the first runs, as far as a method and a recipe tell."""
    proxy, vocabulary = recipe.proxy, prepared.corpus.vocabulary
    plan = ladder.training_plan(proxy.size, proxy.tokens, vocabulary, rate=proxy.rate)
    runs = method.remaining(problem).runs + confirmation_count(recipe.confirm)
    return float(runs * plan.flops)


def _noted(answer: Recommendation, budget: Budget, note: str) -> Recommendation:
    """A recommendation with what a reader must know before the rest."""
    notes = [note] if note else []
    if budget.reached:
        notes.append(f"Stopped early: {budget.reached}; what it left out counts as failed.")
    return dataclasses.replace(answer, warnings=(*notes, *answer.warnings))


def _confirmed(
    recipe: Recipe, problem: Problem, answer: Recommendation, evaluator: Evaluator
) -> tuple[Confirmation | None, History]:
    """The confirmation that the recipe asks for; or the outcomes of its runs, where the budget
    ended before they could say anything."""
    if recipe.confirm is None:
        return None, ()
    schedules = compared_schedules(problem, answer, recipe.confirm)
    seeds = fresh_seeds(recipe.seed, recipe.confirm.seeds)
    runs = confirmation_runs(problem, schedules, seeds)
    outcomes = train_confirmation(runs, evaluator)
    try:
        return conclude_confirmation(problem, outcomes), ()
    except EvidenceError:
        if evaluator.budget.reached:
            return None, tuple({run.spec.fingerprint: run for run in outcomes.values()}.values())
        raise


def _within(budget: Budget, fit: Callable[..., Recommendation], *evidence: Any) -> Recommendation:
    try:
        return fit(*evidence)
    except EvidenceError as error:
        if not budget.reached:
            raise
        raise BudgetError(
            f"{budget.reached}, and what was trained does not suffice for a recommendation "
            f"({error}). Finished proxies are kept: raise the budget and run again"
        ) from error


@contextlib.contextmanager
def let_go_on_error(executor: Executor) -> Iterator[None]:
    """Lets an executor go that will not come to train."""
    try:
        yield
    except BaseException as error:
        executor.__exit__(type(error), error, error.__traceback__)
        raise


@contextlib.contextmanager
def abandoned_on_error(tracker: Tracker) -> Iterator[None]:
    """Tells the record when a study ends early, and why."""
    try:
        yield
    except BaseException as error:
        tracker.fail_study(str(error) or "stopped by the user")
        raise


def conclude_study(
    study: Study, folder: Path, tracker: Tracker, workspace: Workspace
) -> dict[str, Any]:
    """Write the report and the summary, and complete the record."""
    with workspace.display.step("Report") as bar:
        workspace.step("report", write_study)(study, folder)
        bar.move("record", 0.6)
        workspace.step("record", tracker.finish_study)(study, folder)
    return study_summary(study)


def write_study(study: Study, folder: Path) -> None:
    """The report, the recommendation, the recipe and, last, the summary.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        page.write_report(study, folder)
        contents = {
            "recommendation.json": json.dumps(study.recommendation.to_json(), indent=1) + "\n",
            "recipe.yaml": study.recipe_text,
            "summary.json": json.dumps(study_summary(study), indent=1) + "\n",
        }
        for name, content in contents.items():
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write the report into {folder} ({error.strerror}); every result is in the "
            "store: free some space or change the permissions, and run again"
        ) from error


def _key(method: Strategy, problem: Problem, history: History, rng: np.random.Generator) -> str:
    parts: Sequence[str] = (
        repr(method),
        repr(problem),
        repr(rng.bit_generator.state),
        code_version(),
        *filter(None, [problem.domains.natural_note]),  # which repr leaves out, as it does
        *map(repr, problem.limits),
        *(
            canonical_json({**outcome_to_json(run), "seconds": 0, "scoring_seconds": 0})
            for run in history
        ),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
