"""Trials of answers: averaged trajectories, paired gains, alarms, and the baselines to beat."""

import dataclasses

import numpy as np
import pytest

from cuvee.mixtures import simplex, worlds
from cuvee.mixtures.constraints import constrain
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import EvidenceError, RecipeError, UnknownName
from cuvee.mixtures.inference.paired_trial import (
    Answer,
    baseline_specs,
    conclude_trial,
    student_interval,
    trial_specs,
)
from cuvee.mixtures.inference.weight_warnings import convert_shares, unit_warnings, weight_warnings
from cuvee.mixtures.loop import search
from cuvee.mixtures.methods import controlled
from cuvee.mixtures.methods.aioli import Aioli
from cuvee.mixtures.methods.doremi import DoReMi
from cuvee.mixtures.methods.odm import Odm
from cuvee.mixtures.methods.static import Static, unimax
from cuvee.mixtures.registry import build
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.mixtures.runs.run_spec import Stage

WORLD = worlds.Noisy(world=worlds.Learning(size=4), sd=0.003)
TASK = worlds.world_problem(WORLD)


def domain_set(bytes_per_token=(4, 4, 4, 4, 4), documents=(1, 1, 1, 1, 1)):
    return DomainSet(
        tuple(
            Domain(f"d{i}", 1000, 1000 * b, f"id{i}", documents=n)
            for i, (b, n) in enumerate(zip(bytes_per_token, documents, strict=True))
        )
    )


def controlled_run(trajectory, tokens=100):
    spec = Aioli().seeded(TASK, build("controller", "exp3"))[0]
    return RunResult(spec, {}, trajectory=trajectory, tokens=(tokens, 0, 0, 0))


def test_a_trajectory_is_averaged_over_tokens():
    """Not over its points: 10 tokens at one corner, 90 at another; in two stages 10 + 40 and 50."""
    run = controlled_run(((0, (1.0, 0.0, 0.0, 0.0)), (10, (0.0, 1.0, 0.0, 0.0))))
    assert controlled.mean_weights(run, 1)[0] == pytest.approx([0.1, 0.9, 0, 0])
    halves = np.array([[0.2, 0.8, 0, 0], [0, 1, 0, 0]])
    assert controlled.mean_weights(run, 2) == pytest.approx(halves)
    with pytest.raises(EvidenceError, match="no trajectory"):
        controlled.mean_weights(controlled_run(()), 1)


def test_an_answer_in_stages_is_tried_in_stages():
    """A schedule: its mean is what a fixed mixture would be, and its trial trains the stages."""
    found, history = search(Odm(seeds=2, trials=2, stages=3), TASK, WORLD, 0)
    fixed, _ = search(Odm(seeds=2, trials=2), TASK, WORLD, 0)
    assert len(found.stages) == 3 and found.weights == pytest.approx(fixed.weights)
    tried = [run.spec for run in history if len(run.spec.stages) == 3]
    assert [spec.stages for spec in tried] == [found.stages] * 2
    assert found.trajectory and len(fixed.trajectory) == len(found.trajectory)


def test_an_answer_keeps_the_constraints_and_says_so():
    capped = constrain(TASK.domains, full_tokens=1, bounds={"a3": (0.6, 1.0)})
    task = dataclasses.replace(TASK, constraints=capped)
    found, _ = search(Odm(seeds=2, trials=2), task, WORLD, 0)
    assert capped.satisfied(found.weights) and found.active
    assert any("break a constraint" in text for text in found.warnings)


def test_gains_are_paired_by_seed():
    """A shift that seeds share must not widen the interval; catches differences of means."""

    def evaluate(specs):
        runs = WORLD(specs)
        shifted = []
        for run in runs:
            scores = {
                t: Score(s.value + 10.0 * run.spec.seed, 0.0, 1) for t, s in run.scores.items()
            }
            shifted.append(dataclasses.replace(run, scores=scores))
        return shifted

    found, history = search(Odm(seeds=2, trials=3), TASK, evaluate, 0)
    gain = dict(found.gains)["uniform"]
    levels = {}
    for run in history:
        if not run.spec.controller:
            level = np.mean([s.value for s in run.scores.values()])
            levels[tuple(np.round(run.spec.weights, 6)), run.spec.seed] = level
    ours, uniform = (tuple(np.round(w, 6)) for w in (found.weights, TASK.domains.uniform))
    pairs = [levels[uniform, s] - levels[ours, s] for s in range(3)]
    assert gain.mean == pytest.approx(np.mean(pairs)) and gain.high - gain.low < 0.1
    own = found.candidate("recommended").objective
    assert own.high - own.low > 10  # over seeds it is wide, and says so


def test_students_interval_by_hand():
    """t(0.95, 2) = 2.919986; the mean of 1, 2, 3 has a standard error of 1 / sqrt(3)."""
    found = student_interval(np.array([1.0, 2.0, 3.0]))
    assert found.mean == 2.0 and found.high == pytest.approx(2 + 2.919986 / 3**0.5)
    assert student_interval(np.array([4.0])).low == 4.0


def test_alarms_by_hand():
    """Each alarm alone; catches a threshold read the wrong way round."""
    domains = domain_set()
    even = np.full(5, 0.2)
    calm = np.array([even, even])
    assert weight_warnings(domains, even, calm, calm) == ()
    hot = np.array([[0.92, 0.02, 0.02, 0.02, 0.02]] * 2)
    assert [text.split(":")[0] for text in weight_warnings(domains, even, hot, calm)] == [
        "one-hot weights",
        "entropy collapse",
    ]
    fallen = np.array([even, [0.96, 0.01, 0.01, 0.01, 0.01]])
    (collapse,) = weight_warnings(domains, even, calm, fallen)
    # 0.96 ln 0.96 + 4 x 0.01 ln 0.01 = -0.2234, of which exp is 1.2503
    assert collapse.startswith("entropy collapse") and "1.3 of 5" in collapse
    apart = np.array([[0.4, 0.15, 0.15, 0.15, 0.15], [0.1, 0.225, 0.225, 0.225, 0.225]])
    (text,) = weight_warnings(domains, even, apart, calm)
    assert text == "seeds disagree: the share of d0 is between 10.0% and 40.0%"


def test_weights_that_follow_the_tokenizer_alarm():
    """Shares that fall with bytes per token alarm; the same shares over even text do not."""
    falling = np.array([[0.4, 0.25, 0.15, 0.12, 0.08]] * 2)
    even = np.full(5, 0.2)
    (text,) = weight_warnings(domain_set((2, 3, 4, 5, 6)), even, falling, falling)
    assert text.startswith("weights follow the tokenizer") and "-1.00" in text
    assert weight_warnings(domain_set(), even, falling, falling) == ()


def test_shares_are_converted_by_hand():
    """Half of the tokens at 4 and half at 12 bytes per token are a quarter and three quarters."""
    domains = DomainSet(
        (
            Domain("a", 1000, 4000, "x", documents=10),
            Domain("b", 1000, 12000, "y", documents=10),
        )
    )
    assert convert_shares(domains, np.array([0.5, 0.5]), "bytes") == pytest.approx([0.25, 0.75])
    assert unit_warnings(domains, np.array([0.5, 0.5])) == (
        "these shares of tokens are other shares of bytes: a 25.0%, b 75.0%",
    )
    with pytest.raises(RecipeError, match="bytes or documents"):
        convert_shares(domains, np.array([0.5, 0.5]), "words")


def test_unimax_by_hand():
    """Caps 4 x (10, 100, 1000) = 40, 400, 4000 and a budget of 1000: 40, then 480 each way is
    above 400, so 400 and the rest, 560. Catches caps that are ignored or a budget that is lost."""
    sizes = (1000, 10, 100)
    domains = DomainSet(tuple(Domain(f"d{n}", n, n, f"i{n}") for n in sizes))
    assert unimax(domains, 1000, 4.0) == pytest.approx(np.array([560, 40, 400]) / 1000)
    assert unimax(domains, 10_000, 4.0) == pytest.approx(np.array(sizes) / 1110)
    assert unimax(domains, 15, 4.0) == pytest.approx(np.full(3, 1 / 3))


def test_static_runs_every_baseline_and_recommends_the_best_measured():
    found, history = search(Static(trials=3), TASK, WORLD, 0)
    assert len(history) == 3 * 3  # here unimax is uniform, to the last digit: not a run more
    values = {c.name: c.objective.mean for c in found.candidates}
    assert set(values) == {"recommended", "natural", "uniform", "temperature", "unimax"}
    assert values["recommended"] == min(values.values())
    named, _ = search(Static(choose="temperature", trials=2), TASK, WORLD, 0)
    assert named.weights == pytest.approx(simplex.temper(TASK.domains.natural, 0.5))
    with pytest.raises(UnknownName, match="temperature"):
        Static(choose="temprature")


def test_the_natural_mixture_is_no_gain_over_itself():
    found, _ = search(Static(choose="natural", trials=2), TASK, WORLD, 0)
    assert dict(found.gains)["natural"].mean == 0.0
    assert found.verdict == (
        "weak: the answer is the natural mixture itself; nothing is gained by it"
    )


def test_one_seed_gives_no_interval_and_is_refused():
    for make in (lambda: DoReMi(seeds=1), lambda: Odm(trials=1), lambda: Static(trials=1)):
        with pytest.raises(RecipeError, match="seeds >= 2 and trials >= 2"):
            make()


SHARES = (0.4, 0.3, 0.2, 0.1)


def concluded(gains, samples=((0.4, 0.3, 0.2, 0.1), (0.4, 0.3, 0.2, 0.1)), alarms=()):
    """A trial of an answer that gains so much over natural and uniform, seed by seed."""

    def scored(spec, value):
        return RunResult(spec, {name: Score(value, 0.0, 1) for name in TASK.targets})

    answer = Answer(np.array(samples), (Stage(SHARES),), alarms=alarms)
    specs = trial_specs(TASK, answer.stages, len(gains))
    history = [scored(spec, 2.0 - gain) for spec, gain in zip(specs, gains, strict=True)]
    history += [scored(spec, 2.0) for spec in baseline_specs(TASK, 3)]
    return conclude_trial(Odm(seeds=2, trials=3), TASK, tuple(history), answer)


def test_the_verdict_follows_the_interval_of_the_paired_gain():
    """By hand, t(0.95, 2) = 2.92: 0.11 +- 0.0169 and 0.0233 +- 0.1265. Catches a gain that is
    strong by its mean, or by the wrong end of its interval, and an end that is told twice."""
    assert concluded((0.10, 0.11, 0.12)).verdict == (
        "strong: ready to be confirmed; measured gain over natural 0.1100 [0.0931, 0.1269] bits "
        "per byte"
    )
    assert concluded((0.10, -0.05, 0.02)).verdict == (
        "weak: do not use this yet; the measured gain over natural 0.0233 [-0.1032, 0.1499] may "
        "be nothing"
    )


def test_an_alarm_outweighs_a_gain_and_one_pair_is_none():
    """Catches a verdict by the gain where the answer itself is in doubt, and an interval from one
    pair of runs, which has no width."""
    assert concluded((0.10, 0.11, 0.12), alarms=("seeds disagree",)).verdict == (
        "weak: do not use this yet; seeds disagree"
    )
    found = concluded((0.10,))
    assert found.verdict == "draft: the trial has fewer than two pairs of runs against natural"
    assert "fewer than two pairs of runs against the uniform mixture" in found.warnings


def test_intervals_of_shares_hold_the_answer_and_are_shares():
    """Catches Student's interval of (0.9, 0.1), which is -2.0 to 3.0, and one that leaves out the
    answer itself; one answer has none, and says so."""
    apart = concluded((0.10, 0.11, 0.12), samples=((0.9, 0.1, 0, 0), (0.1, 0.9, 0, 0)))
    assert apart.intervals == ((0.0, 1.0), (0.0, 1.0), (0.0, 0.2), (0.0, 0.1))
    lines = "one answer only: the shares have no interval"
    assert lines not in apart.warnings
    assert lines in concluded((0.10, 0.11, 0.12), samples=(SHARES,)).warnings
