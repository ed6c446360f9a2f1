"""Entry point of the command `cuvee`: the program with all its commands."""

import importlib
import pkgutil

from cuvee.flows import cli
from cuvee.flows.cli.app import app

FIRST = ("study_commands", "handoff_commands", "upkeep_commands")  # in this order in the help
for _module in sorted(
    (one.name for one in pkgutil.iter_modules(cli.__path__) if one.name.endswith("_commands")),
    key=lambda name: (name not in FIRST, FIRST.index(name) if name in FIRST else 0, name),
):
    importlib.import_module(f"{cli.__name__}.{_module}")


def main() -> None:
    """Run the command that was typed."""
    app()
