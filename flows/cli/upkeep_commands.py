"""Commands on the home and its store: doctor, clean."""

from typing import Annotated

import typer

from cuvee.flows.cli.app import DEFAULT_HOME, HomePath, app, on_terminal
from cuvee.flows.workspace import find_workspace
from cuvee.mixtures.errors import RecipeError


@app.command()
def doctor(
    others: Annotated[
        list[str] | None,
        typer.Argument(help="stores to read and compare instead of the home's own", metavar="URL"),
    ] = None,
    store: Annotated[bool, typer.Option("--store", help="examine the store of results")] = False,
    home: HomePath = DEFAULT_HOME,
) -> None:
    """Say what cannot be trusted, changing nothing; exits with 1 if there is anything."""
    with on_terminal() as display:
        if not store:
            raise RecipeError("say what the doctor is to look at: `cuvee doctor --store`")
        place = find_workspace(home)
        from cuvee.flows.upkeep.doctor import examine

        problems, said = examine(place, others or ())
        for problem in problems:
            display.say(problem)
        display.say(said)
        if problems:
            raise typer.Exit(1)


@app.command()
def clean(
    kinds: Annotated[
        list[str] | None, typer.Argument(help="what to remove; by default all but evidence")
    ] = None,
    older: Annotated[str, typer.Option(help="only what was not used for so long: 30d")] = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="remove it; else only say what would go")
    ] = False,
    home: HomePath = DEFAULT_HOME,
) -> None:
    """Show what the home holds, and remove what can be made again; evidence only by name."""
    with on_terminal() as display:
        from cuvee.flows.upkeep.clean import clean as clean_home

        place = find_workspace(home)
        table, said = clean_home(place, kinds or [], older=older, remove=yes)
        if table.row_count:
            display.console.print(table)
        display.say(f"{place.root}: {said}")
