"""How early the order of mixtures stands: points of one seed against ends of other seeds, at 0.3M.

16 mixtures of the quickstart's domains (natural, uniform, 14 Dirichlet draws) are trained with 3
seeds, scored on held-out text on the way and on the benchmarks at the end. Figures, with 90 %
intervals of a bootstrap over mixtures: `early_rank`, rank correlation by share of the tokens, of
which the share 1 is the end of one seed against the others' ends; `metric_audit`, what orders
accuracy, by task. Rows: early_rank.csv, metric_audit.csv. Runs are kept in the store of the home
(CUVEE_HOME, else `home` in the folder given), so that a measurement that was stopped goes on.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from fresh import quiet_home

from cuvee.flows.recipe.load import parse
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study import prepare as preparing
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.inference.early_ranking import EarlyRanking, rank_early
from cuvee.mixtures.inference.metric_audit import MetricAudit, audit_metrics
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import Estimate
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_results import RunResult, finished_runs
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.prepared import Prepared
from cuvee.tasks.train_pack import run_pack
from evidence.csv_rows import append_rows

MINUTES = 60.0
MIXTURES, SEEDS, TOKENS, POINTS = 16, 3, 300_000, 5
FIRST = 12  # mixtures whose two seeds are trained before anything else
RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


def early_recipe() -> Recipe:
    """The quickstart with smaller proxies, which are scored on the way."""
    found = parse(RECIPE.read_text(encoding="utf-8"))
    proxy = found.proxy.model_copy(update={"size": "0.3M", "tokens": TOKENS})
    scored = {"curve": POINTS, "heldout_tokens": 8_192}
    evaluation = found.evaluation.model_copy(update=scored)
    return found.model_copy(update={"proxy": proxy, "evaluation": evaluation})


def trained(problem: Problem, prepared: Prepared, home: Workspace, end: float) -> list[RunResult]:
    """The runs that there are when the time is over: two seeds of the first mixtures come first."""
    store, domains = Store(home.store), problem.domains
    draws = build("design", {"name": "dirichlet"}).draw(
        domains, problem.constraints, MIXTURES - 2, np.random.default_rng(18)
    )
    weights = [domains.natural, domains.uniform, *draws]
    places = [(seed, i) for seed in range(SEEDS) for i in range(MIXTURES)]
    places.sort(key=lambda place: (place[0] > 1, place[1] >= FIRST, place))
    specs = [problem.spec(weights[i], seed) for seed, i in places]
    for spec in specs:
        if store.get(spec.fingerprint) is None and time.monotonic() < end:
            job = PackJob(
                specs=(spec,),
                corpus=str(prepared.corpus.root),
                suite=prepared.suite,
                checkpoints="",
                limits=prepared.limits,
                points=prepared.points,
                models=str(home.checkpoints / "references"),
            )
            store.put(run_pack(job, lambda _: None)[0])
            print(f"{spec.fingerprint[:12]} seed {spec.seed}", flush=True)
    known = [store.get(spec.fingerprint) for spec in specs]
    return list(finished_runs(tuple(run for run in known if run is not None)))


def run(out: Path, minutes: float) -> dict[str, Any]:
    """The figures, and the rows as CSV files."""
    end = time.monotonic() + 60 * minutes
    home = quiet_home(out)
    recipe = early_recipe()
    prepared = preparing.prepare(recipe, home)
    problem = preparing.pose_problem(recipe, prepared)
    runs = trained(problem, prepared, home, end)
    early = rank_early(runs, problem, np.random.default_rng(0))
    metrics = audit_metrics(runs, np.random.default_rng(0))
    for name, rows in (("early_rank", ranked(early)), ("metric_audit", audited(metrics))):
        (out / f"{name}.csv").unlink(missing_ok=True)
        if rows:
            append_rows(out / f"{name}.csv", rows)
    figures: dict[str, Any] = {"early_rank": ranked(early), "metric_audit": audited(metrics)}
    whole = len(runs) == MIXTURES * SEEDS
    return figures | {"early_rank_runs": {"trained": len(runs), "whole": whole}}


def ranked(found: EarlyRanking | None) -> list[dict[str, Any]]:
    """A row for each point."""
    return [
        {"tokens": seen, "share": round(seen / TOKENS, 3), **rounded(rank),
         "mixtures": found.mixtures, "seeds": found.seeds}
        for seen, rank in (found.ranks if found else ())
    ]  # fmt: skip


def audited(found: tuple[MetricAudit, ...]) -> list[dict[str, Any]]:
    """A row for each task and score; one without a score where nothing can be told."""
    rows: list[dict[str, Any]] = []
    for one in found:
        known = {"task": one.task, "accuracy": round(one.accuracy, 4)}
        known |= {"chance": round(one.chance, 4), "above_chance": round(one.above, 3)}
        rows += [{**known, "score": name, **rounded(rank)} for name, rank in one.ranks.items()]
        if not one.ranks:
            rows.append({**known, "score": "", **dict.fromkeys(("mean", "low", "high"))})
    return rows


def rounded(rank: Estimate) -> dict[str, float]:
    """A rank correlation with its interval, to three digits."""
    return {name: round(value, 3) for name, value in dataclasses.asdict(rank).items()}
