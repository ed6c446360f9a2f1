"""Back-tests: a law is used where it beats single-scale ranking, and not where it does not."""

import numpy as np
import pytest
from ladder_world import ladder_runs

from cuvee.mixtures.multiscale.backtest import backtest
from cuvee.mixtures.objectives import WeightedMean
from cuvee.mixtures.registry import build
from cuvee.mixtures.scale_evidence import LawTrial
from cuvee.mixtures.worlds import Scaled

SINGLE = {"name": "single_scale", "law": "saturating_power"}
SIZES = {300_000: 30, 600_000: 16, 1_000_000: 14, 30_000_000: 14}


def compared(world, laws, noise, sizes=SIZES, points=2):
    runs = ladder_runs(world, noise=noise, sizes=sizes, points=points)
    targets = tuple(f"target/{m}" for m in range(world.count))
    scalar = WeightedMean(dict.fromkeys(targets, 1.0)).scalarize(targets, runs.Y.mean(axis=0))
    named = {name: build("scaling", name) for name in laws}
    return backtest(named, build("scaling", "single_scale"), runs, scalar, np.random.default_rng(0))


def trial(result, name):
    return next(t for t in result.trials if t.law == name)


def test_a_law_is_chosen_where_the_best_mixture_moves():
    """On a world whose order turns with scale, following it must pay, beyond the noise."""
    result = compared(Scaled(size=4, count=1, moves=1.2, seed=5), ["joint"], 0.001)
    joint, single = trial(result, "joint"), trial(result, "single_scale")
    assert joint.decision_accuracy > single.decision_accuracy
    assert result.chosen == "joint" and result.beats and "joint ordered" in result.verdict


def test_ranking_is_kept_where_no_law_beats_it():
    """On a world whose order stays, a scaling law can gain nothing: catches choosing it anyway."""
    result = compared(Scaled(size=4, count=1, moves=0.0), ["additive", "bimix"], 0.002)
    assert result.chosen == "single_scale" and not result.beats
    assert "no scaling law beat" in result.verdict
    assert trial(result, "single_scale").decision_accuracy > 0.8


def test_the_largest_size_is_not_seen():
    """A law that were fitted to what it predicts would have no error under noise."""
    result = compared(Scaled(size=4, count=1), ["joint"], 0.02)
    assert trial(result, "joint").error > 0.002


def test_too_few_sizes_or_mixtures_mean_no_test_and_say_so():
    sizes = {300_000: 30, 1_000_000: 14, 4_000_000: 14}
    result = compared(Scaled(size=4, count=1), ["joint"], 0.002, sizes)
    assert "at least 3 sizes; got 2" in trial(result, "joint").refused
    assert result.chosen == "single_scale" and "could be tested" in result.verdict
    result = compared(Scaled(size=4, count=1), ["joint"], 0.002, {**SIZES, 30_000_000: 3})
    assert "3 mixtures" in result.verdict and isinstance(result.trials[0], LawTrial)


def test_plain_order_is_the_mixtures_own_score_at_the_next_size():
    world = Scaled(size=4, count=1)
    result = compared(world, ["additive"], 0.0, points=1)
    pairs = trial(result, "observed").held_out
    design = np.random.default_rng(0).dirichlet(np.full(4, 0.7), 30)[:14]
    expected = world.at_scale(1_000_000, 20_000_000).truth(design, design)[:, 0]
    assert sorted(p for _, p in pairs) == pytest.approx(sorted(expected))
