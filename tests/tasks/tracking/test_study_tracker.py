"""A proxy stands in the record once, whatever two sweeps or a failing server do."""

from dataclasses import replace

import pytest
from synthetic_study import synthetic_study

from cuvee.mixtures.errors import ServiceError
from cuvee.tasks.tracking import fields
from cuvee.tasks.tracking.mlflow import MlflowBackend, local_uri
from cuvee.tasks.tracking.study_tracker import StudyTracker
from cuvee.tasks.tracking.tracker import FINISHED, FaultTolerantTracker, MemoryBackend


@pytest.fixture(scope="module")
def study():
    full = synthetic_study(seeds=(101, 102))
    return replace(full, history=full.history[3:9])


def params(study):
    return fields.study_params(study.recipe_text, study.problem, study.seed)


def proxies(backend, study):
    """The one record of a study, and its proxies by fingerprint."""
    (parent,) = backend.find_runs({"cuvee.study": fields.study_key(study.name, params(study))})
    assert parent.status == FINISHED
    children = backend.find_runs({}, parent.run)
    names = [child.tags["cuvee.fingerprint"] for child in children]
    assert len(names) == len(set(names)) == study.proxies
    assert sum(child.status == FINISHED for child in children) == study.proxies - 1  # one failed
    assert all(any(m.startswith("weight/") for m in child.metrics) for child in children)
    return children


def backend_of(kind, place):
    if kind == "memory":
        return MemoryBackend()
    return MlflowBackend(local_uri(place), "once", (place / "files").as_uri())


@pytest.mark.parametrize("kind", ["memory", "mlflow"])
@pytest.mark.parametrize("last", [0, 1])
def test_two_sweeps_that_announce_the_same_proxies_leave_each_once(kind, last, study, tmp_path):
    """Catches a record in which every proxy that both sweeps announced is counted twice."""
    backend = backend_of(kind, tmp_path)
    sweeps = [StudyTracker(backend), StudyTracker(backend)]
    for sweep in sweeps:
        sweep.start_study(study.name, params(study), {})
    for sweep in sweeps:
        for outcome, tags in fields.study_outcomes(study):
            sweep.start_run(outcome.spec, tags)
    for outcome, _ in fields.study_outcomes(study):
        for sweep in sweeps:
            sweep.finish_run(outcome)
    sweeps[1 - last].finish_study(study, tmp_path)
    sweeps[last].finish_study(study, tmp_path)
    proxies(backend, study)


def test_two_sweeps_that_begin_at_once_have_one_record(study, tmp_path, monkeypatch):
    """Catches two records of one study, each found by nobody else."""
    backend = MemoryBackend()
    first, second = StudyTracker(backend), StudyTracker(backend)
    make = backend.create_run

    def both(name, tags, parent=None):
        monkeypatch.setattr(backend, "create_run", make)
        run = make(name, tags, parent)  # the second looked before the first had made its record
        second.start_study(study.name, params(study), {})
        return run

    find, looks = backend.find_runs, []

    def blind(tags, parent=None):
        looks.append(tags)
        return () if len(looks) == 2 else find(tags, parent)

    monkeypatch.setattr(backend, "create_run", both)
    monkeypatch.setattr(backend, "find_runs", blind)
    first.start_study(study.name, params(study), {})
    monkeypatch.undo()
    assert len(backend.runs) == 1
    for sweep in (first, second):
        sweep.finish_study(study, tmp_path)
    proxies(backend, study)


@pytest.mark.parametrize("done", [True, False])
def test_a_server_that_fails_now_and_then_leaves_each_proxy_once(done, study, tmp_path):
    """Catches a proxy made twice because the answer to the first time was lost, or half told."""

    class Failing(MemoryBackend):
        calls = 0

        def create_run(self, name, tags, parent=None):
            run = super().create_run(name, tags, parent)
            return self._maybe(run) if parent else run

        def log(self, run, entry):
            if done:
                super().log(run, entry)
            self._maybe(run)
            if not done:
                super().log(run, entry)

        def _maybe(self, run):
            self.calls += 1
            if self.calls % 7 == 3 and self.calls < 50:
                raise ServiceError("no answer")
            return run

    backend, told = Failing(), []
    tracker = FaultTolerantTracker(StudyTracker(backend), told.append, patience=10)
    tracker.start_study(study.name, params(study), {})
    for outcome, tags in fields.study_outcomes(study):
        tracker.start_run(outcome.spec, tags)
        tracker.finish_run(outcome)
    backend.calls = 100  # it has recovered
    tracker.finish_study(study, tmp_path)
    assert told
    proxies(backend, study)


class Counting(MemoryBackend):
    """Counts how often the proxies of a study are listed, and how often a run is told something."""

    listed, logged = 0, 0

    def log(self, run, fields):
        self.logged += 1
        super().log(run, fields)

    def find_runs(self, tags, parent=None):
        self.listed += parent is not None
        return super().find_runs(tags, parent)


def recorded(backend, study, folder, runs):
    """A study as a flow opens it again: everything is found in the store."""
    tracker = StudyTracker(backend)
    tracker.start_study(study.name, params(study), {})
    for outcome in runs:
        tracker.finish_run(outcome)
    tracker.finish_study(study, folder)


def test_a_record_that_is_whole_is_not_listed_and_one_with_a_gap_is_filled(study, tmp_path):
    """Catches minutes of listing to open a large study, and a gap that is believed to be none."""
    backend, runs = Counting(), [outcome for outcome, _ in fields.study_outcomes(study)]
    smaller = replace(study, confirmation=None)
    recorded(backend, smaller, tmp_path, smaller.history)
    recorded(backend, smaller, tmp_path, smaller.history)
    assert backend.listed == 0
    recorded(backend, study, tmp_path, runs)  # more proxies than it had
    assert backend.listed == 1
    proxies(backend, study)
    backend.listed = 0
    recorded(backend, study, tmp_path, runs)
    assert backend.listed == 0
    cut = StudyTracker(backend)
    cut.start_study(study.name, params(study), {})
    backend.runs[
        backend.create_run("twice", {"cuvee.fingerprint": runs[0].spec.fingerprint}, "run-0")
    ]
    recorded(backend, study, tmp_path, runs)  # the one before was cut off: its record is RUNNING
    assert backend.listed >= 1
    proxies(backend, study)


def test_a_proxy_that_has_ended_is_told_everything_at_once(study, tmp_path):
    """Catches a call for its params and another for its scores, which each cost a server as much
    as either: half a minute where 512 finished proxies are recorded for the first time."""
    backend, runs = Counting(), [outcome for outcome, _ in fields.study_outcomes(study)]
    tracker = StudyTracker(backend)
    tracker.start_study(study.name, params(study), {})
    before = backend.logged
    for outcome in runs:
        tracker.finish_run(outcome)
    assert backend.logged - before == len(runs)
    tracker.finish_study(study, tmp_path)
    proxies(backend, study)
