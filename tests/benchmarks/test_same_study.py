"""Two homes of one study are the same, though each was trained on another clock."""

import dataclasses

import same_study
from synthetic_study import synthetic_study

from cuvee.tasks.study.study import Study
from cuvee.tasks.study.summary import study_summary
from cuvee.tasks.tracking.fields import study_fields
from cuvee.tasks.validation.paired import PairedGain


def places(study: Study) -> dict[str, object]:
    """What a home says of a study: its summary, and the tags of its record."""
    tags = study_fields(study).tags
    told = {f"record/study/tags/{name}": value for name, value in tags.items()}
    return dict(same_study.leaves(study_summary(study), "summary")) | told


def slower(study: Study) -> Study:
    """The same study on a machine that took twice as long for everything."""

    def late(run):
        return dataclasses.replace(run, seconds=2 * run.seconds) if hasattr(run, "seconds") else run

    fresh = [dataclasses.replace(run, result=late(run.result)) for run in study.confirmation.runs]
    return dataclasses.replace(
        study,
        history=tuple(map(late, study.history)),
        confirmation=dataclasses.replace(study.confirmation, runs=tuple(fresh)),
        minutes=2 * study.minutes,
    )


def test_words_that_tell_seconds_may_differ_and_no_others(capsys):
    """Catches two homes that differ because one machine was slower, in the answer on the cost, its
    tag or the price of what to do next; and an answer that changed and is excused."""
    study = synthetic_study()
    close = {"natural": PairedGain("objective", 0.005, -0.005, 0.015, 0.2, 3)}
    unsure = dataclasses.replace(study.confirmation, objective=close, targets={})
    study = dataclasses.replace(study, confirmation=unsure)
    one, other = places(study), places(slower(study))
    assert one["summary/next_steps/0"] != other["summary/next_steps/0"]
    assert one["record/study/tags/cuvee.cost"] != other["record/study/tags/cuvee.cost"]
    assert same_study.compare(one, other) == []
    wrong = other | {"summary/answers/sure": "Perhaps."}
    assert same_study.compare(one, wrong) == ["summary/answers/sure"]
