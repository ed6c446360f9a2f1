"""Every method at one budget: what its answer is worth, and what its controller costs.

Each method gets the same number of proxy runs (references, graphs, rounds and trials counted), all
of one size and length, hence the same FLOPs. Then:

* on worlds: the true objective of its answer against uniform, natural and the best static mixture,
  over several draws of two worlds; intervals are Student's over the draws, paired.
* on a corpus (`--recipe FILE`): its answer is trained fresh at `--size`, under at least 3 seeds;
  intervals are Student's over the seeds, paired. Proxies are kept in the recipe's own store, so
  that a benchmark that was stopped goes on. On the quickstart's recipe this takes hours.

The overhead is the part of a run's processor time that a controller adds, measured on one core
over 100 steps of a proxy of 0.6M parameters on 8 domains; references and graphs are runs of their
own and not in it.

Usage: python benchmarks/methods.py [--methods NAME ...] [--draws 6] [--recipe FILE] [--size 2M]
[--plot FILE]. The last line is JSON.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixtures import diagnostics, loop, worlds
from mixtures.controllers import deserialize, serialize
from mixtures.domains import Array
from mixtures.history import RunResult, RunSpec, table
from mixtures.problem import Problem
from mixtures.registry import build, names
from proxies.synthetic import SyntheticCorpus
from proxies.train import Training

RUNS = 24
BASELINES = ("natural", "uniform", "static")
CONTROLLER = {"doremi": "group_dro", "odm": "exp3"}  # others are named as their method
Trained = Callable[[Sequence[RunSpec]], Sequence[Any]]


def configured(name: str, size: int) -> Any:
    """A method whose runs are as many as the budget allows, for `size` domains."""
    swarm = {"runs": RUNS - 6, "seeds": 3, "refits": 10}  # two anchors' repeats are the other 6
    fields: dict[str, dict[str, Any]] = {
        "static": {"trials": RUNS // 4},
        "doremi": {"rounds": 3, "seeds": 4},
        "skill_it": {"seeds": RUNS - 9 - size},
        "mixmin": {"seeds": max(2, (RUNS - 9) // (size + 1))},
        "bayes": {"runs": RUNS - 14, "batch": 4, "rounds": 2, "ensemble": 8, "refits": 10},
        "odm": {"seeds": RUNS - 9},
        "ado": {"seeds": RUNS - 9},
        "aioli": {"seeds": RUNS - 9},
        "doge": {"seeds": RUNS - 9},
    }
    return build("method", {"name": name, **fields.get(name, swarm)})


def on_worlds(methods: Sequence[str], draws: int) -> dict[str, dict[str, Any]]:
    """Gains in true objective over draws of two worlds, by method."""
    found: dict[str, dict[str, list[Any]]] = {}
    for draw in range(draws):
        kinds = (
            worlds.Noisy(worlds.Learning(size=6, seed=draw), sd=0.01),
            worlds.Noisy(worlds.Interacting(worlds.Additive(size=6, count=4, seed=draw)), sd=0.01),
        )
        for world in kinds:
            problem = worlds.problem(world)
            answers: dict[str, tuple[Array, int]] = {
                "natural": (problem.domains.natural, 0),
                "uniform": (problem.domains.uniform, 0),
            }
            for name in dict.fromkeys(("static", *methods)):
                answer, history = loop.search(configured(name, 6), problem, world, draw)
                answers[name] = (answer.weights, len(history))
            for name, (weights, runs) in answers.items():
                passes = problem.domains.epochs(weights[None], problem.full_tokens)
                scores = world.truth(weights[None], passes)[0]
                kept = found.setdefault(name, {"mean": [], "worst": [], "runs": []})
                kept["mean"].append(float(scores.mean()))
                kept["worst"].append(float(scores.max()))
                kept["runs"].append(runs)
        print(f"draw {draw + 1} of {draws}", flush=True)
    return {name: _figures(kept, found) for name, kept in found.items()}


def _figures(kept: Mapping[str, list[Any]], found: Mapping[str, Any]) -> dict[str, Any]:
    """Means, and gains in the mean over each baseline with their intervals."""
    result: dict[str, Any] = {
        "mean": statistics.fmean(kept["mean"]),
        "worst": statistics.fmean(kept["worst"]),
        "runs": max(kept["runs"]),
    }
    for baseline in BASELINES:
        differences = np.array(found[baseline]["mean"]) - np.array(kept["mean"])
        gain = diagnostics.paired(differences.tolist())
        result[f"gain_over_{baseline}"] = gain.mean
        result[f"interval_over_{baseline}"] = [gain.low, gain.high]
    result["low"], result["high"] = result["interval_over_uniform"]
    return result


def on_corpus(methods: Sequence[str], path: Path, size: str, seeds: int) -> dict[str, Any]:
    """Gains of fresh runs at a larger size, by method."""
    from prefect import flow
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows import prepare as preparing
    from flows.confirm import fresh_seeds
    from flows.home import Home
    from flows.recipe import load
    from flows.runner import Runner
    from flows.server import PrefectApi
    from flows.trainings import Trainings
    from tasks.ledger import MemoryLedger
    from tasks.recorder import Recorder
    from tasks.store import Store

    recipe, _ = load(path)
    home = Home(Path(".cuvee").resolve())
    prepared = preparing.prepare(recipe, home, preparing.plainly)
    problem = preparing.problem(recipe, prepared)
    recorder = Recorder(MemoryLedger())
    recorder.begin("bench-methods", {}, {})
    runner = Runner(home.root, device=recipe.proxy.device)
    trainings = Trainings(
        prepared, Store(home.store), recorder, runner, checkpoints=home.checkpoints
    )

    def work() -> dict[str, Any]:
        return compared(methods, problem, trainings, size, fresh_seeds(recipe.seed, seeds))

    with (
        PrefectApi(home.root / "prefect") as api,
        runner,
        temporary_settings(updates={PREFECT_API_URL: api.wait()}),
    ):
        result: dict[str, Any] = flow(work, name="bench-methods", persist_result=False)()
        return result


def compared(
    methods: Sequence[str],
    problem: Problem,
    trained: Trained,
    size: str,
    seeds: Sequence[int],
) -> dict[str, Any]:
    """Every method's answer, and fresh runs of it and of the baselines."""
    answers = {"natural": (problem.domains.natural, 0), "uniform": (problem.domains.uniform, 0)}
    for name in dict.fromkeys(("static", *methods)):
        began = time.monotonic()
        method = configured(name, len(problem.domains))
        answer, history = loop.search(method, problem, trained, 0)
        answers[name] = (answer.weights, len(history))
        print(f"{name}: {len(history)} runs, {time.monotonic() - began:.0f} s", flush=True)
    found, natural = {}, np.zeros(len(problem.targets))
    for name, (weights, runs) in answers.items():
        specs = [problem.spec(weights.tolist(), seed, size) for seed in seeds]
        outcomes = [run for run in trained(specs) if isinstance(run, RunResult)]
        if len(outcomes) < len(specs):
            raise SystemExit(f"{len(specs) - len(outcomes)} fresh runs of {name} failed")
        scores = table(tuple(outcomes), problem.targets)[1]
        natural = scores.mean(axis=0) if name == "natural" else natural  # it comes first
        level = problem.objective.shape(problem.targets, natural).level(scores)
        columns = [problem.targets.index(t) for t in problem.objective.targets]
        found[name] = {
            "mean": level.tolist(),
            "worst": scores[:, columns].max(axis=1).tolist(),
            "runs": [runs],
        }
    return {name: _figures(kept, found) for name, kept in found.items()}


def overhead(name: str, steps: int = 100) -> float:
    """Part of a run's processor time that a controller adds; the lesser of two runs of each.

    Processor time and not time on the clock, so that other work on the machine matters less.
    """
    domains = {f"d{i}": 60_000 for i in range(8)}
    corpus = SyntheticCorpus(4096, domains)
    even = dict.fromkeys(domains, 1 / 8)
    fields = {"size": "0.6M", "tokens": steps * 8 * 256}
    plain = corpus.spec(even, **fields)
    config: dict[str, Any] = {"name": CONTROLLER.get(name, name)}
    if name == "aioli":
        config["rounds"] = 3  # 100 steps are too few for four
    models = {}
    if name == "doremi":
        models[plain.fingerprint] = Training([plain], corpus, device="cpu", references={}).model
    moved = corpus.spec(
        even,
        controller=serialize(deserialize(config)),
        reference=plain.fingerprint if models else "",
        **fields,
    )
    seconds: dict[str, float] = {}
    for spec in (plain, moved, plain, moved):
        training = Training([spec], corpus, device="cpu", references=models)
        began = time.process_time()
        while training.step < training.plan.steps:
            training.advance()
        took = time.process_time() - began
        seconds[spec.fingerprint] = min(took, seconds.get(spec.fingerprint, took))
    return float(seconds[moved.fingerprint] / seconds[plain.fingerprint] - 1.0)


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures as a Markdown table, the best mean first."""
    print("| method | runs | mean | worst | gain over uniform | over natural | over best static |")
    print("|---|---|---|---|---|---|---|")
    for name, row in sorted(found.items(), key=lambda item: item[1]["mean"]):
        gains = " | ".join(
            f"{row[f'gain_over_{b}']:+.4f} ({row[f'interval_over_{b}'][0]:+.4f} to "
            f"{row[f'interval_over_{b}'][1]:+.4f})"
            for b in ("uniform", "natural", "static")
        )
        print(f"| `{name}` | {row['runs']} | {row['mean']:.4f} | {row['worst']:.4f} | {gains} |")


def draw(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """A picture of the gains over uniform with their intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    order = sorted(found, key=lambda name: found[name]["gain_over_uniform"])
    gains = np.array([found[name]["gain_over_uniform"] for name in order])
    ends = np.array([[found[name]["low"], found[name]["high"]] for name in order])
    figure, axes = plt.subplots(figsize=(7, 0.4 * len(order) + 1.2))
    axes.errorbar(gains, order, xerr=np.abs(ends.T - gains), fmt="o", color="#0072b2", capsize=3)
    axes.axvline(0.0, color="#888888", linewidth=1)
    axes.set_xlabel("gain over uniform, bits per byte (90 % interval)")
    figure.tight_layout()
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--methods", nargs="+", default=list(names("method")))
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--size", default="2M")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--no-overhead", action="store_true")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if given.recipe:
        found = on_corpus(given.methods, given.recipe, given.size, given.seeds)
    else:
        found = on_worlds(given.methods, given.draws)
    moving = ("doremi", "skill_it", "odm", "ado", "aioli", "doge")
    for name in found if not given.no_overhead else ():
        found[name]["overhead"] = round(overhead(name), 4) if name in moving else 0.0
    show(found)
    for name in moving:
        if "overhead" in found.get(name, {}):
            print(f"{name}: training takes {found[name]['overhead']:+.1%} longer")
    if given.plot:
        draw(found, given.plot)
    print(json.dumps({"methods": found}))


if __name__ == "__main__":
    main()
