"""MixBench: how well every law and search ranks, decides and predicts, table by table.

    python benchmarks/mixbench [--data FOLDER] [--tables NAME ...] [--laws NAME ...]
        [--law-file my_law.py] [--rows 16 32 64 128 256 512] [--splits random far] [--draws 20]
        [--limit SECONDS] [--workers 2] [--reference LAW] [--out FILE.json] [--page FILE.md]

Laws are registered names, or JSON mappings such as '{"name": "kriging", "draws": 2}'; a law of
one's own takes part with --law-file. Rows beyond a table's mean all of its rows. How rows are
parted stands in `splits.py`, what is judged in `judge.py`, where tables come from in `tables.py`
and `truths.py`. Seconds are processor time of one fit on one thread. A cell (a law on a table, a
split and a number of rows) begins no further draw after --limit processor seconds, so that slow
laws have fewer draws, which the figures say. With --out a cell that the file holds, of the same
code, is not run again. The last line printed is JSON.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.mixtures.errors import CuveeError, RecipeError
from cuvee.mixtures.laws import default
from cuvee.mixtures.registry import names
from mixbench import contestants, summary
from mixbench.judge import Judge, residual_floor
from mixbench.splits import SPLITS, sizes
from mixbench.tables import TABLES, Table, repeats_floor
from mixbench.truths import WorldTable, world_tables

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
ROWS = [16, 32, 64, 128, 256, 512]
HEADER = (
    "| table | split | rows | law | judged | draws | rank x 100 | close pairs, % | regret | "
    "error, % | coverage, % | fit, s |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)
Cell = dict[str, Any]
_loaded: dict[str, Table | WorldTable] = {}  # before workers are forked, which inherit them
_floors: dict[str, np.ndarray] = {}


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="mixbench", description=__doc__.split("\n\n", 1)[0])
    known = [*TABLES, *world_tables()]
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the tables")
    parser.add_argument("--tables", nargs="+", default=known, choices=known, metavar="NAME")
    parser.add_argument("--laws", nargs="+", default=list(names("law")), metavar="LAW")
    parser.add_argument("--law-file", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=SPLITS)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--limit", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--reference", default=default.NAME, metavar="LAW")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Print the figures of every cell and, on the last line, all of them as JSON."""
    options = options_of(arguments)
    try:
        for path in options.law_file:
            options.laws += [law for law in contestants.laws_of(path) if law not in options.laws]
        for law in options.laws:
            contestants.law_of(law)
        found = measure(options)
    except (CuveeError, json.JSONDecodeError) as error:
        sys.exit(str(error))
    whole = report(found, options)
    show_differences(whole)
    print(json.dumps(whole))


def measure(options: argparse.Namespace) -> dict[str, Cell]:
    """All cells that are asked for, run or kept."""
    for name in options.tables:
        _loaded[name] = {**world_tables()}.get(name) or TABLES[name](options.data)
        _floors[name] = floor_of(_loaded[name].at(0))
    digest = code_digest(options.law_file)
    kept = kept_cells(options.out, digest)
    wanted = list(cells(options))
    print(f"{machine()}; {len(wanted)} cells; mean (95 % interval over draws)\n{HEADER}")
    found = {key: kept[key] for key, _ in wanted if key in kept}
    for cell in found.values():
        show(cell)
    todo = [(key, cell) for key, cell in wanted if key not in found]
    for key, cell in measured(todo, options):
        found[key] = cell | {"code": digest}
        show(found[key])
        if options.out:
            keep(options.out, kept | found)
    return found


def cells(options: argparse.Namespace) -> Iterator[tuple[str, Cell]]:
    """Cells by their key, laws side by side."""
    for name in options.tables:
        table = _loaded[name].at(0)
        for split in options.splits:
            for rows in sizes(table, split, options.rows):
                for law in options.laws:
                    cell = {"table": name, "source": table.source, "split": split, "rows": rows}
                    cell |= {"law": law, "asked": options.draws, "limit": options.limit}
                    yield json.dumps(cell, sort_keys=True), cell


def measured(todo: list[tuple[str, Cell]], options: argparse.Namespace) -> Iterator[Any]:
    """Cells with their figures, as they are done."""
    if options.workers <= 1:
        yield from ((key, one_cell(cell)) for key, cell in todo)
        return
    context = multiprocessing.get_context("fork")  # tables and laws of a file come along
    with ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        waiting = {pool.submit(one_cell, cell): key for key, cell in todo}
        for future in as_completed(waiting):
            yield waiting[future], future.result()


def one_cell(cell: Cell) -> Cell:
    """A cell with its figures."""
    table = _loaded[cell["table"]]
    return cell | contestants.cell_draws(
        cell["law"],
        lambda draw: Judge(table.at(draw), _floors[cell["table"]]),
        cell["split"],
        cell["rows"],
        draws=cell["asked"],
        limit=cell["limit"],
    )


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


def show(cell: Cell) -> None:
    """Print the row or rows of a cell."""
    head = f"| {cell['table']} | {cell['split']} | {cell['rows']} | {cell['law']} |"
    if "draws" not in cell:
        print(f"{head} refused: {cell['refused']} | | | | | | | |", flush=True)
        return
    for judged, found in summary.cell_summary(cell).items():
        parts = [("rank", 2), ("close", 1), ("regret", 4), ("error", 3), ("coverage", 1)]
        row = " | ".join(shown(found.get(m), d) for m, d in parts)
        seconds = found["seconds"]["mean"]
        print(f"{head} {judged} | {len(cell['draws'])} | {row} | {seconds:.2f} |", flush=True)


def show_differences(whole: dict[str, Any]) -> None:
    """Print how each law differs from the reference on the same draws."""
    print(
        f"\nAgainst {whole['conditions']['reference']} on the same draws; positive is better\n"
        "| table | split | rows | law | judged | rank x 100 | objective's | main's "
        "| close pairs, % |\n|---|---|---|---|---|---|---|---|---|"
    )
    for cell in whole["cells"]:
        for judged, found in cell.get("against_reference", {}).items():
            head = (
                f"| {cell['table']} | {cell['split']} | {cell['rows']} | {cell['law']} | {judged}"
            )
            metrics = ("rank", "objective.rank", "main.rank", "close")
            print(head, *(shown(found.get(m), 2) for m in metrics), "", sep=" | ")


def shown(found: dict[str, float] | None, digits: int) -> str:
    """A mean with its interval."""
    if found is None:
        return "-"
    if "low" not in found:
        return f"{found['mean']:.{digits}f}"
    return f"{found['mean']:.{digits}f} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


def report(found: dict[str, Cell], options: argparse.Namespace) -> dict[str, Any]:
    """All figures as plain JSON values."""
    places = {(c["table"], c["split"], c["rows"], c["law"]): c for c in found.values()}
    rows = []
    for (table, split, size, law), cell in places.items():
        row = {"table": table, "source": cell["source"], "split": split, "rows": size, "law": law}
        if "draws" not in cell:
            rows.append(row | {"refused": cell["refused"]})
            continue
        row |= {"draws": len(cell["draws"]), "judged": summary.cell_summary(cell)}
        other = places.get((table, split, size, options.reference))
        if other and "draws" in other and law != options.reference:
            row["against_reference"] = summary.paired(cell, other)
        rows.append(row)
    tables = {name: _loaded[name].at(0) for name in options.tables}
    return {
        "conditions": conditions(options),
        "tables": {n: {"floor": floor_from(t), "note": t.note} for n, t in tables.items()},
        "cells": rows,
        "chosen_elsewhere": summary.chosen_elsewhere(found.values()),
    }


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """Date, machine, commit and settings."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": machine(),
        "commit": commit,
        "reference": options.reference,
        "draws": options.draws,
        "limit": options.limit,
    }


def machine() -> str:
    """The machine and what computes on it."""
    return f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}"


def code_digest(files: list[Path]) -> str:
    """A digest of the code that gives the figures: the mathematics, this program, laws of one's
    own."""
    own = [*(ROOT / "mixtures").rglob("*.py"), *Path(__file__).parent.glob("*.py"), *files]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(own))).hexdigest()[:16]


def kept_cells(path: Path | None, digest: str) -> dict[str, Cell]:
    """Cells that a file holds of the same code.

    Raises:
        RecipeError: it is no file of cells.
    """
    if path is None or not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return {key: cell for key, cell in found.items() if cell["code"] == digest}
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path} is no file of MixBench: name another with --out") from error


def keep(path: Path, found: dict[str, Cell]) -> None:
    """Write cells, whole or not at all."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"cells": found}), encoding="utf-8")
    part.replace(path)
