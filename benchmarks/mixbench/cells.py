"""Cells: a contestant on a table, a split and a number of rows; run in processes, kept in a file.

Contestants are laws, scaling laws, and the searches under a law. Cells are keyed by all that they
depend on, and a kept cell counts for the code that it was measured with.
"""

import hashlib
import json
import multiprocessing
from argparse import Namespace
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.mixtures.errors import RecipeError
from mixbench import contestants, scales, searched
from mixbench.judge import Judge, residual_floor
from mixbench.splits import sizes
from mixbench.tables import TABLES, Table, repeats_floor, sweeps
from mixbench.truths import WorldTable, world_tables

ROOT = Path(__file__).resolve().parents[2]
APART = ("page.py", "command.py", "export.py", "summary.py")  # which change no draw
SEARCHED = 64  # rows that the law sees under whose guidance searches are compared
Cell = dict[str, Any]
_tables: dict[str, Table | WorldTable] = {}  # before workers are forked, which inherit them
_cases: dict[str, Callable[[int], scales.ScaleDraw]] = {}
_floors: dict[str, np.ndarray] = {}


def table_names() -> list[str]:
    """Names of all tables."""
    return [*TABLES, *sweeps(), *world_tables()]


def load(options: Namespace) -> dict[str, Table]:
    """Read the tables that are asked for, as they are in their first draw."""
    loaders = {name: lambda n=name: TABLES[n](options.data) for name in TABLES}
    made = {**sweeps(), **world_tables()}
    for name in options.tables:
        _tables[name] = made[name] if name in made else loaders[name]()
        _floors[name] = floor_of(_tables[name].at(0))
    if options.scaling:
        _cases.update(scales.cases(options.data))
    for name, case in _cases.items():
        table = case(0).table
        known = floor_of(table) if name not in _floors else _floors[name]
        _floors[name] = known
    return {name: _tables[name].at(0) for name in options.tables}


def floor_of(table: Table) -> np.ndarray:
    """The noise floor: known, else from repeats, else from left-out residuals."""
    if table.floor is not None:
        return table.floor
    found = repeats_floor(table.pool)
    return residual_floor(table.pool) if found is None else found


def floor_from(table: Table) -> str:
    """Where a table's noise floor comes from."""
    if table.floor is not None:
        return "known"
    return "left-out residuals" if repeats_floor(table.pool) is None else "repeats"


def cells(options: Namespace, tables: dict[str, Table]) -> Iterator[Cell]:
    """All cells that are asked for, contestants side by side."""
    limits = {"asked": options.draws}
    for name, table in tables.items():
        place = {"kind": "law", "table": name, "source": table.source} | limits
        for split in options.splits:
            for rows in sizes(table, split, options.rows):
                for law in options.laws:
                    yield place | {"split": split, "rows": rows, "law": law}
    for name, case in _cases.items():
        place = {"kind": "scaling", "table": name, "source": case(0).table.source} | limits
        rows = len(case(0).scaling_runs)
        for law in options.scaling:
            yield place | {"split": "larger", "rows": rows, "law": law}
    for name in tables if options.searches else ():
        if isinstance(_tables[name], WorldTable):
            place = {"kind": "search", "table": name, "source": "worlds"} | limits
            for law in options.searches:
                yield place | {"split": "search", "rows": SEARCHED, "law": law}


def one_cell(cell: Cell, limit: float) -> Cell:
    """A cell with its figures, of which no draw begins after so many processor seconds."""
    name, limits = cell["table"], {"draws": cell["asked"], "limit": limit}
    if cell["kind"] == "scaling":
        return cell | scales.cell_draws(cell["law"], _cases[name], _floors[name], **limits)
    table: Any = _tables[name]
    if cell["kind"] == "search":
        return cell | searched.cell_draws(cell["law"], table, cell["rows"], **limits)
    return cell | contestants.cell_draws(
        cell["law"],
        lambda draw: Judge(table.at(draw), _floors[name]),
        cell["split"],
        cell["rows"],
        **limits,
    )


def measured(wanted: list[Cell], options: Namespace) -> Iterator[Cell]:
    """Cells with their figures: first those that the file holds, then others as they are done."""
    digest = code_digest(options.law_file)
    kept = kept_cells(options.out, digest, options.limit)
    by_key = {json.dumps(cell, sort_keys=True): cell for cell in wanted}
    yield from (kept[key] for key in by_key if key in kept)
    todo = {key: cell for key, cell in by_key.items() if key not in kept}
    for key, cell in _done(todo, options):
        kept[key] = cell | {"code": digest, "limit": options.limit}
        if options.out:
            keep(options.out, kept)
        yield kept[key]


def _done(todo: dict[str, Cell], options: Namespace) -> Iterator[tuple[str, Cell]]:
    if options.workers <= 1:
        yield from ((key, one_cell(cell, options.limit)) for key, cell in todo.items())
        return
    context = multiprocessing.get_context("fork")  # tables and laws of a file come along
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        waiting = {pool.submit(one_cell, cell, options.limit): key for key, cell in todo.items()}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def code_digest(files: list[Path]) -> str:
    """A digest of the code that gives figures: the mathematics, this program, one's own laws."""
    own = [*(ROOT / "mixtures").rglob("*.py"), *Path(__file__).parent.glob("*.py"), *files]
    own = [path for path in own if path.name not in APART]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(own))).hexdigest()[:16]


def kept_cells(path: Path | None, digest: str, limit: float) -> dict[str, Cell]:
    """Cells that a file holds of the same code, but those that a lower limit had stopped.

    Raises:
        RecipeError: it is no file of cells.
    """
    if path is None or not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["cells"]
        cells = {key: cell for key, cell in found.items() if cell["code"] == digest}
        return {
            key: cell
            for key, cell in cells.items()
            if cell["limit"] >= limit or len(cell.get("draws", ())) in (0, cell["asked"])
        }
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path} is no file of MixBench: name another with --out") from error


def keep(path: Path, found: dict[str, Cell]) -> None:
    """Write cells, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"cells": found}), encoding="utf-8")
    part.replace(path)
