"""A recommendation without training: from the runs of the store, or from two tables."""

import dataclasses
import datetime
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cuvee.flows import finished
from cuvee.flows import prepare as preparing
from cuvee.flows.confirm import compared, confirm, fresh_seeds
from cuvee.flows.execution.evaluator import StoreEvaluator
from cuvee.flows.prepare import Prepared
from cuvee.flows.progress_bars import current
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import assemble_study, write_study
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop, simplex
from cuvee.mixtures.constraints import Constraints
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.inference import evidence_grade
from cuvee.mixtures.problem import Problem, Proxy
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs import History, Outcome, RunResult, Score
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished as handoff_card
from cuvee.tasks.study import table_file, tables
from cuvee.tasks.validation.paired import Confirmation


def refit(recipe: Recipe, recipe_text: str, home: Workspace) -> Path:
    """Fit and recommend anew; returns the folder of the report.

    Raises:
        EvidenceError: no run to fit, or tables that do not belong together.
        CuveeError: what is wrong with the recipe, the data or a table.
    """
    begin = time.monotonic()
    if recipe.tables is not None:
        joined = read_tables(recipe)
        problem, history = posed(recipe, joined)
        method = recipe.build_method()
        with current().step("Fits"):
            answer = method.recommend(problem, history, loop.generator(recipe.seed, len(history)))
        problem = method.problem(problem, history)
        answer = told(answer, problem, recipe, joined)
        available = _available(recipe)
        confirmation: Confirmation | None = None
        prepared = None
    else:
        problem, answer, history, confirmation, prepared = _from_store(recipe, home)
        available = None
    study = dataclasses.replace(
        assemble_study(recipe, recipe_text, prepared, problem, answer, history),
        confirmation=confirmation,
        minutes=(time.monotonic() - begin) / 60,
        reused=sum(isinstance(run, RunResult) for run in history),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        available=available,
    )
    folder = home.study(recipe.name) / "fit"
    finished.set_aside(folder, recipe.digest)
    card = handoff_card.card(study, recipe.digest, recipe.purpose)
    handoff_card.keep(Store(home.store), card, folder)
    write_study(study, folder)
    return folder


def from_tables(recipe: Recipe) -> tuple[Problem, History]:
    """A problem and a history from a recipe's two tables; see `posed`."""
    return posed(recipe, read_tables(recipe))


def read_tables(recipe: Recipe) -> tables.JoinedTables:
    """A recipe's two tables, joined."""
    part = recipe.tables
    if part is None:
        raise RecipeError("the recipe has no `tables`")
    joined = tables.read_tables(Path(part.mixtures), Path(part.scores), part.reading)
    if joined.unread:
        current().say(
            "Columns with no number in any row are not read: "
            f"{table_file.first_names(joined.unread)} "
            "(tables.targets and tables.only name what is to be read)"
        )
    if joined.rescaled:
        current().say(
            f"{joined.rescaled} of {len(joined.ids)} rows of {part.mixtures} miss the sum 1 by "
            "rounding; each was divided by its sum"
        )
    return joined


def posed(recipe: Recipe, joined: tables.JoinedTables) -> tuple[Problem, History]:
    """The problem that a recipe poses on its tables, and their runs.

    Domains are known by name and size alone, so the evidence is tied to the tables as they are.
    """
    part = recipe.tables
    if part is None:
        raise RecipeError("the recipe has no `tables`")
    given = (part.sizes, "sizes") if part.sizes else (part.token_counts, "token_counts")
    domains = _domains(joined.domains, *given)
    problem = Problem(
        domains=domains,
        targets=joined.targets,
        objective=recipe.build_objective(),
        constraints=_constraints(recipe, domains),
        proxy=Proxy(size="table", tokens=1),
        full_tokens=recipe.full_scale.tokens,
    )
    seen: dict[tuple[float, ...], int] = {}
    history: list[Outcome] = []
    for row, values in zip(simplex.canonical_rows(joined.W), joined.Y, strict=True):
        weights = tuple(float(w) for w in row)
        seen[weights] = seen.get(weights, -1) + 1  # runs of one mixture are repeats over seeds
        scores = {
            name: Score(float(y), 0.0, 1) for name, y in zip(joined.targets, values, strict=True)
        }
        history.append(RunResult(problem.spec(weights, seen[weights]), scores))
    return problem, tuple(history)


def _domains(names: Sequence[str], given: Mapping[str, float], field: str) -> DomainSet:
    sizes = tables.domain_tokens(names, given, field=f"tables.{field}")
    return DomainSet(tuple(Domain(n, sizes[n], 4 * sizes[n], f"table:{n}") for n in names))


def _available(recipe: Recipe) -> dict[str, int]:
    """Tokens that exist by domain; empty where the recipe does not say."""
    part = recipe.tables
    if part is None or not (part.token_counts or tables.sizes_are_counts(part.sizes)):
        return {}
    return {name: round(size) for name, size in (part.token_counts or part.sizes).items()}


def _existing(recipe: Recipe, names: Sequence[str]) -> DomainSet | None:
    """Domains with the tokens that exist of them; None where the recipe does not say."""
    part, existing = recipe.tables, _available(recipe)
    if part is None or not existing:
        return None
    return _domains(names, existing, "token_counts" if part.token_counts else "sizes")


def _constraints(recipe: Recipe, domains: DomainSet) -> Constraints:
    """The feasible set: epoch caps by the tokens that exist, distances from the natural mixture."""
    existing = _existing(recipe, domains.names)
    if recipe.constraints.epochs is not None and not existing:
        raise RecipeError(
            "constraints.epochs needs the tokens that exist of every domain: give counts in "
            "tables.sizes or tables.token_counts"
        )
    found = recipe.build_constraints(existing or domains)
    if found.most_kl is None:
        return found
    return dataclasses.replace(found, prior=tuple(map(float, domains.natural)))


def told(
    answer: Recommendation, problem: Problem, recipe: Recipe, joined: tables.JoinedTables
) -> Recommendation:
    """The answer with what the tables leave unknown, so that nothing is shown as if measured."""
    part, full = recipe.tables, recipe.full_scale.tokens
    existing = _existing(recipe, problem.domains.names)
    epochs: tuple[float, ...] = ()
    if existing and full:
        epochs = tuple(map(float, existing.epochs(answer.weights, full)))
    few = evidence_grade.rarely_drawn(problem, simplex.canonical_rows(joined.W))
    said = evidence_grade.unmeasured_lines(few, answer, answer.epochs)  # by relative sizes, maybe
    warnings = [*evidence_grade.unmeasured_lines(few, answer, epochs)]
    warnings += [line for line in answer.warnings if line not in said]
    if part and not (part.sizes or part.token_counts):
        warnings.append(
            "The tables give no sizes of domains, so that equal shares stand for the natural "
            "mixture; give tables.sizes."
        )
    if part and part.higher_is_better:
        warnings.append(
            "Higher is better in these, so that they are shown with their sign turned: "
            f"{', '.join(part.higher_is_better)}."
        )
    if joined.left_out:
        warnings.append(
            f"{len(joined.left_out)} runs stand in one table only and were left out: "
            f"{table_file.first_names(joined.left_out)}."
        )
    if joined.missed > tables.ROUNDING + 1e-9:
        warnings.append(
            f"Rows of the table of mixtures miss the sum 1 by up to {joined.missed:.2%}, as the "
            "few digits that they were written with allow; each was divided by its sum. If the "
            "table lacks a domain, its share is lost."
        )
    if joined.aside:
        warnings.append(
            f"{len(joined.aside)} runs were set aside: they are not on "
            f"{', '.join(joined.domains)} alone."
        )
    return dataclasses.replace(answer, epochs=epochs, warnings=tuple(warnings))


def _from_store(
    recipe: Recipe, home: Workspace
) -> tuple[Problem, Recommendation, History, Confirmation | None, Prepared]:
    prepared = preparing.prepare(recipe, home)
    problem = preparing.pose_problem(recipe, prepared)
    shelf = StoreEvaluator(Store(home.store))
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
    problem = method.problem(problem, history)
    confirmation = None
    if recipe.confirm is not None:
        try:
            confirmation = confirm(
                problem,
                compared(problem, answer, recipe.confirm),
                shelf,
                seeds=fresh_seeds(recipe.seed, recipe.confirm.seeds),
            )
        except EvidenceError:
            current().say("No confirmation: its runs for this recommendation are not in the store")
    return problem, answer, history, confirmation, prepared
