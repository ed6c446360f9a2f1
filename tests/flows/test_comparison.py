"""The comparison of methods: equal budgets, schedules trained as schedules, paired gains."""

import dataclasses

import contenders
import fresh
import numpy as np
import pytest

from cuvee.mixtures import loop, worlds
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_spec import Stage

WORLD = worlds.Noisy(worlds.Learning(size=6, seed=1), sd=0.01)
PROBLEM = worlds.world_problem(WORLD)


LEAST = {"static": 0.6, "bayes": 0.6, "mixmin": 0.8}  # equal mixtures; all is known; whole seeds


@pytest.mark.parametrize("name", contenders.EVERY)
def test_every_method_spends_its_budget_and_no_more(name):
    """Catches references, graphs or trials that are not counted, and a budget half unused."""
    method = contenders.configured(name, contenders.Budget(16, 6, steps=48, scheduled=True))
    if name in ("regmix", "bayes"):  # laws cost seconds: what they ask first is fitted by none
        method = build("method", {"name": name, **_cheaper(method)})
    if name == "ado":  # as fits do
        method = dataclasses.replace(method, refits=1)
    _, history = loop.search(method, PROBLEM, WORLD, 0)
    assert len({run.spec.fingerprint for run in history}) == len(history)
    assert LEAST.get(name, 0.85) * 16 <= len(history) <= 16


def _cheaper(method):
    names = ("runs", "seeds", "batch", "rounds", "ensemble")
    fields = {n: getattr(method, n) for n in names if hasattr(method, n)}
    return {**fields, "laws": ["linear"], "refits": 10}


def test_a_schedule_is_trained_in_its_stages():
    """Catches a schedule whose average is trained in its place, and proxies' seeds used again."""
    asked = []

    def train(specs):
        asked.extend(specs)
        return WORLD([dataclasses.replace(s, tokens=PROBLEM.proxy.tokens) for s in specs])

    setting = fresh.Bench(PROBLEM, train, seed=7)
    larger = fresh.Fresh("1M", 2 * PROBLEM.proxy.tokens, fresh.seeds(7, 3))
    corner = tuple(float(i == 0) for i in range(6))
    even = tuple([1 / 6] * 6)
    schedule = contenders.Answer((Stage(corner, 0.25), Stage(even, 0.75)))
    fresh.trained(schedule, "odm", setting, larger)
    assert [spec.seed for spec in asked] == list(larger.seeds)
    for spec in asked:
        assert spec.stages == schedule.stages
        assert (spec.size, spec.tokens) == ("1M", 2 * PROBLEM.proxy.tokens)


def test_gains_are_paired_and_positive_where_lower_is_better():
    """By hand: catches a sign exchanged, unpaired intervals, and intervals of another baseline."""
    every = {
        "natural": {"mean": [3.0, 5.0, 4.0]},
        "uniform": {"mean": [2.9, 4.7, 3.8]},
        "static": {"mean": [2.9, 4.7, 3.8]},
        "ours": {"mean": [2.8, 4.7, 3.7]},
    }
    found = contenders.figures(every["ours"], every)
    assert found["mean"] == pytest.approx(np.mean([2.8, 4.7, 3.7]))
    # natural - ours = 0.2, 0.3, 0.3: mean 0.2667, t(0.95, 2) = 2.92, standard error 0.0333
    assert found["gain_over_natural"] == pytest.approx(0.8 / 3)
    assert found["interval_over_natural"] == pytest.approx([0.1694, 0.3640], abs=1e-3)
    # uniform - ours = 0.1, 0, 0.1
    assert (found["low"], found["high"]) == tuple(found["interval_over_uniform"])
    assert found["gain_over_uniform"] == pytest.approx(0.2 / 3)
