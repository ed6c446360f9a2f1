"""The story of `cuvee confirm`: does what a finished study claims hold at larger sizes?

The study is read back from the store and nothing of it is made anew; then the recommended mixture
and what it stands against are trained at each size that the recipe names.
"""

import dataclasses
import datetime
import time
from typing import Any

from cuvee.flows.execution.evaluator import Evaluator, StoreEvaluator
from cuvee.flows.execution.executor import Executor
from cuvee.flows.recipe.aim_parts import ConfirmPart
from cuvee.flows.recipe.load import parse
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import prepare as preparing
from cuvee.flows.study.confirm import (
    compared_schedules,
    confirm,
    fresh_seeds,
    runs_of_sizes,
    train_larger_sizes,
)
from cuvee.flows.study.finished import (
    finished_study,
    prepare_as_studied,
    present_state,
    set_aside,
)
from cuvee.flows.study.live_progress import live_progress
from cuvee.flows.study.prediction import write_copy, write_prediction
from cuvee.flows.study.study import abandoned_on_error, assemble_study, conclude_study
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.problem import Problem
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.study.finished import FinishedStudy
from cuvee.tasks.study.prepared import Prepared
from cuvee.tasks.study.study import Study
from cuvee.tasks.study.validity import refuse_void, validity
from cuvee.tasks.tracking.fields import study_params
from cuvee.tasks.tracking.mlflow import open_tracker
from cuvee.tasks.tracking.tracker import Tracker
from cuvee.tasks.validation.calibration import score_predictions
from cuvee.tasks.validation.hypothesis_tests import larger_size_tests
from cuvee.tasks.validation.paired import Confirmation
from cuvee.tasks.validation.preregistration import save_card


def confirm_larger(recipe: Recipe, executor: Executor, workspace: Workspace) -> dict[str, Any]:
    """Test the recommendation of a finished study at the sizes that its recipe names.

    Args:
        recipe: of the study.
        executor: trains; it is let go when nothing more is to be trained.
        workspace: of the study.

    Returns:
        The study's summary, as in `summary.json`.

    Raises:
        Interrupted: the executor was cancelled.
        CuveeError: what is wrong with the recipe, its data, or its evidence.
    """
    tracker = open_tracker(workspace.record, workspace.display.say)
    with live_progress(recipe, workspace, tracker, "confirm") as within:
        return _confirm_larger(recipe, executor, tracker, within)


def _confirm_larger(
    recipe: Recipe, executor: Executor, tracker: Tracker, workspace: Workspace
) -> dict[str, Any]:
    begin, started = time.monotonic(), datetime.datetime.now(datetime.UTC)
    part, past = sizes(recipe), finished_study(recipe, workspace)
    prepared = prepare_as_studied(recipe, workspace, past)
    store, folder = Store(workspace.store), workspace.study(recipe.name)
    reasons = validity(past, present_state(recipe, workspace, prepared), store, code=False)
    refuse_void(past, reasons, "confirmed")
    study = read_back(recipe, past, prepared, store)
    tracker.start_study(
        recipe.name,
        study_params(study.recipe_text, preparing.pose_problem(recipe, prepared), recipe.seed),
        {"method": str(recipe.method["name"])},
    )
    with executor, abandoned_on_error(tracker):
        evaluator = Evaluator(recipe, prepared, store, tracker, executor, workspace)
        schedules = compared_schedules(study.problem, study.recommendation, part)
        runs = runs_of_sizes(study.problem, schedules, part, fresh_seeds(recipe.seed, part.seeds))
        set_aside(folder, recipe.digest, workspace.display.say)  # as on a colleague's machine
        card = save_card(
            store, write_prediction(study, schedules, runs, store, written=_time(started))
        )
        tracker.log_preregistration(card, write_copy(card, folder))
        workspace.display.say(
            f"Prediction card {card.sha256} (version {card.version}, {card.written})"
        )
        steps, lost = train_larger_sizes(runs, evaluator)
    if evaluator.budget.reached:
        lost = (*lost, f"stopped early: {evaluator.budget.reached}")
    found = larger_size_tests(steps, study.confirmation, lost)
    study = dataclasses.replace(
        study,
        transfer=found,
        card=score_predictions(store, card, found.claims),
        minutes=(time.monotonic() - begin) / 60,
        trained_now=evaluator.trained,
        reused=study.reused + evaluator.reused,
        call_cost=evaluator.cost,
        started=_time(started),
    )
    finished.amend_finished(store, finished.to_finished_study(study, recipe.digest), folder)
    return conclude_study(study, folder, tracker, workspace)


def sizes(recipe: Recipe) -> ConfirmPart:
    """The part of a recipe that says at which sizes a claim is tested.

    Raises:
        RecipeError: it names none.
    """
    if recipe.confirm is None or not recipe.confirm.sizes:
        raise RecipeError(
            "the recipe names no sizes to confirm at; give larger ones than its own "
            f"({recipe.proxy.size}, {recipe.proxy.tokens:,} tokens), such as "
            "`confirm: {seeds: 3, sizes: [{size: 1M, tokens: 2M}]}`"
        )
    return recipe.confirm


def _time(when: datetime.datetime) -> str:
    return when.isoformat(timespec="seconds")


def read_back(recipe: Recipe, past: FinishedStudy, prepared: Prepared, store: Store) -> Study:
    """A finished study from the store, as it was before anything larger was trained."""
    ran = parse(past.recipe_text)
    problem = preparing.pose_problem(ran, prepared)
    shelf, method = StoreEvaluator(store), ran.build_method()
    history = loop.replay(method, problem, shelf, recipe.seed)
    problem = method.problem(problem, history)  # what the answer is for is what is confirmed
    confirmation = _own(problem, past, shelf)
    return dataclasses.replace(
        assemble_study(recipe, past.recipe_text, prepared, problem, past.answer, history),
        confirmation=confirmation,
        chance=prepared.chance,
        reused=len(shelf.found),
    )


def _own(problem: Problem, past: FinishedStudy, shelf: StoreEvaluator) -> Confirmation | None:
    """The confirmation at the study's own size, as the finished study had it; None if it had none.

    It is read with the recipe that was run: what is confirmed now may stand against others.
    """
    before = parse(past.recipe_text)
    if before.confirm is None:
        return None
    schedules = compared_schedules(problem, past.answer, before.confirm)
    seeds = fresh_seeds(before.seed, before.confirm.seeds)
    try:
        return confirm(problem, schedules, shelf, seeds=seeds)
    except EvidenceError:
        return None
