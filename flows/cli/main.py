"""Entry point of the command `cuvee`: the program with all its commands."""

import importlib
import json
import pkgutil
import sys
from typing import Annotated, Any

import typer

from cuvee.flows import cli
from cuvee.flows.cli.app import MISTAKE, app

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
    if "--json" not in sys.argv:
        app()
    try:
        sys.exit(app(standalone_mode=False))
    except USAGE as error:
        text = error.format_message()
        print(f"cuvee: error: {text}", file=sys.stderr)
        print(json.dumps({"error": text, "kind": "UsageError", "exit": MISTAKE}, indent=1))
        sys.exit(MISTAKE)
