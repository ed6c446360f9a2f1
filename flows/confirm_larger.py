"""The story of `cuvee confirm`: does what a finished study claims hold at larger sizes?

The study is read back from its files and the store and nothing of it is made anew; then the
recommended mixture and what it stands against are trained at each size that the recipe names.
"""

import dataclasses
import datetime
import importlib.metadata
import time
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from cuvee.flows import continual, finished
from cuvee.flows import prepare as preparing
from cuvee.flows.confirm import compared, confirm, enlarge, fresh_seeds, sized
from cuvee.flows.execution.evaluator import begin as begin_trainings
from cuvee.flows.execution.evaluator import tokens_per_second
from cuvee.flows.execution.prefect_session import PrefectApi
from cuvee.flows.execution.prefect_watch import Watch
from cuvee.flows.execution.ray_executor import Interrupted, RayExecutor
from cuvee.flows.execution.store_evaluator import StoreEvaluator
from cuvee.flows.finished import Finished, Settled
from cuvee.flows.prediction import draw_up, write_copy
from cuvee.flows.prepare import Prepared
from cuvee.flows.progress_bars import current
from cuvee.flows.recipe.schema import Recipe, parse
from cuvee.flows.study import SHOWN_VERSIONS, conclude, told
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.problem import Problem
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished as handoff_card
from cuvee.tasks.study.study import Study
from cuvee.tasks.tracking.fields import study_params
from cuvee.tasks.tracking.mlflow import open_tracker
from cuvee.tasks.validation.calibration import score_predictions
from cuvee.tasks.validation.hypothesis_tests import larger_size_tests
from cuvee.tasks.validation.paired import Confirmation
from cuvee.tasks.validation.preregistration import keep


@flow(
    name="confirm-mixture",
    task_runner=ThreadPoolTaskRunner(max_workers=512),  # the runner bounds what runs at once
    persist_result=False,
    validate_parameters=False,
)
def confirm_mixture(recipe_text: str, home: str) -> Any:
    """Test the recommendation of a finished study at the sizes that its recipe names.

    Args:
        recipe_text: the recipe, YAML.
        home: directory of the embedded default.

    Returns:
        The study's summary, as in `summary.json`; or, if the flow's run was cancelled in Prefect,
        the state that says so.
    """
    begin, started = time.monotonic(), datetime.datetime.now(datetime.UTC)
    recipe, place = parse(recipe_text), Workspace(Path(home))
    part = finished.sizes(recipe)
    past = finished.read(recipe, place)
    prepared = preparing.prepare(recipe, place)
    store = Store(place.store)
    study = read_back(recipe, past, prepared, store)
    tracker = open_tracker(place.record, current().say)
    tracker.start_study(
        recipe.name,
        study_params(past.recipe_text, preparing.pose_problem(recipe, prepared), recipe.seed),
        {"method": str(recipe.method["name"])},
    )
    runner = RayExecutor(place.root, device=recipe.proxy.device)
    watch = Watch(runner.stop)
    try:
        with runner, told(tracker), watch:
            trainings = begin_trainings(recipe, prepared, store, tracker, runner, place)
            schedules = compared(study.problem, study.recommendation, part)
            runs = sized(study.problem, schedules, part, fresh_seeds(recipe.seed, part.seeds))
            card = keep(store, draw_up(study, schedules, runs, store, written=_time(started)))
            tracker.log_preregistration(card, write_copy(card, place.study(recipe.name)))
            current().say(f"Prediction card {card.sha256} (version {card.version}, {card.written})")
            steps, lost = enlarge(runs, trainings)
    except Interrupted:
        return watch.ending()
    if trainings.budget.reached:
        lost = (*lost, f"stopped early: {trainings.budget.reached}")
    found = larger_size_tests(steps, study.confirmation, lost)
    study = dataclasses.replace(
        study,
        transfer=found,
        card=score_predictions(store, card, found.claims),
        minutes=(time.monotonic() - begin) / 60,
        trained_now=trainings.trained,
        reused=study.reused + trainings.reused,
        started=_time(started),
    )
    handoff_card.reword(store, handoff_card.card(study, recipe.digest))
    return conclude(study, place.study(recipe.name), tracker)


def _time(when: datetime.datetime) -> str:
    return when.isoformat(timespec="seconds")


def read_back(recipe: Recipe, past: Finished, prepared: Prepared, store: Store) -> Study:
    """A finished study from its files and the store, as it was before anything larger was trained.

    Raises:
        EvidenceError: its evidence is void.
    """
    problem = preparing.pose_problem(recipe, prepared)
    finished.check_evidence(past.answer, problem, store)
    shelf, screened = StoreEvaluator(store), recipe.build_method()
    answer, history = loop.search(Settled(screened, past.answer), problem, shelf, recipe.seed)
    problem = screened.problem(problem, history)  # what the answer is for is what is confirmed
    return Study(
        name=recipe.name,
        recipe_text=past.recipe_text,
        problem=problem,
        recommendation=answer,
        history=history,
        corpus=preparing.corpus_parts(prepared),
        versions={name: importlib.metadata.version(name) for name in SHOWN_VERSIONS},
        confirmation=_own(problem, past, shelf),
        chance=prepared.chance,
        reused=len(history),
        tokens_per_second=tokens_per_second(history),
        seed=recipe.seed,
        least_signal=recipe.limits.least_signal,
        continual=continual.told(recipe, prepared),
    )


def _own(problem: Problem, past: Finished, shelf: StoreEvaluator) -> Confirmation | None:
    """The confirmation at the study's own size, as the finished study had it; None if it had none.

    It is read with the recipe that was run: what is confirmed now may stand against others.
    """
    before = parse(past.recipe_text)
    if before.confirm is None:
        return None
    schedules = compared(problem, past.answer, before.confirm)
    seeds = fresh_seeds(before.seed, before.confirm.seeds)
    try:
        return confirm(problem, schedules, shelf, seeds=seeds)
    except EvidenceError:
        return None


def run(recipe_text: str, home: Workspace, api: PrefectApi) -> dict[str, Any]:
    """Run the flow against an API: what the command line calls."""
    with api.session():
        result: dict[str, Any] = confirm_mixture(recipe_text, str(home.root))
    return result
