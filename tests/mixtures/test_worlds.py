"""Worlds: their optima against known answers, and noise and repetition of the stated size."""

import numpy as np
import pytest

from cuvee.mixtures import worlds
from cuvee.mixtures.constraints import constrain
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.registry import build
from cuvee.mixtures.worlds import Additive, Interacting, Noisy, Repeating


def test_the_optimum_of_an_additive_world_meets_the_first_order_conditions():
    """Convex truth: at the optimum the gradient is equal on the support and no less beside it."""
    world = Additive(size=6, count=3, seed=4)
    task = worlds.world_problem(world)
    best = world.optimum(task)
    _, exponents = worlds.additive._parameters(6, 3, 4)
    gradient = (np.exp(exponents @ best)[:, None] * exponents).mean(axis=0)
    level = float(gradient @ best)
    assert np.allclose(gradient[best > 1e-4], level, atol=1e-3)
    assert np.all(gradient >= level - 1e-3)


def test_the_optimum_obeys_constraints():
    world = Additive(size=4, count=2)
    free = worlds.world_problem(world)
    top = int(np.argmax(world.optimum(free)))
    capped = constrain(free.domains, full_tokens=1, bounds={f"a{top}": (0.0, 0.1)})
    task = worlds.world_problem(world, constraints=capped)
    best = world.optimum(task)
    assert capped.satisfied(best) and best[top] == pytest.approx(0.1, abs=1e-4)
    assert world.regret(free, best) > 0.005


def test_synergies_lower_scores_between_domains_and_not_at_the_corners():
    inner = Additive(size=3, count=2)
    W = np.vstack([np.eye(3), np.full((1, 3), 1 / 3)])
    gain = inner.truth(W, W) - Interacting(world=inner, strength=2.0).truth(W, W)
    assert np.allclose(gain[:3], 0) and np.all(gain[3] > 0)


def test_noise_has_the_stated_size_and_grows_towards_the_corners():
    """sd * (1 + max w): 0.15 at uniform of two, 0.2 at a corner; measured over 400 seeds."""
    world = Noisy(world=Additive(size=2, count=3), sd=0.1, spread=1.0)
    task = worlds.world_problem(world)
    for w, sd in (([0.5, 0.5], 0.15), ([1.0, 0.0], 0.2)):
        runs = world([task.spec(w, seed) for seed in range(400)])
        values = np.array([[s.value for s in run.scores.values()] for run in runs])
        assert np.allclose(values.std(axis=0), sd, rtol=0.15)
        truth = world.truth(np.array([w]), np.zeros((1, 2)))[0]
        assert np.allclose(values.mean(axis=0), truth, atol=4 * sd / 20)


def test_repetition_moves_the_optimum_of_the_full_run_only():
    """4x the tokens make the small domain repeat; at proxy scale it costs nothing."""
    inner = Additive(size=2, count=1, seed=3)
    world = Repeating(world=inner, price=1.0, free=1.0)
    short = worlds.world_problem(world, full_tokens=1_000_000)
    long = worlds.world_problem(world, full_tokens=20_000_000)
    assert np.allclose(world.optimum(short), inner.optimum(short), atol=1e-3)
    favored = int(np.argmax(inner.optimum(short)))
    assert world.optimum(long)[favored] < world.optimum(short)[favored] - 0.05


def test_repetition_matched_proxies_see_the_full_runs_repetition():
    """A proxy on a subsample of 1/40 repeats as the run of 40 times its tokens."""
    import dataclasses

    world = Repeating(world=Additive(size=2, count=1), price=1.0, free=1.0)
    task = worlds.world_problem(world, full_tokens=40 * worlds.truth.RUN_TOKENS)
    spec = dataclasses.replace(task.spec([1.0, 0.0], 0), repetition=1 / 40)
    value = world([spec])[0].scores["target/0"].value
    epochs = task.domains.epochs(np.array([[1.0, 0.0]]), task.full_tokens)
    assert value == pytest.approx(world.truth(np.array([[1.0, 0.0]]), epochs)[0, 0])


def test_worlds_wrap_worlds_from_a_recipe():
    world = build("world", {"name": "noisy", "world": {"name": "interacting", "strength": 0.5}})
    assert isinstance(world.world, Interacting) and world.size == 5
    for bad in ({"name": "additive", "size": 1}, {"name": "noisy", "sd": -1.0}):
        with pytest.raises(RecipeError, match="got"):
            build("world", bad)
