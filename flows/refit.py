"""A recommendation without training: from the runs of the store, or from two tables."""

import datetime
import importlib.metadata
import time
from collections.abc import Sequence
from pathlib import Path

from flows import prepare as preparing
from flows.confirm import confirm, fresh_seeds
from flows.display import current
from flows.home import Home
from flows.recipe import Recipe
from flows.search import SHOWN_VERSIONS, write_files
from flows.trainings import speed
from mixtures import loop
from mixtures.domains import Domain, DomainSet
from mixtures.errors import EvidenceError, RecipeError
from mixtures.history import Failed, History, Outcome, RunResult, RunSpec, Score
from mixtures.problem import Problem, Proxy
from mixtures.recommendation import Recommendation
from tasks import tables
from tasks.store import Store
from tasks.study import Confirmation, CorpusPart, Study


def refit(recipe: Recipe, recipe_text: str, home: Home) -> Path:
    """Fit and recommend anew; returns the folder of the report.

    Raises:
        EvidenceError: no run to fit, or tables that do not belong together.
        CuveeError: what is wrong with the recipe, the data or a table.
    """
    begin = time.monotonic()
    if recipe.tables is not None:
        problem, history = from_tables(recipe)
        with current().step("Fits"):
            answer = recipe.build_method().recommend(
                problem, history, loop.generator(recipe.seed, len(history))
            )
        confirmation: Confirmation | None = None
        corpus: dict[str, CorpusPart] = {}
    else:
        problem, answer, history, confirmation, corpus = _from_store(recipe, home)
    study = Study(
        name=recipe.name,
        recipe_text=recipe_text,
        problem=problem,
        recommendation=answer,
        history=history,
        corpus=corpus,
        versions={name: importlib.metadata.version(name) for name in SHOWN_VERSIONS},
        confirmation=confirmation,
        minutes=(time.monotonic() - begin) / 60,
        reused=sum(isinstance(run, RunResult) for run in history),
        tokens_per_second=speed(history),
        seed=recipe.seed,
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    folder = home.study(recipe.name) / "fit"
    write_files(study, folder)
    return folder


def from_tables(recipe: Recipe) -> tuple[Problem, History]:
    """A problem and a history from a recipe's two tables.

    Domains are known by name and size alone, so the evidence is tied to the tables as they are.
    """
    part = recipe.tables
    if part is None:
        raise RecipeError("the recipe has no `tables`")
    joined = tables.read(Path(part.mixtures), Path(part.scores), key=part.id)
    if joined.rescaled:
        current().say(
            f"{joined.rescaled} of {len(joined.ids)} rows of {part.mixtures} miss the sum 1 by "
            "rounding; each was divided by its sum"
        )
    sizes = tables.tokens(joined.domains, part.sizes)
    domains = DomainSet(
        tuple(
            Domain(name, sizes[name], 4 * sizes[name], f"table:{name}") for name in joined.domains
        )
    )
    problem = Problem(
        domains=domains,
        targets=joined.targets,
        objective=recipe.build_objective(),
        constraints=recipe.build_constraints(domains),
        proxy=Proxy(size="table", tokens=1),
        full_tokens=recipe.full_scale.tokens,
    )
    seen: dict[tuple[float, ...], int] = {}
    history: list[Outcome] = []
    for row, values in zip(joined.W, joined.Y, strict=True):
        weights = tuple(float(w) for w in row)
        seen[weights] = seen.get(weights, -1) + 1  # equal mixtures are repeats over seeds
        scores = {
            name: Score(float(y), 0.0, 1) for name, y in zip(joined.targets, values, strict=True)
        }
        history.append(RunResult(problem.spec(weights, seen[weights]), scores))
    return problem, tuple(history)


class Shelf:
    """An `evaluate` that only looks into the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.found = 0

    def __call__(
        self, specs: Sequence[RunSpec], _title: str = "", _role: str = ""
    ) -> tuple[Outcome, ...]:
        outcomes = []
        for spec in specs:
            known = self._store.get(spec.fingerprint)
            self.found += known is not None
            outcomes.append(known or Failed(spec, "not in the store: `cuvee run` trains it"))
        return tuple(outcomes)


def _from_store(
    recipe: Recipe, home: Home
) -> tuple[Problem, Recommendation, History, Confirmation | None, dict[str, CorpusPart]]:
    prepared = preparing.prepare(recipe, home, preparing.plainly)
    problem = preparing.problem(recipe, prepared)
    shelf = Shelf(Store(home.store))
    method = recipe.build_method()
    if not any(
        isinstance(run, RunResult)
        for run in shelf(method.ask(problem, (), loop.generator(recipe.seed, 0)))
    ):
        raise EvidenceError(
            f"the store {home.store} holds no run of this recipe's design: `cuvee run` trains it, "
            "or give `tables` in the recipe"
        )
    with current().step("Fits"):
        answer, history = loop.search(method, problem, shelf, recipe.seed)
    confirmation = None
    if recipe.confirm is not None:
        try:
            confirmation = confirm(
                problem,
                answer,
                shelf,
                seeds=fresh_seeds(recipe.seed, recipe.confirm.seeds),
                extra=recipe.confirm.mixtures,
            )
        except EvidenceError:
            current().say("No confirmation: its runs for this recommendation are not in the store")
    return problem, answer, history, confirmation, preparing.corpus_parts(prepared.corpus)
