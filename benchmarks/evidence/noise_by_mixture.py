"""Whether laws predict better when they know that noise differs over mixtures; what repeats cost.

Worlds of three forms with 6 domains and 4 or 6 targets; their noise grows towards the corners
(`spread` 25: a vertex is 5 times as noisy as equal shares) or is the same everywhere (0). 32 runs
beside three seeds of two anchors are 32 mixtures (`repeats` 0), or 24, of which the 8 most
concentrated are run twice. Laws are given the pooled deviation, the model's by mixture
(`noise_model`, whether clear or not), or the true one. `rmse` is of the mean of the targets at 300
other mixtures of the design, `regret` of the one among them that is predicted best. Figures are
paired by world and seed: the logarithm of a ratio of errors, below 0 where the second is better,
and its standard error.
"""

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.mixtures import simplex, worlds
from cuvee.mixtures.inference.diagnostics import pooled_deviation
from cuvee.mixtures.inference.noise_model import fit_noise
from cuvee.mixtures.laws.observations import concentration
from cuvee.mixtures.loop import generator
from cuvee.mixtures.registry import build
from evidence.csv_rows import append_rows, lacking, read_rows

MINUTES = 60.0
SEEDS, FORMS, SPREADS = range(60), ("additive", "interacting", "learning"), (25, 0)
LAWS, RUNS, REPEATS = ("default", "log_linear", "lightgbm"), 32, (0, 8)
PAIRS = {  # what is compared: (repeats, noise) before and after
    "model": ((8, "pooled"), (8, "model")),
    "truth": ((8, "pooled"), (8, "truth")),
    "repeats": ((0, "pooled"), (8, "pooled")),
}


def noisy_world(form: str, spread: float, seed: int) -> worlds.World:
    """A world of one form, with about the same noise at the design's mixtures for both spreads."""
    inner: Any = worlds.Additive(size=6, count=4, seed=seed)
    if form == "learning":
        inner = worlds.Learning(size=6, seed=seed)
    if form == "interacting":
        inner = worlds.Interacting(world=inner, seed=seed)
    return worlds.Noisy(world=inner, sd=0.003 if spread else 0.012, spread=float(spread))


def cell_rows(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """Errors of every law under every noise, of one study."""
    world = noisy_world(cell["form"], cell["spread"], cell["seed"])
    problem, repeats = worlds.world_problem(world), cell["repeats"]
    posed, rng = (problem.domains, problem.constraints), generator(cell["seed"], 1)
    design = build("design", "dirichlet")
    W = design.draw(*posed, RUNS, rng)
    if repeats:
        W = W[np.sort(rng.permutation(RUNS)[: RUNS - repeats])]
    W = np.vstack([W, W[np.argsort(-concentration(W))[:repeats]]])
    anchors = [problem.domains.natural] * 3 + [problem.domains.uniform] * 3
    W = simplex.canonical_rows(np.vstack([W, *anchors]))
    noise = world.noise(W)
    Y = world.truth(W, problem.domains.stored_epochs(W, problem.full_tokens))
    Y = Y + noise * rng.standard_normal(Y.shape)
    T = design.draw(*posed, 300, generator(cell["seed"], 2))
    true = world.truth(T, problem.domains.stored_epochs(T, problem.full_tokens)).mean(axis=1)
    known = {"pooled": pooled_deviation(Y, simplex.group_rows(W))[0]}
    model = fit_noise(W, Y)
    if repeats:
        known |= {"model": model.at(W), "truth": noise}
    rows = []
    for law, (name, sd) in itertools.product(LAWS, known.items()):
        guess = build("law", law).fit(W, Y, sd, generator(0)).predict(T).mean.mean(axis=1)
        error = float(np.sqrt(np.mean((guess - true) ** 2)))
        regret = float(true[np.argmin(guess)] - true.min())
        said = {"law": law, "noise": name, "rmse": error, "regret": regret, "clear": model.clear}
        rows.append({**cell, **said})
    return rows


def run(out: Path, minutes: float) -> dict[str, Any]:
    """By spread and law, what each change of `PAIRS` does to the error and to the regret."""
    path, begin = out / "noise_by_mixture.csv", time.monotonic()
    names = ("seed", "form", "spread", "repeats")
    every = itertools.product(SEEDS, FORMS, SPREADS, REPEATS)
    cells = [dict(zip(names, values, strict=True)) for values in every]
    for cell in lacking(path, cells):
        if time.monotonic() - begin > 60 * minutes:
            break
        append_rows(path, cell_rows(dict(cell)))
    rows = read_rows(path)
    found = {
        f"{name}, spread {spread}, {law}": compared(
            [r for r in rows if r["spread"] == spread and r["law"] == law], *pair
        )
        for name, pair in PAIRS.items()
        for spread, law in itertools.product(SPREADS, LAWS)
    }
    told = [r for r in rows if r["noise"] == "model" and r["law"] == LAWS[0]]
    clear = {
        f"clear, spread {spread}": round(
            float(np.mean([r["clear"] == "True" for r in told if r["spread"] == spread] or [0.0])),
            3,
        )
        for spread in SPREADS
    }
    return {"noise_by_mixture": {"whole": not lacking(path, cells), **clear, **found}}


def compared(rows: list[dict[str, Any]], before: Any, after: Any) -> dict[str, float]:
    """What a change does, over studies that have both: means and standard errors."""
    by = {(r["seed"], r["form"], r["repeats"], r["noise"]): r for r in rows}
    pairs = [
        (by[(*study, *before)], by[(*study, *after)])
        for study in {(r["seed"], r["form"]) for r in rows}
        if (*study, *before) in by and (*study, *after) in by
    ]
    if len(pairs) < 2:
        return {"studies": len(pairs)}
    ratio = np.array([np.log(b["rmse"] / a["rmse"]) for a, b in pairs])
    regret = np.array([b["regret"] - a["regret"] for a, b in pairs])
    root = len(pairs) ** 0.5
    return {
        "studies": len(pairs),
        "log_rmse": round(float(ratio.mean()), 4),
        "log_rmse_error": round(float(ratio.std(ddof=1)) / root, 4),
        "regret": round(float(regret.mean()), 5),
        "regret_error": round(float(regret.std(ddof=1)) / root, 5),
    }
