"""A recommendation without training: from the runs of the store, or from two tables."""

import dataclasses
import datetime
import time
from pathlib import Path

from cuvee.flows.execution.evaluator import StoreEvaluator
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import prepare as preparing
from cuvee.flows.study import table_problem
from cuvee.flows.study.confirm import compared_schedules, confirm, fresh_seeds
from cuvee.flows.study.finished import latest_study, prepare_as_studied, set_aside
from cuvee.flows.study.study import assemble_study, write_study
from cuvee.flows.study.suspicious_items import look_for_benchmarks, with_matches
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs.run_results import History, RunResult, finished_runs
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.study.prepared import Prepared
from cuvee.tasks.validation.paired import Confirmation


def refit(recipe: Recipe, recipe_text: str, home: Workspace) -> Path:
    """Fit and recommend anew; returns the folder of the report.

    Raises:
        EvidenceError: no run to fit, or tables that do not belong together.
        CuveeError: what is wrong with the recipe, the data or a table.
    """
    begin = time.monotonic()
    if recipe.tables is not None:
        joined = table_problem.read_tables(recipe, home.display.say)
        with home.display.step("Fits"):
            problem, answer, history = table_problem.recommend_from_tables(recipe, joined)
        available = table_problem.available_tokens(recipe)
        confirmation: Confirmation | None = None
        prepared = None
    else:
        shelf = StoreEvaluator(Store(home.store))
        problem, answer, history, confirmation, prepared = _from_store(recipe, home, shelf)
        available = None
    study = dataclasses.replace(
        assemble_study(recipe, recipe_text, prepared, problem, answer, history),
        confirmation=confirmation,
        minutes=(time.monotonic() - begin) / 60,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        available=available,
        reused=len(shelf.found) if recipe.tables is None else len(finished_runs(history)),
    )
    if prepared:
        study = with_matches(study, look_for_benchmarks(recipe, prepared, home, None))
    folder = home.study(recipe.name) / "fit"
    set_aside(folder, recipe.digest, home.display.say)
    fitted = dataclasses.replace(
        finished.to_finished_study(study, recipe.digest, recipe.purpose),
        table_files=table_problem.table_files(recipe),
    )
    if not finished.save_finished(Store(home.store), fitted, folder, fit=True):
        home.display.say(
            "Fresh runs have tested another recommendation of this recipe, which is what `cuvee "
            "approve` and `cuvee export` take; this fit is kept beside it"
        )
    write_study(study, folder)
    return folder


def _from_store(
    recipe: Recipe, home: Workspace, shelf: StoreEvaluator
) -> tuple[Problem, Recommendation, History, Confirmation | None, Prepared]:
    prepared = prepare_as_studied(recipe, home, latest_study(shelf.store, recipe))
    problem = preparing.pose_problem(recipe, prepared)
    method = recipe.build_method()
    if not any(
        isinstance(run, RunResult)
        for run in shelf(method.ask(problem, (), loop.generator(recipe.seed, 0)))
    ):
        raise EvidenceError(
            f"the store {home.store} holds no run of this recipe's design: `cuvee run` trains it, "
            "or give `tables` in the recipe"
        )
    with home.display.step("Fits"):
        answer, history = loop.search(method, problem, shelf, recipe.seed)
    problem = method.problem(problem, history)
    confirmation = None
    if recipe.confirm is not None:
        try:
            confirmation = confirm(
                problem,
                compared_schedules(problem, answer, recipe.confirm),
                shelf,
                seeds=fresh_seeds(recipe.seed, recipe.confirm.seeds),
            )
        except EvidenceError:
            home.display.say(
                "No confirmation: its runs for this recommendation are not in the store"
            )
    return problem, answer, history, confirmation, prepared
