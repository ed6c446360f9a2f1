"""A first recipe for tables of runs, which `cuvee fit` accepts as it stands."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from cuvee.flows.init.draft import RecipeDraft, path_in_recipe, recipe_head, study_name
from cuvee.flows.init.recipe_text import commented_recipe
from cuvee.flows.init.score_tables import RunTables
from cuvee.flows.init.study_size import EPOCHS, round_down
from cuvee.flows.recipe.load import parse
from cuvee.mixtures.units import count_text, whole_number
from cuvee.tasks.escape import printable
from cuvee.tasks.study import table_file, tables


def recipe_for_tables(found: RunTables, to: Path) -> RecipeDraft:
    """A recipe for tables of runs; `to` is its path."""
    copies = _copies(found, to)
    names = [path_in_recipe(path, to) for path in (found.mixtures, found.scores)]
    if copies:
        beside = [path_in_recipe(to.parent / name, to) for name in copies]
        names = [beside[0], beside[0] if found.scores == found.mixtures else names[1]]
    part: dict[str, Any] = {"mixtures": names[0], "scores": names[1]}
    part |= {"id": found.key} if found.key else {}
    part |= {"only": list(found.domains)} if found.only else {}
    part |= {"targets": list(found.targets)} if found.some else {}
    part |= {"higher_is_better": list(found.higher)} if found.higher else {}
    part |= {"unmatched": "leave out"} if found.unmatched else {}
    part |= {"sizes": {n: _size(s) for n, s in found.sizes.items()}} if found.sizes else {}
    values: dict[str, Any] = {
        "name": study_name(found.mixtures.parent),
        "seed": 42,
        "tables": part,
        "objective": {"name": "mean", "weights": dict.fromkeys(_weighed(found), 1)},
        **_full_scale(found),
        "method": {
            "name": "regmix", "runs": found.runs, "laws": _laws(found), "search": "auto",
        },
    }  # fmt: skip
    text = commented_recipe(values, _notes_for_tables(found), recipe_head(to, "fit"))
    parse(text, str(to))
    return RecipeDraft(text, _columns_table(found), tuple(_said(found, copies)), "fit", copies)


def _laws(found: RunTables) -> list[str]:
    """Laws that so many runs are enough for, in five parts."""
    return ["kriging", "log_linear"] if found.runs >= 20 else ["log_linear"]


def _weighed(found: RunTables) -> tuple[str, ...]:
    """Targets of the first objective: losses alone, where there are any, since a mean adds up."""
    losses = [n for n in found.targets if n not in found.higher and n not in found.unclear]
    return tuple(losses) or found.targets


def _full_scale(found: RunTables) -> dict[str, Any]:
    """The run that the mixture is for, where the tokens that exist are known: all of them once."""
    if not tables.sizes_are_counts(found.sizes):
        return {}
    tokens = count_text(round_down(sum(found.sizes.values())))
    return {"full_scale": {"tokens": tokens}, "constraints": {"epochs": EPOCHS}}


def _size(size: float) -> float | int | str:
    """A size as recipes write it, where that is the same number."""
    if whole_number(count_text(size)) == size and size >= 1e3:
        return count_text(size)
    return int(size) if size.is_integer() else size


def _copies(found: RunTables, to: Path) -> dict[str, list[list[str]]]:
    """The table of mixtures in shares and with ids, where it lacks either."""
    if not (found.percents or found.numbered):
        return {}
    table = table_file.read_csv(found.mixtures)
    columns = {name: list(cells) for name, cells in table.columns.items()}
    for name, cells in columns.items():
        if not np.any(np.isnan(table.numbers(name))):
            columns[name] = [cell.strip().replace(table.decimal, ".") for cell in cells]
    for name in found.domains if found.percents else ():
        columns[name] = [repr(round(float(value) / 100, 12)) for value in table.numbers(name)]
    if found.numbered:
        columns = {"run": [str(i) for i in range(1, table.rows + 1)]} | columns
    rows = [list(columns), *map(list, zip(*columns.values(), strict=True))]
    return {f"{to.stem}.mixtures.csv": rows}


def _notes_for_tables(found: RunTables) -> dict[str, str]:
    higher = (
        f"Taken from their names to be better when higher: {', '.join(found.higher)}. "
        if found.higher
        else ""
    )
    unclear = (
        f"Taken to be better when lower, though their names do not say so: "
        f"{', '.join(found.unclear)}. "
        if found.unclear
        else ""
    )
    sizes = (
        ""
        if found.sizes
        else " Not given: `sizes`, the tokens of every domain, which make the natural mixture; "
        f"without them equal shares stand for it. As in sizes: {{{found.domains[0]}: 400B, ...}}."
    )
    return {
        "tables": f"{found.runs} runs of {len(found.domains)} domains. {higher}{unclear}"
        f"Change `higher_is_better` where that is wrong.{sizes}",
        "objective": "CHANGE THIS FIRST: which scores matter, and how much. Here the losses count "
        "alike; scores of unlike units do not belong into one mean."
        if _weighed(found) != found.targets
        else "CHANGE THIS FIRST: which scores matter, and how much. Scores of unlike units do not "
        "belong into one mean: leave some out, or weigh them.",
        "full_scale": "CHANGE THIS TOO: the tokens of the run that the mixture is for. Here about "
        "as many as there are.",
        "constraints": "`bounds` holds shares of domains, as in"
        f" bounds: {{{found.domains[0]}: [0.05, 0.5]}}.",
        "method": "regmix with kriging is the one to take first; the best law by cross-validation "
        "is used.",
    }


def _said(found: RunTables, copies: dict[str, list[list[str]]]) -> list[str]:
    lines = list(found.notes)
    if copies:
        what = [*(["shares instead of percents"] if found.percents else [])]
        what += ["a column `run`, since its rows had no ids"] if found.numbered else []
        lines.append(f"{next(iter(copies))} is {found.mixtures.name} with {' and '.join(what)}")
    if found.unmatched:
        lines.append(
            f"{found.unmatched} runs stand in one table only and are left out "
            "(tables.unmatched: leave out)"
        )
    if found.higher:
        lines.append(f"better when higher, by their names: {table_file.first_names(found.higher)}")
    if found.unclear:
        lines.append(
            "taken to be better when lower, though their names do not say so: "
            f"{table_file.first_names(found.unclear)}; if not, name them in tables.higher_is_better"
        )
    if not found.sizes:
        lines.append(
            "no sizes of domains were found, so that equal shares stand for the natural mixture: "
            "give tables.sizes"
        )
    return lines


def _columns_table(found: RunTables) -> Table:
    table = Table(title="Tables of runs", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    alone = found.mixtures == found.scores
    rows = [
        ("runs", f"{found.runs:,}"),
        ("table" if alone else "mixtures", str(found.mixtures)),
        *([] if alone else [("scores", str(found.scores))]),
        ("domains", ", ".join(found.domains) + (" (percents)" if found.percents else "")),
        ("targets", ", ".join(found.targets)),
        ("sizes", "found" if found.sizes else "not given"),
    ]
    for name, cell in rows:
        table.add_row(name, Text(printable(cell)))
    return table
