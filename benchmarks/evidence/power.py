"""A/B: how often a confirmation claims a gain of just the size that a plan promised 80 % for.

A study on a world repeats natural and uniform shares over 3 seeds (2 degrees of freedom) or 6 (5).
By these runs alone, `plan_power` says how noisy a pair is and which gain S seeds show. Then another
mixture is confirmed against natural shares under S fresh seeds, by the function that confirms
studies, its scores moved so that its true gain is just that one. Counted: gains that are claimed,
for the plan's promise, and for one that takes the estimated deviation for the true one (`naive`),
as a textbook's formula does. Kinds of worlds: `even` noise; noise that grows towards the corners
(`corners`), where neither anchor lies, so that the promise is by quieter runs; the same where the
8 most concentrated of 32 mixtures were run twice (`repeats`); and 100 `items` a target, drawn anew
for each study, on which mixtures differ, so that claims are for new items too.
"""

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from cuvee.flows import plan_power
from cuvee.mixtures import worlds
from cuvee.mixtures.inference.power import POWER
from cuvee.mixtures.laws.observations import concentration
from cuvee.mixtures.loop import generator
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.tasks.validation.paired import (
    RECOMMENDED,
    ConfirmedRun,
    Judgement,
    paired_confirmation,
)
from evidence.csv_rows import append_rows, lacking, read_rows

MINUTES = 20.0
STUDIES = 250
ANCHORS, SEEDS, KINDS = (3, 6), (3, 5), ("even", "corners", "items", "repeats")
KNOWN = 10**6  # degrees of freedom of a deviation that is taken for the true one
FRESH = 500  # added to a study's seeds
DRAWN, REPEATED = 32, 8  # mixtures of the kind `repeats`


def kind_of_world(kind: str, study: int) -> worlds.World:
    """A world of one kind; its items are those of one study."""
    spread = 25.0 if kind in ("corners", "repeats") else 0.0
    inner = worlds.Noisy(world=worlds.Additive(size=5, count=3), sd=0.01, spread=spread)
    return worlds.Itemized(world=inner, sd=0.15, seed=study) if kind == "items" else inner


def cell_rows(cell: dict[str, Any], studies: int = STUDIES) -> list[dict[str, Any]]:
    """Claims of studies of one kind, with the mean of the gains that were promised."""
    kind, count, seeds = cell["kind"], cell["anchors"], cell["seeds"]
    rng, claims, gains = generator(count, seeds), np.zeros(2), np.zeros(2)
    for study in range(studies):
        world: Any = kind_of_world(kind, study)
        problem = worlds.world_problem(world)
        first = 1000 * (study + studies * (10 * count + seeds))  # no luck is shared by two cells
        natural, uniform = problem.domains.natural, problem.domains.uniform
        ours = rng.dirichlet(np.ones(5))
        specs = [problem.spec(w, first + s) for w in (natural, uniform) for s in range(count)]
        if kind == "repeats":
            drawn = rng.dirichlet(np.ones(5), DRAWN)
            most = drawn[np.argsort(-concentration(drawn))[:REPEATED]]
            specs += [problem.spec(w, first + s) for w in most for s in range(2)]
        runs = world(specs)
        noise = plan_power.noise_of_pairs(problem, tuple(runs), lambda run: run.units)
        W = np.array([ours, natural])
        truth = world.truth(W, problem.domains.stored_epochs(W, problem.full_tokens)).mean(axis=1)
        fresh = range(first + FRESH, first + FRESH + seeds)
        pairs = [world([problem.spec(w, s) for s in fresh]) for w in (ours, natural)]
        for i, known in enumerate((noise, dataclasses.replace(noise, degrees=KNOWN))):
            gain = known.smallest_gain(seeds)
            gains[i] += gain / studies
            claims[i] += claimed(problem, *pairs, gain - (truth[1] - truth[0]))
    return [
        {**cell, "promise": name, "power": claim / studies, "gain": round(gain, 5)}
        for name, claim, gain in zip(
            ("plan", "naive"), claims.tolist(), gains.tolist(), strict=True
        )
    ]


def claimed(
    problem: Problem, ours: list[RunResult], natural: list[RunResult], moved: float
) -> bool:
    """Whether a confirmation calls ours better, once its scores are moved down by so much."""
    runs = []
    for name, own, off in ((RECOMMENDED, ours, moved), ("natural", natural, 0.0)):
        for one in own:
            scores = {
                target: dataclasses.replace(score, value=score.value - off)
                for target, score in one.scores.items()
            }
            units = {
                target: dataclasses.replace(unit, totals=unit.totals - off * unit.sizes)
                for target, unit in one.units.items()
            }
            value = float(np.mean([score.value for score in scores.values()]))
            result = dataclasses.replace(one, scores=scores, units=units)
            runs.append(ConfirmedRun(name, value, result))
    found = paired_confirmation(runs, (), baselines=["natural"], objective=problem.objective)
    return found.objective["natural"].judgment is Judgement.BETTER


def run(out: Path, minutes: float) -> dict[str, Any]:
    """Power by kind of world and promise: the mean of its cells, with a 95 % interval, and ends."""
    path, begin = out / "power.csv", time.monotonic()
    every = itertools.product(ANCHORS, SEEDS, KINDS)
    cells = [dict(zip(("anchors", "seeds", "kind"), each, strict=True)) for each in every]
    for cell in lacking(path, cells):
        if time.monotonic() - begin > 60 * minutes:
            break
        append_rows(path, cell_rows(dict(cell)))
    rows = read_rows(path)
    figures: dict[str, Any] = {"promised": POWER, "whole": not lacking(path, cells)}
    for kind, promise in itertools.product(KINDS, ("plan", "naive")):
        own = [r["power"] for r in rows if r["kind"] == kind and r["promise"] == promise]
        if own:
            held, n = STUDIES * sum(own), STUDIES * len(own)
            ends = stats.binomtest(round(held), n).proportion_ci(0.95)
            figures[f"{promise}, {kind}"] = {
                "power": round(held / n, 4),
                "interval": [round(float(ends.low), 4), round(float(ends.high), 4)],
                "least": min(own),
                "most": max(own),
            }
    return {"power": figures}
