"""Predicted gains against the truth of worlds: what a law says of its own choice, and what another
law says of it."""

import numpy as np
import pytest

from cuvee.mixtures import worlds
from cuvee.mixtures.inference.dataset import gather_runs
from cuvee.mixtures.inference.optimism import corrected_gains
from cuvee.mixtures.inference.optimum import Optimum, gains_over
from cuvee.mixtures.inference.recommend import pick_shares
from cuvee.mixtures.laws import predicted_means
from cuvee.mixtures.loop import generator, search
from cuvee.mixtures.methods.regmix import RegMix
from cuvee.mixtures.recommendation import revive_recommendation
from cuvee.mixtures.registry import build

WORLD = worlds.Noisy(worlds.Interacting(worlds.Additive(size=4, count=3, seed=3), strength=1.5))
PROBLEM = worlds.world_problem(WORLD)
NAMES = ("recommended", "natural", "uniform")
FORMS = ("additive", "interacting", "learning", "repeating")


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
    own = gains_over(chosen)
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
    own = gains_over(chosen)
    fields, warned = corrected_gains(build("law", "linear"), chosen, found, generator(1, 0))
    assert fields == {"gains": own}
    assert "needs 9 runs of 8" in warned[0] and "linear" in warned[0]


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
def test_predicted_gains_hold_the_true_ones_over_worlds():
    """104 studies, chosen by the default and by the log-linear law in turn. Catches the winner's
    curse of the latter, a third of the gain, and intervals that are too narrow: 85 % is asked of
    all and of the two forms that the law can fit, less two standard errors; of the other two what
    was measured of them, 72 %, alike."""
    found = np.array([predicted_gain(seed) for seed in range(104)])
    said, true, low, high = found.T
    inside = (low <= true) & (true <= high)
    assert abs(np.mean(said - true)) < 0.1 * np.mean(true), (np.mean(said), np.mean(true))
    assert np.mean(inside) >= least(0.85, 104), np.mean(inside)
    for form, asked, part in (("additive", 0.85, 0.05), ("interacting", 0.72, 0.2),
                              ("learning", 0.85, 0.1), ("repeating", 0.72, 0.2)):  # fmt: skip
        own = np.arange(104) % 4 == FORMS.index(form)
        error = np.mean((said - true)[own]) / np.mean(true[own])
        assert abs(error) < part and np.mean(inside[own]) >= least(asked, 26), (form, error, inside)


def least(asked: float, count: int) -> float:
    """The lowest coverage that is within two standard errors of what is asked."""
    return float(asked - 2 * (asked * (1 - asked) / count) ** 0.5)


def predicted_gain(seed: int) -> tuple[float, float, float, float]:
    """What the default law predicts that a choice gains over natural, the truth, and the ends."""
    world, problem = form_of_world(seed)
    law = ("kriging", "log_linear")[seed // len(FORMS) % 2]
    method = RegMix(runs=24, laws=(law,), search="auto")
    history = tuple(world(method.ask(problem, (), generator(seed, 0))))
    shares = pick_shares(method, problem, history, generator(seed, 1))
    points, nothing = np.stack([shares, problem.domains.natural]), np.zeros((2, 2))
    chosen = Optimum(shares, points, NAMES[:2], nothing[0], nothing, nothing, nothing)
    other = build("law", "log_linear")  # than the default: its own gains are of this fit as well
    fields, _ = corrected_gains(other, chosen, gather_runs(problem, history), generator(seed, 2))
    gain = dict(fields["gains"])["natural"]
    true = world.regret(problem, points[1]) - world.regret(problem, points[0])
    return gain.mean, true, gain.low, gain.high


def form_of_world(seed: int) -> tuple:
    """A world and its problem: of a form after the other."""
    truth = worlds.Additive(size=5, count=3, seed=seed)
    forms = {
        "additive": truth,
        "interacting": worlds.Interacting(truth, seed=seed),
        "learning": worlds.Learning(size=5, seed=seed),
        "repeating": worlds.Repeating(truth, free=0.1),
    }
    world = worlds.Noisy(forms[FORMS[seed % len(FORMS)]], sd=0.01)
    return world, worlds.world_problem(world)
