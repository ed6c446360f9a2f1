"""Recipes from files: strict YAML, checked whole before anything is spent."""

from collections.abc import Mapping
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
    text = recipe_text(path)
    return parse(text, str(path)), text


def recipe_text(path: Path) -> str:
    """The text of a recipe's file; errors as `load_recipe`."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(strict_yaml.LARGEST + 1)  # which `strict_yaml` refuses
    except OSError as error:
        near = sorted(p.name for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f"; recipes there: {', '.join(near)}" if near else ""
        raise RecipeError(f"cannot read the recipe {path} ({error.strerror}){hint}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {path} is not UTF-8: {error.reason}") from error


def parse(text: str, where: str = "the recipe") -> Recipe:
    """A recipe from its text; see `load_recipe`."""
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
    return build_recipe(values, where)


def build_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from its values; see `load_recipe`."""
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
