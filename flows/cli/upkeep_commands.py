"""Commands on the home and its store: doctor, clean."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cuvee.flows.cli.app import FOUND, Session, command

if TYPE_CHECKING:
    from cuvee.flows.workspace import Workspace

PANEL = "The home and this machine"


@command("cuvee doctor", panel=PANEL)
def doctor(
    session: Session,
    others: Annotated[
        list[str] | None,
        typer.Argument(help="stores to read and compare instead of the home's own", metavar="URL"),
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="examine the store of results instead")
    ] = False,
) -> dict[str, Any]:
    """Say what of this machine, or of a store, is in the way, changing nothing; exits with 1 then.

    Looks at Python, packages, cores, memory, disks, GPU, the home, the clock, and the servers that
    the environment names. With `--store`: which results cannot be trusted, by hashes made anew.
    """
    place = session.find_home()
    if store or others:
        return _examine_store(session, place, others or ())
    from cuvee.flows.upkeep.machine import PROBLEM, WARNING, examine_machine
    from cuvee.flows.upkeep.servers import examine_servers

    findings = []
    for finding in itertools.chain(examine_machine(place), examine_servers()):
        findings.append(finding)
        session.say(f"{finding.state:8}{finding.subject}: {finding.said}")
    counts = {state: sum(f.state == state for f in findings) for state in (PROBLEM, WARNING)}
    session.exit = FOUND if counts[PROBLEM] else 0
    said = f"{counts[PROBLEM]} problems, {counts[WARNING]} warnings; nothing was changed"
    session.say(said)
    return {"findings": [dataclasses.asdict(one) for one in findings], "said": said}


def _examine_store(session: Session, place: "Workspace", urls: Sequence[str]) -> dict[str, Any]:
    from cuvee.flows.upkeep.doctor import examine

    problems, said = examine(place, urls)
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
    """Show what the home holds, and remove what can be made again; evidence only by name.

    `sweeps` by name is also what sweeps left in a store elsewhere (CUVEE_STORE).

    With --json: `home`, `kinds` (each `kind`, `items`, `bytes` and whether it is `chosen`),
    `removed` (whether anything was) and `said`.
    """
    from cuvee.flows.upkeep.clean import clean as clean_home

    place = session.find_home()
    table, said, rows = clean_home(place, kinds or [], older=older, remove=yes)
    if table.row_count:
        session.display.console.print(table)
    session.say(f"{place.root}: {said}")
    went = yes and any(row["chosen"] for row in rows)
    return {"home": str(place.root), "kinds": rows, "removed": went, "said": said}
