"""Contracts: what every registered design, law, search, controller, world and method must keep.

A new one enters these tests by being registered; nothing here is edited for it.
"""

import dataclasses
import importlib
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import mixtures
from mixtures import registry, simplex, worlds
from mixtures.constraints import Group, constrain
from mixtures.controllers import Evidence, Mixes, deserialize, serialize
from mixtures.diagnostics import paired, spearman
from mixtures.errors import ConstraintError, EvidenceError, RecipeError
from mixtures.history import Failed, from_json, to_json
from mixtures.loop import generator, search
from mixtures.objectives import Floors, WeightedMean, Worst
from mixtures.registry import build, describe, lookup, names

WORLD = worlds.Noisy(world=worlds.Additive(size=4, count=2), sd=0.005)
PROBLEM = worlds.problem(WORLD)
DOMAINS = PROBLEM.domains
CONSTRAINTS = {
    "free": constrain(DOMAINS, full_tokens=1),
    "caps": constrain(DOMAINS, full_tokens=10_000_000, epochs=3.0),
    "tight": constrain(DOMAINS, full_tokens=10_000_000, epochs=1.1),
    "group": constrain(DOMAINS, full_tokens=1, groups=[Group(("a0", "a1"), at_least=0.6)]),
    "sparse": constrain(DOMAINS, full_tokens=1, most_domains=3),
    "ball": constrain(DOMAINS, full_tokens=1, most_kl=0.3),
}


def drawn(design, constraints, seed=0, n=6):
    """n mixtures, or as many as a design with few mixtures has."""
    for count in (n, 4, 2, 1):
        try:
            return design.draw(DOMAINS, constraints, count, np.random.default_rng(seed))
        except ConstraintError as error:
            assert str(count) in str(error), "a refusal says how many were asked for"
    raise AssertionError("a design without a single mixture")


@pytest.mark.parametrize("case", CONSTRAINTS)
@pytest.mark.parametrize("name", names("design"))
def test_designs_draw_distinct_feasible_mixtures(name, case):
    """Catches rounding or projection that leaves the set, and copies of a mixture."""
    W = drawn(build("design", name), CONSTRAINTS[case])
    assert np.all(CONSTRAINTS[case].satisfied(W)) and np.all(W >= 0)
    assert np.allclose(W.sum(axis=1), 1, atol=1e-9)
    assert len(np.unique(np.round(W, 5), axis=0)) == len(W)


@pytest.mark.parametrize("name", names("design"))
def test_designs_depend_on_the_generator_alone(name):
    """Catches global random state."""
    design = build("design", name)
    np.random.seed(1)  # noqa: NPY002
    first = drawn(design, CONSTRAINTS["caps"])
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(first, drawn(design, CONSTRAINTS["caps"]))


@pytest.mark.parametrize("name", names("design"))
def test_designs_say_when_they_cannot_draw_enough(name):
    """One feasible mixture cannot give five; catches an endless loop and copies."""
    frozen = constrain(DOMAINS, full_tokens=1, bounds={"a0": (0.7, 0.7), "a1": (0.3, 0.3)})
    with pytest.raises(ConstraintError, match="5"):
        build("design", name).draw(DOMAINS, frozen, 5, np.random.default_rng(0))


LAWS = [  # a stack fits many laws many times over
    pytest.param(name, marks=pytest.mark.slow) if name == "stack" else name for name in names("law")
]


def quick(law):
    """A law of many trees with fewer of them: the contract is the same, and the test is fast."""
    fields = {f.name for f in dataclasses.fields(law)}
    cheap = {"trees": 100, "rate": 0.07, "folds": 2}
    return dataclasses.replace(law, **cheap) if set(cheap) <= fields else law


def data(n=40, seed=0):
    rng = np.random.default_rng(seed)
    W = rng.dirichlet(np.full(4, 0.7), size=n)
    return W, WORLD.truth(W, W) + 0.005 * rng.standard_normal((n, 2))


def fitted(law, W, Y, seed=0):
    return law.fit(W, Y, np.full(Y.shape[1], 0.005), np.random.default_rng(seed))


@pytest.mark.parametrize("name", LAWS)
def test_laws_recover_their_own_predictions(name):
    """A law fitted to what it predicted must predict it again; catches a fit that is not one."""
    W, Y = data()
    law = quick(build("law", name))
    own = fitted(law, W, Y).predict(W).mean
    again = fitted(law, W, own).predict(W)
    off = np.sqrt(np.mean((again.mean - own) ** 2, axis=0)) / own.std(axis=0)
    assert np.all(off < 0.3), off
    assert np.all(np.isfinite(again.sd)) and np.all(again.sd >= 0)
    assert all(spearman(own[:, m], again.mean[:, m]) > 0.9 for m in range(2))


# As the paper writes it, M3 depends on the product of all shares alone: it tells no two mixtures
# with an absent domain apart. It is kept because the paper compares it, and it loses every table.
RANKING = [law for law in LAWS if law != "mixing_law_m3"]


@pytest.mark.parametrize("name", RANKING)
def test_laws_rank_unseen_mixtures(name):
    """Catches predictions that are constant or belong to other rows."""
    W, Y = data()
    X, Z = data(seed=1)
    mean = fitted(quick(build("law", name)), W, Y).predict(X).mean
    assert mean.shape == Z.shape
    assert all(spearman(Z[:, m], mean[:, m]) > 0.6 for m in range(2))


@pytest.mark.parametrize("name", LAWS)
def test_laws_are_finite_at_the_vertices_and_pickle(name):
    """Catches log 0 and 0 ** -b where a domain has no share."""
    W, Y = data()
    found = pickle.loads(pickle.dumps(fitted(quick(build("law", name)), W, Y)))
    prediction = found.predict(np.eye(4))
    assert np.all(np.isfinite(prediction.mean)) and np.all(np.isfinite(prediction.sd))


@pytest.mark.parametrize("name", LAWS)
def test_laws_do_not_know_the_order_of_domains(name):
    """Catches a parameter that is tied to a column's position."""
    W, Y = data()
    order = np.array([2, 0, 3, 1])
    law = quick(build("law", name))
    one = fitted(law, W, Y).predict(W).mean
    two = fitted(law, W[:, order], Y).predict(W[:, order]).mean
    assert np.all(np.abs(one - two).max(axis=0) < 0.2 * Y.std(axis=0))


@pytest.mark.parametrize("name", LAWS)
def test_laws_are_deterministic_given_a_generator(name):
    W, Y = data()
    law = quick(build("law", name))
    assert np.array_equal(fitted(law, W, Y).predict(W).mean, fitted(law, W, Y).predict(W).mean)


@pytest.mark.parametrize("name", LAWS)
def test_laws_say_how_many_runs_they_need(name):
    law = quick(build("law", name))
    needed = law.rows(4)
    W, Y = data(n=needed)
    fitted(law, W, Y)
    with pytest.raises(EvidenceError, match=str(needed)):
        fitted(law, W[: needed - 1], Y[: needed - 1])


OBJECTIVES = {
    "mean": WeightedMean({"target/0": 2.0, "target/1": 1.0}),
    "worst": Worst(("target/0", "target/1")),
    "floors": Floors({"target/0": 1.0}, {"target/1": 0.01}),
}


@pytest.mark.parametrize("case", CONSTRAINTS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", names("search"))
def test_searches_are_feasible_and_no_worse_than_natural(name, objective, case):
    """Catches an answer outside the limits, a broken floor, and a search that goes uphill."""
    law = fitted(build("law", "log_linear"), *data())
    problem = dataclasses.replace(
        PROBLEM, objective=OBJECTIVES[objective], constraints=CONSTRAINTS[case]
    )
    reference = law.predict(DOMAINS.natural[None]).mean[0]
    chooser = build("search", name)
    chosen = chooser.choose(law, problem, reference, np.random.default_rng(0))
    again = chooser.choose(law, problem, reference, np.random.default_rng(0))
    assert np.array_equal(chosen, again)
    assert problem.constraints.satisfied(chosen) and abs(chosen.sum() - 1) < 1e-9

    def value(w):
        return problem.objective.value(law.predict(w[None]).mean, problem.targets, reference)[0]

    start = problem.constraints.project(DOMAINS.natural)
    assert np.isfinite(value(chosen)) and value(chosen) <= value(start) + 1e-9
    rng = np.random.default_rng(1)
    others = [w for w in rng.dirichlet(np.full(4, 0.5), 300) if problem.constraints.satisfied(w)]
    if others:
        assert value(chosen) <= np.quantile([value(w) for w in others], 0.1) + 1e-9


@pytest.mark.parametrize("name", names("search"))
def test_searches_serve_any_law_or_say_which_search_does(name):
    W, Y = data()
    law = fitted(quick(build("law", "lightgbm")), W, Y)
    try:
        found = build("search", name).choose(law, PROBLEM, np.zeros(2), np.random.default_rng(0))
    except RecipeError as error:
        assert "simulate" in str(error)
    else:
        assert PROBLEM.constraints.satisfied(found)


SKILLS = ("red", "green", "blue", "black")
STEPS = 60
SIZES = {  # of losses, nats per token: usual, nothing to lose, a run that is about to diverge
    "usual": (1.0, 2.0),
    "zero": (0.0, 0.0),
    "huge": (1e300, 1e308),
    "one huge": (0.0, 1e308),
}


def evidence(controller, state, domains, size="usual", seed=0):
    """Evidence as a trainer gives it at the step where a state wants it; a function of names."""
    rng = np.random.default_rng([seed, state["due"]])
    values = dict(zip(SKILLS, np.linspace(*SIZES[size], 4) * rng.uniform(0.9, 1.0, 4), strict=True))
    targets = controller.targets(domains)
    counts = tuple(0 if name == "blue" and state["due"] % 2 else 3 for name in domains)
    seen = tuple(values[name] if n else None for name, n in zip(domains, counts, strict=True))
    examples = [[-x * min(values[n], 1e300) for n in domains] for x in (0.5, 1.0, 2.0)]
    return Evidence(
        step=state["due"],
        counts=counts,
        losses=seen,
        excess=seen if controller.compares else (),
        held_out=tuple(values[name.removeprefix("domain/")] for name in targets),
        products=tuple(
            tuple(
                float(min(values[a], 1e150) * min(values[b.removeprefix("domain/")], 1e150))
                for b in targets
            )
            for a in domains
        )
        if controller.gradients
        else (),
        norms=tuple(values[name] for name in domains) if controller.gradients else (),
        rate=0.01,
        likelihoods=tuple(map(tuple, examples)) if isinstance(controller, Mixes) else (),
        lengths=(1, 1, 1) if isinstance(controller, Mixes) else (),
    )


def moved(controller, domains=SKILLS, size="usual", state=None, until=STEPS, hop=False):
    """States of a run from its start, or from one of its states."""
    shares = dict(zip(SKILLS, (0.1, 0.2, 0.3, 0.4), strict=True))
    start = tuple(shares[name] for name in domains)
    states = [state or controller.start(domains, start, STEPS)]
    while states[-1]["due"] < until:
        if hop:  # what a checkpoint does to a state
            states[-1] = json.loads(json.dumps(states[-1]))
        found = evidence(controller, states[-1], domains, size)
        states.append(controller.update(states[-1], found))
        assert states[-1]["due"] > found.step, "an update that is due again at once never ends"
    return states


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", names("controller"))
def test_controllers_stay_on_the_simplex_and_finite(name, size):
    """Catches overflow of exp, 0 * inf, and shares that are not renormalized after smoothing."""
    states = moved(build("controller", name), size=size)
    assert len(states) > 1
    for state in states:
        simplex.check(state["weights"])


@pytest.mark.parametrize("name", names("controller"))
def test_controllers_do_not_know_the_order_of_domains(name):
    """Catches a weight that goes to a position, and ties or sweeps by number."""
    controller, turned = build("controller", name), (SKILLS[2], SKILLS[0], SKILLS[3], SKILLS[1])
    for one, two in zip(moved(controller), moved(controller, turned), strict=True):
        other = dict(zip(turned, two["weights"], strict=True))
        assert [other[n] for n in SKILLS] == pytest.approx(one["weights"], abs=1e-6)


@pytest.mark.parametrize("name", names("controller"))
def test_controllers_are_pure_and_move(name):
    """Same evidence, same states; catches a state that is changed in place, and one that rests."""
    controller = build("controller", name)
    before = describe(controller)
    first = moved(controller)
    kept = json.dumps(first[:-1])
    controller.update(first[-2], evidence(controller, first[-2], SKILLS))
    assert json.dumps(first[:-1]) == kept and first == moved(controller)
    assert describe(controller) == before and hash(controller) == hash(build("controller", name))
    assert not np.allclose(first[0]["weights"], first[-1]["weights"])


@pytest.mark.parametrize("name", names("controller"))
def test_controllers_resume_from_a_checkpoint(name):
    """Every state goes through JSON and back, as in a checkpoint; catches hidden or array state."""
    controller = build("controller", name)
    whole = moved(controller)
    assert [s["weights"] for s in moved(controller, hop=True)] == [s["weights"] for s in whole]
    half = json.loads(json.dumps(whole[len(whole) // 2]))
    assert moved(controller, state=half)[-1] == whole[-1]


@pytest.mark.parametrize("name", names("controller"))
def test_controllers_come_back_from_a_spec(name):
    """Catches a field that a spec's JSON loses."""
    controller = build("controller", name)
    assert deserialize(json.loads(serialize(controller))) == controller
    assert controller.moves in ("sampling", "loss")


def test_the_example_of_the_readme_is_a_controller(tmp_path, monkeypatch):
    """One file, as a newcomer copies it; catches an example that its own contract refuses."""
    text = (Path(mixtures.__file__).parent / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "losses_first.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        importlib.import_module("losses_first")
        for size in SIZES:
            test_controllers_stay_on_the_simplex_and_finite("losses_first", size)
        test_controllers_do_not_know_the_order_of_domains("losses_first")
        test_controllers_are_pure_and_move("losses_first")
        test_controllers_resume_from_a_checkpoint("losses_first")
        test_controllers_come_back_from_a_spec("losses_first")
    finally:
        registry.forget("controller", "losses_first")


@pytest.mark.parametrize("name", names("world"))
def test_worlds_answer_specs_and_know_their_optimum(name):
    """No random mixture may beat the optimum; catches an optimum of another objective or scale."""
    world = build("world", name)
    problem = worlds.problem(world, full_tokens=20_000_000)
    spec = problem.spec(problem.domains.uniform, 3)
    one, two = world([spec, spec])
    assert one.scores == two.scores and set(one.scores) == set(problem.targets)
    assert from_json(to_json(one)) == one
    best = world.optimum(problem)
    assert problem.constraints.satisfied(best) and world.regret(problem, best) == 0
    rng = np.random.default_rng(5)
    for w in rng.dirichlet(np.full(world.size, 0.7), size=200):
        assert world.regret(problem, w) >= -1e-6


def small(name):
    """A registered method, made cheap: few runs, refits and trees."""
    method = build("method", name)
    fields = {f.name for f in dataclasses.fields(method)}
    cheap = {"runs": 16, "folds": 3, "refits": 10, "batch": 4, "rounds": 1, "ensemble": 6}
    if "trials" in fields:  # rounds of a method that moves weights are what it is made of
        cheap = {"seeds": 2, "trials": 2}
    method = dataclasses.replace(method, **{k: v for k, v in cheap.items() if k in fields})
    if "laws" in fields:
        method = dataclasses.replace(method, laws=tuple(map(quick, method.laws)))
    return method


SLOW = ("anneal", "bayes", "ladder")  # methods of many fits


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
    recommendation, history = search(method, PROBLEM, WORLD, 7)
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


@pytest.mark.parametrize("name", spared(DIRECTED))
def test_methods_beat_uniform_over_worlds(name):
    """One-sided, paired over 6 worlds; catches a search that maximises, or shuffled columns."""
    gains = []
    for seed in range(6):
        world = worlds.Noisy(world=worlds.Additive(size=4, count=2, seed=seed), sd=0.005)
        problem = worlds.problem(world)
        found, _ = search(small(name), problem, world, seed)
        uniform = world.regret(problem, problem.domains.uniform)
        gains.append(uniform - world.regret(problem, found.weights))
    assert paired(gains).p < 0.05, gains
