"""The shipped recipes, each read once for all tests, and those of the examples."""

import functools
from pathlib import Path

from cuvee.flows.recipe.load import load_recipe
from cuvee.flows.recipe.schema import Recipe

ROOT = Path(__file__).parent.parent
PATHS = sorted((ROOT / "recipes").glob("*.yaml"))
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))


@functools.cache
def recipe(name: str) -> tuple[Recipe, str]:
    """A shipped recipe and its text, by the name of its file."""
    return load_recipe(PATHS[0].with_name(f"{name}.yaml"))
