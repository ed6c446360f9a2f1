"""A plan says what its confirmation can show, from earlier runs of the same recipe and size."""

import dataclasses
import json
import re

import numpy as np
import pytest

from cuvee.flows.plan_power import earlier_noise, power_figures, power_sentences
from cuvee.flows.recipe.aim_parts import ConfirmPart, SizePart
from cuvee.flows.study.confirm import problem_at_size
from cuvee.mixtures import worlds
from cuvee.mixtures.inference.power import PairNoise
from cuvee.mixtures.loop import generator
from cuvee.mixtures.methods.regmix import RegMix
from cuvee.tasks.store.results import Store

WORLD = worlds.Noisy(world=worlds.Additive(size=4, count=3), sd=0.02, spread=0.0)
PROBLEM = worlds.world_problem(WORLD)
PAIR = 0.02 * np.sqrt(2 / 3)  # of two mixtures in the mean of 3 targets


def stored(tmp_path, *problems):
    """A store of the design's and the anchors' runs of some problems, 30 seeds each."""
    store = Store(str(tmp_path))
    for problem in problems:
        for run in WORLD(RegMix(runs=8, seeds=30, folds=3).ask(problem, (), generator(0))):
            store.put(run)
    return store


def plan_says(part, problem, store):
    """The plan's sentences, and the figures behind them."""
    figures = power_figures(part, problem, store)
    return power_sentences(part, figures), figures


def test_a_plan_says_what_its_confirmation_can_show(tmp_path):
    """Catches the noise of a single run in place of a pair's, runs of another size or of other text
    that are taken for its own, a size that is left out, and seeds that would not show the gain."""
    other = dataclasses.replace(PROBLEM, scoring="another")
    store = stored(tmp_path, PROBLEM, other)
    noise = earlier_noise(PROBLEM, store)
    assert noise.sd == pytest.approx(PAIR, rel=0.25) and noise.degrees == 29
    part = ConfirmPart(seeds=3, wanted_gain=0.02, sizes=[SizePart(size="2M", tokens=4_000_000)])
    (own, larger), figures = plan_says(part, PROBLEM, store)
    assert own.startswith("Confirmation at world: 3 seeds show a gain of ")
    gain = float(re.search(r"a gain of (\d\.\d+)", own)[1])
    assert noise.power(gain, 3) == pytest.approx(0.8, abs=0.01)
    seeds = int(re.search(r"needs confirm\.seeds: (\d+)", own)[1])
    assert noise.power(0.02, seeds) >= 0.8 > noise.power(0.02, seeds - 1)
    assert larger.startswith("Confirmation at 2M: what gain it can show is not known")
    assert "no noisier than those of earlier runs" in own
    known, unknown = json.loads(json.dumps(figures))
    assert (
        f"{known['smallest_gain']:.4f}" == f"{gain:.4f}" and known["pair_noise"]["sd"] == noise.sd
    )
    assert known["seeds_for_wanted_gain"] == seeds
    assert unknown["size"] == "2M" and unknown["pair_noise"] is unknown["smallest_gain"] is None
    both = stored(tmp_path, problem_at_size(PROBLEM, "2M", 4_000_000))
    assert "show a gain of" in plan_says(part, PROBLEM, both)[0][1]


def test_a_plan_makes_no_noise_up(tmp_path):
    """Nothing was repeated, or nothing is confirmed: catches a gain from no evidence."""
    store = Store(str(tmp_path))
    assert "not known" in plan_says(ConfirmPart(), PROBLEM, store)[0][0]
    for run in WORLD(RegMix(runs=8, seeds=1, folds=3).ask(PROBLEM, (), generator(0))):
        store.put(run)
    assert earlier_noise(PROBLEM, store) is None
    assert plan_says(None, PROBLEM, store) == ([], [])
    (text,), _ = plan_says(ConfirmPart(wanted_gain=1e-6), PROBLEM, stored(tmp_path, PROBLEM))
    assert text.endswith("needs more than 1000 seeds, or more items")


def test_what_items_bring_is_part_of_the_promise(tmp_path):
    """One mixture is better on some items: more seeds do not help. Catches units that are not read,
    an item's difficulty, which both mixtures share, for a part of their difference (0.03), and a
    promise for new seeds where a claim will be for new items too."""
    world = worlds.Itemized(world=WORLD, items=100, sd=0.3)
    problem = worlds.world_problem(world)
    store = Store(str(tmp_path))
    for run in world(RegMix(runs=8, seeds=30, folds=3).ask(problem, (), generator(0))):
        store.put(run)
    noise = earlier_noise(problem, Store(str(tmp_path)))
    apart = problem.domains.natural - problem.domains.uniform
    assert noise.items == pytest.approx(0.3 * np.linalg.norm(apart) / np.sqrt(300), rel=0.3)
    (said,), figures = plan_says(ConfirmPart(seeds=30), problem, store)
    assert json.loads(json.dumps(figures))[0]["pair_noise"]["items"] == noise.items
    assert "for new seeds and new items" in said and f"by {noise.items:.4f} over items" in said
    assert noise.smallest_gain(30) > PairNoise(noise.sd, noise.degrees).smallest_gain(30)


def test_a_promise_knows_the_noise_of_corners_that_were_repeated(tmp_path):
    """A single domain is 3.6 times as noisy as equal shares: catches a promise by the quiet anchors
    alone (0.06) where noisier mixtures were run twice, too."""
    world = worlds.Noisy(world=worlds.Additive(size=4, count=3), sd=0.01, spread=25.0)
    problem = worlds.world_problem(world)
    store = Store(str(tmp_path))
    for run in world(RegMix(runs=40, repeats=30, folds=3).ask(problem, (), generator(0))):
        store.put(run)
    true = world.noise(np.array([np.eye(4)[0], problem.domains.natural])).mean(axis=1)
    corner = np.hypot(*true) / np.sqrt(3)  # 0.16
    assert earlier_noise(problem, store).sd == pytest.approx(corner, rel=0.3)
