"""Commands on a study: plan, run, confirm, fit, checkpoint."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

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
from cuvee.flows.console import Display
from cuvee.flows.execution.executor import Executor
from cuvee.flows.recipe import olmix
from cuvee.flows.recipe.load import load_recipe
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.workspace import Workspace, open_workspace
from cuvee.tasks.extras import install, lacking, require


@app.command()
def plan(recipe: RecipePath, home: HomePath = DEFAULT_HOME) -> None:
    """Print the design, tokens, epochs, FLOPs and expected minutes; train nothing."""
    with on_terminal() as display:
        require("`cuvee plan`", "train")
        given, _ = load_recipe(recipe)
        place = open_workspace(home, display, hub=given.evaluation.hub)
        from cuvee.flows.plan import print_plan

        print_plan(given, place, display)


@app.command()
def run(recipe: RecipePath, home: HomePath = DEFAULT_HOME, cores: Cores = None) -> None:
    """Run the whole study: train what is missing, recommend, confirm, report."""
    with on_terminal() as display:
        require("`cuvee run`", "train", "flow")
        given, text, place = open_training(recipe, home, cores, display)
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
    with on_terminal() as display:
        require("`cuvee confirm`", "train", "flow")
        given, text, place = open_training(recipe, home, cores, display)
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
    with on_terminal() as display:
        with olmix.in_its_words() if olmix.detect(recipe) else contextlib.nullcontext():
            given, text = load_or_translate(recipe, display)
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
    with on_terminal() as display:
        require("`cuvee checkpoint`", "train")
        given, _ = load_recipe(recipe)
        place = open_workspace(home, display, hub=given.evaluation.hub)
        from cuvee.flows.handoff.checkpoint import write_checkpoint

        folder, spec = write_checkpoint(given, place, mixture, to)
        display.say(
            f"{folder}: {spec.size}, {spec.tokens:,} tokens of the {mixture} mixture, "
            f"run {spec.fingerprint[:12]}"
        )


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
    with prefect_api(place) as api:
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


def _print_study(display: Display, place: Workspace, name: str) -> None:
    from cuvee.flows.console import print_study

    display.close()
    print_study(display.console, place.study(name), _where_recorded(place))
