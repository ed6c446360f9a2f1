"""The story of a study, in order: prepare, search, confirm, report, record.

The flow takes plain parameters, so that a server can schedule it as a person can run it. It never
learns which method it runs: every one goes through `mixtures.loop.search`.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from prefect import flow
from prefect.exceptions import CancelledRun, Pause
from prefect.task_runners import ThreadPoolTaskRunner

from cuvee.flows import change_detection, continual, finished, superseded_runs
from cuvee.flows import prepare as preparing
from cuvee.flows.confirm import compared, confirm, fresh_seeds
from cuvee.flows.execution.budget import Budget
from cuvee.flows.execution.evaluator import Evaluator, tokens_per_second
from cuvee.flows.execution.evaluator import begin as begin_trainings
from cuvee.flows.execution.prefect_session import PrefectApi
from cuvee.flows.execution.prefect_watch import KEPT, Watch
from cuvee.flows.execution.ray_executor import Interrupted, take
from cuvee.flows.prediction import remembered
from cuvee.flows.progress_bars import current
from cuvee.flows.recipe.schema import Recipe, parse
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop, recommendation
from cuvee.mixtures.errors import BudgetError, EvidenceError, ServiceError, StorageError
from cuvee.mixtures.loop import Strategy
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs import History, RunSpec, canonical_json, outcome_to_json
from cuvee.tasks.report import page
from cuvee.tasks.store.provenance import code_version
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished as handoff_card
from cuvee.tasks.study.study import Study, study_summary
from cuvee.tasks.tracking.fields import study_params
from cuvee.tasks.tracking.mlflow import open_tracker
from cuvee.tasks.tracking.tracker import Tracker
from cuvee.tasks.validation.paired import Confirmation

SHOWN_VERSIONS = (
    "cuvee", "torch", "transformers", "lm_eval", "prefect", "ray", "mlflow", "lightgbm",
    "scikit-learn", "scipy", "numpy", "tokenizers",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Remembering:
    """A method whose recommendation is kept in the store under everything that determines it.

    `recommend` is a pure function, so what it gave for the same method, problem, history and code
    it gives again.
    """

    method: Strategy
    store: Store
    budget: Budget

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
            return recommendation.from_json(known)
        with current().step("Fits"):
            fit = preparing.as_task("fit", self.method.recommend)
            fresh: Recommendation = _within(self.budget, fit, problem, history, rng)
        self.store.remember("recommendations", key, fresh.to_json())
        return recommendation.from_json(json.loads(json.dumps(fresh.to_json())))


@flow(
    name="search-mixture",
    task_runner=ThreadPoolTaskRunner(max_workers=512),  # the runner bounds what runs at once
    persist_result=False,
    validate_parameters=False,
)
def search_mixture(recipe_text: str, home: str) -> dict[str, Any]:
    """Find a mixture for a recipe; arguments and result as `conduct`."""
    result: dict[str, Any] = conduct(recipe_text, home)
    return result


def conduct(recipe_text: str, home: str, *, asked: str = "", note: str = "") -> Any:
    """A study from its recipe to its report, inside a flow.

    Args:
        recipe_text: the recipe, YAML.
        home: directory of the embedded default.
        asked: the recipe that a person wrote, where a schedule made this one of it.
        note: what a reader of the report must know besides.

    Returns:
        The study's summary, as in `summary.json`; or, if the flow's run was cancelled in Prefect,
        the state that says so.
    """
    begin, started = time.monotonic(), datetime.datetime.now(datetime.UTC)
    recipe, place = parse(recipe_text), Workspace(Path(home))
    store = Store(place.store)  # before text is read: a store that cannot be opened is told at once
    prepared = preparing.prepare(recipe, place)
    problem = preparing.pose_problem(recipe, prepared)
    first = recipe.build_method().ask(problem, (), loop.generator(recipe.seed, 0))
    if store.missing(first):  # else nothing is trained that could have been there
        for line in superseded_runs.superseded_sentences(
            Store(place.store), problem, place.corpora
        ):
            current().say(line)
    tracker = open_tracker(place.record, current().say)
    runner = take(place.root, device=recipe.proxy.device)
    trainings = begin_trainings(recipe, prepared, store, tracker, runner, place)
    tracker.start_study(
        recipe.name,
        study_params(recipe_text, problem, recipe.seed),
        {"method": str(recipe.method["name"])},
    )
    watch = Watch(runner.stop)
    try:
        with runner, told(tracker), watch:
            screened = recipe.build_method()
            method = Remembering(screened, store, trainings.budget)
            answer, history = loop.search(method, problem, trainings, recipe.seed)
            problem = screened.problem(problem, history)  # what the answer is for is confirmed
            confirmation = _confirmed(recipe, problem, answer, trainings)
            began = prepared.start
            untrained = trainings.untrained(history[0].spec) if history and not began else None
    except Interrupted:
        return watch.ending()
    answer = _noted(answer, trainings.budget, note)
    study = Study(
        name=recipe.name,
        recipe_text=recipe_text,
        problem=problem,
        recommendation=answer,
        history=history,
        corpus=preparing.corpus_parts(prepared),
        versions={name: importlib.metadata.version(name) for name in SHOWN_VERSIONS},
        confirmation=confirmation,
        untrained=began.scores if began else untrained,
        chance=prepared.chance,
        minutes=(time.monotonic() - begin) / 60,
        trained_now=trainings.trained,
        reused=trainings.reused,
        tokens_per_second=tokens_per_second(history),
        seed=recipe.seed,
        least_signal=recipe.limits.least_signal,
        started=started.isoformat(timespec="seconds"),
        continual=continual.told(recipe, prepared),
    )
    study = remembered(study, recipe.confirm, store)
    given = parse(asked) if asked else recipe
    folder = place.study(recipe.name)
    finished.set_aside(folder, given.digest)
    handoff_card.keep(store, handoff_card.card(study, given.digest, given.purpose), folder)
    digest = conclude(study, folder, tracker)
    if not trainings.budget.reached:
        weights = problem.domains.mapping(answer.weights)
        change_detection.keep(
            store, recipe.name, change_detection.picture(given, prepared, weights)
        )
    return digest


def _noted(answer: Recommendation, budget: Budget, note: str) -> Recommendation:
    """A recommendation with what a reader must know before the rest."""
    notes = [note] if note else []
    if budget.reached:
        notes.append(f"Stopped early: {budget.reached}; what it left out counts as failed.")
    return dataclasses.replace(answer, warnings=(*notes, *answer.warnings))


def _confirmed(
    recipe: Recipe, problem: Problem, answer: Recommendation, trainings: Evaluator
) -> Confirmation | None:
    """The confirmation that the recipe asks for, or None where the budget ended before it."""
    if recipe.confirm is None:
        return None
    try:
        return confirm(
            problem,
            compared(problem, answer, recipe.confirm),
            trainings,
            seeds=fresh_seeds(recipe.seed, recipe.confirm.seeds),
        )
    except EvidenceError:
        if trainings.budget.reached:
            return None
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
def told(tracker: Tracker) -> Iterator[None]:
    """Tells the record when a study ends early, and why."""
    try:
        yield
    except BaseException as error:
        tracker.fail_study(str(error) or "stopped by the user")
        raise


def conclude(study: Study, folder: Path, tracker: Tracker) -> dict[str, Any]:
    """Write the report and the summary, and complete the record."""
    with current().step("Report") as bar:
        preparing.as_task("report", write_files)(study, folder)
        bar.move("record", 0.6)
        preparing.as_task("record", tracker.finish_study)(study, folder)
    return study_summary(study)


def write_files(study: Study, folder: Path) -> None:
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


def run(recipe_text: str, home: Workspace, api: PrefectApi) -> dict[str, Any]:
    """Run the flow against an API: what the command line calls."""
    with api.session():
        try:
            result: dict[str, Any] = search_mixture(recipe_text, str(home.root))
        except (CancelledRun, Pause) as error:
            raise ServiceError(f"this run was cancelled or paused in Prefect. {KEPT}") from error
    return result


def _key(method: Strategy, problem: Problem, history: History, rng: np.random.Generator) -> str:
    parts: Sequence[str] = (
        repr(method),
        repr(problem),
        repr(rng.bit_generator.state),
        code_version(),
        *(
            canonical_json({**outcome_to_json(run), "seconds": 0, "scoring_seconds": 0})
            for run in history
        ),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
