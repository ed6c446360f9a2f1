"""The command with which a study begins: init."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cuvee.flows.cli.app import Session, command


@command("cuvee init --corpus data/", panel="A study")
def init(
    session: Session,
    more: Annotated[
        list[Path] | None,
        typer.Argument(help="more tables for --from; or a folder to look in", metavar="PATH"),
    ] = None,
    tables: Annotated[
        list[Path] | None,
        typer.Option("--from", help="CSV tables of runs that were trained, or their folder"),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option("--corpus", help="folder of text: a sub-folder or a file for each domain"),
    ] = None,
    to: Annotated[Path, typer.Option(help="the recipe to write")] = Path("recipe.yaml"),
    force: Annotated[bool, typer.Option("--force", help="overwrite what is there")] = False,
) -> dict[str, Any]:
    """Look at text or at tables of runs, and write a first recipe with comments.

    `cuvee init --corpus data/` is for a study on text, `cuvee init --from mixtures.csv scores.csv`
    for runs that are trained already; without either it looks in the working folder.
    """
    from cuvee.flows.init.draft import check_free, write_draft
    from cuvee.flows.init.init import draft_recipe

    check_free([to], force=force)  # before anything is read
    given, here = [*(tables or ()), *(more or ())], Path()
    if not tables and not corpus and len(given) == 1 and given[0].is_dir():
        given, here = [], given[0]
    draft = draft_recipe(given, corpus, here=here, to=to)
    paths = write_draft(draft, to, force=force)
    session.display.console.print(draft.found)
    for line in draft.said:
        session.say(line)
    session.say(f"Wrote {', '.join(map(str, paths))}. Next: cuvee {draft.command} {to}")
    return {
        "written": list(map(str, paths)),
        "next": draft.command,
        "recipe": draft.text,
        "said": draft.said,
    }
