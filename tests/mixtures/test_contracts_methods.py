"""Contracts: what every registered method must keep; a new one enters by being registered."""

import dataclasses

import numpy as np
import pytest
from contract_parts import DOMAINS, PROBLEM, SLOW, WORLD, searched, small

from cuvee.mixtures import worlds
from cuvee.mixtures.constraints import constrain
from cuvee.mixtures.inference.diagnostics import paired_mean
from cuvee.mixtures.loop import generator, search
from cuvee.mixtures.registry import describe, lookup, names
from cuvee.mixtures.runs.run_results import Failed


def spared(methods):
    """Methods, those of many fits left to the long run."""
    return [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in methods]


@pytest.mark.parametrize("name", spared(names("method")))
def test_methods_ask_and_recommend_as_pure_functions(name):
    """Same history and generator, same answer to the last digit; catches state between calls."""
    method = small(name)
    before = describe(method)
    first = method.ask(PROBLEM, (), generator(7, 0))
    assert first == method.ask(PROBLEM, (), generator(7, 0)) and first
    assert len({spec.fingerprint for spec in first}) == len(first)
    assert all(PROBLEM.constraints.satisfied(spec.weights) for spec in first)
    recommendation, history = searched(name)
    again = method.recommend(PROBLEM, history, generator(7, len(history)))
    assert again.to_json() == recommendation.to_json()
    assert describe(method) == before and hash(method) == hash(small(name))


@pytest.mark.parametrize("name", names("method"))
def test_methods_replay_from_a_history(name):
    """A search that stopped half way asks for the other half alone, failed runs being answered."""
    method = small(name)
    wanted = method.ask(PROBLEM, (), generator(7, 0))
    half = tuple(WORLD(wanted[: len(wanted) // 2]))
    half = (Failed(half[0].spec, "diverged"), *half[1:])
    rest = method.ask(PROBLEM, half, generator(7, 0))
    assert {s.fingerprint for s in rest} == {s.fingerprint for s in wanted[len(wanted) // 2 :]}


@pytest.mark.parametrize("name", spared(names("method")))
def test_methods_answer_with_a_feasible_mixture_and_its_evidence(name):
    capped = constrain(DOMAINS, full_tokens=10_000_000, epochs=2.0)
    problem = dataclasses.replace(PROBLEM, constraints=capped, full_tokens=10_000_000)
    found, history = search(small(name), problem, WORLD, 3)
    assert capped.satisfied(found.weights)
    pairs = zip(found.weights, found.intervals, strict=True)
    assert all(low <= w <= high for w, (low, high) in pairs)
    assert set(found.evidence) <= {run.spec.fingerprint for run in history}
    assert np.allclose(found.epochs, problem.domains.epochs(found.weights, 10_000_000))
    assert found.candidates[0].name == "recommended"
    assert found.verdict.split(":")[0] in ("strong", "weak", "draft")


# A method that reads training losses, or no losses, cannot be held to the world's objective.
DIRECTED = [n for n in names("method") if getattr(lookup("method", n), "directed", True)]


@pytest.mark.slow
@pytest.mark.parametrize("name", DIRECTED)
def test_methods_beat_uniform_over_worlds(name):
    """One-sided, paired over 6 worlds; catches a search that maximises, or shuffled columns."""
    gains = []
    for seed in range(6):
        world = worlds.Noisy(world=worlds.Additive(size=4, count=2, seed=seed), sd=0.005)
        problem = worlds.world_problem(world)
        found, _ = search(small(name), problem, world, seed)
        uniform = world.regret(problem, problem.domains.uniform)
        gains.append(uniform - world.regret(problem, found.weights))
    assert paired_mean(gains).p < 0.05, gains
