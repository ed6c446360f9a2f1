"""Options and arguments that commands share; those of every command are added by `app.command`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

RecipePath = Annotated[
    Path,
    typer.Argument(
        help="the recipe, a YAML file; paths in it are meant from its own folder, and what is not "
        "there is looked for in the working directory",
        metavar="RECIPE",
    ),
]
Cores = Annotated[
    int | None,
    typer.Option(min=1, help="most cores that trainings take; by default all that it may use"),
]
EVERY = "Options of every command"
SHARED: Mapping[str, tuple[Any, Any]] = {  # name: (annotation, default)
    "home": (
        Annotated[
            Path,
            typer.Option(
                "--home",
                envvar="CUVEE_HOME",
                help="directory of data, results and records",
                rich_help_panel=EVERY,
            ),
        ],
        Path(".cuvee"),
    ),
    "as_json": (
        Annotated[
            bool,
            typer.Option(
                "--json",
                help="print one JSON object on stdout, and all else on stderr",
                rich_help_panel=EVERY,
            ),
        ],
        False,
    ),
    "quiet": (
        Annotated[
            bool, typer.Option("--quiet", "-q", help="say errors alone", rich_help_panel=EVERY)
        ],
        False,
    ),
    "verbose": (
        Annotated[
            bool,
            typer.Option(
                "--verbose",
                "-v",
                help="show the lines of the log, with times; it lies in the home's logs/cuvee.log",
                rich_help_panel=EVERY,
            ),
        ],
        False,
    ),
}
SET: tuple[Any, Any] = (
    Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="change a field of the recipe, such as proxy.tokens=1M; may be repeated. What is "
            "recorded is the changed recipe: give the same to confirm, approve and export",
        ),
    ],
    None,
)
