"""A proxy stands in the record once, whatever two sweeps or a failing server do."""

from dataclasses import replace

import pytest
from synthetic_study import synthetic_study

from cuvee.mixtures.errors import ServiceError
from cuvee.tasks.tracking import fields
from cuvee.tasks.tracking.careful import Careful
from cuvee.tasks.tracking.mlflow import MlflowLedger, local_uri
from cuvee.tasks.tracking.recorder import Recorder
from cuvee.tasks.tracking.tracker import FINISHED, MemoryLedger


@pytest.fixture(scope="module")
def study():
    full = synthetic_study(seeds=(101, 102))
    return replace(full, history=full.history[3:9])


def params(study):
    return fields.study_params(study.recipe_text, study.problem, study.seed)


def proxies(ledger, study):
    """The one record of a study, and its proxies by fingerprint."""
    (parent,) = ledger.find({"cuvee.study": fields.key(study.name, params(study))})
    assert parent.status == FINISHED
    children = ledger.find({}, parent.run)
    names = [child.tags["cuvee.fingerprint"] for child in children]
    assert len(names) == len(set(names)) == study.proxies
    assert sum(child.status == FINISHED for child in children) == study.proxies - 1  # one failed
    assert all(any(m.startswith("weight/") for m in child.metrics) for child in children)
    return children


def ledger_of(kind, place):
    if kind == "memory":
        return MemoryLedger()
    return MlflowLedger(local_uri(place), "once", (place / "files").as_uri())


@pytest.mark.parametrize("kind", ["memory", "mlflow"])
@pytest.mark.parametrize("last", [0, 1])
def test_two_sweeps_that_announce_the_same_proxies_leave_each_once(kind, last, study, tmp_path):
    """Catches a record in which every proxy that both sweeps announced is counted twice."""
    ledger = ledger_of(kind, tmp_path)
    sweeps = [Recorder(ledger), Recorder(ledger)]
    for sweep in sweeps:
        sweep.begin(study.name, params(study), {})
    for sweep in sweeps:
        for outcome, tags in fields.outcomes(study):
            sweep.child(outcome.spec, tags)
    for outcome, _ in fields.outcomes(study):
        for sweep in sweeps:
            sweep.finish(outcome)
    sweeps[1 - last].conclude(study, tmp_path)
    sweeps[last].conclude(study, tmp_path)
    proxies(ledger, study)


def test_two_sweeps_that_begin_at_once_have_one_record(study, tmp_path, monkeypatch):
    """Catches two records of one study, each found by nobody else."""
    ledger = MemoryLedger()
    first, second = Recorder(ledger), Recorder(ledger)
    make = ledger.create

    def both(name, tags, parent=None):
        monkeypatch.setattr(ledger, "create", make)
        run = make(name, tags, parent)  # the second looked before the first had made its record
        second.begin(study.name, params(study), {})
        return run

    find, looks = ledger.find, []

    def blind(tags, parent=None):
        looks.append(tags)
        return () if len(looks) == 2 else find(tags, parent)

    monkeypatch.setattr(ledger, "create", both)
    monkeypatch.setattr(ledger, "find", blind)
    first.begin(study.name, params(study), {})
    monkeypatch.undo()
    assert len(ledger.runs) == 1
    for sweep in (first, second):
        sweep.conclude(study, tmp_path)
    proxies(ledger, study)


@pytest.mark.parametrize("done", [True, False])
def test_a_server_that_fails_now_and_then_leaves_each_proxy_once(done, study, tmp_path):
    """Catches a proxy made twice because the answer to the first time was lost, or half told."""

    class Failing(MemoryLedger):
        calls = 0

        def create(self, name, tags, parent=None):
            run = super().create(name, tags, parent)
            return self._maybe(run) if parent else run

        def write(self, run, entry):
            if done:
                super().write(run, entry)
            self._maybe(run)
            if not done:
                super().write(run, entry)

        def _maybe(self, run):
            self.calls += 1
            if self.calls % 7 == 3 and self.calls < 50:
                raise ServiceError("no answer")
            return run

    ledger, told = Failing(), []
    tracker = Careful(Recorder(ledger), told.append, patience=10)
    tracker.begin(study.name, params(study), {})
    for outcome, tags in fields.outcomes(study):
        tracker.child(outcome.spec, tags)
        tracker.finish(outcome)
    ledger.calls = 100  # it has recovered
    tracker.conclude(study, tmp_path)
    assert told
    proxies(ledger, study)


class Counting(MemoryLedger):
    """Counts how often the proxies of a study are listed."""

    listed = 0

    def find(self, tags, parent=None):
        self.listed += parent is not None
        return super().find(tags, parent)


def recorded(ledger, study, folder, runs):
    """A study as a flow opens it again: everything is found in the store."""
    tracker = Recorder(ledger)
    tracker.begin(study.name, params(study), {})
    for outcome in runs:
        tracker.finish(outcome)
    tracker.conclude(study, folder)


def test_a_record_that_is_whole_is_not_listed_and_one_with_a_gap_is_filled(study, tmp_path):
    """Catches minutes of listing to open a large study, and a gap that is believed to be none."""
    ledger, runs = Counting(), [outcome for outcome, _ in fields.outcomes(study)]
    smaller = replace(study, confirmation=None)
    recorded(ledger, smaller, tmp_path, smaller.history)
    recorded(ledger, smaller, tmp_path, smaller.history)
    assert ledger.listed == 0
    recorded(ledger, study, tmp_path, runs)  # more proxies than it had
    assert ledger.listed == 1
    proxies(ledger, study)
    ledger.listed = 0
    recorded(ledger, study, tmp_path, runs)
    assert ledger.listed == 0
    cut = Recorder(ledger)
    cut.begin(study.name, params(study), {})
    ledger.runs[ledger.create("twice", {"cuvee.fingerprint": runs[0].spec.fingerprint}, "run-0")]
    recorded(ledger, study, tmp_path, runs)  # the one before was cut off: its record is RUNNING
    assert ledger.listed >= 1
    proxies(ledger, study)
