"""Commands on a study: plan, run, confirm, fit, checkpoint, score."""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cuvee.flows.cli.app import MISTAKE, Session, command
from cuvee.flows.cli.options import Cores, RecipePath
from cuvee.tasks.escape import printable, without_secrets

if TYPE_CHECKING:
    from cuvee.flows.execution.executor import Executor
    from cuvee.flows.execution.prefect_server import PrefectApi
    from cuvee.flows.recipe.schema import Recipe
    from cuvee.flows.workspace import Workspace

PANEL = "A study"
Watch = Annotated[
    bool,
    typer.Option("--watch", help="one live page: rounds, proxies, curves, failures, cost, time"),
]


@command("cuvee plan recipes/quickstart.yaml", panel=PANEL)
def plan(session: Session, recipe: RecipePath) -> dict[str, Any]:
    """Print the design, tokens, epochs, FLOPs and expected minutes; train nothing.

    With --json: `study`, `domains` (tokens of each), `targets`, `proxy`, `runs`, `tokens`, `flops`,
    `core_seconds`, `tokens_per_second_and_core`, `speed_from`, `parameters`, `samples`,
    `units` (documents and items that a confirmation scores) and `power` (of each size that is
    confirmed: `smallest_gain`, by the `pair_noise` of earlier runs).
    """
    from cuvee.tasks.extras import require

    require("`cuvee plan`", "train")
    given, _, place = session.open_training(recipe, None)
    from cuvee.flows.plan import print_plan

    return print_plan(given, place, session.display)


@command("cuvee corpus study.yaml", panel=PANEL)
def corpus(
    session: Session,
    recipe: RecipePath,
    find: Annotated[
        str, typer.Option(help="a document's id, or words that stand in it", metavar="TEXT|ID")
    ] = "",
    new_tokenizer: Annotated[
        bool,
        typer.Option("--new-tokenizer", help="train another tokenizer; voids the study's runs"),
    ] = False,
) -> dict[str, Any]:
    """Prepare a recipe's corpus and print what it holds; or say what has held a document.

    With `--find`, nothing is prepared: all corpora of the home, and of a remote store, are looked
    through, and the runs and recommendations are named that rest on text with the document in it.

    With --json: `study`, `corpus`, `tokenizer`, `vocabulary` and `domains`; with `--find`,
    `documents`, `runs`, `scored`, `recommendations`, `states`, `searched` and `not_searched`.
    """
    from cuvee.tasks.extras import require

    require("`cuvee corpus`", "train")
    given, _, place = session.open_training(recipe, None)
    from cuvee.flows.study.corpus_figures import find_document, show_corpus

    if find:
        return find_document(place, session.display, find)
    return show_corpus(given, place, session.display, new_tokenizer=new_tokenizer)


@command("cuvee run recipes/quickstart.yaml --cores 2", panel=PANEL)
def run(
    session: Session, recipe: RecipePath, cores: Cores = None, watch: Watch = False
) -> dict[str, Any]:
    """Run the whole study: train what is missing, recommend, confirm, report.

    `cuvee plan` says before what it costs, and `cuvee status` meanwhile how far it is.
    Stopped by Ctrl-C, the same command goes on.

    With --json: `study`, `weights`, `verdict`, `warnings`, `summary` (all of summary.json), `files`
    and `record`.
    """
    from cuvee.tasks.extras import require

    require("`cuvee run`", "train", "flow")
    given, text, place = session.open_training(recipe, cores)
    concluded = (place.study(given.name) / "summary.json").exists()

    def search(executor: "Executor", workspace: "Workspace") -> Any:
        from cuvee.flows.study.study import search_mixture

        return search_mixture(given, executor, workspace, text=text)

    # workers would only be in the way of a concluded study, which seldom trains; and of a trainer
    # of others, which imports what it needs by itself
    ahead = not concluded and given.proxy.trainer is None
    _say_where_it_shows(session, recipe, place, watch=watch)
    _train("search-mixture", search, place, given, text, ahead=ahead)
    return _show_study(session, place.study(given.name), _where_recorded(place))


@command("cuvee status study.yaml --watch", panel=PANEL)
def status(
    session: Session,
    recipe: Annotated[
        Path | None,
        typer.Argument(help="the recipe; all studies of the home without it", metavar="RECIPE"),
    ] = None,
    watch: Watch = False,
) -> dict[str, Any]:
    """Say what runs now, what is done, failed or reused, and how long still; changes nothing.

    It works from any terminal, and on any machine that shares the store.
    Ctrl-C of `--watch` leaves the study alone.

    With --json: `home`, `store` and `studies`, each with `name`, `state`, `progress`, `verdict`,
    `recommendation`, `approved` and `next`.
    """
    place = session.find_home()
    given = session.load_or_translate(recipe)[0] if recipe else None
    from cuvee.flows.upkeep import status as statuses

    if watch:
        statuses.watch_studies(place, given.name if given else None)
        session.display.close()
    found = statuses.study_statuses(place, given, recipe, changes=session.changes)
    statuses.print_statuses(session.display, found, whole=given is not None)
    if given is None:
        statuses.print_copies(place)
    if not found:
        session.say(f"{place.root}: no study was run here yet; `cuvee run RECIPE` runs one")
    return {
        "home": str(place.root),
        "store": place.store,
        "studies": [one.to_json() for one in found],
    }


@command("cuvee confirm study.yaml", panel=PANEL)
def confirm(
    session: Session, recipe: RecipePath, cores: Cores = None, watch: Watch = False
) -> dict[str, Any]:
    """Test a finished study's recommendation at the larger sizes that the recipe names.

    With --json: `study`, `weights`, `verdict`, `warnings`, `summary` (all of summary.json), `files`
    and `record`.
    """
    from cuvee.tasks.extras import require

    require("`cuvee confirm`", "train", "flow")
    given, text, place = session.open_training(recipe, cores)
    from cuvee.flows.study.confirm_larger import confirm_larger, sizes
    from cuvee.flows.study.finished import finished_study

    sizes(given)
    finished_study(given, place)  # before anything is started: most mistakes show here

    def enlarge(executor: "Executor", workspace: "Workspace") -> Any:
        return confirm_larger(given, executor, workspace)

    _say_where_it_shows(session, recipe, place, watch=watch)
    _train("confirm-mixture", enlarge, place, given, text, command="confirm")
    return _show_study(session, place.study(given.name), _where_recorded(place))


@command("cuvee fit tables.yaml", panel=PANEL)
def fit(session: Session, recipe: RecipePath) -> dict[str, Any]:
    """Refit from the store, or from two tables, without training; also reads Olmix's fit files.

    With --json: `study`, `weights`, `verdict`, `warnings`, `summary` (all of summary.json), `files`
    and `record`.
    """
    from cuvee.flows.recipe import olmix

    with olmix.in_its_words() if olmix.detect(recipe) else contextlib.nullcontext():
        given, text, place = session.open_finished(recipe)
        from cuvee.flows.study.refit import refit

        folder = refit(given, text, place)
    return _show_study(session, folder, _where_recorded(None))


@command("cuvee checkpoint study.yaml --mixture recommended --to proxy/", panel=PANEL)
def checkpoint(
    session: Session,
    recipe: RecipePath,
    to: Annotated[Path, typer.Option(help="folder to write to")],
    mixture: Annotated[
        str, typer.Option(help="natural, uniform, recommended, or one of confirm.mixtures")
    ] = "natural",
) -> dict[str, Any]:
    """Train one proxy of a recipe, and write it as a Hugging Face checkpoint with its tokenizer.

    With --json: `folder`, `size`, `tokens`, `mixture` and `run` (its fingerprint).
    """
    from cuvee.tasks.extras import require

    require("`cuvee checkpoint`", "train")
    given, _, place = session.open_training(recipe, None)
    from cuvee.flows.handoff.checkpoint import write_checkpoint

    folder, spec = write_checkpoint(given, place, mixture, to)
    session.say(
        f"{folder}: {spec.size}, {spec.tokens:,} tokens of the {mixture} mixture, "
        f"run {spec.fingerprint[:12]}"
    )
    return {
        "folder": str(folder),
        "size": spec.size,
        "tokens": spec.tokens,
        "mixture": mixture,
        "run": spec.fingerprint,
    }


@command("cuvee score runs/a runs/b --recipe study.yaml --csv scores.csv", panel=PANEL)
def score(
    session: Session,
    checkpoints: Annotated[
        list[Path],
        typer.Argument(
            help="folders of Hugging Face checkpoints, with safetensors and a tokenizer",
            metavar="CHECKPOINT",
        ),
    ],
    recipe: Annotated[Path, typer.Option(help="whose held-out text and tasks they are scored on")],
    csv: Annotated[
        Path | None, typer.Option(help="write the table that `cuvee fit` reads, and one of errors")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps")] = "auto",
    dtype: Annotated[
        str, typer.Option(help="auto (as it was saved), float32, bfloat16, float16")
    ] = "auto",
    tokenizer: Annotated[
        Path | None, typer.Option(help="folder of a tokenizer in the place of their own")
    ] = None,
    context: Annotated[
        int | None, typer.Option(help="longest input in tokens, if less than their own")
    ] = None,
) -> dict[str, Any]:
    """Score checkpoints that others trained on a recipe's held-out text and tasks.

    What was scored is kept, and is not scored again. Nothing is unpickled, and no code of a
    checkpoint is run. One that cannot be scored is named, the others are scored, and the exit code
    is 2.

    With --json: `study`, `checkpoints` (each with `path`, `run`, `content`, `scores` and `details`,
    or `error`), `table` and `details`.
    """
    from cuvee.tasks.extras import require

    require("`cuvee score`", "train")
    given, _, place = session.open_training(recipe, None)
    from cuvee.evaluation.causal_model import CheckpointReading
    from cuvee.flows.external import score_checkpoints

    how = CheckpointReading(device, dtype, tokenizer, context)
    if csv:
        score_checkpoints.check_tables(csv)
    found = score_checkpoints.score_checkpoints(given, place, checkpoints, how)
    session.display.close()
    good = [one for one in found if not one.problem]
    if good:
        session.display.console.print(score_checkpoints.scores_table(good))
    more = score_checkpoints.write_tables(good, csv) if csv and good else None
    if more:
        session.say(f"scores: {csv} (`tables.scores` of a recipe); with errors: {more}")
    for one in (one for one in found if one.problem):
        print(f"cuvee: not scored: {without_secrets(printable(one.problem))}", file=sys.stderr)
        session.exit = MISTAKE
    return {
        "study": given.name,
        "checkpoints": [one.to_json() for one in found],
        "table": str(csv) if more else "",
        "details": str(more) if more else "",
    }


@command("cuvee collect study.yaml swarm/", panel=PANEL)
def collect(
    session: Session,
    recipe: RecipePath,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            help="swarm folders, run directories, or logs of trainers; by default the recipe's "
            "own run directories",
            metavar="[PATH]...",
        ),
    ] = None,
) -> dict[str, Any]:
    """Read runs that were trained elsewhere back into the store, by run id.

    Reads results and checkpoints of the trainer contract, CSV tables, results of lm-eval,
    trainer_state.json, event files of TensorBoard, W&B's histories and exports, logs of Megatron,
    and metrics of OLMo-core. What is not used is named, and the exit code is 2 where a run is
    refused or a file cannot be read.

    With --json: `study`, `counts`, `runs` (each with `run`, `name`, `role`, `state`, `said` and
    `from`), `foreign` and `unreadable` (each with `path` and `said`).
    """
    from cuvee.tasks.extras import require

    require("`cuvee collect`", "train")
    given, _, place = session.open_training(recipe, None)
    from cuvee.flows.external.collect import collect_runs, collected_table

    found = collect_runs(given, place, paths or [])
    session.display.close()
    counts = found.counts
    table = collected_table(found)
    if table.rows:
        session.display.console.print(table)
    session.say(", ".join(f"{n} {state}" for state, n in counts.items() if n))
    if counts["refused"] or counts["unreadable"]:
        session.exit = MISTAKE
    if counts["missing"] or counts["unfinished"]:
        session.say("`cuvee export --swarm` writes what still lacks, and `cuvee run` trains it")
    if counts["new"] or counts["stored"]:
        session.say(f"`cuvee fit {recipe}` recommends by what is there")
    return {"study": given.name, **found.to_json()}


def prefect_api(place: "Workspace", *, schedules: bool = False) -> "PrefectApi":
    """The embedded API, imported where it is used: the core has no Prefect."""
    from cuvee.flows.execution.prefect_server import PrefectApi

    return PrefectApi(place.root / "prefect-api", schedules=schedules)


def _train(
    name: str,
    work: Callable[["Executor", "Workspace"], Any],
    place: "Workspace",
    given: "Recipe",
    text: str,
    *,
    command: str = "run",
    ahead: bool = False,
) -> None:
    """Run what trains as a flow of Prefect, on Ray.

    Args:
        name: of the flow.
        work: what it does, with an executor, in a workspace.
        place: the workspace.
        given: the recipe.
        text: of the recipe.
        command: that a person typed.
        ahead: have workers import while this process does, since there is something to train.
    """
    from cuvee.flows.study.live_progress import followed_study

    # which `cuvee status` shows from here on: servers and workers take half a minute to start
    with followed_study(given, place, command) as followed, prefect_api(place) as api:
        from cuvee.flows.execution.ray_executor import RayExecutor

        with RayExecutor(place.root, device=given.proxy.device) as executor:
            if ahead:
                scoring = ["cuvee.evaluation.lm_eval_tasks"] if given.evaluation.suite else []
                executor.begin(["cuvee.tasks.train_pack", *scoring])
            from cuvee.flows.execution.prefect_session import prefect_step, run_as_flow

            within = dataclasses.replace(followed, step=prefect_step)
            run_as_flow(
                name,
                lambda: work(executor, within),
                api,
                recipe_text=text,
                home=place.root,
                executor=executor,
            )


def _say_where_it_shows(session: Session, recipe: Path, place: "Workspace", *, watch: bool) -> None:
    """Say where a study that begins now can be followed; take its page for the bars if asked."""
    from cuvee.flows.console import home_option
    from cuvee.flows.upkeep.status import typed_recipe
    from cuvee.tasks.extras import lacking

    option = home_option(place.root)
    curves = "" if lacking("record") else f"; its curves in MLflow: cuvee review{option}"
    typed = typed_recipe(recipe, session.changes)
    session.say(f"Follow it from another terminal: cuvee status {typed}{option} --watch{curves}")
    if watch:
        session.display.watch()


def _where_recorded(place: "Workspace | None") -> str:
    """Where a study is recorded; nowhere, and what would change that, if MLflow is not there."""
    from cuvee.tasks.extras import install, lacking

    if lacking("record"):
        return f"not recorded: {install('record')}"
    return place.where_recorded if place else ""


def _show_study(session: Session, folder: Path, record: str) -> dict[str, Any]:
    """Print what came of a study; for programs its summary, its warnings and its files."""
    from cuvee.flows.console import print_study

    session.display.close()
    print_study(session.display.console, folder, record)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    answer = json.loads((folder / "recommendation.json").read_text(encoding="utf-8"))
    return {
        "study": summary["name"],
        "weights": summary["weights"],
        "verdict": summary["verdict"],
        "warnings": answer.get("warnings", []),
        "summary": summary,
        "files": {
            "report": str(folder / "report.html"),
            "summary": str(folder / "summary.json"),
            "recommendation": str(folder / "recommendation.json"),
        },
        "record": record,
    }
