"""Schedules: a world where order matters, tails within the constraints, and the method anneal."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from cuvee.mixtures import worlds
from cuvee.mixtures.constraints import constrain
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.laws.bounds import unbounded
from cuvee.mixtures.loop import generator, search
from cuvee.mixtures.methods import anneal
from cuvee.mixtures.methods.anneal import Anneal
from cuvee.mixtures.objectives import Hinge
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.recommendation import (
    MISSED,
    Candidate,
    Demand,
    Estimate,
    Recommendation,
    missed_lines,
)
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.mixtures.two_phase import candidates as tails
from cuvee.mixtures.two_phase import decision, joint_law
from cuvee.mixtures.worlds import Additive, Learning, Noisy, Recency

QUICK = {"laws": ("log_linear",), "search": "exact", "runs": 16, "folds": 3, "refits": 10}


def quick(**fields) -> Anneal:
    return Anneal(**(QUICK | fields))


def fixed(*weights: float) -> tuple[Stage, ...]:
    return (Stage(tuple(weights)),)


def test_what_comes_last_counts_more_where_it_is_forgotten() -> None:
    """r = 1 for a0: its last fifth counts 1 - 0.8^2 = 0.36; a1 counts by its share, 0.2.

    Catches a kernel that is not normalized, stages in the wrong order, and a static run changed.
    """
    world = Recency(world=Additive(size=2, count=2), rate=1.0)
    assert world.exposure(fixed(0.3, 0.7)) == pytest.approx([0.3, 0.7])
    last = (Stage((0.0, 1.0), 0.8), Stage((1.0, 0.0), 0.2))
    assert world.exposure(last) == pytest.approx([0.36, 0.8])
    assert world.exposure(last[::-1]) == pytest.approx([0.04, 0.8])
    problem = worlds.world_problem(world)
    static, inside = (w([problem.spec((0.3, 0.7), 1)])[0] for w in (world, world.world))
    assert static.scores == inside.scores
    moved = world([problem.staged(last, 1)])[0]
    assert isinstance(moved, RunResult) and moved.scores != static.scores


def test_the_best_schedule_beats_every_static_mixture_in_this_world() -> None:
    """Otherwise nothing could be learned from it."""
    world = Recency(world=Learning(size=4))
    problem = worlds.world_problem(world)
    best = world.value(problem, world.best(problem, 0.8))
    assert best < world.value(problem, fixed(*world.optimum(problem))) - 0.005
    calm = dataclasses.replace(world, rate=0.0)
    static = calm.value(problem, fixed(*calm.optimum(problem)))
    assert calm.value(problem, calm.best(problem, 0.8)) == pytest.approx(static, abs=1e-3)


def test_a_tail_may_take_more_than_the_run_may() -> None:
    """Cap 0.3 on a0; main has 0.2: a tail of 20 % may have (0.3 - 0.8 x 0.2) / 0.2 = 0.7 of it.

    Catches constraints put on the tail itself, and an average that breaks them.
    """
    domains = worlds.world_problem(Additive(size=3, count=1)).domains
    limits = constrain(domains, full_tokens=1, bounds={"a0": (0.0, 0.3)}, groups=[])
    main = np.array([0.2, 0.4, 0.4])
    within = tails.decay_limits(limits, main, 0.8)
    assert within.bounds[1][0] == pytest.approx(0.7)
    for w in np.random.default_rng(0).dirichlet(np.ones(3), 200):
        average = 0.8 * main + 0.2 * w
        assert bool(within.satisfied(w)) == bool(limits.satisfied(average))
    sparse = constrain(domains, full_tokens=1, most_domains=2)
    kept = tails.decay_limits(sparse, np.array([0.5, 0.5, 0.0]), 0.8)
    assert not kept.satisfied(np.array([0.0, 0.5, 0.5])) and kept.satisfied(np.eye(3)[0])


def test_a_slice_of_an_exponential_law_is_that_law() -> None:
    """Catches exponents that forget the part of the window which follows the main mixture."""
    rng = np.random.default_rng(0)
    V = rng.dirichlet(np.ones(4), 30)
    truth = 1.0 + np.exp(V @ rng.normal(size=(4, 2)))
    law = build("law", "log_linear").fit(V, truth, np.zeros(2), rng)
    law = unbounded(law)
    own = tails.decay_law(law, 0.5)
    assert isinstance(own, tails.ExpDecayLaw)
    W = rng.dirichlet(np.ones(3), 10)
    expected = own.offsets + np.exp(W @ own.exponents.T)
    assert own.predict(W).mean == pytest.approx(expected, rel=1e-6)
    assert own.predict(W).mean == pytest.approx(
        unbounded(law).predict(tails.decay_points(W, 0.5)).mean
    )


def ordered(
    seed: int, cap: float
) -> tuple[Problem, tails.Candidates, tuple[RunResult, ...], np.ndarray]:
    """A problem whose scores follow the law over early and late shares; both rounds, no noise, and
    the law's rates (6,)."""
    domains = worlds.world_problem(Additive(size=3, count=1)).domains
    limits = constrain(domains, full_tokens=1, bounds={"a0": (0.0, cap)})
    problem = dataclasses.replace(
        worlds.world_problem(Additive(size=3, count=1)), constraints=limits
    )
    rng = np.random.default_rng(seed)
    rates = rng.normal(size=6)

    def run(spec) -> RunResult:
        bare = RunResult(spec, {})
        score = 1.0 + np.exp(joint_law.joint_point(bare, 0.2) @ rates)
        return dataclasses.replace(bare, scores={problem.targets[0]: Score(float(score), 0.0, 1)})

    fixed = tuple(run(problem.spec(w, 0)) for w in rng.dirichlet(np.ones(3), 12))
    main = np.array([0.2, 0.4, 0.4])
    runs = tuple(
        run(problem.staged(tails.two_stages(main, t, s), 0))
        for t, s in zip(rng.dirichlet(np.ones(3), 12), [0.8, 0.9] * 6, strict=True)
    )
    reference = np.array([fixed[0].scores[problem.targets[0]].value])
    return problem, tails.Candidates(problem, runs, main, (0.8, 0.9), reference), fixed, rates


@pytest.mark.parametrize("seed", range(3))
def test_main_mixture_and_tail_are_chosen_together(seed: int) -> None:
    """Against every pair on a grid: catches early and late confused, a point that forgets what of
    the window follows the main mixture, limits put on the parts, a switch point not searched.
    """
    cap = 0.3
    problem, tried, fixed, rates = ordered(seed, cap)
    law = build("law", "log_linear")
    rng = np.random.default_rng(0)
    found = joint_law.best_joint(tried, fixed, law, build("search", "auto"), 2, rng)
    assert found is not None and len(found.refit_stables) == 2

    def true(ending_stages: tuple[Stage, ...]) -> float:
        bare = RunResult(problem.staged(ending_stages, 0), {})
        return float(joint_law.joint_point(bare, 0.2) @ rates)

    own = true(found.stages)
    average = found.switch * found.stable + (1 - found.switch) * found.decay
    assert problem.constraints.satisfied(average)
    grid = [np.array([a, b, 4 - a - b]) / 4 for a in range(5) for b in range(5 - a)]
    for switch in tried.switches:
        for main in grid:
            for tail in grid:
                if problem.constraints.satisfied(switch * main + (1 - switch) * tail):
                    assert own <= true(tails.two_stages(main, tail, switch)) + 1e-3


def concluded(margin: float, gained: float) -> Recommendation:
    """What is made of a schedule that gains 0.1, and so much in a guardrail with such a margin."""
    mean = Estimate(0.0, 0.0, 0.0)
    problem = dataclasses.replace(
        worlds.world_problem(Additive(size=2, count=2)),
        objective=Hinge({"target/0": 1}, {"target/1": 0.01}),
    )
    asked = Demand("target/1", "floor", 0.01, Estimate(margin, margin, margin), None)
    said = missed_lines([asked])
    base = Recommendation(
        problem.domains.names,
        problem.targets,
        fixed(0.5, 0.5),
        ((0.4, 0.6),) * 2,
        (Candidate("recommended", (0.5, 0.5), mean, (mean, mean)),),
        gains=(("natural", mean),),
        demands=(asked,),
        warnings=("a line of its own", *said),
    )
    assert base.warnings == (*said, "a line of its own")
    main, tail = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    ending = tails.TwoPhase(0.8, tail, 0.1, tail[None], main, np.empty((0, 2)))
    measured = Estimate(0.1, 0.05, 0.15)
    targets = np.array([0.1, gained])
    return decision.conclude_schedule(problem, base, ending, measured=measured, targets=targets)


def test_no_schedule_breaks_a_guardrail_that_the_main_mixture_keeps() -> None:
    """Catches a gain that buys a guardrail, one that is short without a word, and the warning of a
    shortfall that the schedule has made good."""
    kept = concluded(0.02, -0.01)
    assert len(kept.stages) == 2 and kept.demands[0].margin.mean == pytest.approx(0.01)
    bought = concluded(0.02, -0.03)
    assert len(bought.stages) == 1 and bought.demands[0].margin.mean == 0.02
    assert "breaks what the best static mixture keeps (target/1" in bought.warnings[0]
    mended = concluded(-0.01, 0.03)
    assert len(mended.stages) == 2 and not any(w.startswith(MISSED) for w in mended.warnings)
    short = concluded(-0.03, 0.01)
    assert len(short.stages) == 2 and "short by 0.0200" in short.warnings[0]
    assert sum(line.startswith(MISSED) for line in short.warnings) == 1


@pytest.mark.slow
def test_anneal_finds_a_schedule_where_order_matters() -> None:
    """Over 3 worlds: catches a tail that is the main mixture's, and stages in the wrong order."""
    for seed in range(3):
        world = Recency(world=Noisy(world=Learning(size=4, seed=seed), sd=0.002))
        problem = worlds.world_problem(world)
        found, history = search(quick(), problem, world, seed)
        assert len(found.stages) == 2, found.warnings
        main = fixed(*found.candidate("best static").weights)
        gain = world.value(problem, main) - world.value(problem, found.stages)
        low, high = dict(found.gains)["best static"].low, dict(found.gains)["best static"].high
        assert 0 < low <= gain + 0.01 and gain - 0.01 <= high
        assert gain > 0.3 * (
            world.value(problem, main) - world.value(problem, world.best(problem, 0.8))
        )
        trunks = Counter(r.spec.stages[0].weights for r in history if len(r.spec.stages) == 2)
        (_, candidates), *_ = trunks.most_common()
        assert candidates >= 16 and len(trunks) <= 4  # only proposals have trunks of their own


@pytest.mark.slow
def test_anneal_says_so_where_a_schedule_brings_nothing() -> None:
    """Without forgetting only the average counts, and seeds differ by more than a tail brings.

    Catches a schedule that is recommended because it was predicted, or found best of many.
    """
    world = Noisy(world=Learning(size=4), sd=0.05)
    problem = worlds.world_problem(world)
    found, _ = search(quick(), problem, world, 1)
    assert len(found.stages) == 1
    assert "schedule" in found.warnings[0]
    if "does not beat" in found.warnings[0]:
        tried = np.array(found.candidate("best schedule").weights)
        assert np.abs(tried - found.weights).max() > 1e-4


@pytest.mark.slow
def test_no_tail_is_tried_again_that_is_the_main_mixture_itself() -> None:
    """Here one domain is best for all: catches pairs of runs that compare a mixture with itself."""
    world = Noisy(world=Additive(size=4, count=2), sd=0.02)
    problem = worlds.world_problem(world)
    found, history = search(quick(), problem, world, 1)
    assert found.stages == fixed(*found.weights) and max(found.weights) > 0.99
    assert found.warnings[0] == anneal.NONE
    assert max(run.spec.seed for run in history) < anneal.FRESH


def test_anneal_asks_for_the_rest_of_a_round_whatever_was_answered() -> None:
    """Catches a later round that depends on how much of it is answered."""
    world = Recency(world=Noisy(world=Learning(size=4), sd=0.002))
    problem = worlds.world_problem(world)
    method = quick()
    first = tuple(world(method.ask(problem, (), generator(1, 0))))
    second = method.ask(problem, first, generator(1, len(first)))
    assert {len(spec.stages) for spec in second} == {1, 2} and len(second) >= 17
    assert {spec.seed for spec in second} == {0}
    half = first + tuple(world(second[3:9]))
    rest = method.ask(problem, half, generator(1, len(half)))
    assert set(rest) == set(second) - set(second[3:9])
    history = half + tuple(world(rest))
    for _ in range(method.trials + 1):
        asked = method.ask(problem, history, generator(1, len(history)))
        if {spec.seed for spec in asked} != {0}:
            break
        assert all(len(spec.stages) == 2 for spec in asked)
        assert method.ask(problem, history[::-1], generator(2, 0)) == asked
        history += tuple(world(asked))
    assert len(asked) == 6 and len({spec.seed for spec in asked}) == 3


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"switches": (1.0,)}, "between 0 and 1"),
        ({"pairs": 1}, "pairs >= 2"),
        ({"trials": -1}, "trials >= 0"),
    ],
)
def test_anneal_refuses_what_makes_no_sense(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        Anneal(**wrong)
