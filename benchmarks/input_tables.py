"""Generated pairs of CSV tables for `inputs.py`: valid ones, and ways to break one."""

from pathlib import Path
from typing import Any

import numpy as np
from input_recipes import dump, pick

from cuvee.flows.recipe import load
from cuvee.flows.study.table_problem import pose_table_problem, read_tables

Tables = tuple[list[list[str]], list[list[str]]]


def valid_tables(rng: np.random.Generator) -> Tables:
    """A table of mixtures and one of scores, rows in orders of their own, header rows first."""
    domains = [f"d{i}" for i in range(rng.integers(2, 7))]
    targets = [f"t{i}" for i in range(rng.integers(1, 5))]
    count = int(rng.integers(2, 40))
    ids = [f"{pick(rng, ('run', 'r', ''))}{i}" for i in range(count)]
    W = rng.dirichlet(np.ones(len(domains)), count)
    Y = rng.normal(2, 0.3, (count, len(targets)))
    left = [[ids[i], *(repr(float(x)) for x in W[i])] for i in rng.permutation(count)]
    right = [[ids[i], *(repr(float(x)) for x in Y[i])] for i in rng.permutation(count)]
    return [["run", *domains], *left], [["run", *targets], *right]


def cell(tables: Tables, rng: np.random.Generator) -> None:
    """A cell that is no finite number."""
    rows = pick(rng, tables)
    i, j = rng.integers(1, len(rows)), rng.integers(1, len(rows[0]))
    rows[i][j] = pick(
        rng, ("", "nan", "inf", "-inf", "n/a", "1,5", "1e999", "0x10", "one", "1 2", "--1")
    )


def twice(tables: Tables, rng: np.random.Generator) -> None:
    """A run that stands twice."""
    rows = pick(rng, tables)
    rows.append(list(rows[int(rng.integers(1, len(rows)))]))


def alone(tables: Tables, rng: np.random.Generator) -> None:
    """A run in one table only."""
    rows = pick(rng, tables)
    rows[int(rng.integers(1, len(rows)))][0] = "stranger"


def off(tables: Tables, rng: np.random.Generator) -> None:
    """Shares that are negative, or miss 1 by more than rounding."""
    rows = tables[0]
    row = rows[int(rng.integers(1, len(rows)))]
    row[1] = repr(float(row[1]) + float(pick(rng, (0.3, -0.3, 5.0, 1e300, -1e300))))


def headless(tables: Tables, rng: np.random.Generator) -> None:
    """No id column, no column of numbers, no rows, or nothing."""
    rows = pick(rng, tables)
    kind = rng.integers(4)
    if kind == 0:
        rows[0][0] = "which"
    elif kind == 1:
        rows[:] = [[row[0]] for row in rows]
    elif kind == 2:
        del rows[1:]
    else:
        rows.clear()


def ragged(tables: Tables, rng: np.random.Generator) -> None:
    """A row with more cells than the header has."""
    rows = pick(rng, tables)
    rows[int(rng.integers(1, len(rows)))] += ["0.5", "0.5"]


def same_names(tables: Tables, rng: np.random.Generator) -> None:
    """Two columns of one name."""
    rows = pick(rng, tables)
    for row in rows:
        row.append(row[1])


BREAK_TABLES = (cell, twice, alone, off, headless, ragged, same_names)


def write_tables(tables: Tables, folder: Path, rng: np.random.Generator) -> str:
    """Both tables as CSV, in any of the ways that spreadsheets write them; returns the recipe."""
    mark, end = pick(rng, ("", "\ufeff")), pick(rng, ("\n", "\r\n"))
    quoted = rng.random() < 0.3
    for name, rows in zip(("mixtures", "scores"), tables, strict=True):
        lines = [",".join(f'"{c}"' if quoted else c for c in row) for row in rows]
        text = mark + end.join(lines) + (end if rng.random() < 0.8 else "")
        (folder / f"{name}.csv").write_bytes(text.encode())
    weights = {tables[1][0][1]: 1.0} if tables[1] and len(tables[1][0]) > 1 else {"t0": 1.0}
    return dump(
        {
            "name": "tables",
            "tables": {
                "mixtures": str(folder / "mixtures.csv"),
                "scores": str(folder / "scores.csv"),
            },
            "objective": {"name": "mean", "weights": weights},
            "method": {"name": "mixing_laws"},
        }
    )


def read_pair(text: str) -> Any:
    """What `cuvee fit` does with two tables before it fits."""
    given = load.parse(text)
    joined = read_tables(given)
    pose_table_problem(given, joined)
    return joined


def same_numbers(tables: Tables, joined: Any) -> bool:
    """Whether every run has the numbers that were written for it, whatever the order of rows."""
    for rows, names, read in (
        (tables[0], joined.domains, joined.W),
        (tables[1], joined.targets, joined.Y),
    ):
        written = {
            row[0]: dict(zip(rows[0][1:], map(float, row[1:]), strict=True)) for row in rows[1:]
        }
        for i, run in enumerate(joined.ids):
            ours = [written[run][name] for name in names]
            if not np.allclose(read[i], ours, rtol=0, atol=1e-12):
                return False
    return len(joined.ids) == len(tables[0]) - 1
