"""Commands from a finished study to a trainer: approve, export, handoff, schedule, review."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from cuvee.flows.cli.app import Session, command
from cuvee.flows.cli.options import Cores, RecipePath
from cuvee.flows.cli.study_commands import prefect_api

PANEL = "From a study to a trainer"
MOST_DIFFERENCES = 12  # that `cuvee achieved` says in sentences


@command('cuvee approve study.yaml --note "confirmed at 1M"', panel=PANEL)
def approve(
    session: Session,
    recipe: RecipePath,
    by: Annotated[str, typer.Option(help="who approves; by default the user")] = "",
    note: Annotated[str, typer.Option(help="why")] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="take the approval back")] = False,
) -> dict[str, Any]:
    """Approve the recipe's latest recommendation for its budget, if the evidence stands.

    With --json: `study`, `recommendation`, `weights`, `verdict`, `answers`, `warnings`,
    `approved_for`, `by`, `at` and `note`; with --withdraw `study` and `withdrawn`.
    """
    given, _, place = session.open_finished(recipe)
    from cuvee.flows.console import answer_lines, shares_table
    from cuvee.flows.handoff import handoff

    if withdraw:
        taken = handoff.withdraw(given, place, by=by, note=note)
        for one in taken:
            session.say(f"{one.study}: the approval by {one.by} is {one.withdrawn}")
        return {"study": given.name, "withdrawn": [one.fingerprint for one in taken]}
    card, approval = handoff.approve(given, place, by=by, note=note)
    warnings = handoff.warnings(card)
    session.display.console.print(shares_table(card.answer))
    for line in answer_lines(card.answers or {"sure": card.verdict}):
        session.say(line)
    for warning in warnings:
        session.say(f"Warning: {warning}")
    session.say(
        f"{card.name}: recommendation {card.fingerprint[:12]} approved for "
        f"{approval.purpose.budget} by {approval.by} at {approval.at}"
    )
    return {
        "study": card.name,
        "recommendation": card.fingerprint,
        "weights": card.domains.mapping(card.answer.weights),
        "verdict": card.verdict,
        "answers": dict(card.answers),
        "warnings": warnings,
        "approved_for": approval.purpose.budget,
        "by": approval.by,
        "at": approval.at,
        "note": approval.note,
    }


@command("cuvee export study.yaml --format megatron --to blend/", panel=PANEL)
def export(
    session: Session,
    recipe: Annotated[
        Path | None,
        typer.Argument(help="the recipe, a YAML file; not with --verify", metavar="[RECIPE]"),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help="the trainer's: `cuvee list formats` names them")
    ] = "",
    to: Annotated[str, typer.Option(help="folder, a path or a URL")] = "",
    stage: Annotated[int | None, typer.Option(help="only this one, from 1")] = None,
    draft: Annotated[bool, typer.Option("--draft", help="without approval, marked so")] = False,
    verify: Annotated[str, typer.Option(help="check an export that was written before")] = "",
    swarm: Annotated[
        str,
        typer.Option(
            help="in place of the recommendation the runs that the study needs next, for your own "
            "trainer and cluster: `contract`, or a format for its files beside run.json"
        ),
    ] = "",
) -> dict[str, Any]:
    """Write the recommendation in a trainer's own syntax, with a manifest beside it.

    With --json: `manifest` and `written` (its place), or `verified` with --verify; with --swarm
    `swarm` (its manifest, null where nothing is left to train) and `written`.
    """
    from cuvee.mixtures.errors import RecipeError

    if swarm:
        if recipe is None or form or verify or draft or stage:
            raise RecipeError("--swarm goes with a RECIPE and --to alone")
        return _export_swarm(session, recipe, swarm, to)

    given = session.load_or_translate(recipe)[0] if recipe else None
    place = session.open_home(hub=bool(given and given.hub))
    from cuvee.flows.handoff import handoff

    if verify:
        content = handoff.verify(verify, place)
        session.say(f"{verify}: as it was written ({content['status']}, {content['format']})")
        return {"verified": verify, "manifest": content}
    if given is None:
        raise RecipeError("export needs a RECIPE, or --verify with the folder of an export")
    form = form or (given.handoff.format if given.handoff else "")
    where, content = handoff.export(given, place, form=form, to=to, stage=stage, draft=draft)
    session.say(f"{', '.join(content['files'])} and {where} ({content['status']})")
    return {"written": where, "manifest": content}


def _export_swarm(session: Session, recipe: Path, form: str, to: str) -> dict[str, Any]:
    from cuvee.tasks.extras import require

    require("`cuvee export --swarm`", "train")
    from cuvee.flows.external.swarm import export_swarm

    given, _ = session.load(recipe)
    made = export_swarm(given, session.open_home(hub=given.hub), form=form, to=to)
    if made is None:
        session.say(f"Nothing of {given.name} is left to train: `cuvee fit {recipe}` recommends")
        return {"written": "", "swarm": None}
    roles = Counter(run.role for run in made.runs)
    counted = ", ".join(f"{count} {role}" for role, count in roles.items())
    session.say(
        f"{to}: {len(made.runs)} runs to train ({counted}). Nothing has been started: `sbatch "
        "array.slurm` or `bash run_all.sh` there trains them, and then `cuvee collect` reads them"
    )
    return {"written": str(Path(to).expanduser().absolute()), "swarm": made.model_dump()}


@command("cuvee achieved study.yaml train.log counts.csv", panel=PANEL)
def achieved(
    session: Session,
    recipe: RecipePath,
    logs: Annotated[
        list[Path],
        typer.Argument(
            help="logs and counters of the run: a CSV with domain, tokens and perhaps step; "
            "Megatron-LM's log and its blend's index; logs of OLMo-core and torchtitan",
            metavar="LOGS...",
        ),
    ],
    export: Annotated[str, typer.Option(help="the export that the run was given")] = "",
) -> dict[str, Any]:
    """Hold what the full run drew to what was recommended and exported; exits with 1 if it differs.

    With --json: `study`, `recommendation`, `agrees`, `tokens`, `target`, `domains`, `stages`,
    `differences`, `causes` and `sources`.
    """
    import dataclasses

    from cuvee.flows.cli.app import FOUND

    given, _, place = session.open_finished(recipe)
    from cuvee.flows.handoff.achieved import achieved_shares, achieved_table

    card, found, sources = achieved_shares(given, place, logs, export)
    stages = [(f"Stage {i}", rows) for i, rows in enumerate(found.stages, start=1)]
    for title, rows in [("Shares of the run", found.domains), *stages]:
        session.display.console.print(achieved_table(rows, title))
    more = len(found.differences) - MOST_DIFFERENCES
    lines = [*sources, *(f"Differs: {one}" for one in found.differences[:MOST_DIFFERENCES])]
    lines += [f"Differs: {more} more, which --json names"] if more > 0 else []
    lines += [f"Likely: {one}" for one in found.causes]
    if not found.causes:
        wrong = "No known mistake gives what was drawn."
        lines += [wrong if found.differences else "The run drew what was recommended."]
    for line in lines:
        session.say(line)
    session.exit = FOUND if found.differences else 0
    plain = dataclasses.asdict(found) | {"agrees": not found.differences, "sources": sources}
    return {"study": card.name, "recommendation": card.fingerprint, **plain}


@command('cuvee schedule study.yaml --cron "0 3 * * 1"', panel=PANEL)
def schedule(
    session: Session,
    recipe: RecipePath,
    cron: Annotated[str, typer.Option(help='when, such as "0 3 * * 1"; else the recipe says')] = "",
    parameters: Annotated[
        str, typer.Option(help="fields of the recipe to change, by dotted name, as JSON")
    ] = "{}",
    cores: Cores = None,
) -> None:
    """Search again whenever the cron says so and something has changed, until Ctrl-C."""
    from cuvee.tasks.extras import require

    require("`cuvee schedule`", "train", "flow")
    given, text, place = session.open_training(recipe, cores)
    with prefect_api(place, schedules=True) as api:
        from cuvee.flows.scheduling import deployment

        made = deployment.sweep_deployment(
            given, text, place.root, cron=cron, parameters=parameters
        )
        deployment.serve(made, api, session.say)


@command("cuvee handoff study.yaml --watch", panel=PANEL)
def handoff(
    session: Session,
    recipe: RecipePath,
    watch: Annotated[bool, typer.Option("--watch", help="wait for approvals")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="repeat a call that failed or is not known to be done")
    ] = False,
) -> dict[str, Any]:
    """Export what is approved to the place that the recipe names, and call its webhook once.

    With --json: `state`, `said`, `manifest` (its place), `recommendation` and `key`.
    """
    from cuvee.flows.recipe import olmix
    from cuvee.tasks.extras import require

    require("`cuvee handoff`", "flow")
    given, text, place = session.open_finished(recipe)
    text = olmix.as_recipe(given) if olmix.detect(recipe) else text
    with prefect_api(place) as api:
        from cuvee.flows.handoff import delivery

        delivery.handoff_part(given)
        if watch:
            delivery.watch(given, text, place, api)
        result = delivery.run_handoff(given, text, place, api, again=again)
        session.say(f"{result['manifest']}: {result['state']}, {result['said']}")
        return result


@command("cuvee review --port 5001", panel=PANEL)
def review(
    session: Session,
    port: Annotated[
        int | None, typer.Option(help="port on 127.0.0.1; by default 5000", min=1, max=65535)
    ] = None,
) -> None:
    """Open the record of all studies in the MLflow UI, on this machine only.

    It shows a study that runs as it goes on: open it beside `cuvee run`.
    """
    from cuvee.tasks.extras import require

    require("`cuvee review`", "record")
    from cuvee.tasks.tracking.ui import PORT, require_record, serve_review

    require_record(session.find_home().record)  # before a home is made
    place = session.open_home()
    serve_review(place.record, session.display.say, port=port or PORT)
