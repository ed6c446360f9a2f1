"""Summaries of cells: intervals over draws, paired differences, the law chosen elsewhere.

Intervals hold 95 %, Student's over the draws. Draws of one table share rows, so that an interval
says how figures vary with the draw of rows; it does not speak of tables that nobody has.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from cuvee.mixtures.inference.diagnostics import paired_mean
from mixbench.judge import LOWER

LEVEL = 0.95
CAPPED = 5.0  # points of rank x 100
METRICS = (
    "rank", "close", "regret", "missed", "error", "error_mean", "coverage", "beyond", "level",
    "width", "score", "gains", "gain_width", "seconds",
)  # fmt: skip
PAIRED = ("rank", "close", "regret", "error")


def value_of(draw: Mapping[str, Any], judged: str, metric: str) -> float | None:
    """A figure of a draw: `rank`, `objective.rank`, `targets.NAME.rank` or `seconds`."""
    found: Any = draw["judged"][judged]
    if metric == "seconds":
        return float(found.get("seconds", draw["seconds"]))  # of a search, or of a fit
    for part in metric.split("."):
        found = found.get(part) if found else None
    return None if found is None else float(found)


def interval(values: Iterable[float | None]) -> dict[str, float] | None:
    """Mean of what there is, and its interval where there are two."""
    known = [v for v in values if v is not None]
    if not known:
        return None
    if len(known) < 2:
        return {"mean": known[0], "n": 1}
    found = paired_mean(known, LEVEL)
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": len(known)}


def cell_summary(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Figures of a cell by what was judged."""
    draws = cell["draws"]
    extra = [f"{part}.{m}" for part in ("objective", "main") for m in ("rank", "close", "regret")]
    summary: dict[str, Any] = {}
    for judged, first in draws[0]["judged"].items():
        metrics = [*METRICS, *extra, *(f"targets.{name}.rank" for name in first.get("targets", ()))]
        found = {m: interval(value_of(d, judged, m) for d in draws) for m in metrics}
        summary[judged] = {m: value for m, value in found.items() if value}
    return summary


def paired(cell: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, Any]:
    """Differences to a reference law on the same draws; positive is better than the reference."""
    both = list(zip(cell["draws"], reference["draws"], strict=False))
    summary: dict[str, Any] = {}
    for judged in both[0][0]["judged"]:
        for metric in (*PAIRED, *(f"{part}.rank" for part in ("objective", "main"))):
            sign = -1 if metric in LOWER else 1
            gaps = []
            for one, other in both:
                a, b = value_of(one, judged, metric), value_of(other, judged, metric)
                if a is not None and b is not None:
                    gaps.append(sign * (a - b))
            if gaps:
                summary.setdefault(judged, {})[metric] = interval(gaps)
    return summary


def mean_rank(cell: Mapping[str, Any]) -> float:
    """Mean rank correlation over what was judged and over draws."""
    return float(
        np.mean([value_of(d, judged, "rank") for d in cell["draws"] for judged in d["judged"]])
    )


def shortfalls(cells: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """How far each law's rank is below the best law's, in the mean over a source's cells.

    A cell in which a law was refused does not count for it. A shortfall counts up to `CAPPED`, so
    that a table on which every law fails does not decide for all.
    """
    by_cell: dict[tuple[Any, ...], dict[str, float]] = {}
    for cell in cells:
        if "draws" in cell:
            place = tuple(cell[key] for key in ("source", "table", "split", "rows"))
            by_cell.setdefault(place, {})[cell["law"]] = mean_rank(cell)
    found: dict[str, dict[str, list[float]]] = {}
    for (source, *_), ranks in by_cell.items():
        best = max(ranks.values())
        for law, rank in ranks.items():
            found.setdefault(source, {}).setdefault(law, []).append(min(best - rank, CAPPED))
    return {s: {law: float(np.mean(v)) for law, v in laws.items()} for s, laws in found.items()}


def chosen_elsewhere(cells: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """For each source the law that all other sources would choose, and its shortfall there.

    The law of the least shortfall in the mean over the other sources, which count alike; of the
    laws that could be fitted on every source.
    """
    means = shortfalls(cells)
    laws = sorted(set.intersection(*(set(m) for m in means.values()))) if means else []
    report: dict[str, Any] = {}
    for source, here in means.items():
        others = [m for name, m in means.items() if name != source]
        if not others or not laws:
            continue
        elsewhere = {law: float(np.mean([m[law] for m in others])) for law in laws}
        chosen = min(laws, key=lambda law: elsewhere[law])
        best = min(here, key=lambda law: here[law])
        report[source] = {"chosen": chosen, "shortfall": here[chosen], "best": best}
        report[source] |= {"best_shortfall": here[best], "shortfalls": here}
    return report
