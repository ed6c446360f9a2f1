"""What a method's answer is worth after so many runs: regret on worlds whose optimum is known.

    python benchmarks/regret.py [--methods NAME ...] [--rows 16 32 64 128] [--draws 5]

Two worlds of six domains and three targets, noise 0.01 bits per byte (twice that at a vertex): one
that the log-linear law fits (`additive`), and one with synergies between domains that it cannot
(`interacting`). Each draw has a truth, a design and noise of its own, the same for every method.
Rows are all runs, six repeats of the natural and the uniform mixture included; `bayes` spends a
quarter of them in four later rounds, and stops sooner where it expects no gain.

Regret is the true objective (mean of the targets) of the recommended mixture minus that of the
optimum; intervals hold 90 %, Student's over the draws. Methods run through `mixtures.loop.search`
with their default settings and 12 folds, but for the recommendation itself, which is
`recommend.pick_shares`: the same mixture to the bit (a test holds it to that) without the
cross-validation and the refits, which give the evidence and the intervals alone. For the same
reason LightGBM calibrates its deviations in 2 folds: its mean, all that its search reads, is that
of its default settings.
Seconds are processor time on one thread.

A second table, at one number of rows, has limits: `group` wants at least 40 % of two domains that
the truth dislikes and at most 20 % of the best; `floor` wants no target worse than natural by
more than 0.01, where regret says nothing of floors that are broken in truth: those are counted.
The last line is JSON.
"""

import argparse
import dataclasses
import json
import platform
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from cuvee.mixtures import loop, worlds
from cuvee.mixtures.constraints import Group, constrain
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import CuveeError
from cuvee.mixtures.inference import dataset
from cuvee.mixtures.inference import recommend as choice
from cuvee.mixtures.inference.paired_trial import student_interval
from cuvee.mixtures.laws import default
from cuvee.mixtures.objectives import Floors
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_results import History

SIZE, TARGETS, SD = 6, 3, 0.01
REPEATS = 6  # runs of the two anchors under three seeds
FOLDS = 12  # of 16 runs, 5 folds leave fewer than some laws need; the answer is the same
TOLERANCE = 0.01  # bits per byte, of the floors
METHODS: dict[str, dict[str, Any]] = {
    "regmix": {"name": "regmix", "laws": [{"name": "lightgbm", "folds": 2}]},
    f"regmix, {default.NAME}": {"name": "regmix", "laws": [default.NAME]},
    "mixing_laws": {"name": "mixing_laws"},
    "olmix": {"name": "olmix"},
    "bayes": {"name": "bayes", "laws": ["log_linear"]},
    f"bayes, {default.NAME}": {"name": "bayes", "laws": [default.NAME]},
}
SLOW = f"bayes, {default.NAME}"  # ten times the others' time; only if asked for by --methods
LIMITED = (f"regmix, {default.NAME}", "mixing_laws")


@dataclasses.dataclass(frozen=True, eq=False)
class Answer:
    """What a method recommends, from how many runs, and the processor's seconds it took."""

    weights: Array
    runs: int
    seconds: float


class Chooser:
    """A method as the loop wants it, whose recommendation is its mixture alone."""

    def __init__(self, method: Any) -> None:
        self.ask = method.ask
        self.method = method

    def recommend(self, problem: Problem, history: History, rng: np.random.Generator) -> Any:
        """The recommended shares (K,)."""
        return choice.pick_shares(self.method, problem, history, rng)


def world_of(kind: str, draw: int) -> Any:
    """A world of a kind; its truth is of the draw."""
    truth: Any = worlds.Additive(size=SIZE, count=TARGETS, seed=draw)
    if kind == "interacting":
        truth = worlds.Interacting(truth, seed=draw)
    return worlds.Noisy(truth, sd=SD)


def method_of(name: str, rows: int) -> Any:
    """A method that asks for so many runs, repeats of the anchors included."""
    config = METHODS[name] | {"folds": FOLDS}
    if config["name"] == "bayes":
        batch = max(1, rows // 16)
        config |= {"batch": batch, "rounds": 4, "runs": rows - REPEATS - 4 * batch}
    else:
        config["runs"] = rows - REPEATS
    return build("method", config)


def answer(name: str, rows: int, problem: Problem, world: Any, draw: int) -> Answer | str:
    """A method's answer after so many runs, or why it gives none."""
    began = time.process_time()
    try:
        weights, history = loop.search(Chooser(method_of(name, rows)), problem, world, draw)
    except CuveeError as error:
        return str(error)
    return Answer(np.asarray(weights), len(history), time.process_time() - began)


def best_run(rows: int, problem: Problem, world: Any, draw: int) -> Array:
    """The best observed mixture (K,) of the runs that `regmix` and `mixing_laws` rest on."""
    method = method_of("mixing_laws", rows)
    history = tuple(world(method.ask(problem, (), loop.generator(draw, 0))))
    return dataset.best_observed(problem, dataset.gather_runs(problem, history))


def figures(regrets: Sequence[float]) -> dict[str, Any]:
    """Mean and 90 % interval of regrets over draws."""
    found = student_interval(np.array(regrets))
    return {"mean": found.mean, "low": found.low, "high": found.high, "regrets": list(regrets)}


def measured(kind: str, names: Sequence[str], rows: int, draws: int) -> dict[str, dict[str, Any]]:
    """Regret of every method and of the best run on one kind of world, printed as it comes."""
    found: dict[str, dict[str, Any]] = {}
    for name in ("best run", *names):
        regrets, runs, seconds, refused = [], [], [], ""
        for draw in range(draws):
            world = world_of(kind, draw)
            problem = worlds.world_problem(world)
            if name == "best run":
                regrets.append(world.regret(problem, best_run(rows, problem, world, draw)))
                continue
            given = answer(name, rows, problem, world, draw)
            if isinstance(given, str):
                refused = given
                break
            regrets.append(world.regret(problem, given.weights))
            runs.append(given.runs)
            seconds.append(given.seconds)
        if refused:
            found[name] = {"refused": refused}
        else:
            found[name] = figures(regrets) | {
                "runs": float(np.mean(runs)) if runs else float(rows),
                "seconds": float(np.mean(seconds)) if seconds else 0.0,
            }
        print(f"| {kind} | {name} | {rows} | {cells(found[name])} |", flush=True)
    return found


def cells(row: dict[str, Any]) -> str:
    """A printed row's figures."""
    if "refused" in row:
        return f"refused: {row['refused']} | | "
    interval = f"{row['mean']:.4f} ({row['low']:.4f} to {row['high']:.4f})"
    return f"{interval} | {row['runs']:.0f} | {row['seconds']:.1f}"


def baselines(kind: str, draws: int) -> dict[str, dict[str, Any]]:
    """Regret of the natural and the uniform mixture, which need no run."""
    found: dict[str, list[float]] = {"natural": [], "uniform": []}
    for draw in range(draws):
        world = world_of(kind, draw)
        problem = worlds.world_problem(world)
        for name, regrets in found.items():
            regrets.append(world.regret(problem, getattr(problem.domains, name)))
    rows = {
        name: figures(regrets) | {"runs": 0.0, "seconds": 0.0} for name, regrets in found.items()
    }
    for name, row in rows.items():
        print(f"| {kind} | {name} | 0 | {cells(row)} |", flush=True)
    return rows


def limited(world: Any, kind: str) -> Problem:
    """The world's problem under limits that its optimum breaks."""
    problem = worlds.world_problem(world)
    names = problem.domains.names
    order = np.argsort(-world.optimum(problem), kind="stable")
    if kind == "group":
        worst = (names[order[-1]], names[order[-2]])
        limits = constrain(
            problem.domains,
            full_tokens=problem.full_tokens,
            bounds={names[order[0]]: (0.0, 0.2)},
            groups=[Group(worst, at_least=0.4)],
        )
        return dataclasses.replace(problem, constraints=limits)
    mean = {problem.targets[0]: 1.0}  # of one target alone: the others pay for it
    floors = dict.fromkeys(problem.targets[1:], TOLERANCE)
    return dataclasses.replace(problem, objective=Floors(mean, floors))


def under_limits(kind: str, rows: int, draws: int) -> dict[str, dict[str, Any]]:
    """Regret against the constrained optimum; for floors, how often and far they are broken."""
    found: dict[str, dict[str, Any]] = {}
    for name in LIMITED:
        regrets, over = [], []
        for draw in range(draws):
            world = world_of("interacting", draw)
            problem = limited(world, kind)
            given = answer(name, rows, problem, world, draw)
            if isinstance(given, str):
                raise SystemExit(f"{name} under {kind}: {given}")
            if not problem.constraints.satisfied(given.weights):
                raise SystemExit(f"{name} under {kind} breaks a constraint in draw {draw}")
            level, excess = truly(world, problem, given.weights)
            best, _ = truly(world, problem, world.optimum(problem))
            regrets.append(level - best)
            over.append(excess)
        found[name] = figures(regrets) | {
            "runs": float(rows),
            "broken": int(np.sum(np.array(over) > 1e-6)),
            "worst_excess": float(max(over)),
        }
        row = found[name]
        print(
            f"| {kind} | {name} | {row['mean']:.4f} ({row['low']:.4f} to {row['high']:.4f}) | "
            f"{row['broken']} of {draws} | {row['worst_excess']:.4f} |",
            flush=True,
        )
    return found


def truly(world: Any, problem: Problem, weights: Array) -> tuple[float, float]:
    """True objective of a mixture without its floors, and by how much it breaks the worst one."""
    both = np.vstack([weights, problem.domains.natural])
    scores = world.truth(both, problem.domains.epochs(both, problem.full_tokens))
    scalar = problem.objective.scalarize(problem.targets, scores[1])
    return float(scalar.relaxed(scores[0])), float(scalar.violation(scores[0]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables and, on the last line, their figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    names = [name for name in METHODS if name != SLOW]
    parser.add_argument("--methods", nargs="*", default=names, choices=list(METHODS))
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--limited-rows", type=int, default=64)
    given = parser.parse_args(arguments)
    print(
        f"{platform.machine()}, numpy {np.__version__}; {SIZE} domains, {TARGETS} targets, noise "
        f"{SD}; {given.draws} draws, mean and 90 % interval over them; bits per byte"
    )
    print("| world | method | rows | regret | runs used | seconds to choose |")
    print("|---|---|---|---|---|---|")
    found: dict[str, Any] = {}
    for kind in ("additive", "interacting"):
        found[kind] = {"0": baselines(kind, given.draws)}
        for rows in given.rows:
            found[kind][str(rows)] = measured(kind, given.methods, rows, given.draws)
    print(f"\nUnder limits, interacting world, {given.limited_rows} rows")
    print("| limit | method | regret | floors broken in truth | by at most |")
    print("|---|---|---|---|---|")
    limits = {
        kind: under_limits(kind, given.limited_rows, given.draws) for kind in ("group", "floor")
    }
    print(json.dumps({"regret": found, "limits": limits, "draws": given.draws}))


if __name__ == "__main__":
    main()
