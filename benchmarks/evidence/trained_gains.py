"""What laws predict that a mixture gains, against models that were trained on it.

`confirmed`: mixtures that were trained anew under fresh seeds; laws are fitted to the sweep's other
runs, and say what the mixture gains over natural shares on the plain mean of four targets (the
objective of the recipe weighs them). Of mixtures that the sweep had run before they saw those runs.
`halves`: the default law, fitted to a random half of a table's mixtures, and the best of the rest
by its prediction, over the rest's mean, on four random targets. Draws of a table share its runs and
tables of a sweep its mixtures, so that the standard error is over sweeps. Nothing was fitted to
these figures.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from mixbench.tables import SWEEPS, Runs, csv_rows, joined, sweep_sizes

from cuvee.mixtures import simplex
from cuvee.mixtures.laws import posterior_draws, predicted_means
from cuvee.mixtures.registry import build
from evidence.csv_rows import append_rows, lacking, read_rows
from evidence.false_claims import OURS

MINUTES = 5.0
FRESH = 1000  # seeds from here on are those of confirmations
NATURAL = np.array([0.261, 0.147, 0.143, 0.118, 0.106, 0.085, 0.085, 0.054])  # of these sweeps
LAWS, DRAWS, HALVES = ("kriging", "log_linear", "lightgbm"), 60, 8
TABLES = {
    "demo": ("0.6M",),
    "ladder": ("0.3M",),
    "methods": ("0.3M",),
    "scales": ("0.3M/1M", "0.3M/2M", "0.3M/4M", "0.3M/8M"),
}


def confirmed_rows(sweep: str, law: str) -> list[dict[str, Any]]:
    """What mixtures with fresh seeds, but natural and uniform, gained and were said to gain."""
    folder = SWEEPS / sweep
    runs, targets = joined(folder / "mixtures.csv", folder / "scores.csv", "run")
    about = csv_rows(folder / "runs.csv", "run")
    fresh = np.array([int(about[run]["seed"]) >= FRESH for run in runs.ids])
    Y = runs.Y[:, [targets.index(name) for name in OURS]]
    known = (runs.W[~fresh], Y[~fresh], np.zeros(len(OURS)))
    fitted = build("law", law).fit(*known, np.random.default_rng(0))
    group = simplex.group_rows(runs.W)
    W = np.array([runs.W[group == g].mean(axis=0) for g in range(group.max() + 1)])
    natural = int(np.abs(W - NATURAL).max(axis=1).argmin())
    said, values = predicted_means(fitted, W).mean(axis=1), Y.mean(axis=1)
    rows = []
    for g in np.unique(group[fresh]):
        if g == natural or np.ptp(W[g]) < simplex.SAME:
            continue
        gain = values[fresh & (group == natural)] - values[fresh & (group == g)]
        rows.append(
            {"kind": "confirmed", "table": sweep, "law": law, "draw": int(g)}
            | {"seen": int((~fresh & (group == g)).sum()), "true": gain.mean()}
            | {"error": gain.std(ddof=1) / len(gain) ** 0.5, "said": said[natural] - said[g]}
            | {"half": ""}
        )
    return rows


def half_row(sweep: str, size: str, draw: int) -> dict[str, Any]:
    """The best of one half of a table by the default law that saw the other."""
    runs: Runs = sweep_sizes(SWEEPS / sweep)[size][0]
    rng = np.random.default_rng([draw, *size.encode()])
    group = simplex.group_rows(runs.W)
    W, Y = (
        np.array([values[group == g].mean(axis=0) for g in range(group.max() + 1)])
        for values in (runs.W, runs.Y)
    )
    Y, order = Y[:, rng.choice(Y.shape[1], 4, replace=False)], rng.permutation(len(W))
    fit, rest = order[: len(W) // 2 + 4], order[len(W) // 2 + 4 :]
    law = build("law", "default").fit(W[fit], Y[fit], np.zeros(4), rng)
    drawn = posterior_draws(law, DRAWS, rng) or []
    said = np.array([predicted_means(one, W[rest]).mean(axis=1) for one in (law, *drawn)])
    best = int(said[0].argmin())
    gains, values = said.mean(axis=1) - said[:, best], Y[rest].mean(axis=1)
    return (
        {"kind": "halves", "table": f"{sweep}/{size}", "law": law_name(), "draw": draw, "seen": 0}
        | {"true": values.mean() - values[best], "error": "", "said": gains[0]}
        | {"half": 1.645 * gains[1:].std(ddof=1)}
    )


def law_name() -> str:
    """Of the default law."""
    return str(build("law", "default").name)


def figures(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Errors of laws on mixtures of which they saw no run, and of the default law on halves, over
    sweeps."""
    found: dict[str, Any] = {}
    for law in LAWS:
        own = [row for row in rows if row["law"] == law and row["seen"] == 0 and row["half"] == ""]
        if own:
            errors, true = (
                np.array(v)
                for v in zip(*((r["said"] - r["true"], r["true"]) for r in own), strict=True)
            )
            found[law] = {"mixtures": len(own), "error": round(float(errors.mean()), 4)}
            found[law]["part"] = round(float(errors.mean() / true.mean()), 3)
    own = [row for row in rows if row["kind"] == "halves"]
    by_sweep = [[r for r in own if r["table"].split("/")[0] == sweep] for sweep in TABLES]
    means = [np.mean([r["said"] - r["true"] for r in each]) for each in by_sweep if each]
    if len(means) == len(TABLES):
        found["halves"] = {
            "sweeps": len(means),
            "gain": round(float(np.mean([r["true"] for r in own])), 4),
            "error": round(float(np.mean(means)), 4),
            "standard_error": round(float(np.std(means, ddof=1) / len(means) ** 0.5), 4),
            "coverage": round(
                float(np.mean([abs(r["said"] - r["true"]) <= r["half"] for r in own])), 3
            ),
        }
    return found


def run(out: Path, minutes: float) -> dict[str, Any]:
    """`trained_gains`: the errors of predicted gains on models that were trained."""
    path, end = out / "trained_gains.csv", time.monotonic() + 60 * minutes
    confirmed = [
        {"kind": "confirmed", "table": sweep, "law": law}
        for sweep in ("demo", "methods")
        for law in LAWS
    ]
    for cell in lacking(path, confirmed):
        append_rows(path, confirmed_rows(cell["table"], cell["law"]))
    halves = [
        {"kind": "halves", "table": f"{sweep}/{size}", "draw": draw}
        for draw in range(HALVES)
        for sweep, sizes in TABLES.items()
        for size in sizes
    ]
    for cell in lacking(path, halves):
        if time.monotonic() > end:
            break
        append_rows(path, [half_row(*cell["table"].split("/", 1), int(cell["draw"]))])
    whole = not lacking(path, [*confirmed, *halves])
    return {"trained_gains": {"whole": whole} | figures(read_rows(path))}
