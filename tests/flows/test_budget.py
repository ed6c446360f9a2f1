"""A budget is checked before anything is launched and at every launch."""

import pytest

from cuvee.flows.execution.budget import Budget, forecast, training_flops
from cuvee.flows.recipe.load import parse
from cuvee.flows.recipe.parts import BudgetPart, MoneyPart
from cuvee.mixtures.errors import BudgetError, RecipeError
from cuvee.mixtures.runs.run_spec import RunSpec, Stage
from cuvee.proxies import ladder


def spec(seed: int = 0) -> RunSpec:
    return RunSpec(("a", "b"), ("1", "2"), (Stage((0.5, 0.5)),), "0.3M", 100_000, seed)


def budget(clock=lambda: 0.0, **ceilings) -> Budget:
    return Budget(BudgetPart(**ceilings), lambda _: 10.0, clock)


def test_flops_are_counted_when_a_pack_is_launched():
    """Catches a count of finished runs alone: with slow packs it would launch everything."""
    guard = budget(flops=35)
    assert guard.admits([spec(0), spec(1)]) and guard.admits([spec(2)])
    assert not guard.reached
    assert not guard.admits([spec(3)])
    assert "3.50e+01 FLOPs (budget.flops)" in guard.reached


def test_a_budget_that_was_reached_stays_reached():
    """Catches smaller packs that slip through after a larger one was refused."""
    guard = budget(flops=25)
    assert not guard.admits([spec(0), spec(1), spec(2)])
    assert not guard.admits([spec(0)])


def test_a_design_that_cannot_be_paid_is_refused_before_it_begins():
    """Catches a sweep that spends its budget to find out that it does not suffice."""
    with pytest.raises(BudgetError, match=r"4 untrained runs take 4.00e\+01 FLOPs.*3.90e\+01"):
        budget(flops=39).check([spec(k) for k in range(4)])
    budget(flops=40).check([spec(k) for k in range(4)])
    Budget(None, lambda _: 1e30).check([spec()])


@pytest.mark.parametrize(
    "ceilings, word",
    [({"minutes": 2}, "2 minutes"), ({"money": MoneyPart(per_hour=30, most=1)}, "1 at 30 an hour")],
)
def test_wall_time_and_its_price_are_ceilings(ceilings, word):
    """Catches seconds taken for minutes, or a price that is multiplied the wrong way: 1 of 30 an
    hour are two minutes."""
    now = [1000.0]
    guard = budget(lambda: now[0], **ceilings)
    now[0] += 119
    assert guard.admits([spec()])
    now[0] += 2
    assert not guard.admits([spec()]) and word in guard.reached


def test_flops_are_those_of_the_trainer():
    """Catches a budget that counts other operations than results report."""
    plan = ladder.training_plan("0.3M", 100_000, 512)
    assert training_flops(512)(spec()) == plan.flops > 1e9


def test_a_plan_says_what_a_budget_allows():
    """Catches a plan that is silent where the sweep will be stopped."""
    part = BudgetPart(flops=10, minutes=1)
    over, slow = forecast(part, 11, 90)
    assert "ABOVE budget.flops" in over and "1.5 minutes" in slow and "ABOVE" in slow
    assert all("within" in line for line in forecast(part, 9, 30))
    assert forecast(None, 1e30, 1e9) == [] == forecast(BudgetPart(), 1, 1)


RECIPE = """
name: t
corpus: {quickstart: [legal, code]}
objective: {name: mean, weights: {domain/legal: 1}}
full_scale: {tokens: 1B}
method: {name: regmix, runs: 8}
"""


def test_recipes_know_budget_and_schedule():
    """Catches YAML's 1e15, which is text to YAML, and misspelt ceilings that guard nothing."""
    recipe = parse(RECIPE + "budget: {flops: 1e15, money: {per_hour: 2.5, most: 40}}\n")
    assert recipe.budget.flops == 1e15 and recipe.budget.seconds == 16 * 3600
    with pytest.raises(RecipeError, match="did you mean 'flops'"):
        parse(RECIPE + "budget: {flop: 1e15}\n")
    with pytest.raises(RecipeError, match="notify"):
        parse(RECIPE + "schedule: {notify: https://hooks.example.com}\n")
