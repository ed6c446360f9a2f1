"""The grade of evidence: strong, draft or weak, each reason by itself, on one real answer."""

import dataclasses

import numpy as np
import pytest
from contract_parts import PROBLEM, WORLD

from cuvee.mixtures.inference import diagnostics
from cuvee.mixtures.inference.evidence_grade import grade_evidence, noisy_targets
from cuvee.mixtures.loop import search
from cuvee.mixtures.methods.mixing_laws import MixingLaws
from cuvee.mixtures.recommendation import BEYOND, Estimate
from cuvee.mixtures.runs.run_spec import Stage


@pytest.fixture(scope="module")
def answer():
    """An answer whose evidence is strong, without its grade, and the mixtures it rests on."""
    found, history = search(MixingLaws(runs=16, refits=10, seeds=3, folds=3), PROBLEM, WORLD, 0)
    draft = dataclasses.replace(found, verdict="", warnings=())
    return draft, np.array([run.spec.weights for run in history])


def graded(answer, foreign=0, W=None, **fields):
    draft, every = answer
    changed = dataclasses.replace(draft, **fields)
    return grade_evidence(changed, PROBLEM, every if W is None else W, foreign)


def gains(draft, natural):
    return tuple((n, natural if n == "natural" else gain) for n, gain in draft.gains)


def test_good_evidence_is_strong_and_says_how_much(answer):
    """Catches a grade that is never given, and an interval whose ends are told the wrong way."""
    found = graded(answer, gains=gains(answer[0], Estimate(0.2, 0.1, 0.3)))
    assert found.verdict == (
        "strong: ready to be confirmed; predicted gain over natural 0.2000 [0.1000, 0.3000] bits "
        "per byte"
    )
    assert not [line for line in found.warnings if "left out" in line or "failed" in line]


def test_a_gain_that_may_be_nothing_or_noise_is_weak(answer):
    """By hand: the noise of a pair of runs is 1.645 x sqrt(2) = 2.326 deviations over seeds.
    Catches a grade by the mean alone, and noise of one run for that of a difference."""
    draft, _ = answer
    found = graded(answer, gains=gains(draft, Estimate(0.2, 0.0, 0.3)))
    assert found.verdict.startswith("weak") and "may be nothing" in found.verdict
    (noise,) = (n for n in draft.noise if n.target == "objective")
    for times, word in ((2.2, "weak"), (2.4, "strong")):
        gain = Estimate(times * noise.seeds, 1e-4, 1.0)
        found = graded(answer, gains=gains(draft, gain))
        assert found.verdict.startswith(word)
    assert graded(answer, noise=()).verdict.startswith("draft: no mixture was run with two seeds")


def test_a_law_that_ranks_poorly_and_few_mixtures_are_weak(answer):
    """Thresholds of 0.6 and of 2 mixtures a domain; catches a threshold that counts runs or is
    passed by what just misses it, and one that looks at a law that was not chosen."""
    draft, W = answer

    def ranked(value):
        laws = (dataclasses.replace(law, spearman=value) for law in draft.laws)
        return graded(answer, laws=tuple(laws)).verdict

    assert ranked(0.6).startswith("strong")
    assert ranked(0.59).startswith("weak") and "wanted 0.6" in ranked(0.59)
    distinct = np.unique(W, axis=0)
    assert graded(answer, W=distinct[:8]).verdict.startswith("strong")
    found = graded(answer, W=np.vstack([distinct[:7]] * 2)).verdict
    assert found == "weak: do not use this yet; 7 distinct mixtures for 4 domains, wanted 8"


def test_warnings_say_what_else_a_reader_must_know(answer):
    """Catches a warning that comes always or never: of runs that were left out or failed, of a
    point beyond the mixtures tried, of a law that leaves what scores can be."""
    _, W = answer
    edge = W[diagnostics.leverage(W, W).argmax()]  # a run itself lies not beyond the runs
    for point in (W.mean(axis=0), edge):
        inside = graded(answer, stages=(Stage(tuple(point)),))
        assert not [line for line in inside.warnings if "beyond the mixtures tried" in line]
    outside = graded(answer, stages=(Stage((0.0, 0.0, 0.0, 1.0)),), W=0.5 * W + 0.125)
    assert [line for line in outside.warnings if "beyond the mixtures tried" in line]
    found = graded(answer, foreign=2, failed=3, warnings=(f"{BEYOND}: cut",))
    assert (
        "2 finished runs were left out: their data, proxy or scoring is another" in found.warnings
    )
    assert "3 runs failed and are not part of the evidence" in found.warnings
    assert found.verdict == f"weak: do not use this yet; {BEYOND}"


def test_noisy_targets_are_those_of_the_objective_below_the_ratio(answer):
    """Catches a warning of a target that nobody optimizes, or of every target that is."""
    draft, _ = answer
    noise = [n for n in draft.noise if n.target != "objective"]
    first, other = (n.target for n in noise[:2])
    just_above = 1.01 * max(n.ratio for n in noise)
    (line,) = noisy_targets(noise, (first,), just_above)
    assert first in line and other not in line
    assert noisy_targets(noise, (first, other), 0.99 * min(n.ratio for n in noise)) == ()
