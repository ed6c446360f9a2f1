"""Ladders on worlds whose best mixture moves with scale: recovered parameters, regret, splits."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cuvee.mixtures import loop, worlds
from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.multiscale import budget_splits
from cuvee.mixtures.multiscale.budget_splits import BudgetSplit
from cuvee.mixtures.multiscale.steps import LadderStep, scaling_runs
from cuvee.mixtures.problem import Problem, Proxy
from cuvee.mixtures.registry import build
from cuvee.mixtures.worlds.scaled import SIZES

RUNGS = (("0.3M", 12_000_000), ("0.6M", 16_000_000), ("1M", 20_000_000), ("2M", 24_000_000))
FULL = (100_000_000, 4_000_000_000)
DOMAINS, TARGETS, SD = 5, 2, 0.004
BUDGETS = (2.0, 4.0)  # in units of `UNIT`
UNIT = 100 * 6.0 * 300_000 * 12_000_000  # FLOPs of 100 runs on the smallest rung
BEFORE = 8  # runs of the anchors' repeats on the first rung, at most


def posed(draw: int, moves: float = 1.0) -> tuple[Any, Problem]:
    """A noisy world and the problem of finding its best mixture at full scale."""
    truth = worlds.Scaled(size=DOMAINS, count=TARGETS, moves=moves, seed=draw)
    world = worlds.Noisy(world=truth, sd=SD)
    problem = worlds.world_problem(world, full_tokens=FULL[1])
    proxy = Proxy(RUNGS[0][0], RUNGS[0][1])
    return world, replace(problem, full_parameters=FULL[0], sizes=SIZES, proxy=proxy)


def ladder(split: BudgetSplit, budget: float) -> Any:
    """The ladder that spends a budget by a split."""
    each = [6.0 * dict(SIZES)[size] * tokens for size, tokens in RUNGS]
    runs = budget_splits.step_counts(split, budget, each)
    rungs = [
        {"size": size, "tokens": tokens, "runs": count}
        for (size, tokens), count in zip(RUNGS[1:], runs[1:], strict=True)
        if count
    ]
    method = {"name": "ladder", "runs": max(runs[0] - BEFORE, 12), "rungs": rungs}
    return build("method", {**method, "laws": ["power"], "refits": 10})


def regrets(
    split: BudgetSplit, budget: float, draws: int, moves: float = 1.0
) -> tuple[list[float], list[str]]:
    """Regret at full scale and the law used, for each draw of the world."""
    found, used = [], []
    for draw in range(draws):
        world, problem = posed(draw, moves)
        answer, _ = loop.search(ladder(split, budget), problem, world, draw)
        found.append(world.regret(problem, answer.weights))
        used.append(answer.scale.chosen if answer.scale else "one size")
    return found, used


def recovered(draw: int, noise: float) -> dict[str, float]:
    """Relative errors of the joint law's exponents from a wide ladder of a world."""
    world = worlds.Noisy(world=worlds.Scaled(size=4, count=2, moves=0.7, seed=draw), sd=noise)
    problem = replace(worlds.world_problem(world), sizes=SIZES)
    rng, history = np.random.default_rng(draw), []
    design = rng.dirichlet(np.full(4, 0.7), 30)
    rungs = []
    for (size, tokens), count in zip(RUNGS, (30, 16, 12, 10), strict=True):
        for part in (1, 2, 4):
            rungs.append(LadderStep(size, tokens * part, count))
            specs = [problem.spec(w, 0, size, tokens * part) for w in design[:count]]
            history += list(world(specs))
    runs = scaling_runs(problem, tuple(history), rungs)
    fitted = build("scaling", "joint").fit(runs, rng)
    first, width = 1 + 2 * 4, 4 + 3
    rates = np.exp(fitted.p[:, [first + 1, first + width + 1]])
    off = np.abs(rates / world.world.known.rates - 1.0)
    return {"a": float(off[:, 0].mean()), "b": float(off[:, 1].mean())}


def measured(draws: int) -> dict[str, Any]:
    """Figures of the worlds' part, printed as they come."""
    found: dict[str, Any] = {"recovered": {}, "regret": {}}
    for noise in (0.0005, 0.005):
        each = [recovered(draw, noise) for draw in range(draws)]
        row = {key: float(np.mean([r[key] for r in each])) for key in ("a", "b")}
        found["recovered"][str(noise)] = row
        print(f"joint law, noise {noise}: exponents off by {row['a']:.1%} (a), {row['b']:.1%} (b)",
              flush=True)  # fmt: skip
    natural = [w.regret(p, p.domains.natural) for w, p in map(posed, range(draws))]
    found["regret"]["natural"] = float(np.mean(natural))
    say("natural shares", natural, ["no run"] * draws)
    alone, mixed = BudgetSplit("smallest size alone", 1.0), BudgetSplit("ladder", 0.25)
    for budget in BUDGETS:
        for split in (alone, mixed):
            row, used = regrets(split, budget * UNIT, draws)
            found["regret"].setdefault(split.name, {})[str(budget)] = float(np.mean(row))
            say(f"budget {budget:g}, {split.name}", row, used)
    return found


def table(draws: int) -> dict[str, dict[str, tuple[float, float]]]:
    """What `mixtures.multiscale.budget_splits.REGRET` should hold, printed as its source."""
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for name, moves in budget_splits.MOVES.items():
        rows = {}
        for split in budget_splits.SPLITS:
            row, used = regrets(split, BUDGETS[-1] * UNIT, draws, moves)
            error = float(np.std(row, ddof=1) / np.sqrt(draws)) if draws > 1 else 0.0
            figures = round(float(np.mean(row)), 4), round(error, 4)
            found.setdefault(split.name, {})[name], rows[split.name] = figures, row
            say(f"best mixture moves {name}, {split.name}", row, used)
        first, *others = rows
        for other in others if draws > 1 else ():
            gap = diagnostics.paired_mean(
                [a - b for a, b in zip(rows[first], rows[other], strict=True)]
            )
            told = f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})"
            print(f"{other} is better than {first} by {told}", flush=True)
    print(f"REGRET = {json.dumps(found, indent=4)}", flush=True)
    return found


def say(title: str, row: Sequence[float], used: Sequence[str]) -> None:
    """Print one line of figures."""
    each = ", ".join(f"{x:.4f} ({law})" for x, law in zip(row, used, strict=True))
    print(f"{title}: mean regret {np.mean(row):.4f}: {each}", flush=True)
