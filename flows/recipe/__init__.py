"""The recipe: what a person writes, read and checked before anything is spent."""

from cuvee.flows.recipe.schema import Recipe

__all__ = ["Recipe"]
