"""The command line: `cuvee plan | run | confirm | fit | approve | export | ...`, on one recipe.

Prefect reads its settings when it is imported, so the home is settled first and the flows are
imported after it.
"""

import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cuvee.flows import python_path

_path = python_path.leave_working_folder()  # before anything of ours is imported
from cuvee.tasks import process

process.set_environment({"PYTHONPATH": _path} if _path is not None else {})
process.set_environment(process.SINGLE_THREAD, over=False)  # before numpy, which reads them once
import typer

from cuvee.flows.recipe import olmix
from cuvee.flows.recipe.load import load_recipe
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.console import Display
from cuvee.flows.workspace import Workspace, find_workspace, open_workspace
from cuvee.flows.execution.executor import Executor
from cuvee.mixtures.errors import CuveeError, RecipeError
from cuvee.tasks.escape import printable
from cuvee.tasks.extras import install, lacking, require
from cuvee.tasks.tracking.ui import PORT
from cuvee.tasks.tracking.ui import serve_review as review_record

if TYPE_CHECKING:
    from cuvee.flows.execution.prefect_server import PrefectApi

LONGEST = 10_000  # characters of an error
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Finds the data mixture for language-model training, and says how sure it is.",
)
RecipePath = Annotated[Path, typer.Argument(help="the recipe, a YAML file", metavar="RECIPE")]
HomePath = Annotated[
    Path,
    typer.Option("--home", envvar="CUVEE_HOME", help="directory of data, results and records"),
]
DEFAULT_HOME = Path(".cuvee")
Cores = Annotated[
    int | None,
    typer.Option(min=1, help="most cores that trainings take; by default all that it may use"),
]


@app.command()
def plan(recipe: RecipePath, home: HomePath = DEFAULT_HOME) -> None:
    """Print the design, tokens, epochs, FLOPs and expected minutes; train nothing."""
    with _person() as display:
        require("`cuvee plan`", "train")
        given, _ = load_recipe(recipe)
        place = open_workspace(home, display, hub=given.evaluation.hub)
        from cuvee.flows.plan import draw_up

        draw_up(given, place, display)


@app.command()
def run(recipe: RecipePath, home: HomePath = DEFAULT_HOME, cores: Cores = None) -> None:
    """Run the whole study: train what is missing, recommend, confirm, report."""
    with _person() as display:
        require("`cuvee run`", "train", "flow")
        given, text = load_recipe(recipe)
        _limit(cores)
        place = open_workspace(home, display, hub=given.evaluation.hub)
        concluded = (place.study(given.name) / "summary.json").exists()

        def search(executor: Executor, workspace: Workspace) -> Any:
            from cuvee.flows.study.study import search_mixture

            return search_mixture(given, executor, workspace, text=text)

        # workers would only be in the way of a concluded study, which seldom trains
        _train("search-mixture", search, place, given, text, ahead=not concluded)
        _print_study(display, place, given.name)


@app.command()
def confirm(recipe: RecipePath, home: HomePath = DEFAULT_HOME, cores: Cores = None) -> None:
    """Test a finished study's recommendation at the larger sizes that the recipe names."""
    with _person() as display:
        require("`cuvee confirm`", "train", "flow")
        given, text = load_recipe(recipe)
        _limit(cores)
        place = open_workspace(home, display, hub=given.evaluation.hub)
        from cuvee.flows.study.confirm_larger import confirm_larger, sizes
        from cuvee.flows.study.finished import finished_study

        sizes(given)
        finished_study(given, place)  # before anything is started: most mistakes show here

        def enlarge(executor: Executor, workspace: Workspace) -> Any:
            return confirm_larger(given, executor, workspace)

        _train("confirm-mixture", enlarge, place, given, text)
        _print_study(display, place, given.name)


@app.command()
def fit(recipe: RecipePath, home: HomePath = DEFAULT_HOME) -> None:
    """Refit from the store, or from two tables, without training; also reads Olmix's fit files."""
    with _person() as display:
        with olmix.in_its_words() if olmix.detect(recipe) else contextlib.nullcontext():
            given, text = _loaded(recipe, display)
            place = open_workspace(home, display, hub=given.evaluation.hub)
            from cuvee.flows.console import print_study
            from cuvee.flows.study.refit import refit

            folder = refit(given, text, place)
        display.close()
        print_study(display.console, folder, _where_recorded(None))


@app.command()
def checkpoint(
    recipe: RecipePath,
    to: Annotated[Path, typer.Option(help="folder to write to")],
    mixture: Annotated[
        str, typer.Option(help="natural, uniform, recommended, or one of confirm.mixtures")
    ] = "natural",
    home: HomePath = DEFAULT_HOME,
) -> None:
    """Train one proxy of a recipe, and write it as a Hugging Face checkpoint with its tokenizer."""
    with _person() as display:
        require("`cuvee checkpoint`", "train")
        given, _ = load_recipe(recipe)
        place = open_workspace(home, display, hub=given.evaluation.hub)
        from cuvee.flows.handoff.checkpoint import write

        folder, spec = write(given, place, mixture, to)
        display.say(
            f"{folder}: {spec.size}, {spec.tokens:,} tokens of the {mixture} mixture, "
            f"run {spec.fingerprint[:12]}"
        )


@app.command()
def approve(
    recipe: RecipePath,
    by: Annotated[str, typer.Option(help="who approves; by default the user")] = "",
    note: Annotated[str, typer.Option(help="why")] = "",
    withdraw: Annotated[bool, typer.Option("--withdraw", help="take the approval back")] = False,
    home: HomePath = DEFAULT_HOME,
) -> None:
    """Approve the recipe's latest recommendation for its budget, if the evidence stands."""
    with _person() as display:
        given, _ = _loaded(recipe, display)
        place = open_workspace(home, display, hub=given.evaluation.hub)
        from cuvee.flows.handoff import handoff
        from cuvee.flows.console import shares_table

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
    with _person() as display:
        given = _loaded(recipe, display)[0] if recipe else None
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
    with _person() as display:
        require("`cuvee schedule`", "train", "flow")
        given, text = load_recipe(recipe)
        _limit(cores)
        place = open_workspace(home, display, hub=given.evaluation.hub)
        with _prefect_api(place, schedules=True) as api:
            from cuvee.flows.scheduling import deployment

            made = deployment.deployment(given, text, place.root, cron=cron, parameters=parameters)
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
    with _person() as display:
        require("`cuvee handoff`", "flow")
        given, text = _loaded(recipe, display)
        text = olmix.as_recipe(given) if olmix.detect(recipe) else text
        place = open_workspace(home, display, hub=given.evaluation.hub)
        with _prefect_api(place) as api:
            from cuvee.flows.handoff import delivery

            delivery.part(given)
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
    with _person() as display:
        require("`cuvee review`", "record")
        place = open_workspace(home, display)
        review_record(place.record, display.say, port=port)


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
    with _person() as display:
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
    with _person() as display:
        from cuvee.flows.upkeep.clean import clean as clean_home

        place = find_workspace(home)
        table, said = clean_home(place, kinds or [], older=older, remove=yes)
        if table.row_count:
            display.console.print(table)
        display.say(f"{place.root}: {said}")


def _loaded(path: Path, display: Display) -> tuple[Recipe, str]:
    """A recipe, or one made of a fit file of Olmix, and its text."""
    if not olmix.detect(path):
        return load_recipe(path)
    given, text, notes = olmix.load_olmix(path)
    for note in notes:
        display.say(note)
    return given, text


def _limit(cores: int | None) -> None:
    """Keep this process, and all that it starts, to some of the cores that it may use."""
    if cores is None:
        return
    if os.environ.get("RAY_ADDRESS"):
        raise RecipeError(
            "--cores limits the cores of this machine, and RAY_ADDRESS names a cluster with cores "
            "of its own: unset one of the two"
        )
    if not hasattr(os, "sched_setaffinity"):
        raise RecipeError(
            "--cores binds processes to cores, which this system does not do: leave it out"
        )
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def _train(
    name: str,
    work: Callable[[Executor, Workspace], Any],
    place: Workspace,
    given: Recipe,
    text: str,
    *,
    ahead: bool = False,
) -> None:
    """Run what trains as a flow of Prefect, on Ray.

    Args:
        name: of the flow.
        work: what it does, with an executor, in a workspace.
        place: the workspace.
        given: the recipe.
        text: of the recipe.
        ahead: have workers import while this process does, since there is something to train.
    """
    with _prefect_api(place) as api:
        from cuvee.flows.execution.ray_executor import RayExecutor

        with RayExecutor(place.root, device=given.proxy.device) as executor:
            if ahead:
                scoring = ["cuvee.evaluation.lm_eval_tasks"] if given.evaluation.suite else []
                executor.begin(["cuvee.tasks.train_pack", *scoring])
            from cuvee.flows.execution.prefect_session import prefect_step, run_as_flow

            within = dataclasses.replace(place, step=prefect_step)
            run_as_flow(
                name,
                lambda: work(executor, within),
                api,
                recipe_text=text,
                home=place.root,
                executor=executor,
            )


def _where_recorded(place: Workspace | None) -> str:
    """Where a study is recorded; nowhere, and what would change that, if MLflow is not there."""
    if lacking("record"):
        return f"not recorded: {install('record')}"
    return place.where_recorded if place else ""


def _prefect_api(place: Workspace, *, schedules: bool = False) -> "PrefectApi":
    """The embedded API, imported where it is used: the core has no Prefect."""
    from cuvee.flows.execution.prefect_server import PrefectApi

    return PrefectApi(place.root / "prefect-api", schedules=schedules)


def _print_study(display: Display, place: Workspace, name: str) -> None:
    from cuvee.flows.console import print_study

    display.close()
    print_study(display.console, place.study(name), _where_recorded(place))


@contextlib.contextmanager
def _person() -> Iterator[Display]:
    """What a person meets: progress, errors in a sentence, and a way on after Ctrl-C."""
    signal.signal(signal.SIGTERM, _terminate)
    signal.signal(signal.SIGINT, _terminate)  # which shells ignore in background jobs
    display = Display()
    try:
        yield display
    except CuveeError as error:
        display.close()
        print(f"cuvee: error: {printable(str(error))[:LONGEST]}", file=sys.stderr)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        display.close()
        print(
            "\ncuvee: stopped. Finished proxies are kept; run the same command to go on.",
            file=sys.stderr,
        )
        raise typer.Exit(INTERRUPTED) from None
    finally:
        display.close()


def _terminate(_number: int, _frame: Any) -> None:
    with contextlib.suppress(OSError):  # nobody may read it any more
        os.write(2, b"\ncuvee: stopping ...\n")  # at once: to end workers takes seconds
    raise KeyboardInterrupt


def main() -> None:
    """Entry point of the command `cuvee`."""
    app()
