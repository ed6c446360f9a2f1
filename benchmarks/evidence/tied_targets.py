"""What an interval would cover of a gain in the worst of several targets that lie close together.

Gains in the worst target relative to natural, of which studies claim nothing for new items. In each
trial natural, a baseline and the recommended mixture are trained under S seeds and scored on 60
items of each of M targets, drawn anew; an item's effects differ by mixture with an sd of 0.1, those
of a seed and target by 0.003, of a run and item by 0.05. Cases, by what is tied in truth:

    baseline    the targets of the baseline; the recommended mixture has one worst target: gain 0
    ours        the targets of the recommended mixture, each 0.02 better than the baseline's
    natural     natural is the baseline, and relative to itself: gain 0

Intervals, of a nominal 90 %:

    jackknife   crossed components of pseudo-values of the delete-one jackknife over items
    corrected   the same, centered on the mean of the pseudo-values
    seeds       Student's t over seeds, as studies claim it; the truth is the difference of the
                largest expected scores on the items at hand
    each        of the gain over natural, which is the least gain in a target: the least of the
                lower ends of single targets (the intersection-union test of Berger 1982), and the
                least of their upper ends at Bonferroni's level; for new seeds and new items

`bias` is of the middle, in bits per byte. Standard error of a share over 400 trials: 1.5 points.
"""

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.crossed_intervals import gain_interval, unit_values
from cuvee.mixtures.recommendation import LEVEL
from evidence.csv_rows import append_rows, lacking, read_rows

MINUTES = 2.0
TRIALS, ITEMS = 400, 60
ITEM, SEED, CHANCE = 0.1, 0.003, 0.05  # standard deviations
CASES, SIZES = ("baseline", "ours", "natural"), ((3, 2), (3, 6), (5, 4), (10, 6))
TRUTH = {"baseline": 0.0, "ours": 0.02, "natural": 0.0}


def worst_gains(scores: Array, S: int) -> Array:
    """Gains (..., S) of scores (..., 3 S, M): of a baseline, the recommended and natural."""
    values = (scores - scores[..., 2 * S :, :].mean(axis=-2, keepdims=True)).max(axis=-1)
    return np.asarray(values[..., :S] - values[..., S : 2 * S])


def trial(case: str, S: int, M: int, rng: np.random.Generator) -> dict[str, tuple[float, ...]]:
    """Both ends and the truth of every interval."""
    sizes = rng.lognormal(0.0, 0.5, (M, ITEMS))
    effects = ITEM * rng.standard_normal((3, M, ITEMS))
    effects[2] = 0.0
    if case == "ours":
        effects[0], effects[1] = 0.0, effects[1] - TRUTH[case]
    else:
        effects[1, 1:] -= 0.1
    if case == "natural":
        effects[0] = 0.0
    runs = np.repeat(effects, S, axis=0) + SEED * rng.standard_normal((3 * S, M, 1))
    runs += CHANCE * rng.standard_normal((3 * S, M, ITEMS))
    if case == "natural":
        runs[2 * S :] = runs[:S]
    totals, whole = runs * sizes, sizes.sum(axis=1)
    scores = totals.sum(axis=2) / whole
    fixed = worst_gains((effects * sizes).sum(axis=2) / whole, 1)[0]
    gains, parts = worst_gains(scores, S), []
    for m in range(M):
        without = np.repeat(scores[None], ITEMS, axis=0)
        rest = totals[:, m].sum(axis=1, keepdims=True) - totals[:, m]
        without[:, :, m] = (rest / (whole[m] - sizes[m])).T
        parts.append((ITEMS * gains - (ITEMS - 1) * worst_gains(without, S)).T)
    both = gain_interval(gains, parts)
    shift = sum(float(part.mean()) - both.mean for part in parts)
    pairs, truth = totals[2 * S :] - totals[S : 2 * S], TRUTH[case]
    single = [(pairs[:, m].sum(axis=1) / whole[m], pairs[:, m], sizes[m]) for m in range(M)]
    lows, highs = (
        [gain_interval(g, [unit_values(d, b)], level=level) for g, d, b in single]
        for level in (LEVEL, 1 - (1 - LEVEL) / M)
    )
    return {
        "jackknife": (both.low, both.high, truth),
        "corrected": (both.low + shift, both.high + shift, truth),
        "seeds": (both.over_seeds.low, both.over_seeds.high, fixed),
        "each": (min(one.low for one in lows), min(one.high for one in highs), truth),
    }


def cell_rows(cell: dict[str, Any], trials: int = TRIALS) -> list[dict[str, Any]]:
    """Coverage, false claims, bias and half width of every interval in one cell."""
    S, M = int(cell["seeds"]), int(cell["targets"])
    rng = np.random.default_rng([CASES.index(cell["case"]), S, M])
    found = [trial(cell["case"], S, M, rng) for _ in range(trials)]
    rows = []
    for name in found[0]:
        low, high, truth = np.array([one[name] for one in found]).T
        shares = {
            "coverage": float(((low <= truth) & (truth <= high)).mean()),
            "false": float((low > truth).mean()),
            "bias": round(float(((low + high) / 2 - truth).mean()), 4),
            "half": round(float((high - low).mean() / 2), 4),
        }
        rows.append({**cell, "interval": name, **shares})
    return rows


def run(out: Path, minutes: float) -> dict[str, Any]:
    """The least coverage and the most false claims of every interval; each cell in the CSV."""
    path, begin = out / "tied_targets.csv", time.monotonic()
    cells = [
        {"case": case, "seeds": S, "targets": M} for case, (S, M) in itertools.product(CASES, SIZES)
    ]
    for cell in lacking(path, cells):
        if time.monotonic() - begin > 60 * minutes:
            break
        append_rows(path, cell_rows(dict(cell)))
    rows, figures = read_rows(path), {"whole": not lacking(path, cells)}
    for name in dict.fromkeys(row["interval"] for row in rows):
        own = [row for row in rows if row["interval"] == name]
        least, most = min(row["coverage"] for row in own), max(row["false"] for row in own)
        figures[name] = {"least": least, "most_false": most}
    return {"tied_targets": figures}
