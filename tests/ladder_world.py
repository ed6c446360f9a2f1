"""Ladders in worlds: runs of several sizes as arrays, and a small ladder study."""

from dataclasses import replace

import numpy as np

from cuvee.mixtures import worlds
from cuvee.mixtures.problem import Proxy
from cuvee.mixtures.registry import build
from cuvee.mixtures.scaling import ScalingRuns
from cuvee.mixtures.worlds.scaled import SIZES

MIXTURES_AT = {300_000: 30, 600_000: 16, 1_000_000: 12, 4_000_000: 10}  # parameters: mixtures
RUNGS = (
    {"size": "0.6M", "tokens": "12M", "runs": 14},
    {"size": "1M", "tokens": "20M", "runs": 10},
    {"size": "4M", "tokens": "80M", "runs": 8},
)
SMALL = {"rungs": RUNGS, "runs": 20, "refits": 10, "laws": ["linear"], "scaling": ["joint"]}


def ladder_runs(world, noise=0.0, seed=0, sizes=MIXTURES_AT, points=3):
    """Runs of a world: nested subsets of one design, several numbers of tokens at each size."""
    rng = np.random.default_rng(seed)
    design = rng.dirichlet(np.full(world.size, 0.7), max(sizes.values()))
    W, n, d, Y, groups = [], [], [], [], []
    for parameters, count in sizes.items():
        for i in range(count):
            for part in range(points):
                tokens = 20 * parameters * 2**part
                truth = world.at_scale(parameters, tokens).truth(design[i : i + 1], design)
                W.append(design[i])
                n.append(parameters)
                d.append(tokens)
                Y.append(truth[0] * (1 + noise * rng.standard_normal(world.count)))
                groups.append(1000 * len(W) // points)
    groups = np.unique(groups, return_inverse=True)[1]
    Y = np.array(Y)
    return ScalingRuns(
        np.array(W), np.array(n, float), np.array(d, float), Y, noise * Y, groups,
        available=np.full(world.size, 1e12),
    )  # fmt: skip


def ladder(**fields):
    return build("method", {"name": "ladder", **SMALL, **fields})


def posed(moves=1.0, seed=0, sd=0.002):
    world = worlds.Noisy(world=worlds.Scaled(size=4, count=1, moves=moves, seed=seed), sd=sd)
    problem = worlds.world_problem(world, full_tokens=4_000_000_000)
    return world, replace(
        problem, full_parameters=100_000_000, sizes=SIZES, proxy=Proxy("0.3M", 6_000_000)
    )
