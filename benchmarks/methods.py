"""Every method at one budget: what its answer is worth, and what its controller costs.

Each method gets the same number of proxy runs (references, graphs, rounds and trials counted), all
of one size and length, hence the same FLOPs. Then:

* on worlds: the true objective of its answer against uniform, natural and the best static mixture,
  over several draws of two worlds; intervals are Student's over the draws, paired.
* on a corpus (`--recipe FILE --home FOLDER`): its answer, a mixture or a schedule in stages, is
  trained fresh at `--size`, under at least 3 seeds; intervals are Student's over the seeds, paired.
  Every run is kept in the home's store, so that a comparison that was stopped goes on; the table is
  printed anew after every method.

The overhead is the part of a run's processor time that a controller adds (`overheads.py`);
references and graphs are runs of their own and not in it.

Usage: python benchmarks/methods.py [--methods NAME ...] [--draws 6] [--recipe FILE --home FOLDER
--runs 16 --proxy 0.6M --tokens 400k --size 1M --fresh-tokens 500k] [--worlds] [--plot FILE]. Worlds
alone without a recipe, both with `--worlds`. The last line is JSON: `methods`, and `worlds` beside
it where a recipe was given too.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from contenders import (
    BASELINES,
    EVERY,
    Answer,
    Budget,
    answer,
    baselines,
    configured,
    figures,
)
from overheads import CONTROLLED, overhead

from cuvee.mixtures import loop, worlds

WORLD_RUNS = 24
WORLD_DOMAINS = 6
Found = dict[str, dict[str, Any]]


def on_worlds(methods: Sequence[str], draws: int) -> Found:
    """Gains in true objective over draws of two worlds, by method."""
    kept: dict[str, dict[str, list[float]]] = {}
    runs: dict[str, int] = {}
    for draw in range(draws):
        for world in (
            worlds.Noisy(worlds.Learning(size=WORLD_DOMAINS, seed=draw), sd=0.01),
            worlds.Noisy(
                worlds.Interacting(worlds.Additive(size=WORLD_DOMAINS, count=4, seed=draw)), sd=0.01
            ),
        ):
            problem = worlds.world_problem(world)
            answers = baselines(problem)
            budget = Budget(WORLD_RUNS, WORLD_DOMAINS)
            for name in dict.fromkeys((BASELINES[-1], *methods)):
                answers[name] = answer(*loop.search(configured(name, budget), problem, world, draw))
            for name, found in answers.items():
                weights = found.weights[None]
                passes = problem.domains.epochs(weights, problem.full_tokens)
                scores = world.truth(weights, passes)[0]
                mine = kept.setdefault(name, {"mean": [], "worst": []})
                mine["mean"].append(float(scores.mean()))
                mine["worst"].append(float(scores.max()))
                runs[name] = max(found.runs, runs.get(name, 0))
        print(f"draw {draw + 1} of {draws}", flush=True)
    return {name: {**figures(kept[name], kept), "runs": runs[name]} for name in kept}


def on_corpus(given: argparse.Namespace) -> Found:
    """Gains of fresh runs at a larger size, by method."""
    from cuvee.flows.workspace import QUIET

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)  # before Prefect is imported
    import fresh

    from cuvee.flows.workspace import Workspace

    home = Workspace(given.home.resolve())
    setting = fresh.bench(
        given.recipe, home, size=given.proxy, tokens=given.tokens, held_out=given.held_out
    )
    seeds = fresh.seeds(setting.seed, given.seeds)
    larger = fresh.Fresh(given.size, given.fresh_tokens, seeds)
    kept: dict[str, dict[str, list[float]]] = {}
    answers: dict[str, Answer] = {}
    found: Found = {}
    for name, one, scores in fresh.compared(given.methods, given.runs, setting, larger):
        kept[name], answers[name] = scores, one
        if BASELINES[-1] not in kept:
            continue
        found = {
            label: {
                **figures(kept[label], kept),
                "runs": answers[label].runs,
                "flops": answers[label].flops,
                "stages": [[list(s.weights), s.share] for s in answers[label].stages],
            }
            for label in kept
        }
        show(found)
    return found


def show(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the figures as a Markdown table, the best mean first."""
    even = all("even" in row for row in found.values())
    extra = ("even mean", "even gain over uniform") if even else ()
    head = ("method", "runs", "mean", "worst", "gain over uniform", "over natural", "over static")
    print("| " + " | ".join((*head, *extra)) + " |")
    print("|" + "---|" * len((*head, *extra)))
    for name, row in sorted(found.items(), key=lambda item: item[1]["mean"]):
        cells = [f"`{name}`", str(row["runs"]), f"{row['mean']:.4f}", f"{row['worst']:.4f}"]
        cells += [interval(row, label) for label in ("uniform", "natural", "static")]
        if even:
            cells += [f"{row['even']:.4f}", interval(row, "uniform_in_even")]
        print("| " + " | ".join(cells) + " |", flush=True)


def interval(row: Mapping[str, Any], label: str) -> str:
    """A gain with its interval."""
    low, high = row[f"interval_over_{label}"]
    return f"{row[f'gain_over_{label}']:+.4f} ({low:+.4f} to {high:+.4f})"


def draw(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """A picture of the gains over uniform, natural and best static with their intervals."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["svg.hashsalt"] = "cuvee"
    import matplotlib.pyplot as plt

    order = sorted(found, key=lambda name: found[name]["gain_over_uniform"])
    figure, axes = plt.subplots(figsize=(7, 0.42 * len(order) + 1.4))
    looks = zip(BASELINES, ("#d55e00", "#0072b2", "#009e73"), ("s", "o", "D"), strict=True)
    for shift, (baseline, color, marker) in zip((0.2, 0.0, -0.2), looks, strict=True):
        rows = [(i + shift, found[name]) for i, name in enumerate(order) if name != baseline]
        ends = [row[f"interval_over_{baseline}"] for _, row in rows]
        places = [y for y, _ in rows]
        axes.hlines(places, *zip(*ends, strict=True), color=color, linewidth=1.4)
        gains = [row[f"gain_over_{baseline}"] for _, row in rows]
        axes.plot(gains, places, marker, color=color, markersize=4.5, label=f"over {baseline}")
    axes.set_yticks(range(len(order)), order)
    axes.axvline(0.0, color="#888888", linewidth=1)
    axes.set_xlabel("gain, bits per byte (bar: 90 % interval); right is better")
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def count(text: str) -> int:
    """A number of tokens, such as 400k or 1.5M."""
    factors = {"k": 10**3, "M": 10**6}
    return round(float(text.rstrip("kM")) * factors.get(text[-1], 1))


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n\n", 1)[0])
    parser.add_argument("--methods", nargs="+", default=list(EVERY))
    parser.add_argument("--draws", type=int, default=6)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--worlds", action="store_true")
    parser.add_argument("--home", type=Path, default=Path(".cuvee"))
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--proxy", default="0.6M")
    parser.add_argument("--tokens", type=count, default=400_000)
    parser.add_argument("--size", default="1M")
    parser.add_argument("--fresh-tokens", type=count, default=500_000)
    parser.add_argument("--held-out", type=count, default=16_384)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--no-overhead", action="store_true")
    given = parser.parse_args(arguments)
    if given.seeds < 3:
        parser.error(f"an interval over fewer than 3 seeds says little; got --seeds {given.seeds}")
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    given = options(arguments)
    torch.set_num_threads(1)
    found = on_corpus(given) if given.recipe else on_worlds(given.methods, given.draws)
    both = given.recipe and given.worlds
    simulated = {"worlds": on_worlds(given.methods, given.draws)} if both else {}
    for name in found if not given.no_overhead else ():
        found[name]["overhead"] = round(overhead(name), 4) if name in CONTROLLED else 0.0
    for table in (*simulated.values(), found):
        show(table)
    for name, row in found.items():
        if name in CONTROLLED and "overhead" in row:
            print(f"{name}: training takes {row['overhead']:+.1%} longer")
    if given.plot:
        draw(found, given.plot)
    print(json.dumps({"methods": found, **simulated}))


if __name__ == "__main__":
    main()
