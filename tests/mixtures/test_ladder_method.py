"""The ladder: who climbs, what is asked, and an answer that knows its scale."""

import json

import numpy as np
import pytest
from ladder_world import RUNGS, ladder, posed

from cuvee.mixtures import recommendation
from cuvee.mixtures.errors import RecipeError, UnknownName
from cuvee.mixtures.loop import generator, search
from cuvee.mixtures.methods.ladder import climbers
from cuvee.mixtures.multiscale import budget_splits
from cuvee.mixtures.multiscale.forecast import gains_at
from cuvee.mixtures.registry import build, describe
from cuvee.mixtures.runs.run_results import Failed


@pytest.fixture(scope="module")
def found():
    world, problem = posed()
    return world, problem, *search(ladder(), problem, world, 0)


def test_mixtures_climb_from_rung_to_rung(found):
    """Catches rungs of fresh mixtures, which tell no law what size does to one of them."""
    _, problem, _, history = found
    sizes = [run.spec.size for run in history]
    assert [sizes.count(s) for s in ("0.3M", "0.6M", "1M", "4M")] == [20 + 2 * 3, 14, 10, 8]
    assert sizes == sorted(sizes, key=["0.3M", "0.6M", "1M", "4M"].index)
    by_size = {
        size: {r.spec.stages[0].weights: r for r in history if r.spec.size == size}
        for size in sizes
    }
    for lower, higher in (("0.3M", "0.6M"), ("0.6M", "1M"), ("1M", "4M")):
        assert set(by_size[higher]) <= set(by_size[lower])
        best = min(by_size[lower].values(), key=lambda r: r.scores["target/0"].value)
        assert best.spec.stages[0].weights in by_size[higher]
        assert tuple(problem.domains.natural) in by_size[higher]


def test_the_best_the_anchors_and_the_farthest_climb():
    points = np.array([[0.5, 0.5], [0.55, 0.45], [0.6, 0.4], [0.0, 1.0], [0.9, 0.1]])
    levels = np.array([2.0, 1.0, 3.0, 4.0, 5.0])
    assert climbers(points, levels, 3, np.array([[0.5, 0.5]])) == [1, 0, 3]
    assert sorted(climbers(points, levels, 9, points[:1])) == [0, 1, 2, 3, 4]


def test_an_interrupted_rung_is_completed_and_failures_are_answered(found):
    """Catches an `ask` that forgets what is there, and one that trains a failed run for ever."""
    _, problem, _, history = found
    part = history[: 26 + 5]
    rest = ladder().ask(problem, part, generator(0, len(part)))
    wanted = {run.spec.fingerprint for run in history[26:40]}
    assert {s.fingerprint for s in rest} == wanted - {r.spec.fingerprint for r in part}
    failed = (*history[:39], Failed(history[39].spec, "diverged"))
    after = ladder().ask(problem, failed, generator(0, len(failed)))
    assert {spec.size for spec in after} == {"1M"}
    assert history[39].spec.weights.tolist() not in [s.weights.tolist() for s in after]


def test_the_answer_knows_its_scale_and_its_test(found):
    """Catches an answer at the proxies' scale, and evidence that does not survive the store."""
    world, problem, answer, history = found
    scale = answer.scale
    assert (scale.parameters, scale.tokens) == (100_000_000, 4_000_000_000)
    assert scale.factors == (25.0, 50.0) and "25 times the parameters" in scale.statement
    assert any(scale.statement in line for line in answer.warnings)
    assert {t.law for t in scale.trials} == {"joint", "single_scale", "observed"}
    assert all(len(t.held_out) == 8 for t in scale.trials)
    assert scale.beats == (scale.chosen == "joint")
    assert set(answer.evidence) == {run.spec.fingerprint for run in history}
    assert {f.mixture for f in scale.forecasts} >= {"recommended", "natural"}
    natural = next(c for c in scale.curves if c.name == "natural")
    levels = [p.objective for p in natural.points]
    assert (
        len(levels) == 4 and levels == sorted(levels, reverse=True) and natural.points[0].runs == 3
    )
    assert recommendation.revive_recommendation(json.loads(json.dumps(answer.to_json()))) == answer
    assert world.regret(problem, answer.weights) < world.regret(problem, problem.domains.natural)
    truth = world.world.at_scale(scale.parameters, scale.tokens).truth(
        problem.domains.natural[None], np.ones((1, 4)))[0, 0]  # fmt: skip
    said = next(f for f in scale.forecasts if f.mixture == "natural")
    assert said.low - 0.02 <= truth <= said.high + 0.02


def test_a_ladder_says_its_steps_to_whoever_plans_it():
    """Catches a plan that forgets a size, or the runs that repeat mixtures over seeds."""
    method, (_, problem) = ladder(), posed()
    first, *larger = method.steps(problem)
    assert (first.size, first.tokens) == (problem.proxy.size, problem.proxy.tokens)
    assert first.repeats == len(method.anchors) * method.seeds > 0
    assert method.sizes == tuple((step.size, step.tokens) for step in larger) != ()
    one = build("method", "mixing_laws")
    assert one.sizes == one.steps(problem) == () and one.problem(problem, ()) is problem


def test_gains_are_forecast_for_the_scale_that_is_asked(found):
    """Catches a gain at full scale taken for the gain of a smaller confirmation."""
    world, problem, answer, history = found
    scales = [(4_000_000, 80_000_000), (100_000_000, 4_000_000_000)]
    points = {c.name: np.array(c.weights) for c in answer.candidates}
    arguments = {"points": points, "scales": scales, "rng": generator(0, 1)}
    method = ladder()
    law = next(law for law in method.scaling if law.name == "joint")
    told = gains_at(
        [law], method.steps(problem), problem, history, refits=method.refits, **arguments
    )
    for scale, gains in zip(scales, told, strict=True):
        assert list(gains) == list(points)[1:]
        truth = world.world.at_scale(*scale).truth
        levels = truth(np.array(list(points.values())), np.ones((len(points), 4)))[:, 0]
        gain = gains["natural"]
        assert (
            gain.low - 0.01 <= levels[list(points).index("natural")] - levels[0] <= gain.high + 0.01
        )
    assert abs(told[0]["natural"].mean - told[1]["natural"].mean) > 0.005


def test_without_a_law_that_can_be_tested_ranking_is_used_and_said():
    """Three rungs leave two sizes to fit: catches a law chosen without a test."""
    world, problem = posed()
    answer, _ = search(ladder(rungs=RUNGS[:2]), problem, world, 0)
    assert answer.scale.chosen == "single_scale" and not answer.scale.beats
    assert any("could be tested" in line and "predicted scores are those" in line
               for line in answer.warnings)  # fmt: skip
    assert answer.scale.predicted_parameters == 1_000_000  # ten mixtures suffice a linear law


@pytest.mark.parametrize(
    ("rung", "words"),
    [
        ({"size": "1M", "tokens": "lots", "runs": 3}, "a rung is a `size`"),
        ({"size": "1M", "runs": 3}, "a rung is a `size`"),
        ("1M", "a rung is a `size`"),
    ],
)
def test_rungs_that_are_none_are_refused(rung, words):
    with pytest.raises(RecipeError, match=words):
        ladder(rungs=[rung])
    with pytest.raises(UnknownName, match="did you mean 'tokens'"):
        ladder(rungs=[{"size": "1M", "token": 3, "runs": 3}])


def test_a_ladder_that_widens_is_refused():
    _, problem = posed()
    wide = ladder(rungs=[{"size": "1M", "tokens": "20M", "runs": 60}])
    with pytest.raises(RecipeError, match="at most 22"):
        wide.ask(problem, (), generator(0, 0))
    assert hash(ladder()) == hash(build("method", describe(ladder())))


def test_splits_spend_the_budget_and_no_more():
    """Catches a split that costs more than was asked for, or leaves a rung with two runs."""
    each = (1.0, 4.0, 30.0)
    for split in budget_splits.SPLITS:
        runs = budget_splits.step_counts(split, 600.0, each)
        cost = sum(n * c for n, c in zip(runs, each, strict=True))
        assert 590 <= cost <= 600 and all(n == 0 or n >= budget_splits.LEAST for n in runs)
        assert list(runs) == sorted(runs, reverse=True)
    assert budget_splits.step_counts(budget_splits.SPLITS[0], 600.0, each) == (600, 0, 0)


@pytest.mark.parametrize("law", ["single_scale", {"name": "joint", "draws": 0}])
def test_a_ladder_answers_by_laws_that_make_no_back_tests(found, law):
    """Catches an average that needs its laws' back-tests: the study would train, and then crash."""
    _, problem, _, history = found
    method = ladder(scaling=[law])
    answer = method.recommend(problem, history, generator(0, len(history)))
    named = law if isinstance(law, str) else law["name"]
    assert answer.scale.weights == ((named, 1.0),)
