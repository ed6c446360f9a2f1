"""Gains on targets by which nothing was chosen: which they are, and that every page says them."""

from dataclasses import replace

import pytest
from synthetic_study import synthetic_study

from cuvee.flows.recipe.load import parse
from cuvee.tasks.report.page import report_sections
from cuvee.tasks.report.sections.headline import headline_warnings
from cuvee.tasks.study.answers import study_answers
from cuvee.tasks.study.audits import held_out_gains, held_out_targets
from cuvee.tasks.study.summary import study_summary
from cuvee.tasks.tracking.fields import study_fields

NOT_SOUGHT = "evaluation: {audit: {longest_match: false}}\n"
TITLE = "Does the score mean what it says?"


def test_held_out_is_what_the_objective_does_not_read():
    """Catches a target that was searched among those that were not, and a recipe's list that is
    ignored, or `[]` that means all."""
    study = synthetic_study()
    every = held_out_targets(study)
    assert len(every) == 10 and not set(every) & set(study.problem.objective.targets)
    named = replace(study, held_out=("task/facts", "domain/news"))
    assert held_out_targets(named) == ("domain/news", "task/facts")
    assert held_out_targets(replace(study, held_out=())) == ()


def test_the_gain_on_them_is_the_mean_of_differences_paired_by_seed():
    """Catches the sign turned round, a sum in place of a mean, and pairs by position: by hand from
    the runs, seed by seed."""
    study = synthetic_study()
    targets = ("task/facts", "domain/news")
    scores = {
        (run.mixture, run.result.spec.seed): sum(run.result.scores[t].value for t in targets) / 2
        for run in study.confirmation.runs
    }
    seeds = sorted({seed for _, seed in scores})
    by_hand = [scores["natural", seed] - scores["recommended", seed] for seed in seeds]
    found = held_out_gains(study.confirmation, targets)["natural"]
    assert found.gain == pytest.approx(sum(by_hand) / len(by_hand)) and found.n == 3
    assert found.low < found.gain < found.high


def test_answers_summary_record_and_report_say_it_alike():
    """Catches a headline that is silent where held-out targets lose what the objective gains, and
    one that speaks of held-out targets where there are none or nothing was trained anew."""
    study = synthetic_study()
    gain = held_out_gains(study.confirmation, held_out_targets(study))["natural"]
    text = study_answers(study)["against"]
    said = "In held-out targets worse than natural by 0.044 "
    assert gain.high < 0 and f"{said}(0.029 to 0.059)." in text
    assert any(
        "the natural mixture is better by" in warning for warning in headline_warnings(study)
    )
    assert study_summary(study)["held_out"]["natural"]["gain"] == gain.gain
    metrics = {m.name: m.value for m in study_fields(study).metrics}
    assert metrics["held_out_gain/natural/low"] == gain.low
    (section,) = (s for s in report_sections(study) if s.title == TITLE)
    first, table = section.blocks[0], section.blocks[1]
    assert "10" in first.text and table.rows[0][:2] == ("mean of 10", "-0.044 (-0.059 to -0.029)")
    assert [row[0] for row in table.rows[1:]] == list(held_out_targets(study))
    untold = replace(study.confirmation, targets={})
    for change in ({"held_out": ()}, {"confirmation": None}, {"confirmation": untold}):
        silent = replace(study, **change)
        assert "held-out target" not in study_answers(silent)["against"]
        assert not any("held-out" in warning for warning in headline_warnings(silent))
        assert study_summary(silent)["held_out"] == {}
        assert TITLE not in [s.title for s in report_sections(silent)]


def test_what_is_held_out_moves_no_digest():
    """Catches a recipe whose finished study is lost because another table is asked of it; and one
    that keeps its digest though detectors are asked for, which train every run anew."""
    text = (
        "name: a\ncorpus: {domains: {x: {path: x}, y: {path: y}}}\nfull_scale: {tokens: 1M}\n"
        "objective: {name: mean, weights: {domain/x: 1}}\nmethod: {name: regmix, runs: 8}\n"
    )
    asked = parse(text + "evaluation: {held_out_targets: [domain/y]}\n")
    assert asked.digest == parse(text).digest and asked.evaluation.held_out_targets == ["domain/y"]
    assert parse(text + NOT_SOUGHT).digest == asked.digest
    for moved in ("heldout_tokens: 9k", "audit: {detectors: [loss]}"):
        assert parse(f"{text}evaluation: {{{moved}}}\n").digest != asked.digest


def test_why_nothing_is_told_of_early_ranking_is_the_reason():
    """Catches one reason given for another: too few mixtures where no target is scored on the way
    of all runs, or runs share no point; and the heading of a table that is not there."""
    study = synthetic_study()

    def said(points):
        runs = (replace(run, points=points(i)) for i, run in enumerate(study.runs))
        (found,) = (
            block.text
            for section in report_sections(replace(study, history=tuple(runs)))
            for block in section.blocks
            if "arly" in getattr(block, "text", "") and section.title == TITLE
        )
        return found

    few = said(lambda _: ((100, {"domain/news": 1.0}),))
    assert few.startswith("How early") and "mixtures share two seeds, and it takes 8" in few
    for points in (lambda i: ((100 + i, {"domain/news": 1.0}),), lambda i: ((100, {f"{i}": 1.0}),)):
        assert "at no point on their way were all runs scored on one target" in said(points)
