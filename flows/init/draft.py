"""A drafted recipe: its text, what was found, and what goes beside it."""

import contextlib
import csv
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.table import Table

from cuvee.flows.recipe.json_schema import schema_text
from cuvee.mixtures.errors import RecipeError, StorageError
from cuvee.tasks.escape import printable

SCHEMA = "recipe.schema.json"  # beside the recipe, which names it to editors


@dataclass(frozen=True)
class RecipeDraft:
    """A first recipe.

    Attributes:
        text: of the recipe, YAML.
        found: what was found, as a table.
        said: what was found, left out and taken, a sentence each.
        command: what comes next: "plan" or "fit".
        copies: tables that go beside the recipe, by name: their rows.
    """

    text: str
    found: Table
    said: tuple[str, ...]
    command: str
    copies: dict[str, list[list[str]]] = field(default_factory=dict)


def check_free(paths: Sequence[Path], *, force: bool) -> None:
    """Refuse what is there already, unless it may be overwritten.

    Raises:
        RecipeError: something of that name is there.
    """
    for path in paths:
        if os.path.lexists(path) and (not force or path.is_dir()):
            way = "" if path.is_dir() else ", or overwrite it with --force"
            raise RecipeError(
                f"{path} is there already, and is left as it is: give another name with --to{way}"
            )


def write_draft(draft: RecipeDraft, to: Path, *, force: bool) -> list[Path]:
    """Write a draft, and beside it its tables, and the schema if there is none.

    Returns what was written, the recipe first.

    Raises:
        RecipeError: something of that name is there.
        StorageError: it cannot be written.
    """
    paths = [to, *(to.parent / name for name in draft.copies)]
    check_free(paths, force=force)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        for name, rows in draft.copies.items():
            with (to.parent / name).open("w", encoding="utf-8", newline="") as file:
                csv.writer(file).writerows(rows)
        to.write_text(draft.text, encoding="utf-8")
        with (
            contextlib.suppress(FileExistsError),
            (to.parent / SCHEMA).open("x", encoding="utf-8") as file,
        ):
            paths.append(to.parent / SCHEMA)
            file.write(schema_text())
    except OSError as error:
        raise StorageError(
            f"cannot write {error.filename or to} ({error.strerror or error}): choose another "
            "place with --to"
        ) from error
    return paths


def path_in_recipe(path: Path, to: Path) -> str:
    """A path as the recipe names it: relative where recipe and working folder are one."""
    whole = path if path.is_absolute() else Path.cwd() / path
    if to.resolve().parent == Path.cwd().resolve() and whole.is_relative_to(Path.cwd()):
        inner = str(whole.relative_to(Path.cwd()))
        return f"./{inner}" if inner.startswith("~") else inner
    return str(whole)


def study_name(folder: Path) -> str:
    """A name for a study on what a folder holds."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.resolve().name).strip("-._")
    return plain[:60] or "study"


def recipe_head(to: Path, command: str) -> str:
    """The comment at the top of a recipe, which a command reads next."""
    return (
        f"yaml-language-server: $schema={SCHEMA}\n"
        f"A first recipe, drafted by `cuvee init`. Next: `cuvee {command} {printable(to.name)}`.\n"
        "What to change first is marked so: what the model is to be good at (`objective`), and the "
        f"run that the mixture is for (`full_scale`). By {SCHEMA} beside this file, which "
        "`cuvee schema` prints, an editor completes and checks it."
    )
