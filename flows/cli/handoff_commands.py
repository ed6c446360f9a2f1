"""Commands from a finished study to a trainer: approve, export, handoff, schedule, review."""

from pathlib import Path
from typing import Annotated

import typer

from cuvee.flows.cli.app import (
    DEFAULT_HOME,
    Cores,
    HomePath,
    RecipePath,
    app,
    load_or_translate,
    on_terminal,
    open_training,
    prefect_api,
)
from cuvee.flows.recipe import olmix
from cuvee.flows.workspace import open_workspace
from cuvee.mixtures.errors import RecipeError
from cuvee.tasks.extras import require
from cuvee.tasks.tracking.ui import PORT
from cuvee.tasks.tracking.ui import serve_review as review_record


@app.command()
def approve(
    recipe: RecipePath,
    by: Annotated[str, typer.Option(help="who approves; by default the user")] = "",
    note: Annotated[str, typer.Option(help="why")] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="take the approval back")] = False,
    home: HomePath = DEFAULT_HOME,
) -> None:
    """Approve the recipe's latest recommendation for its budget, if the evidence stands."""
    with on_terminal() as display:
        given, _ = load_or_translate(recipe, display)
        place = open_workspace(home, display, hub=given.evaluation.hub)
        from cuvee.flows.console import shares_table
        from cuvee.flows.handoff import handoff

        if withdraw:
            for taken in handoff.withdraw(given, place, by=by, note=note):
                display.say(f"{taken.study}: the approval by {taken.by} is {taken.withdrawn}")
            return
        card, approval = handoff.approve(given, place, by=by, note=note)
        display.console.print(shares_table(card.answer))
        display.say(f"Verdict: {card.verdict}")
        for warning in handoff.warnings(card):
            display.say(f"Warning: {warning}")
        display.say(
            f"{card.name}: recommendation {card.fingerprint[:12]} approved for "
            f"{approval.purpose.budget} by {approval.by} at {approval.at}"
        )


@app.command()
def export(
    recipe: Annotated[
        Path | None, typer.Argument(help="the recipe, a YAML file", metavar="RECIPE")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="the trainer's")] = "",
    to: Annotated[str, typer.Option(help="folder, a path or a URL")] = "",
    stage: Annotated[int | None, typer.Option(help="only this one, from 1")] = None,
    draft: Annotated[bool, typer.Option("--draft", help="without approval, marked so")] = False,
    verify: Annotated[str, typer.Option(help="check an export that was written before")] = "",
    home: HomePath = DEFAULT_HOME,
) -> None:
    """Write the recommendation in a trainer's own syntax, with a manifest beside it."""
    with on_terminal() as display:
        given = load_or_translate(recipe, display)[0] if recipe else None
        place = open_workspace(home, display, hub=bool(given and given.evaluation.hub))
        from cuvee.flows.handoff import handoff

        if verify:
            content = handoff.verify(verify, place)
            display.say(f"{verify}: as it was written ({content['status']}, {content['format']})")
            return
        if given is None:
            raise RecipeError("export needs a RECIPE, or --verify with the folder of an export")
        form = form or (given.handoff.format if given.handoff else "")
        where, content = handoff.export(given, place, form=form, to=to, stage=stage, draft=draft)
        display.say(f"{', '.join(content['files'])} and {where} ({content['status']})")


@app.command()
def schedule(
    recipe: RecipePath,
    home: HomePath = DEFAULT_HOME,
    cron: Annotated[str, typer.Option(help='when, such as "0 3 * * 1"; else the recipe says')] = "",
    parameters: Annotated[
        str, typer.Option(help="fields of the recipe to change, by dotted name, as JSON")
    ] = "{}",
    cores: Cores = None,
) -> None:
    """Search again whenever the cron says so and something has changed, until Ctrl-C."""
    with on_terminal() as display:
        require("`cuvee schedule`", "train", "flow")
        given, text, place = open_training(recipe, home, cores, display)
        with prefect_api(place, schedules=True) as api:
            from cuvee.flows.scheduling import deployment

            made = deployment.sweep_deployment(
                given, text, place.root, cron=cron, parameters=parameters
            )
            deployment.serve(made, api, display.say)


@app.command()
def handoff(
    recipe: RecipePath,
    watch: Annotated[bool, typer.Option("--watch", help="wait for approvals")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="repeat a call that failed or is not known to be done")
    ] = False,
    home: HomePath = DEFAULT_HOME,
) -> None:
    """Export what is approved to the place that the recipe names, and call its webhook once."""
    with on_terminal() as display:
        require("`cuvee handoff`", "flow")
        given, text = load_or_translate(recipe, display)
        text = olmix.as_recipe(given) if olmix.detect(recipe) else text
        place = open_workspace(home, display, hub=given.evaluation.hub)
        with prefect_api(place) as api:
            from cuvee.flows.handoff import delivery

            delivery.handoff_part(given)
            if watch:
                delivery.watch(given, text, place, api)
            result = delivery.run_handoff(given, text, place, api, again=again)
            display.say(f"{result['manifest']}: {result['state']}, {result['said']}")


@app.command()
def review(
    home: HomePath = DEFAULT_HOME,
    port: Annotated[int, typer.Option(help="port on 127.0.0.1")] = PORT,
) -> None:
    """Open the record of all studies in the MLflow UI, on this machine only."""
    with on_terminal() as display:
        require("`cuvee review`", "record")
        place = open_workspace(home, display)
        review_record(place.record, display.say, port=port)
