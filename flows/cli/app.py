"""The program `cuvee` without its commands: what they share, and what a person meets."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cuvee.flows.console import Display
from cuvee.flows.recipe import olmix
from cuvee.flows.recipe.load import load_recipe
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.workspace import Workspace, open_workspace
from cuvee.mixtures.errors import CuveeError, RecipeError
from cuvee.tasks.escape import printable

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


@contextlib.contextmanager
def on_terminal() -> Iterator[Display]:
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


def open_training(
    path: Path, home: Path, cores: int | None, display: Display
) -> tuple[Recipe, str, Workspace]:
    """How a command that trains begins: the recipe, its text and the home; cores are bound."""
    given, text = load_recipe(path)
    limit_cores(cores)
    return given, text, open_workspace(home, display, hub=given.evaluation.hub)


def load_or_translate(path: Path, display: Display) -> tuple[Recipe, str]:
    """A recipe, or one made of a fit file of Olmix, and its text."""
    if not olmix.detect(path):
        return load_recipe(path)
    given, text, notes = olmix.load_olmix(path)
    for note in notes:
        display.say(note)
    return given, text


def limit_cores(cores: int | None) -> None:
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


def prefect_api(place: Workspace, *, schedules: bool = False) -> "PrefectApi":
    """The embedded API, imported where it is used: the core has no Prefect."""
    from cuvee.flows.execution.prefect_server import PrefectApi

    return PrefectApi(place.root / "prefect-api", schedules=schedules)
