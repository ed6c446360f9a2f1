"""Predicted gains against the truth of worlds: what a law says of its own choice, and what another
law says of it."""

import numpy as np
import pytest

from cuvee.mixtures import worlds
from cuvee.mixtures.inference.dataset import gather_runs
from cuvee.mixtures.inference.optimism import corrected_gains, posterior_gains
from cuvee.mixtures.inference.optimum import Optimum, gains_over
from cuvee.mixtures.laws import predicted_means
from cuvee.mixtures.loop import generator, search
from cuvee.mixtures.methods.regmix import RegMix
from cuvee.mixtures.recommendation import revive_recommendation
from cuvee.mixtures.registry import build

WORLD = worlds.Noisy(worlds.Interacting(worlds.Additive(size=4, count=3, seed=3), strength=1.5))
PROBLEM = worlds.world_problem(WORLD)
NAMES = ("recommended", "natural", "uniform")


def study(runs: int) -> tuple:
    """Runs of the world, and a vertex as if a law had chosen it, with what that law says."""
    history = tuple(WORLD(RegMix(runs=runs, seeds=1).ask(PROBLEM, (), generator(0, 0))))
    points = np.stack([[0.97, 0.01, 0.01, 0.01], PROBLEM.domains.natural, PROBLEM.domains.uniform])
    levels = np.array([0.0, 5.0, 6.0])
    again = np.tile(levels, (4, 1))
    chosen = Optimum(points[0], points, NAMES, levels, points[:1], again, np.zeros((1, 1)))
    return chosen, gather_runs(PROBLEM, history)


def test_a_gain_is_predicted_by_a_law_that_did_not_choose():
    """Catches the chooser's own gain passed on, one the wrong way round, one of another objective,
    and an interval that does not hold it; and what the chooser said must be kept."""
    chosen, found = study(16)
    fields, warned = corrected_gains(build("law", "linear"), chosen, found, generator(1, 0))
    own = gains_over(NAMES, chosen.levels, chosen.refit_levels)
    assert own[0][1].mean == 5.0 and fields["optimism"].own == own and not warned
    assert (fields["optimism"].law, fields["optimism"].chooser) == ("kriging", "linear")
    law = found.restricted.fit(
        build("law", "kriging"), np.arange(len(found.sample.W)), generator(1, 0).spawn(2)[0]
    )
    said = predicted_means(law, chosen.points).mean(axis=1)
    for place, (name, gain) in enumerate(fields["gains"], start=1):
        assert name == NAMES[place] and gain.mean == pytest.approx(said[place] - said[0])
        assert gain.low < gain.mean < gain.high


def test_the_default_law_speaks_for_itself_and_too_few_runs_are_told():
    """Catches a second fit of the same law, and gains that go uncorrected without a word."""
    chosen, found = study(16)
    default = build("law", "kriging")
    fields, warned = corrected_gains(default, chosen, found, generator(1, 0))
    assert [gain.mean for _, gain in fields["gains"]] == [5.0, 6.0] and not warned
    assert "optimism" not in fields
    chosen, found = study(6)
    own = gains_over(NAMES, chosen.levels, chosen.refit_levels)
    fields, warned = corrected_gains(build("law", "linear"), chosen, found, generator(1, 0))
    assert fields == {"gains": own}
    assert "needs 9 runs of 8" in warned[0] and "linear" in warned[0]


def test_an_interval_is_as_wide_as_draws_differ_in_pairs():
    """By hand: gains of 1, 2 and 3 have a deviation of 1. Catches a shift of all mixtures in it."""
    levels = np.array([[0.0, 1.0], [10.0, 12.0], [20.0, 23.0]])
    ((name, gain),) = posterior_gains(("recommended", "natural"), np.array([0.0, 2.0]), levels)
    assert name == "natural" and gain.mean == 2.0
    assert gain.high - 2.0 == pytest.approx(1.6448536) == pytest.approx(2.0 - gain.low)


def test_a_recommendation_keeps_what_the_chooser_said():
    """In a world that the log-linear law cannot fit. Catches a correction that the recommendation
    loses, in memory or on disk, and one that is further from the truth than what it corrects."""
    method = RegMix(runs=16, laws=("log_linear",), search="auto", refits=10, folds=2)
    found, _ = search(method, PROBLEM, WORLD, 0)
    true = WORLD.regret(PROBLEM, PROBLEM.domains.natural) - WORLD.regret(PROBLEM, found.weights)
    own, gain = dict(found.optimism.own)["natural"], dict(found.gains)["natural"]
    assert abs(gain.mean - true) < abs(own.mean - true)
    assert revive_recommendation(found.to_json()).optimism == found.optimism
    assert f"{own.mean:+.4f}" in found.optimism.said and "log_linear" in found.optimism.said


@pytest.mark.slow
@pytest.mark.parametrize(("law", "most"), [("kriging", 0.15), ("log_linear", 0.15)])
def test_predicted_gains_hold_the_true_ones_over_worlds(law: str, most: float):
    """30 studies of four forms. Catches the winner's curse of the log-linear law, a third of the
    gain here, and intervals that hold the truth in fewer than 75 % (90 % hold less in 1 %)."""
    errors, gains, inside = [], [], []
    for seed in range(30):
        world, problem = form_of_world(seed)
        method = RegMix(runs=24, laws=(law,), search="auto", refits=10)
        found, _ = search(method, problem, world, seed)
        true = world.regret(problem, problem.domains.natural) - world.regret(problem, found.weights)
        gain = dict(found.gains)["natural"]
        errors.append(gain.mean - true)
        gains.append(true)
        inside.append(gain.low <= true <= gain.high)
    assert abs(np.mean(errors)) < most * np.mean(gains), (np.mean(errors), np.mean(gains))
    assert np.mean(inside) >= 0.75, np.mean(inside)


def form_of_world(seed: int) -> tuple:
    """A world and its problem: of a form after the other."""
    truth = worlds.Additive(size=5, count=3, seed=seed)
    forms = (
        truth,
        worlds.Interacting(truth, seed=seed),
        worlds.Learning(size=5, seed=seed),
        worlds.Repeating(truth, free=0.1),
    )
    world = worlds.Noisy(forms[seed % len(forms)], sd=0.01)
    return world, worlds.world_problem(world)
