"""The command that lists what a recipe may name: list."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import typer

from cuvee.flows.cli.app import Session, command

PANEL = "What a recipe may say"
PLURALS = {"searches": "search"}  # of the registries' kinds; the others end in an s
OTHERS = {"formats": "export", "scalings": "scaling"}
SAID = {  # what the members themselves do not say
    "scalings": "Take additive first; a ladder compares those that its recipe names.",
    "tasks": "A target is task/ and the name without _offline. Beside these, every task of "
    "lm-eval itself can be named: its data is looked for in your own cache of Hugging Face, and on "
    "the network where HF_HUB_OFFLINE=1 is not set.",
    "suites": "`suite: null` asks no questions: held-out text of every domain is scored anyway.",
    "sizes": "Parameters in all at a vocabulary of 4096; `proxy.tokens` says how long they train.",
}


def _registered(kind: str) -> list[dict[str, Any]]:
    import cuvee.tasks.export  # noqa: F401  whose formats are a kind of the registry
    from cuvee.mixtures.catalog import catalog

    ordered = sorted(catalog(kind), key=lambda one: one.baseline)  # baselines come last
    return [
        {"name": one.name, "summary": one.summary, "when": one.guidance}
        | ({"baseline": True} if one.baseline else {})
        for one in ordered
    ]


def _tasks() -> list[dict[str, Any]]:
    from cuvee.evaluation.suites import OFFLINE

    return [
        {"name": name, "summary": one.about, "when": "", "metric": one.metric}
        for name, one in OFFLINE.items()
    ]


def _suites() -> list[dict[str, Any]]:
    from cuvee.evaluation.suites import SUITES

    def asked(limit: int | None) -> str:
        return f"{limit} items of each task" if limit else "all items of each task"

    return [
        {
            "name": name,
            "summary": f"{len(one.tasks)} tasks, {asked(one.limit)}: {', '.join(one.tasks)}",
            "when": "",
            "tasks": list(one.tasks),
        }
        for name, one in SUITES.items()
    ]


def _sizes() -> list[dict[str, Any]]:
    from cuvee.proxies.ladder import LADDER

    return [
        {
            "name": name,
            "summary": f"width {one.width}, {one.layers} layers, {one.heads} heads, context "
            f"{one.context} tokens",
            "when": "",
        }
        for name, one in LADDER.items()
    ]


def _first_choice(kind: str) -> str:
    from cuvee.mixtures.registry import FIRST_CHOICE

    first = FIRST_CHOICE.get(kind.removesuffix("s"), "")
    return f"{first[:1].upper()}{first[1:]}." if first else ""


def listed_kinds() -> Mapping[str, Callable[[], list[dict[str, Any]]]]:
    """What can be listed: every kind of the registries but worlds, which tests alone use."""
    import functools

    from cuvee.mixtures import registry

    words = {kind: word for word, kind in {**PLURALS, **OTHERS}.items()}
    kinds = [kind for kind in (*registry.FOLDERS, "export") if kind != "world"]
    made = {words.get(kind, f"{kind}s"): functools.partial(_registered, kind) for kind in kinds}
    return {**made, "tasks": _tasks, "suites": _suites, "sizes": _sizes}


def _complete(begun: str) -> Iterable[str]:
    return [kind for kind in listed_kinds() if kind.startswith(begun)]


@command("cuvee list methods", panel=PANEL, name="list")
def list_names(
    session: Session,
    kind: Annotated[
        str,
        typer.Argument(
            help="methods, laws, designs, searches, objectives, controllers, scalings, tasks, "
            "suites, sizes or formats; without one, the kinds",
            autocompletion=_complete,
        ),
    ] = "",
) -> dict[str, Any]:
    """List what a recipe may name, a line each, and when to take which.

    With --json: `kind`, `advice` and `members`, each with `name`, `summary` and `when`, and
    `baseline` where it is there for comparisons alone.
    """
    from rich.table import Table
    from rich.text import Text

    from cuvee.mixtures.errors import UnknownName

    kinds = listed_kinds()
    if not kind:
        session.say(f"cuvee list {' | '.join(kinds)}")
        return {"kind": "", "advice": "", "members": [{"name": name} for name in kinds]}
    if kind not in kinds:
        raise UnknownName("kind", kind, kinds)
    members, advice = kinds[kind](), SAID.get(kind) or _first_choice(kind)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    apart = False
    for one in members:
        if one.get("baseline") and not apart:
            table.add_row("", "")
            table.add_row("", Text("Baselines of comparisons:", style="italic"))
            apart = True
        table.add_row(Text(one["name"], style="bold"), Text(one["summary"]))
        if one["when"]:
            table.add_row("", Text(one["when"], style="dim"))
    session.display.console.print(table)
    if advice:
        session.say(advice)
    return {"kind": kind, "advice": advice, "members": members}
