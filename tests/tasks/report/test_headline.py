"""What a study says of itself: short, in one sense, and with counts that add up."""

import dataclasses
import json
import re
import shlex
from types import SimpleNamespace

import pytest
import synthetic_study
from larger_sizes import Trainer

from cuvee.flows.console import answer_lines, review_hint
from cuvee.flows.plan import repeated_run_sentences
from cuvee.flows.recipe.aim_parts import ConfirmPart
from cuvee.flows.study.study import _confirmed
from cuvee.mixtures.inference.crossed_intervals import ITEMS
from cuvee.mixtures.recommendation import Estimate
from cuvee.mixtures.runs.run_results import NO_COST, Failed, finished_runs, training_cost
from cuvee.mixtures.runs.run_spec import RunSpec, Stage
from cuvee.tasks.escape import escape_markdown
from cuvee.tasks.report.page import write_report
from cuvee.tasks.report.sections import headline
from cuvee.tasks.report.sections.findings import larger_sizes_finding
from cuvee.tasks.report.sections.gains import gain_blocks
from cuvee.tasks.report.sections.headline import NONE
from cuvee.tasks.study.answers import (
    QUESTIONS,
    cost_text,
    known_gains,
    short_shares,
    study_answers,
    study_grade,
)
from cuvee.tasks.study.finished import to_finished_study
from cuvee.tasks.study.study import Study
from cuvee.tasks.study.summary import study_summary
from cuvee.tasks.tracking.fields import study_fields, study_outcomes
from cuvee.tasks.validation.hypothesis_tests import larger_size_tests
from cuvee.tasks.validation.paired import Alone, Confirmation, PairedGain


def test_the_verdict_says_first_what_holds_now():
    """Catches `confirmed` and `do not use this yet` in one verdict, and a judgment that is written
    once for every baseline."""
    study = judged("weak: do not use this yet; the law ranks unseen mixtures poorly")
    sure = study_answers(study)["sure"]
    assert study_grade(study) == "confirmed"
    assert sure.startswith("Confirmed by training it anew: at 0.6M, over 3 seeds, it is better")
    assert "do not use" not in sure.lower()
    assert "The fit alone was weak: the law ranks unseen mixtures poorly." in sure
    assert sure.count("more than the noise") == 1 and study.confirmation.objective.keys() == {
        "natural",
        "uniform",
    }
    alone = dataclasses.replace(study, confirmation=None)
    assert study_grade(alone) == "do not use yet"
    assert study_answers(alone)["sure"].startswith(
        "Do not use this yet. The law ranks unseen mixtures poorly."
    )


def judged(verdict: str) -> Study:
    """The synthetic study with what its method said of itself."""
    study = synthetic_study.synthetic_study()
    ours = dataclasses.replace(study.recommendation, verdict=verdict)
    return dataclasses.replace(study, recommendation=ours)


STRONG = "strong: ready to be confirmed; predicted gain over natural 0.1450 [0.1250, 0.1650] bits"


def test_nothing_is_said_twice_on_the_first_screen():
    """Catches the wall: a verdict, figures and answers that each give the gains once more."""
    study = judged(STRONG)
    for one in (study, dataclasses.replace(study, confirmation=None)):
        said = [*study_answers(one).values(), *headline.headline_warnings(one)]
        natural = dict(known_gains(one)[1])["natural"]
        assert sum(text.count(f"{natural.mean:.3f}") for text in said) == 1
        numbers = re.findall(r"\d+\.\d{3,}", " ".join(said))
        assert len(numbers) == len(set(numbers)) >= 6
        assert not any(re.search(r"; against|: better|: worse|: within", text) for text in said)
        assert all(text.endswith(".") for text in study_answers(one).values())


def test_the_answers_tell_noise_harm_and_silence_apart():
    """Catches a sentence that says better of what is not, and a mixture that is passed over."""
    study = judged(STRONG)

    def confirmed(natural: PairedGain, **more: object) -> Study:
        gains = {"natural": natural}
        found = dataclasses.replace(study.confirmation, objective=gains, targets={}, **more)
        return dataclasses.replace(study, confirmation=found)

    noise = confirmed(PairedGain("objective", -0.01, -0.04, 0.02, 0.4, 3), unpaired=("uniform",))
    answers = study_answers(noise)
    assert study_grade(noise) == "not confirmed" and answers["sure"].startswith("Not confirmed")
    assert "it is within the noise of the natural mixture" in answers["sure"]
    assert "of the uniform mixture nothing can be said" in answers["sure"]
    assert (
        "worse than the natural mixture by 0.010 (-0.020 to 0.040, within the noise)"
        in (answers["against"])
    )
    worse = confirmed(PairedGain("objective", -0.002, -0.003, -0.001, 0.04, 3))
    answers = study_answers(worse)
    assert study_grade(worse) == "worse than another"
    assert answers["sure"].startswith("Trained anew, another mixture is better: at 0.6M")
    assert "worse than the natural mixture by 0.0020 (0.0010 to 0.0030)" in answers["against"]


def test_the_shares_of_many_domains_add_up_in_one_sentence():
    """Catches a first answer that lists forty domains, and one that loses the rest of them."""
    answer = study_answers(judged(STRONG))["recommended"]
    named = [float(share) for share in re.findall(r"([\d.]+)%", answer)]
    assert answer.startswith("Draw 36.0% of the training tokens from legal, 24.0% from encycl")
    assert "16.0% from 3 other domains" in answer
    assert len(named) == 6 and sum(named) == pytest.approx(100.0)
    alone = judged(STRONG)
    (stage,), zero = alone.recommendation.stages, (0.0,) * 6
    ours = dataclasses.replace(
        alone.recommendation,
        stages=(dataclasses.replace(stage, weights=(0.25, 0.75, *zero)),),
    )
    alone = dataclasses.replace(alone, recommendation=ours)
    assert study_answers(alone)["recommended"] == (
        "Draw 75.0% of the training tokens from legal, 25.0% from encyclopedia and nothing from "
        "6 other domains."
    )
    assert short_shares(alone) == "legal 75%, encyclopedia 25%"
    short = short_shares(judged(STRONG))
    assert short == "legal 36%, encyclopedia 24%, science 10%, manuals 8%, 4 more 22%"


def test_console_twin_record_and_approval_say_the_same_answers(tmp_path, quick_pictures):
    """Catches a place that words an answer of its own."""
    study = judged(STRONG)
    answers = study_answers(study)
    page, twin = write_report(study, tmp_path)
    assert study_summary(study)["answers"] == answers == to_finished_study(study, "r").answers
    told = study_fields(study)
    for question, answer in ((QUESTIONS[name], said) for name, said in answers.items()):
        marked = escape_markdown(answer)
        assert f"<dt>{question}</dt><dd>{answer}</dd>" in page.read_text()
        assert f"**{question}?** {marked}\n" in twin.read_text()
        assert f"**{question}.** {marked}\n" in told.description
        assert f"{question}? {answer}" in answer_lines(answers)
    kept = json.loads(json.dumps(answers, sort_keys=True))  # as a store keeps them
    assert [line.partition("?")[0] for line in answer_lines(kept)] == [*map(QUESTIONS.get, answers)]
    assert told.tags["cuvee.grade"] == "confirmed" and told.tags["cuvee.verdict"] == answers["sure"]


def test_counts_of_proxies_add_up():
    """Catches figures of the last command beside those of all, as if they were of one thing."""
    study = synthetic_study.synthetic_study()
    text = study_answers(study)["cost"]
    counts = re.search(r"^(\d+) proxies .* trained (\d+) of them; (\d+) were there", text)
    every, now, before = map(int, counts.groups())
    assert now + before == every == study.proxies
    assert "The last command took 7 min 24 s and" in text


def test_a_second_run_keeps_what_the_first_one_cost():
    """Catches the cost of the last command in the place of that of the evidence: a repetition, in
    which nothing is trained, would make the study look free."""
    first = synthetic_study.synthetic_study()
    assert first.cost is not None and first.cost.flops == pytest.approx(1.9e12 * (39 - 1))
    again = dataclasses.replace(first, trained_now=0, reused=39, minutes=0.1, call_cost=NO_COST)
    text = study_answers(again)["cost"]
    assert cost_text(first.cost) in text and "The last command took 6 s and" in text
    assert "of which 1 failed" in text and "trained 0 of them; 39 were there before." in text
    one, two = study_summary(first), study_summary(again)
    assert two["cost"]["evidence"] == one["cost"]["evidence"]
    assert two["cost"]["evidence"]["core_seconds"] == pytest.approx(25.5 * (39 - 1))
    assert two["cost"]["call"] == {"flops": 0, "tokens": 0, "core_seconds": 0, "minutes": 0.1}
    metrics = {point.name: point.value for point in study_fields(again).metrics}
    assert metrics["cost/evidence/flops"] == first.cost.flops and metrics["cost/call/flops"] == 0


def test_runs_that_nobody_trained_are_not_said_to_have_been(tmp_path):
    """Catches proxies for which the budget did not suffice, counted as trained before."""
    study = dataclasses.replace(synthetic_study.synthetic_study(), trained_now=30, reused=8)
    text = study_answers(study)["cost"]
    assert "trained 30 of them; 8 were there before and 1 was not trained." in text


def test_a_budget_that_ends_in_the_confirmation_loses_no_trained_proxy():
    """Catches proxies that were paid for and are in no count: three of the nine were trained, so
    that the last command cost more than all the evidence."""
    study = synthetic_study.synthetic_study()
    problem, part = study.problem, ConfirmPart(best_observed=False)
    recipe = SimpleNamespace(seed=0, confirm=part)

    class Broke:
        """Trainings whose budget ends after three runs."""

        budget = SimpleNamespace(reached="")

        def __call__(self, specs, title, names):
            train = Trainer(problem)
            lost = [Failed(spec, "not trained: the budget is spent") for spec in specs[3:]]
            self.budget.reached = "the budget is spent"
            return (*train(specs[:3]), *lost)

    found, outcomes = _confirmed(recipe, problem, study.recommendation, Broke())
    assert found is None and len(outcomes) == 9
    fresh = (*study.runs, *finished_runs(outcomes))
    call = training_cost(fresh)
    cut = dataclasses.replace(
        study,
        confirmation=None,
        inconclusive=outcomes,
        trained_now=len(fresh) + 1,
        call_cost=call,
        reused=0,
    )
    cost = study_summary(cut)["cost"]
    assert cost["evidence"]["flops"] >= cost["call"]["flops"] > study_runs_flops(study)
    assert (cut.proxies, len(cut.failed), cut.untried) == (39, 1 + 6, 6)
    assert "39 proxies" in study_answers(cut)["cost"] and "trained 33" in study_answers(cut)["cost"]
    assert cut.next_steps[0].startswith("raise `budget` and run again: 6 runs")
    assert len(list(study_outcomes(cut))) == cut.proxies


def study_runs_flops(study: Study) -> float:
    """FLOPs of a study's own runs, without its confirmation."""
    return sum(run.flops for run in study.runs)


def test_one_size_with_two_token_counts_is_named_with_both():
    """Catches `at 0.6M` said twice, of runs of 500,000 and of 1,000,000 tokens."""
    study = synthetic_study.synthetic_study()
    own = study.confirmation

    def longer(tokens: int, size: str = "0.6M") -> Confirmation:
        runs = tuple(
            dataclasses.replace(
                run,
                result=dataclasses.replace(
                    run.result,
                    spec=dataclasses.replace(run.result.spec, tokens=tokens, size=size),
                    flops=1e13,
                ),
            )
            for run in own.runs
        )
        return dataclasses.replace(own, runs=runs)

    def said(step: Confirmation) -> tuple[str, ...]:
        tested = dataclasses.replace(study, transfer=larger_size_tests([step], own))
        answers = study_answers(tested)
        where = known_gains(tested)[0]
        return answers["sure"], answers["against"], where, larger_sizes_finding(tested)

    sure, against, where, finding = said(longer(1_000_000))
    assert "at 0.6M and 1,000,000 tokens" in sure and "at 0.6M and 500,000 tokens" in sure
    assert against.startswith("At 0.6M and 1,000,000 tokens it is better")
    assert where == "trained anew at 0.6M and 1,000,000 tokens"
    assert "at 0.6M and 500,000 tokens and" in finding and "0.6M and 1,000,000 tokens" in finding
    assert not any("tokens" in text.split("The law")[0] for text in said(longer(1_000_000, "1M")))


def test_every_reason_of_a_weak_fit_is_told_after_a_confirmation():
    """Catches a fit that was weak for two reasons, of which one is passed over."""
    sure = study_answers(judged("weak: do not use this yet; one reason; another. "[:-1]))["sure"]
    assert "The fit alone was weak: one reason; another." in sure and ".." not in sure


def test_a_plan_says_why_it_has_more_runs_than_were_asked_for():
    """Catches `runs: 2` that trains eight without a word."""

    def spec(share: float, seed: int) -> RunSpec:
        stage = (Stage((share, 1 - share)),)
        return RunSpec(("a", "b"), ("x", "y"), stage, "0.3M", 41000, seed)

    anchors = [spec(share, seed) for share in (0.5, 0.7) for seed in range(3)]
    (line,) = repeated_run_sentences((spec(0.1, 0), spec(0.2, 0), *anchors))
    assert line.startswith("Of the 8 runs, 6 are of 2 mixtures that run more than once")
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


def test_answers_say_for_what_a_gain_holds():
    """Catches a gain for these items alone that reads as one for new items, and a target with few
    items that nobody hears of."""
    made = synthetic_study.synthetic_study()
    items = {"covers": ITEMS, "over_seeds": Estimate(0.1, 0.08, 0.12)}
    gain = PairedGain("objective", 0.1, 0.05, 0.15, 0.01, 3, **items)
    few = PairedGain("objective", 0.1, 0.05, 0.15, 0.01, 3, alone={"task/piqa": Alone.FEW})
    why = ", as fewer than 30 documents or items are known of task/piqa"
    for pair, said, because in ((gain, ITEMS, ""), (few, "new seeds alone", why)):
        found = dataclasses.replace(made.confirmation, objective={"natural": pair}, targets={})
        study = dataclasses.replace(made, confirmation=found)
        answers = study_answers(study)
        assert f"(90% intervals, for {said})." in answers["against"]
        assert f"by more than the noise for {said}." in answers["sure"]
        told = study_summary(study)["confirmation"]["natural"]
        assert told["covers"] == pair.covers
        assert told["why_alone"] == because.removeprefix(", as ")
        assert told["over_new_seeds"] == ([0.08, 0.12] if pair is gain else [0.05, 0.15])
        (_, table, told, *_) = gain_blocks(study)
        assert told.text == f"The gain in the objective is for {said}{because}."
        most = dataclasses.replace(few, alone={"task/piqa": Alone.MOST})
        worst = dataclasses.replace(found, objective={"natural": most})
        *_, caution = gain_blocks(dataclasses.replace(made, confirmation=worst))
        assert "a small gain in the objective is no evidence" in caution.text
        assert ("+0.0500 to +0.1500" if pair is gain else NONE) in table.rows[0]
