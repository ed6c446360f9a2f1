"""The world of the joint scaling law: scales, its moving optimum, its wrappers."""

from dataclasses import replace

import numpy as np
import pytest

from cuvee.mixtures import worlds
from cuvee.mixtures.errors import RecipeError

WORLD = worlds.Scaled(size=4, count=2)


def test_a_run_is_scored_at_its_own_size_and_tokens():
    """Catches a world that answers every size alike."""
    problem = worlds.world_problem(WORLD)
    specs = [problem.spec(problem.domains.uniform, 0, size, tokens)
             for size, tokens in (("0.3M", 10**6), ("1M", 10**6), ("1M", 10**7))]  # fmt: skip
    scores = [run.scores["target/0"].value for run in WORLD(specs)]
    assert scores[0] > scores[1] > scores[2]
    w = problem.domains.uniform[None]
    assert scores[1] == pytest.approx(WORLD.at_scale(10**6, 10**6).truth(w, w)[0, 0])


def test_a_size_that_the_world_does_not_know_is_refused():
    problem = worlds.world_problem(WORLD)
    with pytest.raises(RecipeError, match="no size '7B'"):
        WORLD([problem.spec(problem.domains.uniform, 0, "7B")])


def test_the_best_mixture_moves_with_scale_and_only_where_it_should():
    """Catches a regret that is taken at the proxies' scale."""

    def optima(world):
        small = replace(worlds.world_problem(world, full_tokens=6_000_000), full_parameters=300_000)
        full = replace(worlds.world_problem(world, full_tokens=4 * 10**9), full_parameters=10**8)
        return world.optimum(small), world.optimum(full), full

    near, far, full = optima(WORLD)
    assert np.abs(near - far).max() > 0.05 and WORLD.regret(full, near) > 0.005
    still = worlds.Scaled(size=4, count=2, moves=0.0)
    near, far, _ = optima(still)
    assert np.abs(near - far).max() < 1e-3


def test_wrappers_keep_the_scale():
    """Catches a wrapper that hides the size, so that all noise is around one truth."""
    noisy = worlds.Noisy(world=WORLD, sd=1e-6)
    problem = worlds.world_problem(noisy)
    for size in ("0.3M", "4M"):
        spec = problem.spec(problem.domains.uniform, 0, size)
        one, other = noisy([spec])[0], WORLD([spec])[0]
        assert one.scores["target/1"].value == pytest.approx(
            other.scores["target/1"].value, abs=1e-4
        )
