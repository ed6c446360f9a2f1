"""A/A: how often a confirmation claims a gain of a mixture over itself under another name.

A study trains one mixture of a world under S seeds, and again under S others that are given the
names of the first, so that luck alone tells the two apart; `conclude_confirmation`, the function
that confirms studies, pairs them. Counted: claims that the one is better than the other by more
than the noise, 5 % of the studies by the nominal level. Kinds: `items`, a world whose targets have
30 or 100 items each, drawn anew for each study, so that claims are for new seeds and new items;
`seeds`, one without, whose claims are for new seeds alone; and `worst`, one with items and the
worst target as its objective, in which all targets are tied with those of natural: claims are for
new seeds alone.

On stored runs: anchors that this project's sweeps trained under 6 seeds or more are split into two
halves of 3 in all ways. Splits of so few runs are not independent: the seeds are, and are counted.
"""

import dataclasses
import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
from mixbench.tables import SWEEPS, csv_rows
from scipy import stats

from cuvee.flows.study.confirm import conclude_confirmation
from cuvee.mixtures import worlds
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.diagnostics import paired_mean
from cuvee.mixtures.loop import generator
from cuvee.mixtures.objectives import Worst
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.tasks.validation.paired import RECOMMENDED, Judgement
from evidence.csv_rows import append_rows, lacking, read_rows

MINUTES = 15.0
STUDIES, BATCH = 2000, 100  # of each kind; of one row of the file
SEEDS, ITEMS, KINDS = (3, 5, 10), (30, 100), ("items", "seeds", "worst")
FRESH = 500  # added to the seeds of the second name
OURS = ("domain/legal", "domain/encyclopedia", "task/mmlu", "task/openbookqa")
HALF = 3  # seeds of a name in a split of stored runs


def study_claims(kind: str, study: int) -> bool:
    """Whether one study claims that its mixture is better than itself."""
    count = SEEDS[study % len(SEEDS)]
    world: Any = worlds.Noisy(worlds.Additive(size=5, count=3), sd=0.01)
    if kind != "seeds":
        items = ITEMS[study // len(SEEDS) % len(ITEMS)]
        world = worlds.Itemized(world=world, items=items, seed=study)
    problem = worlds.world_problem(world)
    if kind == "worst":
        problem = dataclasses.replace(problem, objective=Worst(problem.targets))
    weights = generator(study, count).dirichlet(np.ones(5))
    first = 1000 * study
    names = (RECOMMENDED, 0), ("natural", FRESH)
    outcomes = {
        (name, first + i): _renamed(run, first + i)
        for name, fresh in names
        for i, run in enumerate(
            world([problem.spec(weights, first + fresh + s) for s in range(count)])
        )
    }
    found = conclude_confirmation(problem, outcomes)
    pair = found.objective["natural"]
    assert ("items" in pair.covers) == (kind == "items"), pair
    return pair.judgment is Judgement.BETTER


def _renamed(run: RunResult, seed: int) -> RunResult:
    """A run under another seed's name."""
    return dataclasses.replace(run, spec=dataclasses.replace(run.spec, seed=seed))


def stored_splits() -> dict[str, Any]:
    """Claims among all splits of stored runs of one mixture, and of how many seeds they are."""
    claims = splits = seeds = 0
    for sweep in ("demo", "methods"):
        parts = (csv_rows(SWEEPS / sweep / f"{name}.csv", "run") for name in ("mixtures", "scores"))
        mixtures, scores = parts
        by_mixture: dict[tuple[str, ...], dict[str, float]] = {}
        for run, row in csv_rows(SWEEPS / sweep / "runs.csv", "run").items():
            shares = tuple(f"{float(v):.3f}" for k, v in mixtures[run].items() if k != "run")
            value = float(np.mean([float(scores[run][target]) for target in OURS]))
            by_mixture.setdefault(shares, {})[row["seed"]] = value
        for values in by_mixture.values():
            if len(values) >= 2 * HALF:
                found = split_claims(np.array(list(values.values())))
                claims, splits = claims + sum(found), splits + len(found)
                seeds += len(values)
    return {"rate": round(claims / splits, 4), "splits": splits, "independent_seeds": seeds}


def split_claims(values: Array) -> list[bool]:
    """Of every two disjoint halves of the runs, paired in all ways, whether a gain is claimed."""
    rows = itertools.permutations(range(len(values)), 2 * HALF)
    ordered = np.array([each for each in rows if each[0] < each[1] < each[2]])
    differences = values[ordered[:, :HALF]] - values[ordered[:, HALF:]]
    return [paired_mean(row).low > 0 for row in differences.tolist()]


def run(out: Path, minutes: float) -> dict[str, Any]:
    """`false_claims`: the rate by kind, with its one-sided 95 % upper bound; and stored runs."""
    path, begin = out / "false_claims.csv", time.monotonic()
    starts = range(0, STUDIES, BATCH)
    cells = [{"kind": kind, "first": first} for first in starts for kind in KINDS]
    for cell in lacking(path, cells):
        if time.monotonic() - begin > 60 * minutes:
            break
        first = int(cell["first"])
        claims = sum(study_claims(cell["kind"], study) for study in range(first, first + BATCH))
        append_rows(path, [{**cell, "studies": BATCH, "claims": claims}])
    rows, figures = read_rows(path), {"whole": not lacking(path, cells)}
    for kind in KINDS:
        own = [row for row in rows if row["kind"] == kind]
        count, claims = (int(sum(row[name] for row in own)) for name in ("studies", "claims"))
        bound = float(stats.beta.ppf(0.95, claims + 1, count - claims)) if count else 1.0
        figures[kind] = {
            "studies": count,
            "rate": round(claims / max(count, 1), 4),
            "upper": round(bound, 4),
        }
    return {"false_claims": figures | {"stored": stored_splits()}}
