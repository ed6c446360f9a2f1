"""Entry point of the command `cuvee`: the program with all its commands."""

import importlib
import pkgutil
import sys
import traceback
from types import TracebackType
from typing import Annotated, Any

import typer

from cuvee.flows import cli
from cuvee.flows.cli.app import MISTAKE, app, print_answer
from cuvee.tasks.escape import without_secrets

FIRST = ("start", "study", "list", "schema", "handoff", "upkeep")  # the order of files in the help
FILES = [name for _, name, _ in pkgutil.iter_modules(cli.__path__) if name.endswith("_commands")]
for _file in [f"{name}_commands" for name in FIRST] + sorted(FILES):
    importlib.import_module(f"{cli.__name__}.{_file}")
USAGE: Any = typer.BadParameter.__base__  # of all mistakes in what was typed


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"cuvee {version('cuvee')}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="say the version and end"
        ),
    ] = False,
) -> None:
    """Finds the data mixture for language-model training, and says how sure it is."""


def main() -> None:
    """Run the command that was typed; with `--json` a mistake in it is an object too."""
    sys.excepthook = _show_fault
    if "--json" not in sys.argv:
        app()
    try:
        sys.exit(app(standalone_mode=False))
    except USAGE as error:
        text, at = without_secrets(error.format_message()), error.ctx
        print(f"cuvee: error: {text}", file=sys.stderr)
        name = at.info_name if at and at.parent else "cuvee"
        print_answer({"command": name, "exit": MISTAKE, "error": text, "kind": "UsageError"})
        sys.exit(MISTAKE)


def _show_fault(kind: type[BaseException], fault: BaseException, at: TracebackType | None) -> None:
    text = "".join(traceback.format_exception(kind, fault, at))
    print(without_secrets(text), end="", file=sys.stderr)
