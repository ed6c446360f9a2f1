"""Recipes from files: strict YAML, checked whole before anything is spent."""

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cuvee.flows.recipe import consistency
from cuvee.flows.recipe.refusals import bounded, explain
from cuvee.flows.recipe.schema import Recipe
from cuvee.mixtures.errors import CuveeError, RecipeError, UnknownName
from cuvee.mixtures.inference import screening
from cuvee.proxies import ladder
from cuvee.tasks import strict_yaml


def load_recipe(path: Path) -> tuple[Recipe, str]:
    """A recipe and its exact text.

    Raises:
        RecipeError: the file is missing, is not YAML, or does not make sense; says where.
        UnknownName: an unknown field or name, with a suggestion.
    """
    given, text = recorded_recipe(recipe_text(path), str(path), path.parent)
    return given.located(path.parent), text


def recorded_recipe(text: str, where: str, folder: Path | None) -> tuple[Recipe, str]:
    """A recipe from its text, which lies in a folder, and the text that is recorded of a study.

    That is its own, unless it hangs on a config.json, which may change or move.
    """
    values = recipe_values(text, where)
    named = name_sizes(values, folder)
    if any(ladder.is_config(size) for *_, size in written_sizes(values)):
        text = strict_yaml.dump_yaml(named)
    return build_recipe(named, where), text


def say_doubled_paths(recipe: Recipe, say: Callable[[str], None]) -> None:
    """Say which files are read, where the working directory has others of the same name."""
    if doubled := recipe.doubled_paths:
        say(
            f"Read from the recipe's folder {recipe.folder}, although the working directory has "
            f"others of the same name: {', '.join(doubled)}"
        )


def recipe_text(path: Path) -> str:
    """The text of a recipe's file; errors as `load_recipe`."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(strict_yaml.LARGEST + 1)  # which `strict_yaml` refuses
    except OSError as error:
        near = sorted(p.name for p in path.parent.glob("[!.]*.yaml"))
        hint = f"; recipes there: {', '.join(near)}" if near else ""
        raise RecipeError(f"cannot read the recipe {path} ({error.strerror}){hint}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {path} is not UTF-8: {error.reason}") from error


def parse(text: str, where: str = "the recipe", *, folder: Path | None = None) -> Recipe:
    """A recipe from its text, which lies in a folder; see `load_recipe`."""
    return recorded_recipe(text, where, folder)[0]


def recipe_values(text: str, where: str) -> Mapping[str, Any]:
    """The fields of a recipe's text."""
    try:
        values = strict_yaml.load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where} is not YAML: {strict_yaml.yaml_error(error)}") from error
    if not isinstance(values, Mapping):
        raise RecipeError(f"{where} must be a mapping of fields; found {type(values).__name__}")
    if "swarm" in values:
        raise RecipeError(
            f"{where} is a fit file of Olmix, which `cuvee fit`, `approve`, `export` and `handoff` "
            "read"
        )
    return values


def recipe_changes(given: Iterable[str]) -> dict[str, Any]:
    """Changes of a recipe as `--set` gives them: `proxy.tokens=1M`, with a value as YAML has it.

    Raises:
        RecipeError: one is no field and value, or its value is no YAML.
    """
    changes = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (equals and name.strip()):
            raise RecipeError(
                f"--set takes a field and its value, such as proxy.tokens=1M; got {one!r}"
            )
        try:
            changes[name.strip()] = strict_yaml.load_yaml(value)
        except yaml.YAMLError as error:
            problem = strict_yaml.yaml_error(error)
            raise RecipeError(f"the value in --set {one!r} is not YAML: {problem}") from error
    return changes


def apply_changes(
    text: str, changes: Mapping[str, Any], folder: Path | None = None
) -> tuple[Recipe, str]:
    """A recipe with some fields changed, and its text, which is what is recorded of a study.

    Args:
        text: of the recipe.
        changes: values by dotted name; parts on the way that are not there are made.
        folder: where the recipe lies.

    Raises:
        RecipeError: a change goes through what is no mapping, or makes no recipe.
        UnknownName: an unknown field or name, with a suggestion.
    """
    values = strict_yaml.load_yaml(text)
    for name, value in changes.items():
        *path, last = name.split(".")
        place = values
        for part in path:
            if place.get(part) is None:
                place[part] = {}
            place = place[part]
            if not isinstance(place, dict):
                raise RecipeError(f"the change {name!r} goes through {part!r}, which is no mapping")
        place[last] = value
    values = name_sizes(values, folder)
    return build_recipe(values, "the recipe with its changes"), strict_yaml.dump_yaml(values)


def written_sizes(values: Any) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Every size of proxies in a recipe's values: its place, the mapping around it, itself."""
    for outer, inner in (("proxy", None), ("confirm", "sizes"), ("method", "rungs")):
        part = values.get(outer) if isinstance(values, Mapping) else None
        within = part.get(inner) if inner and isinstance(part, Mapping) else [part]
        for one in within if isinstance(within, list) else ():
            if isinstance(one, dict) and "size" in one:
                yield f"{outer}.{inner}.size" if inner else f"{outer}.size", one, one["size"]


def name_sizes(values: Mapping[str, Any], folder: Path | None) -> Mapping[str, Any]:
    """The values of a recipe with every shape as the size of its runs (`ladder.size_name`).

    A relative path of a config.json is meant from the recipe's folder, else the working directory.

    Raises:
        RecipeError: a shape that no model has, or a file that is no config of a Llama.
    """

    def path(written: str) -> str:
        beside = os.path.join(folder or "", os.path.expanduser(written))
        return beside if os.path.exists(beside) else written

    named = copy.deepcopy(values)
    for place, around, size in written_sizes(named):
        try:
            around["size"] = ladder.size_name(size, path)
        except CuveeError as error:
            raise bounded(RecipeError(f"{place}: {error}")) from error
    return named


def build_recipe(values: Mapping[str, Any], where: str, *, folder: Path | None = None) -> Recipe:
    """A recipe from its values, which lie in a folder; see `load_recipe`."""
    values = name_sizes(values, folder)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise explain(error, where, Recipe) from None
    if (recipe.corpus is None) == (recipe.tables is None):
        raise RecipeError(f"{where}: a study needs either `corpus` or `tables`, and not both")
    if recipe.corpus and not recipe.full_scale.tokens:
        raise RecipeError(f"{where}: field 'full_scale.tokens' is missing")
    if recipe.corpus and bool(recipe.corpus.quickstart) == bool(recipe.corpus.domains):
        raise RecipeError(f"{where}: corpus needs either `quickstart` or `domains`, and not both")
    ladder.model_size(recipe.proxy.size)
    if recipe.evaluation.curve and recipe.proxy.schedule == "cosine":
        raise RecipeError(
            f"{where}: evaluation.curve scores runs on their way, but the rate of a cosine falls "
            "from the start, so that no point before its end can be compared with any run: use "
            "schedule wsd or constant, or leave curve out"
        )
    try:
        if recipe.confirm:
            recipe.confirm.check()
        recipe.export.check()
        if recipe.handoff:
            recipe.handoff.check(recipe.export)
        if recipe.proxy.trainer:
            recipe.proxy.trainer.check(recipe)
        recipe.build_method()
        objective = recipe.build_objective()
        if recipe.limits.drop_noisy:
            screening.require_mean(objective)
        consistency.check_continual(recipe)
        consistency.check_names(recipe)
        recipe.digest  # noqa: B018  what cannot be hashed is told now, and not after training
    except UnknownName:
        raise
    except (CuveeError, TypeError, ValueError) as error:
        raise bounded(RecipeError(f"{where}: {error}")) from error
    return recipe
