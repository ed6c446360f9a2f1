"""What a study says of itself: short, in one sense, and with counts that add up."""

import dataclasses
import re
import shlex

import pytest
import synthetic_study

from cuvee.flows.console import review_hint
from cuvee.flows.plan import repeated_run_sentences
from cuvee.mixtures.runs import NO_COST, RunSpec, Stage
from cuvee.tasks.report.sections import headline
from cuvee.tasks.study.study import study_summary
from cuvee.tasks.tracking import fields


def test_the_verdict_says_first_what_holds_now():
    """Catches `confirmed` and `do not use this yet` in one verdict, and a judgment that is written
    once for every baseline."""
    study = synthetic_study.synthetic_study()
    weak = "weak: do not use this yet; the law ranks unseen mixtures poorly"
    object.__setattr__(study.recommendation, "verdict", weak)
    first, *_ = study.verdict.split(". ")
    assert re.match("(not )?confirmed at proxy scale: ", first)
    assert "do not use" not in study.verdict
    assert study.verdict.endswith("The fit alone was weak: the law ranks unseen mixtures poorly")
    judgments = [pair.judgment for pair in study.confirmation.objective.values()]
    assert all(study.verdict.count(judgment) == 1 for judgment in judgments)
    alone = synthetic_study.synthetic_study(confirmed=False)
    object.__setattr__(alone.recommendation, "verdict", weak)
    assert alone.verdict == weak


def test_counts_of_proxies_add_up():
    """Catches figures of the last command beside those of all, as if they were of one thing."""
    study = synthetic_study.synthetic_study()
    text = " ".join(answer for _, answer in headline.headline_answers(study))
    now, before = map(
        int, re.search(r"(\d+) trained by the last command, (\d+) before", text).groups()
    )
    assert now + before == study.proxies
    assert "the last command took 7.4 minutes" in text


def test_a_second_run_keeps_what_the_first_one_cost():
    """Catches the cost of the last command in the place of that of the evidence: a repetition, in
    which nothing is trained, would make the study look free."""
    first = synthetic_study.synthetic_study()
    assert first.cost is not None and first.cost.flops == pytest.approx(1.9e12 * (39 - 1))
    again = dataclasses.replace(first, trained_now=0, reused=39, minutes=0.1, call_cost=NO_COST)
    text = dict(headline.headline_answers(again))["At what cost"]
    assert headline.cost_text(first.cost) in text and "the last command took 0.1 minutes" in text
    assert "0 trained by the last command, 39 before it, 1 of them failed" in text
    one, two = study_summary(first), study_summary(again)
    assert two["cost"]["evidence"] == one["cost"]["evidence"]
    assert two["cost"]["evidence"]["core_seconds"] == pytest.approx(25.5 * (39 - 1))
    assert two["cost"]["call"] == {"flops": 0, "tokens": 0, "core_seconds": 0, "minutes": 0.1}
    metrics = {point.name: point.value for point in fields.study_fields(again).metrics}
    assert metrics["cost/evidence/flops"] == first.cost.flops and metrics["cost/call/flops"] == 0


def test_runs_that_nobody_trained_are_not_said_to_have_been(tmp_path):
    """Catches proxies for which the budget did not suffice, counted as trained before."""
    study = dataclasses.replace(synthetic_study.synthetic_study(), trained_now=30, reused=8)
    text = dict(headline.headline_answers(study))["At what cost"]
    assert "30 trained by the last command, 8 before it, 1 not trained" in text


def test_a_plan_says_why_it_has_more_runs_than_were_asked_for():
    """Catches `runs: 2` that trains eight without a word."""

    def spec(share: float, seed: int) -> RunSpec:
        stage = (Stage((share, 1 - share)),)
        return RunSpec(("a", "b"), ("x", "y"), stage, "0.3M", 41000, seed)

    anchors = [spec(share, seed) for share in (0.5, 0.7) for seed in range(3)]
    (line,) = repeated_run_sentences((spec(0.1, 0), spec(0.2, 0), *anchors))
    assert line.startswith("Of the 8 runs, 6 repeat 2 mixtures over seeds")
    assert repeated_run_sentences((spec(0.1, 0), spec(0.2, 0))) == []


def test_the_hint_to_open_the_record_works_when_it_is_typed(tmp_path, monkeypatch):
    """Catches `cuvee review` for a record that lies in another home, or on a server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUVEE_HOME", raising=False)
    for home, options in ((".cuvee", []), ("my home", ["--home", str(tmp_path / "my home")])):
        record = tmp_path / home / "mlflow"
        record.mkdir(parents=True)
        typed = review_hint(record).removeprefix(" (open it with: ").removesuffix(")")
        assert shlex.split(typed) == ["cuvee", "review", *options]
    assert review_hint("http://127.0.0.1:4998") == ""
