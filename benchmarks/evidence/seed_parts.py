"""How much of the noise of small proxies is initialization, and how much the order of their data.

Natural and uniform shares of the quickstart's domains at 0.3M, 3 initializations crossed with 3
orders each: 18 runs, scored on the held-out text of every domain. Figures: standard deviations in
bits per byte of the mean over domains, by part, with 90 % intervals; and of its difference between
the two mixtures under one pair of seeds, which is what a confirmation averages, by pairs that share
neither seed with each other. Rows by domain: seed_parts.csv. Runs are kept in the store of the home
(CUVEE_HOME, else `home` in the folder given), so that a measurement that was stopped goes on.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from fresh import quiet_home

from cuvee.flows.recipe.load import parse
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import prepare as preparing
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import simplex
from cuvee.mixtures.inference.power import pair_noise
from cuvee.mixtures.inference.seed_parts import PARTS, SeedParts, seed_parts
from cuvee.mixtures.methods.regmix import RegMix
from cuvee.mixtures.runs.run_results import RunResult, finished_runs, score_table
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.store.results import Store
from cuvee.tasks.train_pack import run_pack
from evidence.csv_rows import append_rows

MINUTES = 40.0
SEEDS, TOKENS, PACK = 3, 200_000, 4
RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


def small_recipe() -> Recipe:
    """The quickstart with smaller proxies, scored on held-out text alone."""
    found = parse(RECIPE.read_text(encoding="utf-8"))
    proxy = found.proxy.model_copy(update={"size": "0.3M", "tokens": TOKENS})
    evaluation = found.evaluation.model_copy(update={"suite": None, "heldout_tokens": 8_192})
    objective = {"name": "mean", "weights": {"domain/legal": 1, "domain/encyclopedia": 1}}
    changed = {"proxy": proxy, "evaluation": evaluation, "objective": objective}
    return found.model_copy(update=changed)


def trained(home: Workspace, end: float) -> tuple[list[RunResult], tuple[str, ...]]:
    """The runs that there are when the time is over, and the targets."""
    recipe = small_recipe()
    prepared = preparing.prepare(recipe, home)
    problem = preparing.pose_problem(recipe, prepared)
    store = Store(home.store)
    specs = RegMix(seeds=SEEDS, crossed=SEEDS).anchor_specs(problem)
    missing = [spec for spec in specs if store.get(spec.fingerprint) is None]
    while missing and time.monotonic() < end:
        pack, missing = missing[:PACK], missing[PACK:]
        job = PackJob(
            specs=tuple(pack),
            corpus=str(prepared.corpus.root),
            suite=prepared.suite,
            checkpoints="",
            limits=prepared.limits,
            models=str(home.checkpoints / "references"),
        )
        for outcome in run_pack(job, lambda _: None):
            store.put(outcome)
        print(f"{len(missing)} runs are left", flush=True)
    known = [store.get(spec.fingerprint) for spec in specs]
    return list(finished_runs(tuple(run for run in known if run is not None))), problem.targets


def run(out: Path, minutes: float) -> dict[str, Any]:
    """The figures, and the rows as a CSV file."""
    end = time.monotonic() + 60 * minutes
    home = quiet_home(out)
    runs, targets = trained(home, end)
    figures: dict[str, Any] = {"runs": len(runs), "whole": len(runs) == 2 * SEEDS**2}
    if not runs:
        return {"seed_parts": figures}
    W, Y, _ = score_table(tuple(runs), targets)
    values = np.column_stack([Y, Y.mean(axis=1)])
    parts = seed_parts([one.spec for one in runs], values)
    if parts is not None:
        (out / "seed_parts.csv").unlink(missing_ok=True)
        append_rows(out / "seed_parts.csv", rows_of(parts, (*targets, "mean")))
        figures |= {name: said(parts, k, -1) for k, name in enumerate(PARTS)}
        figures["advice"] = parts.advice(-1)
    plain = [i for i, one in enumerate(runs) if one.spec.seed == one.spec.order_seed]
    seeds = [runs[i].spec.seed for i in plain]
    noise = pair_noise(values[plain, -1], simplex.group_rows(W)[plain], seeds)
    if noise is not None:
        figures["of a pair"] = {"sd": round(noise.sd, 5), "degrees": noise.degrees}
    return {"seed_parts": figures}


def said(parts: SeedParts, part: int, column: int) -> list[float]:
    """A deviation and the ends of its interval, to five digits."""
    return [round(float(a[part, column]), 5) for a in (parts.sd, parts.low, parts.high)]


def rows_of(parts: SeedParts, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """A row for each target and part."""
    return [
        {
            "target": name,
            "part": part,
            **dict(zip(("sd", "low", "high"), said(parts, k, m), strict=True)),
        }
        for m, name in enumerate(names)
        for k, part in enumerate(PARTS)
    ]
