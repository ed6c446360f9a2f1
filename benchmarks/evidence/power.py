"""A/B: how often a confirmation claims a gain of just the size that a plan promised 80 % for.

A study on a world repeats natural and uniform shares over 3 seeds (2 degrees of freedom) or 6 (5).
From these runs alone the noise of a pair is estimated as `cuvee plan` does it, and the least gain
that `S` seeds show. Then another mixture is confirmed against natural shares under S fresh seeds,
by the function that confirms studies, its scores moved so that its true gain is that least one.
Counted: gains that are claimed, for the promise and for one at the estimated deviation as if it
were the true one (`naive`), which is what a textbook's formula gives. `spread` 25 makes noise grow
towards the corners of the simplex, where neither anchor lies: there the promise is of other runs.
"""

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cuvee.mixtures import worlds
from cuvee.mixtures.inference.power import POWER, PairNoise, pair_noise
from cuvee.mixtures.loop import generator
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.tasks.validation.paired import (
    RECOMMENDED,
    ConfirmedRun,
    Judgement,
    paired_confirmation,
)
from evidence.csv_rows import append_rows, lacking, read_rows

MINUTES = 20.0
STUDIES = 1000
ANCHORS, SEEDS, SPREADS = (3, 6), (3, 5, 10), (0, 25)
KNOWN = 10**6  # degrees of freedom of a deviation that is taken for the true one


def cell_rows(cell: dict[str, Any], studies: int = STUDIES) -> list[dict[str, Any]]:
    """Claims of studies of one kind, with the smallest gains that were promised."""
    world = worlds.Noisy(
        world=worlds.Additive(size=5, count=3), sd=0.01, spread=float(cell["spread"])
    )
    problem = worlds.world_problem(world)
    anchors = [problem.domains.natural, problem.domains.uniform]
    units = {
        d: PairNoise(1.0, d).smallest_gain(cell["seeds"]) for d in (cell["anchors"] - 1, KNOWN)
    }
    rng, claims, gains = generator(cell["anchors"], cell["seeds"]), np.zeros(2), np.zeros(2)
    for study in range(studies):
        first = 1000 * study
        ours = rng.dirichlet(np.ones(5))
        seeds = range(first, first + cell["anchors"])
        runs = world([problem.spec(w, s) for w in anchors for s in seeds])
        noise = pair_noise(values(runs), np.repeat([0, 1], len(seeds)), [*seeds, *seeds])
        fresh = range(first + 500, first + 500 + cell["seeds"])
        pairs = [world([problem.spec(w, s) for s in fresh]) for w in (ours, anchors[0])]
        W = np.array([ours, anchors[0]])
        truth = world.truth(W, problem.domains.stored_epochs(W, problem.full_tokens)).mean(axis=1)
        for i, unit in enumerate(units.values()):
            gain = unit * noise.sd
            gains[i] += gain / studies
            claims[i] += claimed(problem, *pairs, gain - (truth[1] - truth[0]))
    return [
        {
            **cell,
            "promise": name,
            "power": float(claims[i]) / studies,
            "gain": round(float(gains[i]), 5),
        }
        for i, name in enumerate(("plan", "naive"))
    ]


def values(runs: list[RunResult]) -> np.ndarray:
    """The objective of runs: the mean of their targets."""
    return np.array([np.mean([score.value for score in run.scores.values()]) for run in runs])


def claimed(problem: Any, ours: list[RunResult], natural: list[RunResult], moved: float) -> bool:
    """Whether a confirmation calls ours better, once its scores are moved down by so much."""
    runs = []
    for name, own, off in ((RECOMMENDED, ours, moved), ("natural", natural, 0.0)):
        for run, value in zip(own, values(own), strict=True):
            scores = {
                target: dataclasses.replace(score, value=score.value - off)
                for target, score in run.scores.items()
            }
            result = dataclasses.replace(run, scores=scores)
            runs.append(ConfirmedRun(name, float(value) - off, result))
    found = paired_confirmation(runs, problem.targets, baselines=["natural"])
    return found.objective["natural"].judgment is Judgement.BETTER


def run(out: Path, minutes: float) -> dict[str, Any]:
    """Power by degrees of freedom, seeds and spread, each with its 95 % interval."""
    path, begin = out / "power.csv", time.monotonic()
    names = ("anchors", "seeds", "spread")
    every = itertools.product(ANCHORS, SEEDS, SPREADS)
    cells = [dict(zip(names, each, strict=True)) for each in every]
    for cell in lacking(path, cells):
        if time.monotonic() - begin > 60 * minutes:
            break
        append_rows(path, cell_rows(dict(cell)))
    rows = read_rows(path)
    figures: dict[str, Any] = {"promised": POWER, "whole": not lacking(path, cells)}
    for spread, promise in itertools.product(SPREADS, ("plan", "naive")):
        own = [r["power"] for r in rows if r["spread"] == spread and r["promise"] == promise]
        if own:
            n = STUDIES * len(own)
            ends = stats.beta.ppf(
                [0.025, 0.975],
                np.array([0, 1]) + sum(own) * STUDIES,
                np.array([1, 0]) + n - sum(own) * STUDIES,
            )
            figures[f"{promise}, spread {spread}"] = {
                "power": round(float(np.mean(own)), 4),
                "interval": [round(float(end), 4) for end in ends],
                "least": min(own),
                "most": max(own),
            }
    return {"power": figures}
