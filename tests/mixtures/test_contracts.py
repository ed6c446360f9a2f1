"""Contracts: what every registered design, search and world must keep.

A new one enters these tests by being registered; nothing here is edited for it. The contracts of
laws, controllers and methods are in the files of their names.
"""

import dataclasses

import numpy as np
import pytest
from contract_parts import CONSTRAINTS, DOMAINS, PROBLEM, standard

from cuvee.mixtures import worlds
from cuvee.mixtures.constraints import constrain
from cuvee.mixtures.domains import DomainSet
from cuvee.mixtures.errors import ConstraintError, RecipeError
from cuvee.mixtures.methods.swarm import Swarm
from cuvee.mixtures.objectives import Floors, Hinge, WeightedMean, Worst
from cuvee.mixtures.registry import build, names
from cuvee.mixtures.runs.run_records import outcome_from_json, outcome_to_json
from cuvee.mixtures.simplex import kl


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
def test_designs_keep_their_mixtures_while_text_moves_by_little(name):
    """Catches a design that follows today's sizes, a cap of today's sizes that turns another draw
    away and so moves all that follow, and mixtures that today's caps forbid."""
    passes = {"full_tokens": int(DOMAINS.tokens.sum()), "epochs": 2.0}
    most = len(drawn(build("design", name), constrain(DOMAINS, **passes)))
    design = Swarm(design=name, runs=most, seeds=0, laws=("log_linear",))
    for factor in (1.009, 0.991):
        asked = []
        for tokens in (1.0, factor):
            moved = [
                dataclasses.replace(d, tokens=round(d.tokens * (tokens if i == 0 else 1.0)),
                                    drawn_tokens=d.tokens)
                for i, d in enumerate(DOMAINS)
            ]  # fmt: skip
            domains = DomainSet(tuple(moved))
            caps = constrain(domains, **passes)
            problem = dataclasses.replace(PROBLEM, domains=domains, constraints=caps)
            asked.append([run.weights for run in design.ask(problem, (), np.random.default_rng(0))])
        assert not np.array_equal(domains.tokens, DOMAINS.tokens)
        assert all(bool(caps.satisfied(w)) for w in asked[1])
        same = [np.array_equal(a, b) for a, b in zip(*asked, strict=True)]
        assert all(same) or (factor < 1 and any(caps.active(w) for w in asked[1]) and any(same))


@pytest.mark.parametrize("name", names("design"))
def test_designs_say_when_they_cannot_draw_enough(name):
    """One feasible mixture cannot give five; catches an endless loop and copies."""
    frozen = constrain(DOMAINS, full_tokens=1, bounds={"a0": (0.7, 0.7), "a1": (0.3, 0.3)})
    with pytest.raises(ConstraintError, match="5"):
        build("design", name).draw(DOMAINS, frozen, 5, np.random.default_rng(0))


ASKED = {"smallest_step": {"gains": {"target/0": 0.005}}}  # what searches must be told
OBJECTIVES = {
    "mean": WeightedMean({"target/0": 2.0, "target/1": 1.0}),
    "worst": Worst(("target/0", "target/1")),
    "floors": Floors({"target/0": 1.0}, {"target/1": 0.01}),
    "hinge": Hinge({"target/0": 1.0}, {"target/1": 0.01}),
}


@pytest.mark.parametrize("case", CONSTRAINTS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("name", names("search"))
def test_searches_are_feasible_and_no_worse_than_natural(name, objective, case):
    """Catches an answer outside the limits, a broken floor, a search that goes uphill, and a step
    that is longer than one of many random mixtures that reach its gains as well."""
    law = standard("log_linear")
    problem = dataclasses.replace(
        PROBLEM, objective=OBJECTIVES[objective], constraints=CONSTRAINTS[case]
    )
    reference = law.predict(DOMAINS.natural[None]).mean[0]
    chooser = build("search", {"name": name, **ASKED.get(name, {})})
    chosen = chooser.choose(law, problem, reference, np.random.default_rng(0))
    if case in ("free", "sparse"):  # the others are searched in the same way
        again = chooser.choose(law, problem, reference, np.random.default_rng(0))
        assert np.array_equal(chosen, again)
    assert problem.constraints.satisfied(chosen) and abs(chosen.sum() - 1) < 1e-9

    def value(w):
        return problem.objective.value(law.predict(w[None]).mean, problem.targets, reference)[0]

    rng = np.random.default_rng(1)
    others = [w for w in rng.dirichlet(np.full(4, 0.5), 300) if problem.constraints.satisfied(w)]
    if (begin := chooser.begins(problem)) is not None:
        held = chooser.held(law, problem, reference)
        over = held.violation(law.predict(np.array([chosen, *others])).mean)
        assert over[0] <= max(1e-6, over.min() + 1e-9)
        reach = [w for w, o in zip(others, over[1:], strict=True) if o <= 1e-6]
        assert (
            over[0] > 1e-6
            or kl(chosen, begin) <= min([kl(w, begin) for w in reach], default=9.0) + 1e-9
        )
        return
    start = problem.constraints.project(DOMAINS.natural)
    assert np.isfinite(value(chosen)) and value(chosen) <= value(start) + 1e-9
    if others:
        assert value(chosen) <= np.quantile([value(w) for w in others], 0.1) + 1e-9


@pytest.mark.parametrize("name", names("search"))
def test_searches_serve_any_law_or_say_which_search_does(name):
    law = standard("lightgbm")
    try:
        chooser = build("search", {"name": name, **ASKED.get(name, {})})
        found = chooser.choose(law, PROBLEM, np.zeros(2), np.random.default_rng(0))
    except RecipeError as error:
        assert "simulate" in str(error)
    else:
        assert PROBLEM.constraints.satisfied(found)


@pytest.mark.parametrize("name", names("world"))
def test_worlds_answer_specs_and_know_their_optimum(name):
    """No random mixture may beat the optimum; catches an optimum of another objective or scale."""
    world = build("world", name)
    problem = worlds.world_problem(world, full_tokens=20_000_000)
    spec = problem.spec(problem.domains.uniform, 3)
    one, two = world([spec, spec])
    assert one.scores == two.scores and set(one.scores) == set(problem.targets)
    assert outcome_from_json(outcome_to_json(one)) == one
    best = world.optimum(problem)
    assert problem.constraints.satisfied(best) and world.regret(problem, best) == 0
    rng = np.random.default_rng(5)
    for w in rng.dirichlet(np.full(world.size, 0.7), size=200):
        assert world.regret(problem, w) >= -1e-6
