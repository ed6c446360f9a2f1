"""`cuvee init`: looks at tables of runs or at a folder of text, and drafts a recipe for them."""

from collections.abc import Sequence
from pathlib import Path

from cuvee.flows.init import score_tables
from cuvee.flows.init.draft import RecipeDraft
from cuvee.flows.init.table_recipe import recipe_for_tables
from cuvee.mixtures.errors import CuveeError, DataError, RecipeError
from cuvee.tasks.extras import require


def draft_recipe(
    tables: Sequence[Path], corpus: Path | None, *, here: Path, to: Path
) -> RecipeDraft:
    """A recipe for what is there.

    Args:
        tables: CSV files of runs, or folders of them; empty for a study on text.
        corpus: folder of text.
        here: the folder to look at where neither is given.
        to: the recipe's path, from which it names what it reads.

    Raises:
        DataError: what was found makes no study; says what it was.
        RecipeError: both were asked for.
    """
    if tables and corpus:
        raise RecipeError("a study rests on --from (tables of runs) or --corpus (text): give one")
    try:
        if tables:
            return recipe_for_tables(score_tables.look_at_tables(tables), to)
        return _for_text(corpus, to) if corpus else _for_whatever(here, to)
    except OSError as error:
        raise DataError(
            f"{error.filename or 'what is there'} cannot be looked at ({error.strerror or error}): "
            "change its permissions, or name another"
        ) from error


def _for_whatever(here: Path, to: Path) -> RecipeDraft:
    """Tables if they make a study, or else text."""
    why = f"{here} holds no .csv or .tsv file"
    if any(score_tables.is_table(path) for path in here.iterdir()):
        try:
            return recipe_for_tables(score_tables.look_at_tables([here]), to)
        except DataError as error:
            why = str(error)
    try:
        draft = _for_text(here, to)
    except CuveeError as error:
        raise DataError(
            f"no study can be made of what lies in {here}. As tables of runs: {why}. As text: "
            f"{error}. Name what is meant: `cuvee init --from mixtures.csv scores.csv`, or `cuvee "
            "init --corpus FOLDER`"
        ) from error
    return draft


def _for_text(folder: Path, to: Path) -> RecipeDraft:
    require("`cuvee init` on text", "train")
    from cuvee.flows.init.text_folder import look_at_text  # here: the core reads no text
    from cuvee.flows.init.text_recipe import recipe_for_text

    return recipe_for_text(look_at_text(folder), to)
