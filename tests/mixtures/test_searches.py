"""Searches: against optima worked out by hand and by brute force."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest

from cuvee.mixtures import simplex, worlds
from cuvee.mixtures.constraints import Group, constrain
from cuvee.mixtures.errors import ConstraintError, CuveeError, RecipeError
from cuvee.mixtures.laws import Prediction
from cuvee.mixtures.objectives import Floors, Hinge, WeightedMean, Worst
from cuvee.mixtures.registry import build
from cuvee.mixtures.searches.exact import Exact, settled
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


def lattice(steps=60):
    """Every mixture of three domains in steps of 1 / 60."""
    rows = [(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]
    return np.array(rows) / steps


THREE = worlds.world_problem(worlds.Additive(size=3, count=3))
LAWS = {"exponential": lambda law: law, "any": Opaque}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", LAWS)
def test_a_hinge_is_the_best_mean_whose_guardrails_do_not_lose(form, seed):
    """Against all of a fine lattice: catches a guardrail that is traded for the mean, one that is
    held to natural where the reference is another mixture, and an answer short of the edge that
    guardrails allow (draws alone came to a seventh of the gain)."""
    law = LAWS[form](known(seed, size=3, count=3))
    hinge = Hinge({"target/0": 1}, ["target/1"], tolerance=0.01, reference={"a0": 0.4, "a1": 0.6})
    task = dataclasses.replace(THREE, objective=hinge)
    reference = law.predict(task.reference[None]).mean[0]
    found = build("search", "auto").choose(law, task, reference, rng())
    scores, every = law.predict(found[None]).mean[0], law.predict(lattice()).mean
    most = reference[1] + 0.01
    kept = every[:, 1] <= most
    if kept.any():
        assert scores[1] <= most + 1e-6
        assert scores[0] <= every[kept, 0].min() + 1e-4
    else:
        assert scores[1] <= every[:, 1].min() + 1e-4


@pytest.mark.parametrize("search", ["exact", "simulate", "mirror"])
def test_guardrails_that_cannot_be_kept_lose_as_little_as_can_be(search):
    """a0 must be 0.8, which costs target/1 by hand e^0 - e^-0.6 of shares (0.8, 0.2); with a0 free
    above that more would be lost. Catches a refusal, and a loss that serves the mean."""
    law = Known(np.zeros(2), np.array([[-3.0, 0.0], [0.0, -3.0]]))
    bound = constrain(PAIR.domains, full_tokens=1, bounds={"a0": (0.8, 1.0)})
    hinge = Hinge({"target/0": 1}, {"target/1": 0.0})
    task = dataclasses.replace(PAIR, constraints=bound, objective=hinge)
    found, _, _ = solve(search, law, task)
    assert found == pytest.approx([0.8, 0.2], abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("form", LAWS)
def test_the_smallest_step_against_every_mixture_of_a_lattice(form, seed):
    """Catches an answer that does not reach its gains, one that goes on to the optimum, a floor
    that a gain breaks, and a distance from natural where the step starts elsewhere."""
    law = LAWS[form](known(seed, size=3, count=3))
    start, every = np.array([0.2, 0.3, 0.5]), lattice()
    begin, scores = law.predict(start[None]).mean[0], law.predict(every).mean
    floors = scores[:, 1] <= begin[1] + 0.02
    gain = 0.5 * (begin[0] - scores[floors, 0].min())
    named = {"a0": 0.2, "a1": 0.3, "a2": 0.5}
    hinge = Hinge({"target/0": 1}, {"target/1": 0.02}, reference=named)
    task = dataclasses.replace(THREE, objective=hinge)
    step = build("search", {"name": "smallest_step", "gains": {"target/0": gain}})
    found = step.choose(law, task, begin, rng())
    told = law.predict(found[None]).mean[0]
    assert told[0] <= begin[0] - gain + 1e-6 and told[1] <= begin[1] + 0.02 + 1e-6
    reach = floors & (scores[:, 0] <= begin[0] - gain)
    assert simplex.kl(found, start) <= simplex.kl(every[reach], start).min() + 1e-6
    assert simplex.kl(found, start) >= simplex.kl(every[reach], start).min() - 0.02
    slack = min(begin[0] - gain - told[0], begin[1] + 0.02 - told[1])
    assert slack <= 1e-5  # nothing to spare: a nearer mixture would miss one


@pytest.mark.parametrize("form", LAWS)
def test_gains_out_of_reach_are_missed_by_as_little_as_can_be(form):
    """Two targets that want the same share: catches a refusal, and one served at the other's cost.
    By symmetry both end alike, at the largest gain that both can have."""
    law = LAWS[form](Known(np.zeros(2), np.array([[-3.0, 0.0], [0.0, -3.0]])))
    start = {"a0": 0.9, "a1": 0.1}
    step = {"name": "smallest_step", "gains": {"target/0": 0.5, "target/1": 0.5}, "start": start}
    chooser, begin = build("search", step), law.predict(np.array([[0.9, 0.1]])).mean[0]
    found = chooser.choose(law, PAIR, law.predict(PAIR.domains.natural[None]).mean[0], rng())
    every = np.column_stack([x := np.linspace(0, 1, 10_001), 1 - x])
    short = (law.predict(every).mean - begin + 0.5).max(axis=1)
    held = chooser.held(law, PAIR, begin)
    assert float(held.violation(law.predict(found[None]).mean)[0]) <= short.min() + 1e-4
    assert [one.kind for one in held.asked] == ["gain", "gain"]


@pytest.mark.parametrize(
    "search", ["exact", {"name": "exact", "kl_reg": 0.3}, "mirror", "simulate"]
)
def test_floors_that_can_be_kept_have_no_price(search):
    """The gain is worth 10,000 times what the floor loses: catches a floor that yields to a price
    where natural, or only the mixture in use, keeps it."""
    law = Known(np.zeros(2), np.array([[-3.0, 0.0], [1e-4, 0.0]]))
    for given, most in (("natural", ()), ({"a0": 0.01, "a1": 0.99}, {"target/1": 2.0})):
        hinge = Hinge({"target/0": 1}, {"target/1": 1e-5}, reference=given, most=most)
        task = dataclasses.replace(PAIR, objective=hinge)
        reference = law.predict(task.reference[None]).mean[0]
        scalar, known = settled(law, task, reference, rng())
        assert not scalar.yields and not float(scalar.violation(law.predict(known[None]).mean)[0])
        found = build("search", search).choose(law, task, reference, rng())
        assert float(scalar.violation(law.predict(found[None]).mean)[0]) <= 1e-6
        if given != "natural":
            assert scalar.bounds == pytest.approx([reference[1] + 1e-5, 2.0])  # were not raised
            assert known == pytest.approx([0.01, 0.99])


def test_a_step_may_add_a_domain_that_its_start_lacks():
    """KL to a share of 0 is infinite: catches a domain that no gain can ever bring in."""
    law = Known(np.zeros(3), np.array([[0, 0, -2.0], [0, 0, 0], [0, 0, 0]]))
    start = {"a0": 0.5, "a1": 0.5}
    step = {"name": "smallest_step", "gains": {"target/0": 0.1}, "start": start}
    found = build("search", step).choose(law, THREE, np.ones(3), rng())
    assert np.exp(-2 * found[2]) == pytest.approx(0.9, abs=1e-5)
    assert found[0] == pytest.approx(found[1], abs=1e-4)


@pytest.mark.parametrize("form", [Floors, Hinge])
def test_a_simulation_goes_on_where_no_draw_keeps_the_floors(form):
    """Floors hold a1 - a0 to what it is in natural, a strip that no draw meets, and target/0 wants
    a2. Catches the mixture to fall back on, natural, as the answer."""
    law = Known(np.zeros(3), np.array([[0, 0, -3.0], [1.0, -1.0, 0], [-1.0, 1.0, 0]]))
    floors = form({"target/0": 1}, {"target/1": 1e-5, "target/2": 1e-5})
    task = dataclasses.replace(THREE, objective=floors)
    found, _, _ = solve({"name": "simulate", "draws": 64, "top": 4}, law, task)
    more = THREE.domains.natural[1] - THREE.domains.natural[0]
    assert more > 0 and found == pytest.approx([0, more, 1 - more], abs=1e-3)


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("form", LAWS)
def test_a_sparse_step_has_no_dust(form, most):
    """Catches shares of a millionth in the domains that a sparse mixture leaves out, and a step far
    from the nearest of a lattice."""
    law = LAWS[form](known(1))
    task = dataclasses.replace(
        TASK,
        objective=WeightedMean({"target/0": 1}),
        constraints=constrain(TASK.domains, full_tokens=1, most_domains=most),
    )
    begin = law.predict(task.reference[None]).mean[0]
    single = law.predict(np.eye(6)).mean[:, 0].min()
    gains = {"target/0": float(0.5 * (begin[0] - single))}
    for seed in range(4):
        search = build("search", {"name": "smallest_step", "gains": gains})
        found = search.choose(law, task, begin, np.random.default_rng(seed))
        assert 1 <= (found > 0).sum() <= most and task.constraints.satisfied(found)
        assert law.predict(found[None]).mean[0, 0] <= begin[0] - gains["target/0"] + 1e-6


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "how much each target must gain"),
        ({"gains": {"target/0": -0.1}}, "each above 0"),
        ({"gains": {"target/0": 0.1}, "start": 3}, "shares by domain"),
        ({"gains": {"target/9": 0.1}}, "does not read 'target/9'"),
        ({"gains": {"objective": 0.1}}, "needs a mean, and 'worst' is none"),
        ({"gains": {"target/0": 0.1}, "start": {"a0": 0.5}}, "sum to 0.5"),
        ({"gains": {"target/0": 0.1}, "start": {"b": 1.0}}, "no domain 'b'"),
    ],
)
def test_wrong_steps_are_explained(given, said):
    task = dataclasses.replace(PAIR, objective=Worst(PAIR.targets))
    with pytest.raises(CuveeError, match=said):
        step = build("search", {"name": "smallest_step", **given})
        step.check_asked(task.objective, task.domains)
