"""Commands on the home and its store: doctor, clean."""

from typing import Annotated, Any

import typer

from cuvee.flows.cli.app import FOUND, Session, command

PANEL = "The home and this machine"


@command("cuvee doctor --store", panel=PANEL)
def doctor(
    session: Session,
    others: Annotated[
        list[str] | None,
        typer.Argument(help="stores to read and compare instead of the home's own", metavar="URL"),
    ] = None,
    store: Annotated[bool, typer.Option("--store", help="examine the store of results")] = False,
) -> dict[str, Any]:
    """Say what cannot be trusted, changing nothing; exits with 1 if there is anything."""
    from cuvee.mixtures.errors import RecipeError

    if not store:
        raise RecipeError("say what the doctor is to look at: `cuvee doctor --store`")
    place = session.find_home()
    from cuvee.flows.upkeep.doctor import examine

    problems, said = examine(place, others or ())
    for problem in problems:
        session.say(problem)
    session.say(said)
    session.exit = FOUND if problems else 0
    return {"problems": problems, "said": said}


@command("cuvee clean corpora --older 30d --yes", panel=PANEL)
def clean(
    session: Session,
    kinds: Annotated[
        list[str] | None, typer.Argument(help="what to remove; by default all but evidence")
    ] = None,
    older: Annotated[str, typer.Option(help="only what was not used for so long: 30d")] = "",
    yes: Annotated[
        bool, typer.Option("--yes", help="remove it; else only say what would go")
    ] = False,
) -> dict[str, Any]:
    """Show what the home holds, and remove what can be made again; evidence only by name."""
    from cuvee.flows.upkeep.clean import clean as clean_home

    place = session.find_home()
    table, said, rows = clean_home(place, kinds or [], older=older, remove=yes)
    if table.row_count:
        session.display.console.print(table)
    session.say(f"{place.root}: {said}")
    return {"home": str(place.root), "kinds": rows, "removed": yes, "said": said}
