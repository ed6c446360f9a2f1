"""What the quickstart's domains are worth at 0.3M: the decay phase, from scratch, and by a law.

The natural mixture, and the same without each domain in turn, under paired seeds: from scratch, and
in the last fifth of the tokens on shared branch checkpoints; then 12 Dirichlet mixtures for a law.
`loo_tail_against_scratch`: rank correlation of the two over domains, mean of the targets, with a
90 % interval over domains; over all (domain, target) cells, with a 90 % interval over seeds (both
jackknifes), also without those of a domain's own text; one seed's ends against another seed's runs
from scratch, which share no control, beside two seeds of one kind, whose geometric mean is what
noise allows (`ceiling`); how many cells both show, and of these how many with one sign.
`shapley_against_loo`: Shapley values of the default law, fitted to the Dirichlet mixtures
and natural alone, against either kind. Rows: worth.csv. Runs are kept in the home (CUVEE_HOME, else
`home` in the folder given), so that a measurement that was stopped goes on.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fresh import Bench, bench, quiet_home

from cuvee.mixtures.attribution.attribute import jackknifed_rank, rank_agreement
from cuvee.mixtures.attribution.law_shapley import law_shapley
from cuvee.mixtures.attribution.leave_out import leave_out_spec, leave_out_worths
from cuvee.mixtures.domain_worth import LeaveOut, ShapleyWorth, Worth
from cuvee.mixtures.inference.dataset import gather_runs
from cuvee.mixtures.inference.diagnostics import spearman
from cuvee.mixtures.laws.default import NAME
from cuvee.mixtures.objectives import OBJECTIVE
from cuvee.mixtures.problem import FIRST_SEED
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.tasks.store.results import Store
from evidence.csv_rows import append_rows

MINUTES = 60.0
SEEDS, TOKENS, SHARES, MIXTURES, FIRST = 5, 500_000, (0.2, 1.0), 12, 2  # FIRST: seeds before a law
RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"


def run(out: Path, minutes: float) -> dict[str, Any]:
    """The figures, and the rows as a CSV file."""
    end = time.monotonic() + 60 * minutes
    home = quiet_home(out)
    setting = bench(RECIPE, home, size="0.3M", tokens=TOKENS, held_out=16_384)
    store = Store(home.store)
    runs = left_out_runs(setting, store, end, range(FIRST))
    drawn = drawn_runs(setting, store, end)
    runs += left_out_runs(setting, store, end, range(FIRST, SEEDS))
    problem = setting.problem
    measured = leave_out_worths(
        problem, runs, problem.domains.natural, gather_runs(problem, tuple(runs))
    )
    columns = (OBJECTIVE, *problem.targets)
    rows = [row for one in measured for row in worth_rows(one, columns)]
    (out / "worth.csv").unlink(missing_ok=True)
    if rows:
        append_rows(out / "worth.csv", rows)
    by_share = {one.share: one for one in measured}
    done = len({run.spec.fingerprint for run in runs})
    tail: dict[str, Any] = {"runs": done, "whole": done == SEEDS * (1 + 2 * len(problem.domains))}
    if len(by_share) == len(SHARES):
        tail |= agreement(by_share[1.0], by_share[SHARES[0]], problem.targets)
        tail["rank_cells"] = rounded(cells_over_seeds(setting, runs))
        tail["one_seed"] = one_seed_ranks(setting, runs)
    figures: dict[str, Any] = {"loo_tail_against_scratch": tail}
    law = shapley_values(setting, [*drawn, *natural_runs(setting, runs)])
    if law is not None:
        figures["shapley_against_loo"] = {
            "mixtures": 1 + len(drawn),
            "outside": law.outside,
            **{one.said: rounded(rank_agreement(law, one)) for one in measured},
        }
    return figures


def left_out_specs(setting: Bench, seed: int, share: float) -> list[RunSpec]:
    """The natural mixture, and the same without each domain."""
    problem = setting.problem
    return [
        leave_out_spec(problem, problem.domains.natural, left, share=share, seed=seed)
        for left in ((), *((k,) for k in range(len(problem.domains))))
    ]


def left_out_runs(setting: Bench, store: Store, end: float, seeds: range) -> list[RunResult]:
    """What there is when the time is over, a seed at a time: first the ends, then from scratch."""
    specs = [left_out_specs(setting, seed, share) for seed in seeds for share in SHARES]
    return [run for wanted in specs for run in known_runs(setting, store, end, wanted)]


def drawn_runs(setting: Bench, store: Store, end: float) -> list[RunResult]:
    """The Dirichlet mixtures, a few at a time."""
    problem = setting.problem
    rows = build("design", {"name": "dirichlet"}).draw(
        problem.domains, problem.constraints, MIXTURES, np.random.default_rng(18)
    )
    specs = [problem.spec(row, FIRST_SEED) for row in rows]
    parts = [known_runs(setting, store, end, specs[i : i + 4]) for i in range(0, MIXTURES, 4)]
    return [run for part in parts for run in part]


def known_runs(
    setting: Bench, store: Store, end: float, specs: Sequence[RunSpec]
) -> list[RunResult]:
    """Runs that are there, once they were trained if there is time."""
    if time.monotonic() < end:
        setting.train(specs)
    found = [store.get(spec.fingerprint) for spec in specs]
    return [run for run in found if isinstance(run, RunResult)]


def natural_runs(setting: Bench, runs: Sequence[RunResult]) -> list[RunResult]:
    """The runs of the natural mixture, each once."""
    wanted = {left_out_specs(setting, seed, 1.0)[0].fingerprint for seed in range(SEEDS)}
    known = {run.spec.fingerprint: run for run in runs}
    return [run for name, run in known.items() if name in wanted]


def worth_rows(one: LeaveOut, columns: tuple[str, ...]) -> list[dict[str, Any]]:
    """A row for each domain and column."""
    return [
        {"left_out": one.said, "seeds": one.seeds, "domain": domain, "target": column,
         **{k: round(v, 5) for k, v in dataclasses.asdict(worth).items()},
         "detectable": round(least, 5)}
        for domain, row in zip(one.domains, one.worths, strict=True)
        for column, worth, least in zip(columns, row, one.detectable, strict=True)
    ]  # fmt: skip


def agreement(one: LeaveOut, other: LeaveOut, targets: tuple[str, ...]) -> dict[str, Any]:
    """How two kinds of leaving out agree over the domains that both have."""
    names = [name for name in one.domains if name in other.domains]
    first, second = (
        [dict(zip(side.domains, side.worths, strict=True))[name][1:] for name in names]
        for side in (one, other)
    )
    pairs = [pair for a, b in zip(first, second, strict=True) for pair in zip(a, b, strict=True)]
    means = np.array([(a.mean, b.mean) for a, b in pairs])
    others = [t != f"domain/{name}" for name in names for t in targets]
    both = [(a.sign, b.sign) for a, b in pairs if a.sign and b.sign]
    return {
        "seeds": [one.seeds, other.seeds],
        "rank": rounded(rank_agreement(one, other)),
        "cells": len(pairs),
        "rank_other_cells": round(spearman(*means[others].T), 3),
        "shown": [sum(a.sign != 0 for a, _ in pairs), sum(b.sign != 0 for _, b in pairs)],
        "shown_by_both": len(both),
        "of_one_sign": sum(a == b for a, b in both),
    }


def seed_tables(setting: Bench, runs: Sequence[RunResult], share: float) -> dict[int, Any]:
    """Worths of all cells by seed, of those whose runs are all there."""
    known, tables = {run.spec.fingerprint: run.scores for run in runs}, {}
    for seed in range(SEEDS):
        names = [spec.fingerprint for spec in left_out_specs(setting, seed, share)]
        if all(name in known for name in names):
            targets = setting.problem.targets
            Y = np.array([[known[name][t].value for t in targets] for name in names])
            tables[seed] = (Y[1:] - Y[0]).ravel()
    return tables


def cells_over_seeds(setting: Bench, runs: Sequence[RunResult]) -> Worth:
    """Rank correlation of the two kinds over all cells, by the mean of the seeds of both."""
    sides = [seed_tables(setting, runs, share) for share in SHARES]
    seeds = [seed for seed in sides[0] if seed in sides[1]]

    def rank(kept: Sequence[int]) -> float:
        return spearman(*(np.mean([side[seed] for seed in kept], axis=0) for side in sides))

    return jackknifed_rank(rank(seeds), [rank([s for s in seeds if s != one]) for one in seeds])


def one_seed_ranks(setting: Bench, runs: Sequence[RunResult]) -> dict[str, float]:
    """Rank correlations over cells of one seed against another, mean of the pairs of seeds."""
    ends, scratch = (seed_tables(setting, runs, share) for share in SHARES)
    found = {
        name: float(np.mean([spearman(one[a], other[b]) for a in one for b in other if a != b]))
        for name, one, other in (
            ("tail_against_scratch", ends, scratch),
            ("tail", ends, ends),
            ("scratch", scratch, scratch),
        )
    }
    found["ceiling"] = (found["tail"] * found["scratch"]) ** 0.5
    return {name: round(value, 3) for name, value in found.items()}


def shapley_values(setting: Bench, runs: Sequence[RunResult]) -> ShapleyWorth | None:
    """Of the default law over runs of fixed mixtures; None where there are too few."""
    if len(runs) < MIXTURES:
        return None
    found, law = gather_runs(setting.problem, tuple(runs)), build("law", NAME)
    fitted = found.sample.fit(law, np.arange(len(found.sample.W)), chance())
    return law_shapley(found, law, fitted, setting.problem.domains.natural, chance())


def chance() -> np.random.Generator:
    """The same for every figure."""
    return np.random.default_rng(0)


def rounded(rank: Any) -> list[float]:
    """A rank correlation and its interval."""
    return [round(x, 3) for x in (rank.mean, rank.low, rank.high)]
