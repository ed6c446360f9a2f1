"""Outlier runs are named, and nothing ordinary is."""

from dataclasses import replace

import numpy as np

from cuvee.mixtures import worlds
from cuvee.mixtures.inference import outliers
from cuvee.mixtures.runs.run_results import Score

WORLD = worlds.Noisy(world=worlds.Additive(size=3, count=2), sd=0.01)
PROBLEM = worlds.world_problem(WORLD)


def anchors(seeds=4):
    domains = PROBLEM.domains
    specs = [PROBLEM.spec(w, s) for w in (domains.natural, domains.uniform) for s in range(seeds)]
    return list(WORLD(specs))


def curved(run, jump=0.0):
    tokens = np.arange(1, 61) * 10_000
    rng = np.random.default_rng(int(run.spec.fingerprint[:8], 16))
    losses = 3 + 5 * tokens**-0.1 + 0.02 * rng.standard_normal(60)
    losses[40] += jump
    return replace(run, curve=tuple(zip(tokens.tolist(), losses.tolist(), strict=True)))


def test_a_loss_spike_is_found_where_it_is():
    """Catches a mean and deviation that the spike itself inflates."""
    runs = [curved(r, 1.5 if i == 2 else 0.0) for i, r in enumerate(anchors())]
    found = outliers.loss_spikes(runs)
    assert [o.run for o in found] == [runs[2].spec.fingerprint]
    assert "410,000 tokens" in found[0].text
    assert "kept in the evidence" in outliers.outlier_warnings(runs, PROBLEM.targets)[0]


def test_a_seed_far_from_its_group_is_found():
    runs = anchors()
    bad = dict(runs[5].scores)
    bad["target/1"] = Score(bad["target/1"].value + 0.5, 0.0, 100)
    runs[5] = replace(runs[5], scores=bad)
    found = outliers.far_seeds(runs, PROBLEM.targets)
    assert [o.run for o in found] == [runs[5].spec.fingerprint] and "target/1" in found[0].text


def test_ordinary_noise_is_no_outlier():
    """20 studies of normal noise: at 1 % per study, more than 2 alarms are a wrong threshold."""
    alarms = 0
    for seed in range(20):
        specs = [PROBLEM.spec(PROBLEM.domains.uniform, 100 * seed + s) for s in range(5)]
        runs = [curved(r) for r in WORLD(specs)]
        alarms += len(outliers.find_outliers(runs, PROBLEM.targets))
    assert alarms <= 2


def test_runs_of_other_sizes_are_other_groups():
    """Catches sizes being compared as seeds: a larger model is no outlier."""
    world = worlds.Noisy(world=worlds.Scaled(size=3, count=2), sd=0.002)
    problem = worlds.world_problem(world)
    specs = [problem.spec(problem.domains.uniform, s, size) for size in ("0.3M", "4M")
             for s in range(3)]  # fmt: skip
    assert not outliers.find_outliers(list(world(specs)), problem.targets)
    assert not outliers.find_outliers([], problem.targets)
