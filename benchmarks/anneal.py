"""Schedules on real text: an anneal search against the best static mixture, and learning rates.

The search is `mixtures.methods.anneal` on a recipe's problem; its schedule and its main mixture are
trained at equal tokens under fresh seeds. Then both are trained again under other learning-rate
schedules. Every run is kept in the home, so that a benchmark that was stopped goes on. On worlds
where order matters, whose best schedule is known: what proposals of both mixtures add to tails.

    python benchmarks/anneal.py --home .cuvee      # the last line is JSON
    python benchmarks/anneal.py --worlds 8
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fresh import Bench, bench

from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop, worlds
from cuvee.mixtures.errors import CuveeError
from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.laws.default import NAME
from cuvee.mixtures.methods.anneal import FRESH, Anneal
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import History, RunResult, score_table
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.mixtures.two_phase import candidates as tails
from cuvee.mixtures.worlds import Learning, Noisy, Recency
from cuvee.proxies.train.device import keep_memory

ROOT = Path(__file__).parent.parent
AGAIN = 2000  # first seed of a second comparison
RATES = {  # learning rate -> fields of the proxy
    "wsd": {"schedule": "wsd"},
    "cosine": {"schedule": "cosine"},
    "constant": {"schedule": "constant"},
    "constant, last 20 % averaged": {"schedule": "constant", "average": 0.2},
}


def searched(setting: Bench, method: Anneal) -> tuple[dict[str, Any], History]:
    """The paired gain of the schedule over the main mixture, and the runs it rests on."""
    answer, history = loop.search(method, setting.problem, setting.train, setting.seed)
    found = method.tried(setting.problem, history)
    if found is None:
        return {"gain": None, "low": None, "high": None, "recommended": False}, history
    ending, gain = found
    names = setting.problem.domains.names
    result = {
        "gain": gain.mean,
        "low": gain.low,
        "high": gain.high,
        "recommended": len(answer.stages) > 1,
        "switch": ending.switch,
        "best static": dict(zip(names, map(float, _static(history).weights), strict=True)),
        "main": dict(zip(names, map(float, ending.stable), strict=True)),
        "tail": dict(zip(names, map(float, ending.decay), strict=True)),
    }
    return result, history


def _static(history: History) -> Stage:
    """The fixed mixture that the schedule was compared with."""
    fixed = [run.spec for run in history if len(run.spec.stages) == 1]
    return next(spec.stages[0] for spec in fixed if spec.seed == FRESH)


def levels(
    setting: Bench, problem: Problem, found: dict[str, Any], history: History, seeds: range
) -> tuple[list[float], list[float]]:
    """Objective of main mixture and schedule under each seed, as a problem trains them."""
    main = _static(history).weights
    before, after = (np.array(list(found[part].values())) for part in ("main", "tail"))
    schedule = tails.two_stages(before, after, found["switch"])
    specs = [problem.spec(main, s) for s in seeds] + [problem.staged(schedule, s) for s in seeds]
    runs = [run for run in setting.train(specs) if isinstance(run, RunResult)]
    if len(runs) < len(specs):
        raise CuveeError(f"{len(specs) - len(runs)} runs of {problem.proxy} failed")
    scores, half = score_table(tuple(runs), problem.targets)[1], len(seeds)
    scalar = problem.objective.scalarize(problem.targets, scores[:half].mean(axis=0))
    level = scalar.relaxed(scores).tolist()
    return level[:half], level[half:]


def rates(setting: Bench, found: dict[str, Any], history: History, seeds: int) -> dict[str, Any]:
    """Objective of main mixture and schedule under each learning rate, paired by seed."""
    own, result = range(FRESH, FRESH + seeds), {}
    base: list[float] = []
    for name, fields in RATES.items():
        proxy = dataclasses.replace(setting.problem.proxy, **fields)
        posed = dataclasses.replace(setting.problem, proxy=proxy)
        static, moved = levels(setting, posed, found, history, own)
        row: dict[str, Any] = {"static": sum(static) / seeds, "schedule": sum(moved) / seeds}
        row["gain"] = _paired(static, moved)
        if name == "wsd":
            base = static
        else:
            row["over wsd"] = _paired(base, static)
        result[name] = row
        print(f"{name}: {json.dumps(row)}", flush=True)
    return result


def _paired(worse: Sequence[float], better: Sequence[float]) -> list[float]:
    """Mean of the differences with its 90 % interval."""
    found = diagnostics.paired_mean([a - b for a, b in zip(worse, better, strict=True)])
    return [found.mean, found.low, found.high]


def anneal_gain(recipe: Path, home: Path, **options: Any) -> dict[str, Any]:
    """What `benchmarks/scale.py` reports: gain, low, high in bits per byte, and the schedule."""
    setting, method = _setting(recipe, home, **options)
    return searched(setting, method)[0]


def _setting(
    recipe: Path, home: Path, *, size: str = "0.3M", tokens: int = 300_000, runs: int = 24,
    candidates: int = 20, pairs: int = 5,
) -> tuple[Bench, Anneal]:  # fmt: skip
    setting = bench(recipe, Workspace(home), size=size, tokens=tokens, held_out=16_384)
    return setting, Anneal(runs=runs, candidates=candidates, pairs=pairs, laws=(NAME,))


def compared(draws: int) -> dict[str, Any]:
    """Gain over the main mixture, at full knowledge of the worlds, without and with proposals."""
    gains: dict[str, list[float]] = {"tails alone": [], "proposals": [], "possible": []}
    for seed in range(draws):
        world = Recency(world=Noisy(world=Learning(size=4, seed=seed), sd=0.002))
        problem = worlds.world_problem(world)
        for name, trials in (("tails alone", 0), ("proposals", Anneal.trials)):
            method = Anneal(runs=16, trials=trials, laws=("log_linear",), search="exact", refits=10)
            _, history = loop.search(method, problem, world, seed)
            found = method.tried(problem, history)
            static = world.value(problem, (_static(history),))
            own = static if found is None else world.value(problem, found[0].stages)
            gains[name].append(static - own)
        best = min(world.value(problem, world.best(problem, s)) for s in Anneal.switches)
        gains["possible"].append(static - best)
        print(seed, {name: round(row[-1], 4) for name, row in gains.items()}, flush=True)
    return {
        **{name: sum(row) / draws for name, row in gains.items()},
        "proposals over tails": _paired(
            [-x for x in gains["tails alone"]], [-x for x in gains["proposals"]]
        ),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the figures and, on the last line, the same as JSON."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n", 1)[0])
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "anneal.yaml")
    parser.add_argument("--home", type=Path, default=Path(".cuvee"))
    parser.add_argument("--size", default="0.3M")
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--runs", type=int, default=24, help="fixed mixtures of the first round")
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=5, help="fresh seeds of the comparison")
    parser.add_argument("--seeds", type=int, default=3, help="of each learning rate; 0: none")
    parser.add_argument("--again", type=int, default=0, help="pairs of a second comparison")
    parser.add_argument("--worlds", type=int, default=0, help="worlds instead of real text")
    given = vars(parser.parse_args(arguments))
    seeds, draws, second = given.pop("seeds"), given.pop("worlds"), given.pop("again")
    if draws:
        print(json.dumps({"worlds": compared(draws)}))
        return
    keep_memory()
    try:
        setting, method = _setting(given.pop("recipe"), given.pop("home"), **given)
        found, history = searched(setting, method)
        print(f"anneal against best static: {json.dumps(found)}", flush=True)
        if seeds and found["gain"] is not None:
            found["rates"] = rates(setting, found, history, seeds)
        if second and found["gain"] is not None:
            others = range(AGAIN, AGAIN + second)
            found["again"] = _paired(*levels(setting, setting.problem, found, history, others))
    except CuveeError as error:
        sys.exit(str(error))
    print(json.dumps({"anneal_gain": found}))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
