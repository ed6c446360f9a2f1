"""Are hundreds of domains in two phases within reach? Fit, search and intervals, timed and judged.

Runs of two stages over K domains are points u of a simplex of 2K corners (`two_phase.joint_law`) in
a world made for this: M targets fall as powers of what they were taught, early and late by other
rates, pairs of domains help each other, and noise is a tenth of a target's deviation. For every law
it prints seconds of the clock and of the processor, the most memory that the process had, the rank
correlation x 100 of 500 unseen points with the truth (mean over targets, and of the objective), the
gain over natural shares as predicted, with its 90 % interval, beside the true one, and the regret
of the schedule: how much worse its true objective is than the best of many descents of the truth.
All of it by `two_phase.joint_law.choose_schedule`. The last line is JSON.

    python benchmarks/wide.py --domains 200 --runs 2000 --targets 20 --laws default log_linear

`--exact` fits the laws once more with hyper-parameters found on all runs and no anchors.
"""

import argparse
import json
import os
import platform
import resource
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cuvee.mixtures import worlds
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.diagnostics import spearman
from cuvee.mixtures.laws import Prediction, curves, gaussian_field, predicted_means
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.mixtures.searches import score
from cuvee.mixtures.searches.mirror import Mirror
from cuvee.mixtures.two_phase import joint_law
from cuvee.mixtures.two_phase.candidates import two_stages

SWITCH, UNSEEN, PAIRS = 0.8, 500, 8
EVENNESS = (0.1, 0.3, 1.0, 3.0)  # of the designs' draws, times the natural shares


@dataclass(frozen=True, eq=False)
class Truth:
    """Scores without noise of points u (n, 2K), as a law that is searched for the optimum.

    Attributes:
        floor, scale, power: (M,) of the targets' curves.
        taught: (M, 2K) rates.
        pairs: (2, M, `PAIRS`) domains that help each other.
        help: (M,) by how much.
    """

    floor: Array
    scale: Array
    power: Array
    taught: Array
    pairs: Any
    help: Array

    @classmethod
    def made(cls, domains: int, targets: int, rng: np.random.Generator) -> "Truth":
        """A truth by chance."""
        early = np.exp(rng.normal(0.0, 1.5, (targets, domains)))
        taught = np.hstack([early, early * np.exp(rng.normal(0.5, 0.7, (targets, domains)))])
        return cls(
            floor=rng.uniform(0.5, 1.5, targets),
            scale=rng.uniform(1.0, 3.0, targets),
            power=rng.uniform(0.15, 0.6, targets),
            taught=20.0 * taught / taught.mean(),
            pairs=rng.integers(2 * domains, size=(2, targets, PAIRS)),
            help=rng.uniform(0.0, 1.0, targets),
        )

    def means(self, W: Array) -> Array:
        """Scores (n, M)."""
        return self.slopes(W)[0]

    def predict(self, W: Array) -> Prediction:
        """Scores, which it is sure of."""
        mean = self.means(W)
        return Prediction(mean, np.zeros_like(mean))

    def slopes(self, W: Array) -> tuple[Array, Array]:
        """Scores and their derivatives by log shares (n, M, 2K)."""
        parts = W[:, None, :] ** 0.8 * self.taught
        total = 1.0 + parts.sum(axis=2)
        curve = self.scale * total**-self.power
        slope = -0.8 * (self.power * curve / total)[:, :, None] * parts
        both = np.sqrt(W[:, self.pairs[0]] * W[:, self.pairs[1]]) * self.help[:, None]
        row, target = np.ogrid[: len(W), : len(self.help)]
        for p in range(PAIRS):
            for end in self.pairs:
                slope[row, target, end[:, p]] -= 0.5 * both[:, :, p]
        return self.floor + curve - both.sum(axis=2), slope


@dataclass
class Timed:
    """A law that keeps what it fitted, and how long each fit took."""

    inner: Any
    kept: list[Any] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def fit(self, *tables: Any) -> Any:
        """As the law's own."""
        began = time.perf_counter()
        self.kept.append(self.inner.fit(*tables))
        self.seconds.append(time.perf_counter() - began)
        return self.kept[-1]


def drawn_runs(
    problem: Problem, truth: Truth, count: int, rng: np.random.Generator
) -> tuple[RunResult, ...]:
    """Runs of two stages at the one switch point, with noise."""
    natural = problem.domains.natural * len(problem.domains)
    even = rng.choice(EVENNESS, (count, 2))
    rows = [[rng.dirichlet(natural * each) for each in pair] for pair in even]
    specs = [problem.staged(two_stages(m, t, SWITCH), 0) for m, t in rows]
    u = np.array([np.concatenate([SWITCH * m, (1 - SWITCH) * t]) for m, t in rows])
    Y = truth.means(u)
    Y = Y + 0.1 * Y.std(axis=0) * rng.standard_normal(Y.shape)
    return tuple(
        RunResult(
            spec,
            {n: Score(float(y), 0.0, 1) for n, y in zip(problem.targets, row, strict=True)},
        )
        for spec, row in zip(specs, Y, strict=True)
    )


def measured(
    name: str, problem: Problem, runs: tuple[RunResult, ...], truth: Truth, options: Any
) -> dict[str, Any]:
    """Figures of one law."""
    law, search = Timed(build("law", name)), build("search", "auto")
    began, used = time.perf_counter(), time.process_time()
    _, found = joint_law.choose_schedule(
        law, search, problem, runs, refits=options.refits, rng=np.random.default_rng(options.seed)
    )
    clock, used = time.perf_counter() - began, time.process_time() - used
    task = joint_law.double_problem(problem, problem.domains.uniform, SWITCH)
    scalar = score.scalarize(task, truth.means(task.domains.natural[None])[0])
    best = Mirror(starts=8, steps=400).choose(
        truth, task, truth.means(task.domains.natural[None])[0], np.random.default_rng(0)
    )
    true = scalar.relaxed(truth.means(np.vstack([found.points[:2], best])))
    rng = np.random.default_rng([options.seed, 1])
    unseen = np.array([joint_law.joint_point(run, 1 - SWITCH)
                       for run in drawn_runs(problem, truth, UNSEEN, rng)])  # fmt: skip
    said, is_so = predicted_means(law.kept[0], unseen), truth.means(unseen)
    gains = found.refit_levels[:, 1] - found.refit_levels[:, 0]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "law": name,
        "seconds": clock,
        "processor": used,
        "fit": law.seconds[0],
        "search_and_intervals": clock - law.seconds[0],
        "memory_gb": memory,
        "rank": 100
        * float(np.mean([spearman(*both) for both in zip(is_so.T, said.T, strict=True)])),
        "rank_objective": 100 * spearman(scalar.relaxed(is_so), scalar.relaxed(said)),
        "gain": float(found.levels[1] - found.levels[0]),
        "interval": np.quantile(gains, [0.05, 0.95]).tolist(),
        "true_gain": float(true[1] - true[0]),
        "regret": float(true[0] - true[2]),
        "possible": float(true[1] - true[2]),
    }


def main() -> None:
    """Print conditions, a line for each law, and all figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0])
    parser.add_argument("--domains", type=int, default=200)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--refits", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--laws", nargs="*", default=["default", "log_linear"])
    parser.add_argument("--exact", action="store_true", help="and with no part of the runs alone")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    truth = Truth.made(options.domains, options.targets, rng)
    problem = worlds.world_problem(worlds.Additive(size=options.domains, count=options.targets))
    runs = drawn_runs(problem, truth, options.runs, rng)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, numpy "
        f"{np.__version__}; {options.domains} domains x 2 phases, {options.runs} runs, "
        f"{options.targets} targets, {options.refits} draws searched",
        flush=True,
    )
    rows = []
    for exact in (False, True) if options.exact else (False,):
        if exact:
            gaussian_field.SUBSET = gaussian_field.EXACT = curves.SUBSET = options.runs
        for name in options.laws:
            rows.append({**measured(name, problem, runs, truth, options), "exact": exact})
            told = {k: round(v, 4) if isinstance(v, float) else v for k, v in rows[-1].items()}
            print(", ".join(f"{k} {v}" for k, v in told.items()), flush=True)
    print(json.dumps({**vars(options), "load": os.getloadavg()[0], "rows": rows}))


if __name__ == "__main__":
    main()
