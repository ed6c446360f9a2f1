"""Writes the two tables of this folder from the store that `make demo` filled.

    make demo
    .venv/bin/python examples/fit_from_csv/make_tables.py

Shares are rounded to six digits, so that the largest of a row takes what rounding left.
"""

import argparse
import csv
from pathlib import Path

import cuvee

HERE = Path(__file__).parent


def main() -> None:
    """Read the study and write `mixtures.csv` and `scores.csv`."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--home", default=".cuvee")
    options.add_argument("--to", type=Path, default=HERE)
    given = options.parse_args()
    tables = cuvee.open_study("quickstart", home=given.home).tables
    shares = tables.weights.round(6)
    for row in shares:
        row[row.argmax()] += 1 - row.sum()
    names = [f"r{number:02d}" for number in range(1, len(shares) + 1)]
    write(given.to / "mixtures.csv", tables.domains, names, shares.round(6))
    write(given.to / "scores.csv", tables.targets, names, tables.scores.round(5))
    print("sizes:", {name: round(size) for name, size in tables.sizes.items()})


def write(path: Path, columns: tuple[str, ...], names: list[str], rows) -> None:
    """A CSV table with a row per run."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", *columns])
        writer.writerows([name, *row.tolist()] for name, row in zip(names, rows, strict=True))


if __name__ == "__main__":
    main()
