"""What weak evidence is told to do next, by recommendations of worlds as they come out."""

import dataclasses
import functools
import re
from pathlib import Path

import numpy as np
import pytest
from markupsafe import escape
from synthetic_study import synthetic_study

from cuvee.flows.plan_size import size_sentences
from cuvee.mixtures import worlds
from cuvee.mixtures.inference.screening import Screened
from cuvee.mixtures.loop import generator, search
from cuvee.mixtures.methods.mixing_laws import MixingLaws
from cuvee.mixtures.methods.regmix import RegMix
from cuvee.mixtures.methods.static import Static
from cuvee.mixtures.recommendation import BEYOND, Estimate
from cuvee.mixtures.units import whole_number
from cuvee.proxies import ladder
from cuvee.tasks.escape import escape_markdown
from cuvee.tasks.report.page import write_report
from cuvee.tasks.study import finished
from cuvee.tasks.study.answers import Grade, study_grade
from cuvee.tasks.study.next_steps import next_steps
from cuvee.tasks.study.study import Study
from cuvee.tasks.tracking.fields import study_description
from cuvee.tasks.validation.paired import PairedGain

WORLD = worlds.Noisy(world=worlds.Additive(size=4, count=3), sd=0.004)
LOUD = worlds.Noisy(world=WORLD.world, sd=0.4, spread=0.0)
TASK = worlds.world_problem(WORLD)


@functools.cache
def found(method, problem, world):
    return search(method, problem, world, 0)


def told(method, world, *, problem=TASK, first=None):
    """What a study of this world is told, by its first runs; each costs 10 s and 1e12 FLOPs."""
    answer, history = found(method, problem, world)
    answer = dataclasses.replace(answer, evidence=answer.evidence[:first])
    runs = [
        dataclasses.replace(run, seconds=7.0, scoring_seconds=3.0, flops=1e12) for run in history
    ]
    return answer, next_steps(answer, problem, runs)


def test_strong_evidence_is_told_nothing():
    """Catches advice that every study gets."""
    answer, steps = told(MixingLaws(runs=16, refits=10, folds=3), WORLD)
    assert answer.verdict.startswith("strong") and steps == ()


def test_noise_asks_for_longer_proxies_and_says_what_they_cost():
    """Catches advice without a field, a figure or a price: 22 runs of 10 s, twice as long."""
    answer, steps = told(MixingLaws(runs=16, refits=10, folds=3), LOUD)
    assert answer.verdict.startswith("weak")
    (longer,) = [step for step in steps if "proxy.tokens" in step]
    now, then = re.search(r"from (\S+) to (\S+),", longer).groups()
    assert whole_number(then) == 2 * whole_number(now)
    assert "7 min 20 s of one core" in longer and "4.4e+13 FLOPs" in longer


def test_too_few_mixtures_ask_for_more_runs():
    """Catches `runs` below the threshold that weak evidence is called by."""
    _, steps = told(MixingLaws(runs=16, refits=10, folds=3), LOUD, first=6)
    (more,) = [step for step in steps if "method.runs" in step]
    assert "from 16 to 17" in more and "2 min 50 s of one core" in more


def test_a_wide_interval_asks_for_more_runs_before_it_gives_up():
    """Catches `there is nothing to gain` where refits of few mixtures alone disagree: 12 of 16."""
    answer, history = found(MixingLaws(runs=16, refits=10, folds=3), TASK, WORLD)
    low = Estimate(0.1, -0.1, 0.3)
    unsure = dataclasses.replace(answer, gains=(("natural", low),), verdict="weak: ...")
    few = dataclasses.replace(unsure, evidence=answer.evidence[:12])
    (step,) = next_steps(few, TASK, history)
    assert "method.runs from 16 to 17" in step
    (step,) = next_steps(unsure, TASK, history)
    assert "nothing to gain over natural shares" in step


def test_no_repeats_ask_for_seeds_alone():
    """Catches a draft that nobody says how to complete: 2 anchors once more, twice."""
    answer, steps = told(MixingLaws(runs=16, seeds=1, refits=10, folds=3), WORLD)
    assert answer.verdict.startswith("draft")
    assert len(steps) == 1 and "method.seeds: 3, about 40 s of one core" in steps[0]


def test_tables_ask_for_rows():
    """Catches fields of a training that a study from tables does not have."""
    proxy = dataclasses.replace(TASK.proxy, size="table", tokens=1)
    problem = dataclasses.replace(TASK, proxy=proxy)
    _, steps = told(MixingLaws(runs=13, refits=10, folds=3), LOUD, problem=problem, first=6)
    assert any("add their rows to both tables: 16 in all" in step for step in steps)
    assert not any("proxy." in step or "method.runs" in step for step in steps)


@pytest.mark.parametrize(
    ("method", "tokens", "said"),
    [
        (RegMix(runs=2, laws=("kriging",)), 500_000, ["method.runs to 16"]),
        (RegMix(runs=8, laws=("kriging",)), 500_000, ["a good start: method.runs: 16"]),
        (RegMix(runs=16), 500_000, ["lightgbm alone"]),
        (RegMix(runs=16, laws=("kriging",)), 60_000, ["29 steps", "proxy.tokens to 205k"]),
        (RegMix(runs=16, laws=("kriging",)), 500_000, []),
        (Static(), 500_000, None),
    ],
)
def test_a_plan_says_whether_it_is_large_enough(method, tokens, said):
    """Catches advice for a study that is large enough, and none for one that is not."""
    plan = ladder.training_plan("0.6M", tokens, 4096)
    specs = method.ask(TASK, (), generator(0, 0))
    lines = size_sentences(Screened(method, 2.0, False), TASK, specs, plan)
    if said is None:
        assert lines == []
        return
    assert f"are {len({tuple(s.weights) for s in specs}) / 4:.1f} a domain" in lines[0]
    assert len(lines) == 1 + bool(said) and all(word in lines[-1] for word in said)
    assert np.all([line[0].isupper() for line in lines])


def test_a_finished_study_keeps_what_mends_it():
    """Catches `cuvee status` without the advice that the report gives, or with that of a test
    which a later one has overtaken."""
    answer, history = found(MixingLaws(runs=16, refits=10, folds=3), TASK, LOUD)
    study = Study("loud", "name: loud\n", TASK, answer, history)
    kept = finished.from_json(finished.to_finished_study(study, "digest").to_json())
    assert kept.next_steps == study.next_steps and kept.next_steps
    assert kept.grade == study_grade(study) == Grade.WEAK
    later = dataclasses.replace(kept, grade=str(Grade.CONFIRMED), next_steps=())
    assert (kept.told(later).grade, kept.told(later).next_steps) == (Grade.CONFIRMED, ())


def judged(study, *pairs):
    """A study whose fresh runs at its own size gave these gains over natural and uniform."""
    gains = {
        name: PairedGain("objective", gain, gain - 0.01, gain + 0.01, 0.1, 3)
        for name, gain in zip(("natural", "uniform"), pairs, strict=True)
    }
    return dataclasses.replace(
        study, confirmation=dataclasses.replace(study.confirmation, objective=gains)
    )


def test_fresh_runs_that_do_not_confirm_say_what_to_do_and_what_it_costs():
    """Catches a strong fit that fresh runs did not confirm and that is told nothing; a price of all
    runs, where only new seeds are trained (9 of 25.5 s); and advice that a confirmed one gets."""
    study = synthetic_study()
    assert judged(study, 0.1, 0.1).next_steps == ()
    seeds, larger, *_ = judged(study, 0.1, 0.005).next_steps
    assert seeds.startswith(
        "raise confirm.seeds from 3 to 6, about 3 min 50 s of one core and 1.7e"
    )
    assert "only the new seeds" in seeds and "confirm.sizes" in larger and "cuvee confirm" in larger
    worse, *_ = judged(study, 0.005, -0.1).next_steps
    assert "use the uniform mixture, which fresh runs at 0.6M found better" in worse


def test_report_twin_and_record_say_what_to_do_next(tmp_path, quick_pictures):
    """Catches steps that only the console prints, and a heading without a step below it."""
    study = judged(synthetic_study(), 0.1, 0.005)
    page, twin = write_report(study, tmp_path)
    told = study_description(study)
    for step in study.next_steps[:2]:
        assert f"<li>{escape(step)}</li>" in page.read_text()
        assert f"- {escape_markdown(step)}\n" in twin.read_text()
        assert f"- {escape_markdown(step)}\n" in told
    assert twin.read_text().index("At what cost") < twin.read_text().index("Next:")
    sure = judged(study, 0.1, 0.1)
    page, twin = write_report(sure, tmp_path)
    assert ">Next<" not in page.read_text() and "Next:" not in twin.read_text()
    assert "**Next.**" not in study_description(sure)


def test_the_page_on_weak_evidence_names_the_reasons_that_are_given():
    """Catches a page that lists a warning as a reason, with advice that is never printed."""
    page = (Path(__file__).parents[3] / "docs/how-to/weak-evidence.md").read_text()
    reasons = [line.split(" | ")[0].strip("| ") for line in page.splitlines() if line[:2] == "| "]
    assert BEYOND in reasons
    assert not any("beyond the mixtures tried" in reason for reason in reasons)
