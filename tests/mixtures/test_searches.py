"""Searches: against optima worked out by hand and by brute force."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from cuvee.mixtures import worlds
from cuvee.mixtures.constraints import Group, constrain
from cuvee.mixtures.errors import ConstraintError, RecipeError
from cuvee.mixtures.laws import Prediction
from cuvee.mixtures.objectives import Floors, WeightedMean, Worst
from cuvee.mixtures.registry import build
from cuvee.mixtures.searches.exact import Exact
from cuvee.mixtures.searches.pareto import pareto_front, undominated
from cuvee.mixtures.searches.simulate import Simulate


@dataclass(frozen=True, eq=False)
class Known:
    """A law with given parameters: c + exp(A w)."""

    offsets: np.ndarray
    exponents: np.ndarray

    def predict(self, W):
        mean = self.offsets + np.exp(W @ self.exponents.T)
        return Prediction(mean, np.full_like(mean, 0.01))


@dataclass(frozen=True, eq=False)
class Opaque:
    """The same predictions without the form, as trees would give them."""

    inner: Known

    def predict(self, W):
        return self.inner.predict(W)


SYMMETRIC = Known(np.ones(2), np.array([[-2.0, 0.0], [0.0, -2.0]]))
PAIR = worlds.world_problem(worlds.Additive(size=2, count=2))
WORLD = worlds.Additive(size=6, count=4, seed=2)
TASK = worlds.world_problem(WORLD)


def rng():
    return np.random.default_rng(0)


def known(seed=0, size=6, count=4):
    chance = np.random.default_rng(seed)
    return Known(chance.uniform(0, 2, count), chance.uniform(-3, 1, (count, size)))


def solve(search, law, problem):
    reference = law.predict(problem.domains.natural[None]).mean[0]
    found = build("search", search).choose(law, problem, reference, rng())
    value = problem.objective.value(law.predict(found[None]).mean, problem.targets, reference)[0]
    return found, value, reference


def test_exact_finds_the_optimum_by_hand():
    """e^-2w + e^-2(1-w) is least at w = 1/2 by symmetry."""
    found, _, _ = solve("exact", SYMMETRIC, PAIR)
    assert np.allclose(found, [0.5, 0.5], atol=1e-5)


def test_exact_with_weights_by_hand():
    """v1 e^-2w + v2 e^-2(1-w) is least where 4w = 2 + ln(v1 / v2): 0.5 + ln(2) / 4 for 2 : 1."""
    task = dataclasses.replace(PAIR, objective=WeightedMean({"target/0": 2, "target/1": 1}))
    found, _, _ = solve("exact", SYMMETRIC, task)
    assert found[0] == pytest.approx(0.5 + np.log(2) / 4, abs=1e-5)


def test_a_huge_kl_price_keeps_the_natural_shares():
    found, _, _ = solve({"name": "exact", "kl_reg": 1e4}, known(), TASK)
    assert np.allclose(found, TASK.domains.natural, atol=1e-3)


def test_the_kl_price_is_paid_per_nat():
    """At the optimum no small move may lower value + price * KL; catches a wrong gradient."""
    law, price = known(3), 0.05
    found, _, _ = solve({"name": "exact", "kl_reg": price}, law, TASK)

    def merit(w):
        ratio = np.where(w > 0, w, 1) / TASK.domains.natural
        return float(law.predict(w[None]).mean.mean() + price * np.sum(w * np.log(ratio)))

    for other in np.random.default_rng(1).dirichlet(np.ones(6), size=300):
        assert merit(found) <= merit(0.99 * found + 0.01 * other) + 1e-9


@pytest.mark.parametrize("search", ["exact", "simulate", "auto"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_searches_come_near_the_worlds_optimum(search, seed):
    """Exact to 1e-6; a simulation's mean of the top within a tenth of the spread."""
    world = worlds.Additive(size=6, count=4, seed=seed)
    law = Known(*worlds.additive._parameters(6, 4, seed))
    task = worlds.world_problem(world)
    found, _, _ = solve(search, law, task)
    uniform = world.regret(task, task.domains.uniform)
    assert world.regret(task, found) < (0.15 * uniform if search == "simulate" else 1e-6)


def test_auto_takes_the_exact_search_where_it_can_and_simulates_where_not():
    law = known()
    assert np.array_equal(solve("auto", law, TASK)[0], solve("exact", law, TASK)[0])
    assert np.array_equal(solve("auto", Opaque(law), TASK)[0], solve("simulate", law, TASK)[0])


def test_exact_says_which_search_serves_other_laws():
    with pytest.raises(RecipeError, match="'auto'"):
        solve("exact", Opaque(known()), TASK)


def brute(law, problem, reference, n=60_000):
    points = np.random.default_rng(9).dirichlet(np.full(6, 0.6), size=n)
    points = points[problem.constraints.satisfied(points)]
    return problem.objective.value(law.predict(points).mean, problem.targets, reference).min()


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
@pytest.mark.parametrize("search", ["exact", "simulate"])
def test_worst_and_floors_against_brute_force(search, seed):
    """Catches an epigraph without its rows, and floors that are ignored or turned round."""
    law = known(seed)
    floors = Floors({"target/0": 1, "target/1": 1}, {"target/2": 0.0, "target/3": 0.02})
    for objective in (Worst(TASK.targets), floors):
        task = dataclasses.replace(TASK, objective=objective)
        _, value, reference = solve(search, law, task)
        best = brute(law, task, reference)
        assert value <= best + (1e-6 if search == "exact" else 0.05)


def test_floors_bind():
    """Without the floor the optimum breaks it, with it the floor is met with nothing to spare."""
    law = Known(np.zeros(2), np.array([[-3.0, 0.0], [0.0, -3.0]]))
    free = dataclasses.replace(PAIR, objective=WeightedMean({"target/0": 1}))
    assert solve("exact", law, free)[0][0] == pytest.approx(1.0, abs=1e-6)
    held = dataclasses.replace(PAIR, objective=Floors({"target/0": 1}, {"target/1": 0.05}))
    found, _, reference = solve("exact", law, held)
    assert law.predict(found[None]).mean[0, 1] == pytest.approx(reference[1] + 0.05, abs=1e-5)


def test_a_simulation_draws_nearer_where_floors_leave_little_room():
    """Every domain has a floor: no wide draw keeps all. Catches natural shares for want of one."""
    law = Known(np.zeros(6), -3.0 * np.eye(6))
    problem = worlds.world_problem(worlds.Additive(size=6, count=6))
    held = dict.fromkeys(problem.targets, 0.02)
    task = dataclasses.replace(problem, objective=Floors({"target/0": 1}, held))
    found, value, reference = solve("simulate", law, task)
    assert (law.predict(found[None]).mean[0] <= reference + 0.02).all()
    assert value < reference[0] - 0.01


def test_floors_that_no_feasible_mixture_keeps_are_explained():
    """a0 must be 0.9, which costs target/1 more than its floor allows."""
    law = Known(np.zeros(2), np.array([[-3.0, 0.0], [0.0, -3.0]]))
    bound = constrain(PAIR.domains, full_tokens=1, bounds={"a0": (0.9, 1.0)})
    task = dataclasses.replace(
        PAIR, constraints=bound, objective=Floors({"target/0": 1}, {"target/1": 0.0})
    )
    for search in ("exact", "simulate"):
        with pytest.raises(ConstraintError, match=r"floor.*bits per byte"):
            solve(search, law, task)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_sparse_exact_is_the_best_support(most):
    """Catches cutting the dense optimum to its largest shares."""
    law = known(5)
    sparse = constrain(TASK.domains, full_tokens=1, most_domains=most)
    task = dataclasses.replace(TASK, constraints=sparse)
    found, value, _ = solve("exact", law, task)
    assert (found > 0).sum() <= most
    chance = np.random.default_rng(0)
    for _ in range(3000):
        w = np.zeros(6)
        w[chance.choice(6, size=most, replace=False)] = chance.dirichlet(np.ones(most))
        assert value <= law.predict(w[None]).mean.mean() + 1e-6


def test_sparsity_with_a_group_keeps_both():
    both = constrain(
        TASK.domains, full_tokens=1, most_domains=2, groups=[Group(("a0", "a1"), at_least=0.5)]
    )
    task = dataclasses.replace(TASK, constraints=both)
    for search in ("exact", "simulate"):
        assert both.satisfied(solve(search, known(5), task)[0])


def test_simulation_averages_the_top_and_not_the_best():
    """The mean of 500 of 5000 lies nearer to the prior than the single best does."""
    law = known(1)
    one = Simulate(draws=5000, top=1).choose(law, TASK, np.zeros(4), rng())
    many = Simulate(draws=5000, top=500).choose(law, TASK, np.zeros(4), rng())
    natural = TASK.domains.natural
    assert np.abs(many - natural).sum() < np.abs(one - natural).sum()


def test_fields_out_of_range_are_refused():
    for bad in ({"draws": 10, "top": 11}, {"top": 0}, {"strength": 0.0}):
        with pytest.raises(RecipeError, match="got"):
            Simulate(**bad)
    for bad in ({"kl_reg": -1.0}, {"kl_reg": float("nan")}, {"starts": 0}):
        with pytest.raises(RecipeError, match="got"):
            Exact(**bad)


@pytest.mark.parametrize("case", ["free", "caps", "group", "ball"])
@pytest.mark.parametrize("seed", [0, 1])
def test_mirror_descent_agrees_with_the_exact_search(seed, case):
    """Two unlike solvers of one convex problem; catches a gradient or a projection that is off."""
    given = {
        "free": {},
        "caps": {"epochs": 2.0, "full_tokens": 12_000_000},
        "group": {"groups": [Group(("a0", "a1"), at_least=0.5)]},
        "ball": {"most_kl": 0.1},
    }[case]
    limits = constrain(TASK.domains, **{"full_tokens": 1, **given})
    task = dataclasses.replace(TASK, constraints=limits)
    law = known(seed)
    _, best, _ = solve("exact", law, task)
    _, found, reference = solve("mirror", Opaque(law), task)
    assert best - 1e-6 <= found <= best + 0.03 * abs(reference.mean() - best) + 1e-4


def test_a_front_has_twenty_points_that_trade_one_for_the_other():
    """One objective rises as the other falls, and no random mixture beats a point of it."""
    law = known(1)
    pair = (WeightedMean({"target/0": 1}), WeightedMean({"target/1": 1, "target/2": 1}))
    reference = law.predict(TASK.domains.natural[None]).mean[0]
    found = pareto_front(law, TASK, pair, reference=reference, rng=rng())
    first = np.array([p.first for p in found])
    second = np.array([p.second for p in found])
    assert len(found) >= 20 and np.all(np.diff(first) > 0) and np.all(np.diff(second) < 0)
    scores = law.predict(np.random.default_rng(3).dirichlet(np.full(6, 0.4), 5000)).mean
    one, two = (o.value(scores, TASK.targets, reference) for o in pair)
    for p in found:
        assert not np.any((one < p.first - 1e-5) & (two < p.second - 1e-5))
        assert TASK.constraints.satisfied(np.array(p.weights))


def test_a_front_of_draws_comes_near_the_exact_one():
    law = known(1)
    pair = (WeightedMean({"target/0": 1}), Worst(("target/1", "target/2")))
    reference = law.predict(TASK.domains.natural[None]).mean[0]
    exact = pareto_front(law, TASK, pair, reference=reference, rng=rng())
    drawn = pareto_front(Opaque(law), TASK, pair, reference=reference, rng=rng())
    assert len(exact) >= 20 and len(drawn) >= 20
    first, second = (np.array([[p.first, p.second] for p in f]) for f in (exact, drawn))
    span = np.ptp(first, axis=0)
    for p in first:
        assert (np.max((second - p) / span, axis=1)).min() < 0.1


def test_what_is_dominated_by_hand():
    values = np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 2.5], [3.0, 1.0], [1.0, 3.0]])
    assert undominated(values) == [0, 1, 3]
