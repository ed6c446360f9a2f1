"""The problem that a recipe poses on its two tables, their runs, and what they leave unknown."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from cuvee.flows.console import Say, silent
from cuvee.flows.recipe.consistency import check_aims
from cuvee.flows.recipe.schema import Recipe
from cuvee.mixtures import loop, simplex
from cuvee.mixtures.constraints import Constraints
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.inference import evidence_grade
from cuvee.mixtures.problem import Problem, Proxy
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs.run_results import History, Outcome, RunResult, Score
from cuvee.tasks.study import table_file, tables


def from_tables(recipe: Recipe, say: Say = silent) -> tuple[Problem, History]:
    """A problem and a history from a recipe's two tables; see `pose_table_problem`."""
    return pose_table_problem(recipe, read_tables(recipe, say))


def read_tables(recipe: Recipe, say: Say = silent) -> tables.JoinedTables:
    """A recipe's two tables, joined."""
    part = recipe.tables
    if part is None:
        raise RecipeError("the recipe has no `tables`")
    mixtures, scores = map(recipe.source_path, (part.mixtures, part.scores))
    joined = tables.read_tables(Path(mixtures), Path(scores), part.reading)
    for line in reading_notes(joined, part.mixtures):
        say(line)
    return joined


def table_files(recipe: Recipe) -> dict[str, str]:
    """Whole paths of a recipe's two tables; none of a recipe without them."""
    if recipe.tables is None:
        return {}
    given = {"mixtures": recipe.tables.mixtures, "scores": recipe.tables.scores}
    return {name: str(Path(recipe.source_path(path)).absolute()) for name, path in given.items()}


def reading_notes(joined: tables.JoinedTables, mixtures: str) -> tuple[str, ...]:
    """What a reader must know of how two tables were read; `mixtures` is the first one's name."""
    notes = []
    if joined.unread:
        notes.append(
            "Columns with no number in any row are not read: "
            f"{table_file.first_names(joined.unread)} "
            "(tables.targets and tables.only name what is to be read)"
        )
    if joined.rescaled:
        notes.append(
            f"{joined.rescaled} of {len(joined.ids)} rows of {mixtures} miss the sum 1 by "
            "rounding; each was divided by its sum"
        )
    return tuple(notes)


def recommend_from_tables(
    recipe: Recipe, joined: tables.JoinedTables
) -> tuple[Problem, Recommendation, History]:
    """What a recipe's method recommends on two tables, for which problem, from which runs."""
    problem, history = pose_table_problem(recipe, joined)
    method = recipe.build_method()
    answer = method.recommend(problem, history, loop.generator(recipe.seed, len(history)))
    problem = method.problem(problem, history)
    return problem, with_table_gaps(answer, problem, recipe, joined), history


def pose_table_problem(recipe: Recipe, joined: tables.JoinedTables) -> tuple[Problem, History]:
    """The problem that a recipe poses on its tables, and their runs.

    Domains are known by name and size alone, so the evidence is tied to the tables as they are.
    """
    part = recipe.tables
    if part is None:
        raise RecipeError("the recipe has no `tables`")
    given = (part.sizes, "sizes") if part.sizes else (part.token_counts, "token_counts")
    domains = domains_of_tables(joined.domains, *given)
    check_aims(recipe, domains)
    problem = Problem(
        domains=domains,
        targets=joined.targets,
        objective=recipe.build_objective(),
        constraints=_constraints(recipe, domains),
        proxy=Proxy(size="table", tokens=1),
        full_tokens=recipe.full_scale.tokens,
        limits=joined.limits,
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


def domains_of_tables(names: Sequence[str], given: Mapping[str, float], field: str) -> DomainSet:
    """Domains that are known by name and size alone; equal sizes where none are given."""
    sizes = tables.domain_tokens(names, given, field=f"tables.{field}")
    return DomainSet(tuple(Domain(n, sizes[n], 4 * sizes[n], f"table:{n}") for n in names))


def available_tokens(recipe: Recipe) -> dict[str, int]:
    """Tokens that exist by domain; empty where the recipe does not say."""
    part = recipe.tables
    if part is None or not (part.token_counts or tables.sizes_are_counts(part.sizes)):
        return {}
    return {name: round(size) for name, size in (part.token_counts or part.sizes).items()}


def _existing(recipe: Recipe, names: Sequence[str]) -> DomainSet | None:
    """Domains with the tokens that exist of them; None where the recipe does not say."""
    part, existing = recipe.tables, available_tokens(recipe)
    if part is None or not existing:
        return None
    return domains_of_tables(names, existing, "token_counts" if part.token_counts else "sizes")


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


def with_table_gaps(
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
