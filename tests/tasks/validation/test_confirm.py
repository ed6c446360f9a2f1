"""What a confirmation trains, and what may be said of its gains at several sizes."""

from dataclasses import replace

import pytest
from larger_sizes import PART, SEEDS, Trainer
from synthetic_study import NAMES, World, _problem, synthetic_study

from cuvee.flows.recipe.aim_parts import ConfirmPart, SizePart
from cuvee.flows.study.confirm import (
    compared_schedules,
    conclude_confirmation,
    confirmation_runs,
    problem_at_size,
    runs_of_sizes,
    train_larger_sizes,
)
from cuvee.mixtures.errors import CuveeError, EvidenceError, RecipeError, UnknownName
from cuvee.mixtures.inference.diagnostics import holm
from cuvee.mixtures.runs.run_results import Failed
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.tasks.study.answers import study_answers
from cuvee.tasks.study.summary import study_summary
from cuvee.tasks.validation.hypothesis_tests import SizeClaim, larger_size_tests
from cuvee.tasks.validation.paired import (
    AVERAGE,
    BEST,
    RECOMMENDED,
    Confirmation,
    ConfirmedRun,
    PairedGain,
)


@pytest.fixture(scope="module")
def study():
    return synthetic_study()


def confirmed(study, part, trainer=None):
    trainer = trainer or Trainer(study.problem)
    schedules = compared_schedules(study.problem, study.recommendation, part)
    return train_larger_sizes(
        runs_of_sizes(study.problem, schedules, part, SEEDS), trainer
    ), trainer


def test_holm_is_the_published_procedure():
    """By hand, m = 4: 0.01 x 4, 0.02 x 3, then 0.03 x 2 and 0.5 x 1; 0.06 = 0.06, so no order
    is broken; catches Bonferroni (0.08 for 0.02), and corrected values that fall again."""
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx((0.5, 0.04, 0.06, 0.06))
    assert holm([0.03, 0.029]) == pytest.approx((0.058, 0.058))  # 0.029 x 2 lifts 0.03 x 1
    assert holm([0.9, 0.8]) == (1.0, 1.0) and holm([]) == ()
    with pytest.raises(EvidenceError, match="lie in"):
        holm([1.2])


def test_what_is_compared_is_named_once_and_at_the_same_seeds(study):
    """Catches a baseline that is left out, and mixtures trained with seeds of their own."""
    part = ConfirmPart(mixtures={"hand": {"legal": 0.5, "code": 0.5}})
    found = compared_schedules(study.problem, study.recommendation, part)
    assert list(found) == [RECOMMENDED, "natural", "uniform", BEST, "hand"]
    specs = confirmation_runs(study.problem, found, SEEDS)
    for name in found:
        assert [seed for mixture, seed in specs if mixture == name] == list(SEEDS)
    assert specs["hand", 102].weights[study.problem.domains.index("legal")] == 0.5
    without = compared_schedules(
        study.problem, study.recommendation, ConfirmPart(best_observed=False)
    )
    assert BEST not in without
    with pytest.raises(CuveeError, match="sum to 0.9"):
        compared_schedules(
            study.problem, study.recommendation, ConfirmPart(mixtures={"x": {"legal": 0.9}})
        )


@pytest.mark.parametrize("name", ["start", "reference", "natural"])
def test_a_mixture_may_not_bear_a_name_that_another_has(name):
    """Catches two mixtures of one name in a report, of which one's gains are told of the other."""
    with pytest.raises(RecipeError, match="cannot bear the name"):
        ConfirmPart(mixtures={name: {"legal": 1.0}}).check()


def test_a_best_observed_mixture_that_is_recommended_is_not_trained_twice(study):
    """Catches a gain of exactly zero over oneself, told as a result."""
    ours = study.recommendation
    equal = tuple(
        replace(c, weights=tuple(ours.weights)) if c.name == BEST else c for c in ours.candidates
    )
    answer = replace(ours, candidates=equal)
    assert BEST not in compared_schedules(study.problem, answer, ConfirmPart())


def test_a_schedule_is_trained_as_its_stages_and_beside_its_average(study):
    """Catches a schedule that is tested as its average mixture."""
    first, last = study.problem.domains.natural, study.problem.domains.uniform
    stages = (Stage(tuple(first), 0.8), Stage(tuple(last), 0.2))
    answer = replace(study.recommendation, stages=stages)
    found = compared_schedules(study.problem, answer, ConfirmPart())
    spec = confirmation_runs(study.problem, found, SEEDS)[RECOMMENDED, 101]
    assert spec.stages == stages and spec.weights == pytest.approx(0.8 * first + 0.2 * last)
    (average,) = found[AVERAGE]
    assert average.weights == pytest.approx(0.8 * first + 0.2 * last) and average.share == 1
    same = replace(answer, stages=(Stage(tuple(first), 0.8), Stage(tuple(first), 0.2)))
    assert AVERAGE not in compared_schedules(study.problem, same, ConfirmPart())  # it never changes


def test_larger_proxies_repeat_as_the_full_scale_would(study):
    """Full scale 20M: 0.5M tokens are 1/40 of it, 5M a quarter. Catches the small run's subsample
    at a larger size, which would repeat every domain ten times as often as the full run."""
    small = replace(study.problem, proxy=replace(study.problem.proxy, repetition=1 / 40))
    assert problem_at_size(small, "1M", 5_000_000).proxy.repetition == 0.25
    assert problem_at_size(small, "1M", 50_000_000).proxy.repetition == 1.0
    assert problem_at_size(study.problem, "1M", 5_000_000).proxy.repetition == 1.0  # off stays off
    large = problem_at_size(study.problem, "1M", 5_000_000)
    spec = confirmation_runs(large, {"natural": (Stage(tuple(large.domains.natural)),)}, (7,))[
        "natural", 7
    ]
    assert (spec.size, spec.tokens) == ("1M", 5_000_000)


def test_every_size_is_asked_for_at_once(study):
    """Catches sizes that are trained one after another, with cores that wait in between."""
    part = ConfirmPart(sizes=[SizePart(size="1M", tokens=t) for t in (5_000_000, 9_000_000)])
    (steps, lost), trainer = confirmed(study, part)
    assert len(trainer.calls) == 1 and len(trainer.calls[0]) == 2 * 4 * 3
    assert [step.tokens for step in steps] == [5_000_000, 9_000_000] and lost == ()


def test_failures_cost_their_pairs_and_a_lost_size_is_said(study):
    """Catches one failure that ends the whole confirmation, and a size lost in silence."""
    part = ConfirmPart(sizes=[*PART.sizes, SizePart(size="2M", tokens=5_000_000)])
    trainer = Trainer(study.problem, lost=[("1M", 101), *(("2M", seed) for seed in SEEDS)])
    (steps, lost), _ = confirmed(study, part, trainer)
    assert len(steps) == 1 and steps[0].objective["natural"].n == 2
    assert len(steps[0].failed) == 4
    assert len(lost) == 1 and "2M" in lost[0]
    whole = Trainer(study.problem, lost=[("1M", seed) for seed in SEEDS])
    with pytest.raises(EvidenceError, match="nothing could be confirmed"):
        confirmed(study, PART, whole)


def test_a_baseline_without_pairs_is_left_open_and_no_claim_holds(study):
    """Catches "held" from the baselines that are left when the natural mixture is not."""
    specs = confirmation_runs(
        study.problem, compared_schedules(study.problem, study.recommendation, PART), SEEDS
    )
    trainer = Trainer(study.problem)
    outcomes = dict(zip(specs, trainer(list(specs.values())), strict=True))
    for seed in (101, 102):
        outcomes["uniform", seed] = Failed(specs["uniform", seed], "NaN")
    step = conclude_confirmation(study.problem, outcomes)
    assert step.unpaired == ("uniform",) and not step.complete
    assert step.objective["natural"].low > 0
    found = larger_size_tests([step])
    assert not found.held_at(step) and "against uniform nothing can be said" in found.statement(
        step
    )


def _step(size, tokens, p, *, low=0.01, flops=1e12, gains=(0.1, 0.1, 0.1)):
    """A confirmation with given probabilities by baseline."""
    world, runs = World(_problem(NAMES)), []
    for name in (RECOMMENDED, *p):
        for seed, gain in zip(SEEDS, gains, strict=True):
            result = world.run(world.problem.domains.uniform, seed)
            spec = replace(result.spec, size=size, tokens=tokens)
            value = 2.0 + seed / 1000 + (0.0 if name == RECOMMENDED else gain)
            runs.append(ConfirmedRun(name, value, replace(result, spec=spec, flops=flops)))
    pairs = {name: PairedGain("objective", 0.1, low, 0.2, value, 3) for name, value in p.items()}
    return Confirmation(tuple(runs), pairs)


def test_a_claim_holds_only_after_all_claims_are_counted():
    """Four claims, p = 0.02 each: alone they pass 0.05, corrected they are 0.08. Catches tests that
    are each taken by itself, and a control that takes part in the correction of the claims."""
    p = {"natural": 0.02, "uniform": 0.02, BEST: 0.001}
    steps = [_step("1M", 100, p), _step("2M", 100, p, flops=2e12)]
    found = larger_size_tests(steps)
    claims = {(c.size, c.baseline): c for c in found.claims}
    assert claims["1M", "natural"].corrected == pytest.approx(0.08)
    assert claims["1M", BEST].corrected == pytest.approx(0.002)
    assert not claims["1M", "natural"].held and "4 tests" in claims["1M", "natural"].judgment
    assert not found.held_at(steps[0])
    alone = larger_size_tests(steps[:1])
    assert alone.claims[0].corrected == pytest.approx(0.04) and alone.held_at(steps[0])
    assert "the claim held" in alone.statement(steps[0])


def test_a_tie_with_the_best_observed_breaks_no_claim_and_a_loss_is_a_failure():
    """Catches a claim that must beat what it was chosen from, and a loss that is called noise."""
    step = _step("1M", 100, {"natural": 0.001, "uniform": 0.001, BEST: 0.6})
    assert larger_size_tests([step]).held_at(step)
    worse = PairedGain("objective", -0.1, -0.2, -0.05, 0.99, 3)
    lost = replace(step, objective={**step.objective, "uniform": worse})
    assert "the claim failed" in larger_size_tests([lost]).statement(lost)
    assert not SizeClaim("1M", 1, "natural", worse, 0.01, 1).held  # whatever its probability


def test_a_trend_is_the_slope_of_each_seed_over_tenfold_compute():
    """By hand: gains 0.10, 0.12, 0.14 at 1e12 and 0.06, 0.06, 0.06 at 1e14 FLOPs fall by 0.02,
    0.03, 0.04 per tenfold. Mean -0.03, sd 0.01, t(0.95, 2) = 2.919986: half 2.92 x 0.01 / sqrt 3 =
    0.016859. Catches a slope per FLOP, a sign turned round, and seeds that are not kept apart."""
    p = {"natural": 0.01}
    small = _step("1M", 100, p, flops=1e12, gains=(0.10, 0.12, 0.14))
    large = _step("2M", 100, p, flops=1e14, gains=(0.06, 0.06, 0.06))
    (trend,) = larger_size_tests([large], own=small).trends
    assert trend.change.gain == pytest.approx(-0.03) and trend.sizes == 2
    half = 2.919986 * 0.01 / 3**0.5
    assert (trend.change.low, trend.change.high) == pytest.approx((-0.03 - half, -0.03 + half))
    assert trend.judgment == "shrinks with size"
    assert larger_size_tests([large]).trends == ()  # one size has no trend
    with pytest.raises(EvidenceError, match="each once"):
        larger_size_tests([large, large])


def test_verdict_and_summary_open_with_the_larger_sizes(study):
    """Catches a study whose verdict stays that of its own size when the claim fails above it."""
    (steps, lost), _ = confirmed(study, PART)
    larger = replace(study, transfer=larger_size_tests(steps, study.confirmation, lost))
    sure = study_answers(larger)["sure"]
    assert sure.startswith("Trained anew, another mixture is better: at 1M, over 3 seeds, it is b")
    told = "and worse than the best observed mixture by more than the noise for new seeds alone"
    assert f"{told}; at 0.6M, over 3" in sure
    (step,) = larger.transfer.steps
    noisy = {n: replace(pair, low=-1.0, high=1.0, p=0.5) for n, pair in step.objective.items()}
    failed = larger_size_tests([replace(step, objective=noisy)], study.confirmation)
    sure = study_answers(replace(study, transfer=failed))["sure"]
    assert sure.startswith("Not confirmed by training it anew: at 1M, over 3 seeds, it is within")
    assert "; at 0.6M, over 3 seeds, it is better than the natural mixture" in sure
    assert larger.proxies == study.proxies + 12
    made = study_summary(larger)
    (step,) = made["larger_sizes"]
    assert step["held"] and set(step["gains"]) == {"natural", "uniform", BEST}
    least = min(step["held_out"].values(), key=lambda gain: gain["gain"])
    told = study_answers(larger)["against"]
    assert f"by {-least['gain']:.3f} ({-least['high']:.3f} to {-least['low']:.3f})." in told
    bare = replace(larger, confirmation=replace(study.confirmation, targets={}))
    made = study_summary(bare)
    assert made["held_out"] == {} and least in made["larger_sizes"][0]["held_out"].values()
    assert set(made["trends"]) == {"natural", "uniform"}  # at both sizes
    assert study_summary(study)["larger_sizes"] == [] and study_summary(study)["trends"] == {}


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"sizes": [{"size": "1M", "tokens": 2_000_000}] * 2}, "1M with 2,000,000 tokens twice"),
        ({"sizes": [{"size": "1M", "tokens": 9_000}]}, "give at least"),
        ({"sizes": [{"size": "3M", "tokens": 2_000_000}]}, "did you mean"),
        ({"mixtures": {"natural": {"a": 1}}}, "'natural'"),
        ({"mixtures": {"best observed": {"a": 1}}}, "'best observed'"),
    ],
)
def test_sizes_and_names_that_cannot_be_are_refused(part, words):
    """Catches a mistake found after hours of training, and a baseline replaced in silence."""
    with pytest.raises((RecipeError, UnknownName), match=words):
        ConfirmPart.model_validate(part).check()
