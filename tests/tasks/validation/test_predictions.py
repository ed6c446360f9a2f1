"""Prediction cards: written once before the runs, found out when changed, scored after them."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from ladder_world import SMALL, ladder, posed
from larger_sizes import PART, SEEDS, Trainer
from synthetic_study import synthetic_study

from cuvee.flows.recipe.aim_parts import ConfirmPart, SizePart
from cuvee.flows.study.confirm import (
    compared_schedules,
    fresh_seeds,
    runs_of_sizes,
    train_larger_sizes,
)
from cuvee.flows.study.prediction import with_remembered, write_copy, write_prediction
from cuvee.mixtures.errors import CorruptError, StorageError
from cuvee.mixtures.loop import search
from cuvee.mixtures.recommendation import Estimate, Optimism
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.tasks.report.page import write_report
from cuvee.tasks.report.sections.larger_sizes import prediction_card_blocks as card_section
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.summary import study_summary
from cuvee.tasks.tracking import fields
from cuvee.tasks.tracking.study_tracker import StudyTracker
from cuvee.tasks.tracking.tracker import FaultTolerantTracker, MemoryBackend
from cuvee.tasks.validation.calibration import calibration_of_cards, score_predictions
from cuvee.tasks.validation.hypothesis_tests import larger_size_tests
from cuvee.tasks.validation.preregistration import from_json, read_cards, save_card

NOW = "2026-03-04T05:06:07+00:00"


@pytest.fixture(scope="module")
def study():
    return synthetic_study()


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def runs_of(study, part=PART):
    schedules = compared_schedules(study.problem, study.recommendation, part)
    return schedules, runs_of_sizes(study.problem, schedules, part, SEEDS)


def drawn(study, store, part=PART, written=NOW):
    schedules, runs = runs_of(study, part)
    return write_prediction(study, schedules, runs, store, written=written)


def confirmed(study, store, part=PART, trainer=None):
    """A whole confirmation, in order: card, runs, score."""
    card = save_card(store, drawn(study, store, part))
    _, runs = runs_of(study, part)
    steps, lost = train_larger_sizes(runs, trainer or Trainer(study.problem))
    for step in steps:
        for run in step.runs:
            store.put(run.result)
    found = larger_size_tests(steps, study.confirmation, lost)
    return replace(study, transfer=found, card=score_predictions(store, card, found.claims))


def with_gain(study, gain):
    """The study with another predicted gain over the natural mixture."""
    ours = study.recommendation
    gains = tuple((n, gain if n == "natural" else e) for n, e in ours.gains)
    return replace(study, recommendation=replace(ours, gains=gains))


def test_a_card_names_the_law_whose_gains_it_holds(study, store):
    """Catches the law that chose, where another one's gains were promised."""
    ours = study.recommendation
    told = Optimism("kriging", "log_linear", ours.gains)
    card = drawn(replace(study, recommendation=replace(ours, optimism=told)), store)
    assert {promise.source.split(" at ")[0] for promise in card.promises} == {"the law kriging"}


def test_a_card_says_what_will_be_trained_and_what_is_predicted(study, store):
    """Catches a card that leaves open what would break its promise."""
    card = drawn(study, store)
    assert [(p.size, p.tokens, p.baseline) for p in card.promises] == [
        ("1M", 5_000_000, name) for name in ("natural", "uniform", "best observed")
    ]
    predicted = dict(study.recommendation.gains)
    assert card.promises[0].predicted == predicted["natural"]
    assert "own size" in card.promises[0].source
    assert card.seeds == SEEDS and card.recommendation == study.fingerprint
    assert card.schedules["recommended"] == study.recommendation.stages
    _, ((_, specs),) = runs_of(study)
    deciding = {
        spec.fingerprint for (n, _), spec in specs.items() if n in ("recommended", "uniform")
    }
    assert set(card.promises[1].runs) == deciding and len(deciding) == 6
    assert "natural, uniform, on average" in card.claim and "best observed" not in card.claim
    assert from_json(json.loads(json.dumps(card.content))) == card


def test_the_hash_is_of_the_canonical_json_and_of_every_promise(study, store):
    """Catches a hash of a part of the card, which leaves the rest to be changed unseen."""
    card = drawn(study, store)
    text = canonical_json(json.loads(json.dumps(card.content)))
    assert card.sha256 == hashlib.sha256(text.encode()).hexdigest()
    other = replace(card.promises[0], predicted=Estimate(0.5, 0.4, 0.6))
    for changed in (
        replace(card, written="2027-01-01T00:00:00+00:00"),
        replace(card, promises=(other, *card.promises[1:])),
        replace(card, seeds=(1, 2, 3)),
    ):
        assert changed.sha256 != card.sha256


def test_the_same_promises_are_one_card_and_others_another_version(study, store):
    """Catches a resumed confirmation that dates its card anew, and a card that is replaced."""
    first = save_card(store, drawn(study, store))
    again = save_card(store, drawn(study, store, written="2027-01-01T00:00:00+00:00"))
    assert again == first and first.version == 1
    part = ConfirmPart(sizes=[*PART.sizes, SizePart(size="2M", tokens=5_000_000)])
    second = save_card(store, drawn(study, store, part))
    assert second.version == 2
    cards, wrong = read_cards(store)
    assert [card.sha256 for card in cards] == [first.sha256, second.sha256] and not wrong
    with pytest.raises(StorageError, match="never replaced|not replaced"):
        store.seal("predictions", first.key, {"other": 1})


@pytest.mark.parametrize("how", ["content", "content and hash", "renamed", "cut"])
def test_a_changed_card_is_found_out(study, store, how):
    """Catches a prediction that is moved to what was observed: with the hash in the file left, with
    it made anew, under another name, and a file that is damaged."""
    card = save_card(store, drawn(study, store))
    path = Path(store.url) / "predictions" / f"{card.key}.json"
    kept = json.loads(path.read_text())
    kept["content"]["promises"][0]["predicted"]["mean"] = 0.05
    if how == "content and hash":
        kept["sha256"] = from_json(kept["content"]).sha256
    if how == "renamed":
        path.rename(path.with_name(f"{card.key[:-1]}x.json"))
    elif how == "cut":
        path.write_text(path.read_text()[:200])
    else:
        path.write_text(json.dumps(kept))
    cards, wrong = read_cards(store)
    assert not cards and len(wrong) == 1 and "not what was written" in next(iter(wrong.values()))
    with pytest.raises(CorruptError, match="Restore it"):
        save_card(store, drawn(study, store))
    assert len(list(path.parent.iterdir())) == 1  # the evidence of the change stays


def test_a_score_is_observed_against_predicted(study, store):
    """Observed o, predicted o + 0.03 within +-0.05: inside, right sign, error -0.03. Predicted
    -o +- o / 2: outside, wrong sign, error 2 o. Catches errors with their sign turned round."""
    done = confirmed(study, store)
    o = done.card.outcomes[0].observed.gain
    assert o > 0
    near = with_gain(study, Estimate(o + 0.03, o - 0.02, o + 0.08))
    far = with_gain(study, Estimate(-o, -1.5 * o, -0.5 * o))
    claims = done.transfer.claims
    good = score_predictions(store, drawn(near, store), claims).outcomes[0]
    bad = score_predictions(store, drawn(far, store), claims).outcomes[0]
    assert good.inside and good.sign and good.error == pytest.approx(-0.03)
    assert not bad.inside and not bad.sign and bad.error == pytest.approx(2 * o)


def test_what_was_trained_before_its_card_is_no_prediction(study, store):
    """Catches a card that is written (again) with the outcome known, and counted."""
    _, runs = runs_of(study)
    trained = Trainer(study.problem)([spec for _, specs in runs for spec in specs.values()])
    late = next(r for r in trained if r.spec.fingerprint == drawn(study, store).promises[2].runs[1])
    assert isinstance(late, RunResult)
    store.put(late)  # one run of the best observed mixture
    done = confirmed(study, store)
    assert [kept.promise.before for kept in done.card.outcomes] == [0, 0, 1]
    assert [kept.counts for kept in done.card.outcomes] == [True, True, False]
    assert done.card.calibration.predictions == 2
    text = " ".join(getattr(block, "text", "") for block in card_section(done))
    assert "runs of 1 of its 3 gains had been trained already" in text


def test_calibration_takes_every_prediction_once_over_the_cards_of_a_store(study, store):
    """Two studies of three predictions each; the second card of the first repeats its size. By
    hand: 6 predictions of 2 cards. Catches a gain that counts twice, or a changed card that counts.
    """
    first = confirmed(study, store)
    o = first.card.outcomes[0].observed.gain
    other = with_gain(study, Estimate(o - 0.5, o - 0.6, o - 0.4))
    other = replace(other, recommendation=replace(other.recommendation, method="another"))
    second_store_cards = confirmed(other, Store(f"{store.url}-apart"))
    assert second_store_cards.card.calibration.predictions == 3
    for run in Path(store.url).glob("runs/*"):  # so that the second study's card comes before
        for file in run.iterdir():
            file.unlink()
        run.rmdir()
    both = confirmed(other, store).card.calibration
    assert (both.cards, both.predictions) == (2, 6)
    own = list(first.card.outcomes)
    inside = sum(k.inside for k in own) + sum(k.inside for k in own[1:])  # the moved one misses
    assert both.inside == pytest.approx(inside / 6)
    cards, _ = read_cards(store)
    twice = replace(cards[0], version=7, written="2028-01-01T00:00:00+00:00")
    score_predictions(store, twice, first.transfer.claims)
    assert calibration_of_cards(store, [*cards, twice]) == both
    assert calibration_of_cards(store, []) is None


def test_a_study_that_is_run_again_still_knows_its_card(study, store):
    """Catches a report that loses the larger sizes when `cuvee run` writes it anew."""
    part = ConfirmPart(seeds=3, sizes=PART.sizes)
    schedules = compared_schedules(study.problem, study.recommendation, part)
    runs = runs_of_sizes(study.problem, schedules, part, fresh_seeds(study.seed, part.seeds))
    assert with_remembered(study, part, store) is study  # nothing is there yet
    card = save_card(store, write_prediction(study, schedules, runs, store, written=NOW))
    every = [spec for _, specs in runs for spec in specs.values()]
    for run in Trainer(study.problem)(every):
        store.put(run)
    again = with_remembered(study, part, store)
    assert again.card.card == card and len(again.transfer.steps) == 1
    assert again.reused == study.reused + len(every)
    assert with_remembered(study, None, store) is study


@pytest.fixture
def done(study, store):
    return confirmed(study, store)


def test_report_and_summary_show_the_card(done, tmp_path, quick_pictures):
    """Catches a card whose hash, time, or outcome does not reach the reader."""
    page, twin = write_report(done, tmp_path)
    for text in (page.read_text(), twin.read_text()):
        assert done.card.card.sha256 in text and NOW in text
        assert "before any of its runs was trained" in text
    made = study_summary(done)["card"]
    assert made["sha256"] == done.card.card.sha256 and len(made["predictions"]) == 3
    kept = done.card.outcomes[0]
    assert made["predictions"][0]["observed"] == kept.observed.gain
    assert made["predictions"][0]["error"] == pytest.approx(
        kept.observed.gain - kept.promise.predicted.mean
    )
    assert json.loads(json.dumps(made)) == made


def test_the_record_has_the_card_before_any_of_its_runs(done, tmp_path):
    """Catches a card that reaches the record with the results."""
    backend = MemoryBackend()
    tracker = FaultTolerantTracker(StudyTracker(backend), print)
    tracker.start_study(
        done.name, fields.study_params(done.recipe_text, done.problem, done.seed), {}
    )
    card = done.card.card
    copy = write_copy(card, tmp_path)
    tracker.log_preregistration(card, copy)
    (parent,) = backend.runs.values()  # no child yet
    assert parent.tags["cuvee.card"] == card.sha256 and parent.tags["cuvee.card_written"] == NOW
    assert json.loads(parent.artifacts[f"predictions/{card.key}.json"])["sha256"] == card.sha256
    tracker.finish_study(done, tmp_path)
    assert len(backend.runs) == 1 + done.proxies
    names = set(parent.metrics)
    assert {"calibration/inside", "confirmed_gain/1M/5000000/natural/corrected_p"} <= names
    children = [run for run in backend.runs.values() if run.parent]
    assert sum(run.params["size"] == "1M" for run in children) == 12
    assert all("objective" in run.metrics for run in children if run.status == "FINISHED")


def test_a_ladders_card_asks_its_law_about_each_size(store):
    """Catches the gain at full scale promised for a test at a smaller one."""
    world, problem = posed()
    answer, history = search(ladder(), problem, world, 0)
    answer = replace(answer, scale=replace(answer.scale, beats=True, chosen="joint"))
    text = yaml.safe_dump(
        {
            "name": "ladder",
            "tables": {"mixtures": "a.csv", "scores": "b.csv"},
            "objective": {"name": "mean", "weights": {"target/0": 1}},
            "method": {"name": "ladder", **SMALL, "rungs": list(SMALL["rungs"])},
        }
    )
    study = replace(
        synthetic_study(),
        problem=problem,
        recommendation=answer,
        history=history,
        recipe_text=text,
        corpus={},
        confirmation=None,
        untrained=None,
        chance=None,
    )
    part = ConfirmPart(
        sizes=[SizePart(size="1M", tokens=20_000_000), SizePart(size="4M", tokens=80_000_000)]
    )
    card = drawn(study, store, part)
    natural = [p for p in card.promises if p.baseline == "natural"]
    assert [p.size for p in natural] == ["1M", "4M"]
    assert natural[0].predicted.mean != natural[1].predicted.mean
    for promise, size in zip(natural, (1_000_000, 4_000_000), strict=True):
        points = np.array([answer.weights, problem.domains.natural])
        truth = world.world.at_scale(size, promise.tokens).truth(points, np.ones((2, 4)))[:, 0]
        said = promise.predicted
        assert said.low - 0.01 <= truth[1] - truth[0] <= said.high + 0.01
        assert "the law joint, fitted to" in promise.source
    assert drawn(study, store, part).identity == card.identity
