"""MixBench: how well every law and search ranks, decides and predicts, table by table.

    python benchmarks/mixbench [--data FOLDER] [--tables NAME ...] [--laws NAME ...]
        [--law-file my_law.py] [--scaling NAME ...] [--searches LAW ...] [--splits random far]
        [--rows 16 32 64 128 256 512] [--draws 20] [--limit SECONDS] [--workers 2]
        [--reference LAW] [--out FILE.json] [--page FILE.md]

Laws are registered names, or JSON mappings such as '{"name": "kriging", "draws": 2}'; a law of
one's own takes part with --law-file. Rows beyond a table's mean all of its rows. --scaling names
scaling laws, and --searches the laws under which searches are compared; both are everything unless
--tables or --laws are named; --tables with no name leaves laws of mixtures out. How rows are parted
stands in `splits.py`, what is judged in `judge.py`, where tables come from in `tables.py` and
`truths.py`, sizes in `scales.py`.

Seconds are processor time of one fit on one thread. A cell (a law on a table, a split and a number
of rows) begins no further draw after --limit processor seconds, so that slow laws have fewer draws,
which the figures say. With --out a cell that the file holds, of the same code, is not run again.
--page writes the page of results. The last line printed is JSON.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.mixtures.errors import CuveeError
from cuvee.mixtures.laws import default
from cuvee.mixtures.registry import names
from mixbench import cells, contestants, page, summary
from mixbench.cells import Cell
from mixbench.splits import SPLITS
from mixbench.tables import Table

DATA = cells.ROOT.parent / "shared" / "data"
ROWS = [16, 32, 64, 128, 256, 512]
HEADER = (
    "| table | split | rows | law | judged | draws | rank x 100 | close pairs, % | regret | "
    "error, % | coverage, % | level, % | width, % | interval score | gains covered, % | width, % "
    "| fit, s |\n|" + "---|" * 17
)
SHOWN = {"rank": 2, "close": 1, "regret": 4, "error": 3, "coverage": 1, "level": 2}
SHOWN |= {"width": 1, "score": 1, "gains": 1, "gain_width": 2}  # of scaling laws alone
PLACE = ("kind", "table", "split", "rows")
CONVEX = "log_linear"  # the law that convex searches take


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="mixbench", description=__doc__.split("\n\n", 1)[0])
    known = cells.table_names()
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the tables")
    parser.add_argument("--tables", nargs="*", choices=known, metavar="NAME")
    parser.add_argument("--laws", nargs="+", metavar="LAW")
    parser.add_argument("--scaling", nargs="*", choices=names("scaling"), metavar="NAME")
    parser.add_argument("--searches", nargs="*", metavar="LAW")
    parser.add_argument("--law-file", type=Path, action="append", default=[], metavar="FILE")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=SPLITS)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--limit", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--reference", default=default.NAME, metavar="LAW")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    parser.add_argument("--page", type=Path, metavar="FILE.md")
    found = parser.parse_args(arguments)
    whole = found.tables is None and found.laws is None
    if found.scaling is None:
        found.scaling = list(names("scaling")) if whole else []
    if found.searches is None:
        found.searches = list(dict.fromkeys([default.NAME, CONVEX])) if whole else []
    found.tables = known if found.tables is None else found.tables
    found.laws = list(names("law")) if found.laws is None else found.laws
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print the figures of every cell and, on the last line, all of them as JSON."""
    options = options_of(arguments)
    try:
        for path in options.law_file:
            options.laws += [law for law in contestants.laws_of(path) if law not in options.laws]
        for law in {*options.laws, *options.searches}:
            contestants.law_of(law)
        tables = cells.load(options)
        wanted = list(cells.cells(options, tables))
        print(f"{machine()}; {len(wanted)} cells; mean (95 % interval over draws)\n{HEADER}")
        found = []
        for cell in cells.measured(wanted, options):
            show(cell)
            found.append(cell)
    except (CuveeError, json.JSONDecodeError) as error:
        sys.exit(str(error))
    whole = report(found, tables, options)
    show_differences(whole)
    if options.page:
        options.page.write_text(page.written(whole), encoding="utf-8")
    print(json.dumps(whole))


def show(cell: Cell) -> None:
    """Print the row or rows of a cell."""
    head = f"| {cell['table']} | {cell['split']} | {cell['rows']} | {cell['law']} |"
    if "draws" not in cell:
        print(f"{head} refused: {cell['refused']}" + " |" * 13, flush=True)
        return
    for judged, found in summary.cell_summary(cell).items():
        row = " | ".join(shown(found.get(metric), digits) for metric, digits in SHOWN.items())
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


def report(
    found: list[Cell], tables: dict[str, Table], options: argparse.Namespace
) -> dict[str, Any]:
    """All figures as plain JSON values."""
    places = {tuple(cell[k] for k in (*PLACE, "law")): cell for cell in found}
    rows = []
    for cell in found:
        row = {key: cell[key] for key in (*PLACE, "source", "law")}
        if "draws" not in cell:
            rows.append(row | {"refused": cell["refused"]})
            continue
        row |= {"draws": len(cell["draws"]), "judged": summary.cell_summary(cell)}
        other = places.get((*(cell[k] for k in PLACE), options.reference))
        if other and "draws" in other and cell["law"] != options.reference:
            row["against_reference"] = summary.paired(cell, other)
        rows.append(row)
    return {
        "conditions": conditions(options),
        "tables": {
            name: {
                "floor": cells.floor_from(table),
                "runs": len(table.pool.W),
                "tests": {key: len(test.W) for key, test in table.tests.items()},
                "domains": table.pool.W.shape[1],
                "targets": len(table.targets),
                "source": table.source,
                "main": table.main,
                "note": table.note,
            }
            for name, table in tables.items()
        },
        "cells": rows,
        "chosen_elsewhere": summary.chosen_elsewhere(c for c in found if c["kind"] == "law"),
    }


def conditions(options: argparse.Namespace) -> dict[str, Any]:
    """Date, machine, commit and settings."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=cells.ROOT,
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
