"""Forgetting: changes against the checkpoint, worked by hand, and where they are told."""

import dataclasses
import json

import pytest
from synthetic_study import NAMES, synthetic_study

from cuvee.tasks.report.sections.forgetting import forgetting_blocks
from cuvee.tasks.report.sections.headline import headline_warnings
from cuvee.tasks.study.answers import study_answers
from cuvee.tasks.study.forgetting import (
    MEAN,
    ContinualStart,
    StartCheckpoint,
    changes_above_floor,
    worst_change,
)
from cuvee.tasks.study.summary import study_summary
from cuvee.tasks.tracking.fields import study_fields
from cuvee.tasks.validation.paired import ConfirmedRun, paired_confirmation


def hand_made():
    """A synthetic study whose two old domains scored 1.0 and 2.0 in the checkpoint.

    Fresh runs of the recommended mixture give 1.1 and 1.3 on the first, 1.9 and 1.9 on the second.
    """
    study = synthetic_study(failures=0)
    targets = study.problem.targets
    first, second = (targets.index(f"domain/{name}") for name in NAMES[:2])
    runs = []
    for i, run in enumerate(study.confirmation.runs):
        seed = run.result.spec.seed
        if seed == 103:
            continue
        scores = dict(run.result.scores)
        if run.mixture == "recommended":
            for m, values in ((first, (1.1, 1.3)), (second, (1.9, 1.9))):
                old = scores[targets[m]]
                scores[targets[m]] = dataclasses.replace(old, value=values[seed - 101])
        result = dataclasses.replace(run.result, scores=scores)
        runs.append(ConfirmedRun(run.mixture, run.objective + i, result))
    before = {**dict.fromkeys(targets, 5.0), targets[first]: 1.0, targets[second]: 2.0}
    return dataclasses.replace(
        study,
        confirmation=paired_confirmation(runs, targets, objective=study.problem.objective),
        continual=ContinualStart(
            StartCheckpoint("c" * 64, "models/base", before), NAMES[:2], 0.1, 0.15
        ),
    )


def test_forgetting_is_after_minus_before_with_its_spread_over_seeds():
    """First: changes 0.1 and 0.3, mean 0.2, standard error 0.1; t(0.95, 1) = 6.3138, so 0.2 -+
    0.6314. Second: -0.1 twice. Their mean by seed: 0.0 and 0.1, so 0.05 -+ 0.3157. Catches a sign,
    an interval of the score in place of the change, and domains averaged before seeds."""
    study = hand_made()
    found = {(one.mixture, one.domain): one for one in study.changes}
    one = found["recommended", NAMES[0]]
    assert (one.before, one.seeds) == (1.0, 2) and one.judgment == "within the noise"
    assert (one.change, one.low, one.high) == pytest.approx((0.2, -0.43138, 0.83138), abs=1e-4)
    two = found["recommended", NAMES[1]]
    assert (two.change, two.low, two.high) == pytest.approx((-0.1, -0.1, -0.1))
    assert two.judgment == "improved"
    mean = found["recommended", MEAN]
    assert (mean.before, mean.change, mean.low) == pytest.approx((1.5, 0.05, -0.26569), abs=1e-4)
    assert worst_change(study.continual, study.changes) is one
    assert changes_above_floor(study.continual, study.changes) == (one,)


def test_a_mixture_without_fresh_runs_is_predicted_and_says_so():
    """The best observed mixture was not confirmed: its prediction minus 1.0. Catches a prediction
    that is shown as if it were measured, and a floor judged by one."""
    study = hand_made()
    found = {(one.mixture, one.domain): one for one in study.changes}
    one = found["best observed", NAMES[0]]
    estimate = study.recommendation.candidate("best observed").targets[0]
    assert one.seeds == 0 and one.change == pytest.approx(estimate.mean - 1.0)
    assert (one.low, one.high) == pytest.approx((estimate.low - 1.0, estimate.high - 1.0))
    assert ("best observed", MEAN) not in found
    alone = dataclasses.replace(study, confirmation=None)
    assert all(one.seeds == 0 for one in alone.changes)
    assert changes_above_floor(alone.continual, alone.changes) == ()


def test_report_record_and_summary_tell_of_forgetting():
    """Catches a figure that one of them lacks; a study from nothing must have none of it."""
    study = hand_made()
    texts = [block.text for block in forgetting_blocks(study) if block.kind == "text"]
    old, new = (block for block in forgetting_blocks(study) if block.kind == "table")
    assert [row[0] for row in old.rows] == [*NAMES[:2], MEAN]
    assert [row[0] for row in new.rows] == list(NAMES[2:])
    assert old.columns[:3] == ("old domain", "checkpoint", "recommended")
    assert old.rows[0][1:3] == ("1.000", "1.200: +0.200 (-0.431 to +0.831)")
    assert old.rows[0][old.columns.index("best observed")].endswith(") p")
    assert any("0.15 bits per byte, is not kept: encyclopedia +0.200" in text for text in texts)
    assert any("floor on forgetting, 0.15" in line for line in headline_warnings(study))
    assert f"{NAMES[0]} changes for the worst, by +0.200" in study_answers(study)["against"]
    points = {point.name: point.value for point in study_fields(study).metrics}
    assert points[f"forgetting/recommended/{NAMES[0]}"] == pytest.approx(0.2)
    assert points[f"checkpoint/domain/{NAMES[1]}"] == 2.0
    digest = study_summary(study)["forgetting"]
    assert digest["mixtures"]["recommended"][NAMES[1]]["change"] == pytest.approx(-0.1)
    assert json.loads(json.dumps(digest))["old"] == list(NAMES[:2])
    plain = synthetic_study()
    assert study_summary(plain)["forgetting"] is None and not list(forgetting_blocks(plain))
    assert not any(p.name.startswith("forgetting") for p in study_fields(plain).metrics)
