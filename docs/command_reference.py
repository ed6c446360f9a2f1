"""Pages on the command line, from the program's own commands, and on the files that it leaves."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cuvee.flows.cli.app import EXITS, JSON_KEYS
from cuvee.flows.cli.main import app
from cuvee.flows.upkeep.clean import KINDS
from cuvee.flows.upkeep.disk_layout import STORE_FOLDERS, STUDY_FILES
from cuvee.mixtures.catalog import attribute_texts
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs.run_results import Failed, RunResult
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.tasks.study.finished import FinishedStudy

RECORDS = {
    "store/runs/FINGERPRINT/result.json, `spec`": RunSpec,
    "store/runs/FINGERPRINT/result.json of a run that finished": RunResult,
    "store/runs/FINGERPRINT/result.json of a run that failed": Failed,
    "store/cards/...: a finished study": FinishedStudy,
    "studies/NAME/recommendation.json": Recommendation,
}


PATHS = """\
# Files on disk

Everything lies in one folder, the home: `.cuvee`, or what `--home` or `CUVEE_HOME` names. `cuvee
clean` shows what it holds; evidence is removed only where it is named.

| in the home | what it is | for `cuvee clean` |
| --- | --- | --- |
"""
STORE = """
## The store

`CUVEE_STORE` may name another one, by any fsspec URL. Every record is JSON: `content`, and the
`sha256` of it.

| folder | what it holds |
| --- | --- |
"""


def command_page() -> str:
    """Every command with its options, in Markdown."""
    program: Any = typer.main.get_command(app)
    lines = ["# The command line", "", *_options(program)]
    lines += ["## Exit codes", "", "| code | means |", "| --- | --- |"]
    lines += [f"| {code} | {meaning} |" for code, meaning in EXITS.items()]
    lines += ["", "## Output for programs", "", JSON_KEYS]
    for name, command in program.commands.items():
        if not command.hidden:
            lines += ["", f"## cuvee {name} {{#{name}}}", "", *_command(command)]
    return "\n".join([*lines, ""])


def _command(command: Any) -> Iterator[str]:
    yield from [inspect.cleandoc(command.help or ""), ""]
    if command.epilog:
        yield from [inspect.cleandoc(command.epilog), ""]
    yield from _options(command)


def _options(command: Any) -> Iterator[str]:
    rows = [_option(param) for param in command.params if not getattr(param, "hidden", False)]
    if rows:
        yield from ["| argument or option | what it does | default |", "| --- | --- | --- |"]
        yield from [*rows, ""]


def _option(param: Any) -> str:
    argument = param.param_type_name == "argument"
    names = [*param.opts, *param.secondary_opts]
    names = [param.metavar or param.name.upper()] if argument else names
    default = param.default
    plain = isinstance(default, str | int | float | Path) and default not in (False, "")
    shown = "needed" if param.required else f"`{default}`" if plain else ""
    cells = [", ".join(f"`{one}`" for one in names), getattr(param, "help", "") or "", shown]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def files_page() -> str:
    """What lies in a home and in a store, and the keys of its records, in Markdown."""
    lines = [PATHS.rstrip()]
    for name, kind in KINDS.items():
        places = ", ".join(f"`{place}`" for place in kind.places)
        lines.append(f"| {places} | {kind.holds} | `{name}`{', evidence' * kind.evidence} |")
    lines += ["", "## A study's folder", "", "| in `studies/NAME/` | what it is |", "| --- | --- |"]
    lines += [f"| `{name}` | {about} |" for name, about in STUDY_FILES.items()]
    lines += [STORE.rstrip()]
    lines += [f"| `{name}/` | {about} |" for name, about in STORE_FOLDERS.items()]
    lines += ["", "## Keys of records"]
    for place, kind in RECORDS.items():
        lines += ["", f"### {place}", "", "| key | what it is |", "| --- | --- |"]
        lines += [f"| `{name}` | {text} |" for name, text in attribute_texts(kind).items()]
    return "\n".join([*lines, ""])
