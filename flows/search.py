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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner

from flows import prepare as preparing
from flows.confirm import compared, confirm, fresh_seeds
from flows.display import current
from flows.home import Home
from flows.prediction import remembered
from flows.recipe import parse
from flows.runner import Runner
from flows.server import PrefectApi
from flows.trainings import Trainings, speed
from mixtures import loop, recommendation
from mixtures.errors import StorageError
from mixtures.history import History, RunSpec, canonical, to_json
from mixtures.loop import Method
from mixtures.problem import Problem
from mixtures.recommendation import Recommendation
from tasks import handoff_card, report
from tasks.provenance import code_version
from tasks.record import study_params
from tasks.recorder import Tracker
from tasks.store import Store
from tasks.study import Study, summary
from tasks.track import open_tracker

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

    method: Method
    store: Store

    def ask(
        self, problem: Problem, history: History, rng: np.random.Generator
    ) -> tuple[RunSpec, ...]:
        """What the method asks for."""
        return self.method.ask(problem, history, rng)

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
            fresh: Recommendation = fit(problem, history, rng)
        self.store.remember("recommendations", key, fresh.to_json())
        return recommendation.from_json(json.loads(json.dumps(fresh.to_json())))


@flow(
    name="search-mixture",
    task_runner=ThreadPoolTaskRunner(max_workers=512),  # the runner bounds what runs at once
    persist_result=False,
    validate_parameters=False,
)
def search_mixture(recipe_text: str, home: str) -> dict[str, Any]:
    """Find a mixture for a recipe.

    Args:
        recipe_text: the recipe, YAML.
        home: directory of the embedded default.

    Returns:
        The study's summary, as in `summary.json`.
    """
    begin, started = time.monotonic(), datetime.datetime.now(datetime.UTC)
    recipe, place = parse(recipe_text), Home(Path(home))
    prepared = preparing.prepare(recipe, place)
    problem = preparing.problem(recipe, prepared)
    store = Store(place.store)
    tracker = open_tracker(place.record, current().say)
    runner = Runner(place.root, device=recipe.proxy.device)
    trainings = Trainings(
        prepared,
        store,
        tracker,
        runner,
        checkpoints=place.checkpoints,
        pack_limit=recipe.proxy.pack,
        failed_share=recipe.limits.failed_share,
    )
    runner.listen(trainings.progress)
    tracker.begin(
        recipe.name,
        study_params(recipe_text, problem, recipe.seed),
        {"method": str(recipe.method["name"])},
    )
    with runner, told(tracker):
        screened = recipe.build_method()
        method = Remembering(screened, store)
        answer, history = loop.search(method, problem, trainings, recipe.seed)
        problem = screened.problem(problem, history)  # what the answer is for is what is confirmed
        confirmation = None
        if recipe.confirm is not None:
            confirmation = confirm(
                problem,
                compared(problem, answer, recipe.confirm),
                trainings,
                seeds=fresh_seeds(recipe.seed, recipe.confirm.seeds),
            )
        untrained = trainings.untrained(history[0].spec) if history else None
    study = Study(
        name=recipe.name,
        recipe_text=recipe_text,
        problem=problem,
        recommendation=answer,
        history=history,
        corpus=preparing.corpus_parts(prepared.corpus),
        versions={name: importlib.metadata.version(name) for name in SHOWN_VERSIONS},
        confirmation=confirmation,
        untrained=untrained,
        chance=prepared.chance,
        minutes=(time.monotonic() - begin) / 60,
        trained_now=trainings.trained,
        reused=trainings.reused,
        tokens_per_second=speed(history),
        seed=recipe.seed,
        least_signal=recipe.limits.least_signal,
        started=started.isoformat(timespec="seconds"),
    )
    study = remembered(study, recipe.confirm, store)
    handoff_card.keep(store, handoff_card.card(study, recipe.digest))
    return conclude(study, place.study(recipe.name), tracker)


@contextlib.contextmanager
def told(tracker: Tracker) -> Iterator[None]:
    """Tells the record when a study ends early, and why."""
    try:
        yield
    except BaseException as error:
        tracker.abandon(str(error) or "stopped by the user")
        raise


def conclude(study: Study, folder: Path, tracker: Tracker) -> dict[str, Any]:
    """Write the report and the summary, and complete the record."""
    with current().step("Report") as bar:
        preparing.as_task("report", write_files)(study, folder)
        bar.move("record", 0.6)
        preparing.as_task("record", tracker.conclude)(study, folder)
    return summary(study)


def write_files(study: Study, folder: Path) -> None:
    """The report, the recommendation, the recipe and, last, the summary.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        report.write(study, folder)
        contents = {
            "recommendation.json": json.dumps(study.recommendation.to_json(), indent=1) + "\n",
            "recipe.yaml": study.recipe_text,
            "summary.json": json.dumps(summary(study), indent=1) + "\n",
        }
        for name, content in contents.items():
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write the report into {folder} ({error.strerror}); every result is in the "
            "store: free some space or change the permissions, and run again"
        ) from error


def run(recipe_text: str, home: Home, api: PrefectApi) -> dict[str, Any]:
    """Run the flow against an API: what the command line calls."""
    url = api.wait()
    with temporary_settings(updates={PREFECT_API_URL: url}):
        result: dict[str, Any] = search_mixture(recipe_text, str(home.root))
    return result


def _key(method: Method, problem: Problem, history: History, rng: np.random.Generator) -> str:
    parts: Sequence[str] = (
        repr(method),
        repr(problem),
        repr(rng.bit_generator.state),
        code_version(),
        *(canonical({**to_json(run), "seconds": 0, "scoring_seconds": 0}) for run in history),
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
