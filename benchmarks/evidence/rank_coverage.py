"""What intervals of a rank correlation cover: a bootstrap over mixtures, and Bonett and Wright's.

Pairs are drawn from a bivariate normal with a known correlation; the second one, as accuracy does,
may come in steps of 0.01 (a hundred questions). Figure `rank_coverage`: by mixtures and true rank
correlation, how often the interval of the audits (90 %) and its lower end hold; beside it the 95 %
interval of Bonett and Wright (2000), as `mixtures.inference.held_out.rank_interval` gives it. Rows:
rank_coverage.csv.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.mixtures.inference.held_out import rank_interval
from cuvee.mixtures.inference.metric_audit import bootstrap_rank
from evidence.csv_rows import append_rows, lacking, read_rows

MINUTES = 3.0
DRAWS = 1000
CELLS = [
    {"mixtures": float(count), "pearson": rho, "steps": steps}
    for steps in (0.0, 0.01)
    for count in (8, 16, 30)
    for rho in (0.0, 0.5, 0.87, 0.97)
]


def run(out: Path, minutes: float) -> dict[str, Any]:
    """Coverage by cell; cells that are there already are not measured again."""
    end, path = time.monotonic() + 60 * minutes, out / "rank_coverage.csv"
    for cell in lacking(path, CELLS):
        if time.monotonic() < end:
            append_rows(path, [{**cell, **covered(**cell)}])
    return {"rank_coverage": {"whole": not lacking(path, CELLS), "cells": read_rows(path)}}


def covered(mixtures: float, pearson: float, steps: float) -> dict[str, float]:
    """Shares of the draws in which the truth lies inside, and above the lower end."""
    rng, count = np.random.default_rng([int(mixtures), int(100 * pearson)]), int(mixtures)
    truth = 6 / np.pi * np.arcsin(pearson / 2)  # exact but for steps
    inside = np.zeros(3)
    for _ in range(DRAWS):
        x, noise = rng.standard_normal((2, count))
        y = pearson * x + np.sqrt(1 - pearson**2) * noise
        y = np.round(0.03 * y / steps) if steps else y  # an accuracy of spread 0.03
        found = bootstrap_rank(x[None], y[None], rng)
        low, high = rank_interval(found.mean, count)
        inside += (found.low <= truth <= found.high, found.low <= truth, low <= truth <= high)
    names = ("bootstrap_90", "bootstrap_lower_95", "bonett_wright_95")
    return {"truth": round(truth, 3), **dict(zip(names, inside / DRAWS, strict=True))}
