"""The record: the same in memory and in MLflow, nothing twice, and no result lost with it."""

import json
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic_study import synthetic_study

from cuvee.mixtures.errors import ServiceError
from cuvee.mixtures.runs.run_results import Failed, RunResult
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.mixtures.skill_graph import SkillGraph
from cuvee.tasks.report import page
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.tracking import fields, views
from cuvee.tasks.tracking.fields import study_fields
from cuvee.tasks.tracking.mlflow import MlflowBackend, local_uri, open_tracker
from cuvee.tasks.tracking.study_tracker import StudyTracker
from cuvee.tasks.tracking.tracker import (
    FAILED,
    FINISHED,
    KILLED,
    RUNNING,
    FaultTolerantTracker,
    MemoryBackend,
)
from cuvee.tasks.tracking.ui import serve_review


@pytest.fixture(scope="module")
def study():
    """Six runs of the design, one of them failed, with the confirmation of one seed pair less."""
    full = synthetic_study(seeds=(101, 102))
    return replace(full, history=full.history[3:9])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    (root / "plots").mkdir()
    (root / "plots" / "shares.png").write_bytes(b"png")
    (root / "report.html").write_text("<p>report</p>")
    (root / "summary.json").write_text("{}")
    (root / "secret.txt").write_text("not part of the record")
    return root


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """One SQLite record for all tests of this file: making one takes seconds."""
    return tmp_path_factory.mktemp("record")


def _backend(kind, place, experiment):
    if kind == "memory":
        return MemoryBackend()
    return MlflowBackend(local_uri(place), experiment, (place / "files").as_uri())


def _params(study):
    return fields.study_params(study.recipe_text, study.problem, study.seed)


def _live(tracker, study):
    """A study as a flow tells it: announced, progress in two batches, finished."""
    tracker.start_study(study.name, _params(study), {"method": "regmix"})
    for outcome, tags in fields.study_outcomes(study):
        tracker.start_run(outcome.spec, tags)
        if not isinstance(outcome, Failed):
            tracker.log_curve(outcome.spec.fingerprint, outcome.curve[:20])
            tracker.log_curve(outcome.spec.fingerprint, outcome.curve[10:30])
        tracker.finish_run(outcome)


def _rebuild(tracker, study, folder):
    """A study that was run before, run again: its record is made from what the store gave."""
    tracker.start_study(study.name, _params(study), {})
    tracker.finish_study(study, folder)


def _children(backend, study):
    parent = backend.find_runs({"cuvee.study": fields.study_key(study.name, _params(study))})
    assert len(parent) == 1
    return parent[0], backend.find_runs({}, parent[0].run)


@pytest.mark.parametrize("kind", ["memory", "mlflow"])
def test_a_study_is_recorded_once_however_often_it_is_run(kind, place, study, folder):
    """Catches doubled children, doubled points of a curve, and a second parent on a rerun."""
    backend = _backend(kind, place, "once")
    for _ in range(2):
        tracker = StudyTracker(backend)
        _live(tracker, study)
        tracker.finish_study(study, folder)
    parent, children = _children(backend, study)
    assert parent.status == FINISHED
    assert len(children) == study.proxies == 12
    by_status = [child.status for child in children]
    assert (by_status.count(FINISHED), by_status.count(FAILED)) == (11, 1)
    best = next(c for c in children if c.status == FINISHED)
    assert len(backend.logged_steps(best.run, fields.LOSS)) == 60
    wanted = {"objective", fields.LOSS, "weight/legal", "domain/legal", "task/facts/accuracy"}
    assert wanted | {"uncertainty/domain/legal", "epochs/legal"} <= best.metrics
    assert {"confirmed_gain/uniform/low", "rank_correlation", "recommended/legal"} <= parent.metrics


def test_mlflow_holds_what_memory_holds(place, study, folder):
    """Catches a metric, tag, param or artifact that only one of the two ledgers keeps."""
    memory, mlflow = MemoryBackend(), _backend("mlflow", place, "parity")
    for backend in (memory, mlflow):
        tracker = StudyTracker(backend, sweep="this")
        _live(tracker, study)
        tracker.finish_study(study, folder)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=local_uri(place))
    theirs = {r.tags.get("cuvee.fingerprint", ""): r for r in _both(mlflow, study)}
    for ours in _both(memory, study):
        kept = memory.runs[ours.run]
        run = client.get_run(theirs[kept.tags.get("cuvee.fingerprint", "")].run)
        assert run.info.run_name == kept.name and run.info.status == kept.status
        assert run.data.params == kept.params
        assert kept.tags.items() <= run.data.tags.items()
        assert run.data.metrics == {name: max(v)[1] for name, v in kept.metrics.items()}
        names = {f.path for f in client.list_artifacts(run.info.run_id) if not f.is_dir}
        names |= {f.path for f in client.list_artifacts(run.info.run_id, "plots")}
        assert names == set(kept.artifacts)
        data = {d.dataset.name: d.dataset.digest for d in run.inputs.dataset_inputs}
        assert data == {name: item.digest[:16] for name, item in kept.datasets.items()}
        assert run.data.tags.get("mlflow.note.content", "") == kept.description


def _both(backend, study):
    parent, children = _children(backend, study)
    return [parent, *children]


def test_only_the_files_of_a_report_are_kept(study, folder):
    """Catches a record that copies the whole folder, checkpoints and all."""
    backend = MemoryBackend()
    _rebuild(StudyTracker(backend), study, folder)
    assert set(backend.runs["run-0"].artifacts) == {
        "report.html",
        "summary.json",
        "plots/shares.png",
    }


def test_a_skill_graph_is_an_artifact(tmp_path, study, quick_pictures):
    """Catches a graph that stays in the study's folder, and a trajectory that is no curve."""
    graph = SkillGraph(("a", "b"), ("domain/a", "domain/b"), ((0.4, 0.1), (0.0, 0.3)))
    ours = replace(study.recommendation, laws=(), surface=None, skills=graph)
    run = next(r for r in study.history if isinstance(r, RunResult))
    even, corner = tuple([0.125] * 8), (1.0, *[0.0] * 7)
    run = replace(run, trajectory=((0, even), (9_000, corner)))
    study = replace(study, recommendation=ours, history=(run,))
    page.write_report(study, tmp_path)
    backend = MemoryBackend()
    _rebuild(StudyTracker(backend), study, tmp_path)
    kept = set(backend.runs["run-0"].artifacts)
    assert {"skills.json", "skills.dot", "skills.svg", "plots/skills.png"} <= kept
    names = [f"trajectory/{name}" for name in study.problem.domains.names]
    (moved,) = [r for r in backend.runs.values() if names[0] in r.metrics]
    assert sorted(moved.metrics[names[0]]) == [(0, 0.125), (9_000, 1.0)]
    assert all(len(moved.metrics[name]) == 2 for name in names)


def test_the_description_answers_the_four_questions(study):
    """Catches a page of the record that shows numbers without what they mean."""
    text = fields.study_description(study)
    for question in ("What is recommended", "How sure", "Against what", "At what cost"):
        assert f"**{question}.**" in text
    assert "it is better than the natural mixture and the uniform mixture by more than" in text
    assert len(fields.study_description(replace(study, recipe_text="x" * 20_000))) <= 7500


def test_a_lost_record_is_rebuilt(study, folder):
    """Catches a record that can only be made while proxies train."""
    live, later = MemoryBackend(), MemoryBackend()
    tracker = StudyTracker(live)
    _live(tracker, study)
    tracker.finish_study(study, folder)
    _rebuild(StudyTracker(later), study, folder)

    def told(backend):
        parent, children = _children(backend, study)
        runs = [backend.runs[c.run] for c in (parent, *children)]
        points = [{n: sorted(v) for n, v in r.metrics.items()} for r in runs]
        return [(r.name, r.status, r.params, p) for r, p in zip(runs, points, strict=True)]

    assert told(later) == told(live)


def test_a_killed_run_is_taken_up_where_its_curve_ended(place, study):
    """Catches a curve that is drawn twice after `kill -9` in mid-training."""
    backend = _backend("mlflow", place, "killed")
    run = study.runs[0]
    first = StudyTracker(backend)
    first.start_study(study.name, _params(study), {})
    first.start_run(run.spec, {"role": "design"})
    first.log_curve(run.spec.fingerprint, run.curve[:25])
    again = StudyTracker(backend)
    again.start_study(study.name, _params(study), {})
    again.start_run(run.spec, {"role": "design"})
    again.log_curve(run.spec.fingerprint, run.curve[:40])
    again.finish_run(run)
    _, children = _children(backend, study)
    assert [child.status for child in children] == [FINISHED]
    from mlflow import MlflowClient

    history = MlflowClient(tracking_uri=local_uri(place)).get_metric_history(
        children[0].run, fields.LOSS
    )
    assert [(point.step, point.value) for point in history] == list(run.curve)


def test_ctrl_c_leaves_no_run_running(study):
    """Catches runs that look alive for ever after an interruption."""
    backend = MemoryBackend()
    tracker = StudyTracker(backend)
    tracker.start_study(study.name, _params(study), {})
    tracker.start_run(study.runs[0].spec, {})
    tracker.finish_run(study.runs[1])
    tracker.fail_study("interrupted")
    assert [run.status for run in backend.runs.values()] == [KILLED, KILLED, FINISHED]
    assert StudyTracker(backend).start_study(study.name, _params(study), {}) == "run-0"
    assert (backend.runs["run-0"].status, backend.runs["run-0"].tags["cuvee.reason"]) == (
        RUNNING,
        "",
    )


class _Flaky(MemoryBackend):
    """A backend that is gone for some of its calls."""

    def __init__(self, broken):
        super().__init__()
        self.broken, self.asked = broken, 0

    def create_run(self, name, tags, parent=None):
        self.asked += 1
        if self.asked in self.broken:
            raise ServiceError("gone")
        return super().create_run(name, tags, parent)


def test_a_failing_record_warns_once_and_is_filled_in_at_the_end(study, folder):
    """Catches a study that dies with its tracker, or keeps the gaps that it left."""
    warnings, backend = [], _Flaky(broken={1, 2, 3, 4})
    tracker = FaultTolerantTracker(StudyTracker(backend), warnings.append)
    _live(tracker, study)
    assert len(warnings) == 1 and "No result is lost" in warnings[0]
    assert backend.asked == 1, "children of a study that has no parent must not reach the backend"
    backend.broken = set()
    tracker.finish_study(study, folder)
    parent, children = _children(backend, study)
    assert parent.status == FINISHED and len(children) == study.proxies
    assert len(warnings) == 1


def test_a_server_that_is_gone_is_told_in_one_sentence(study, folder, monkeypatch):
    """Catches minutes of retries, a traceback, or a study that stops with its server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{_free()}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings = []
    tracker = open_tracker(folder, warnings.append)
    assert tracker.start_study(study.name, _params(study), {}) == ""
    tracker.finish_run(study.runs[0])
    tracker.finish_study(study, folder)
    assert len(warnings) == 1
    assert "127.0.0.1" in warnings[0] and "\n" not in warnings[0]


def test_names_of_metrics_are_valid_and_stay_apart(place):
    """Catches two domains whose names differ in one odd character and share one metric."""
    odd = ["a+b", "a&b", "wiki_en", "../up", "/abs", "täglich", "", "x" * 300]
    names = [fields.metric_name(name) for name in odd]
    assert len(set(names)) == len(odd)
    assert names[2] == "wiki_en"
    backend = _backend("mlflow", place, "names")
    run = backend.create_run("names", {})
    points = tuple(fields.MetricPoint(name, float(i)) for i, name in enumerate(names))
    backend.log(run, fields.RunFields(metrics=points))
    assert backend.find_runs({})[0].metrics == frozenset(names)


def test_a_batch_larger_than_a_servers_is_written_whole(place):
    """Catches points that are cut off at MLflow's limit of 1,000 in a batch."""
    backend = _backend("mlflow", place, "batches")
    run = backend.create_run("long", {})
    points = tuple(fields.MetricPoint("loss", 1.0, step) for step in range(1700))
    params = {f"p{i}": str(i) for i in range(150)}
    backend.log(run, fields.RunFields(params=params, metrics=points))
    assert backend.logged_steps(run, "loss") == frozenset(range(1700))


def test_a_taken_port_and_a_missing_record_are_told(tmp_path, monkeypatch):
    """Catches a server's traceback where a person can choose another port."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ServiceError, match="no record"):
        serve_review(tmp_path, print)
    Path(tmp_path, "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServiceError, match="choose another"):
            serve_review(tmp_path, print, port=port)


def test_a_server_of_the_team_is_named_not_started(tmp_path, monkeypatch):
    """Catches a local server that hides the record that the team keeps elsewhere."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    lines = []
    serve_review(tmp_path, lines.append)
    assert lines == ["The record is kept by the server at http://127.0.0.1:9"]


@pytest.mark.slow
def test_review_ends_cleanly_on_an_interrupt(place, study):
    """Catches a server that outlives the command that opened it."""
    StudyTracker(_backend("mlflow", place, "review")).start_study(study.name, _params(study), {})
    port = _free()
    code = (
        "import sys; from pathlib import Path; from cuvee.tasks.tracking.ui import serve_review\n"
        "serve_review(Path(sys.argv[1]), lambda s: print(s, flush=True), port=int(sys.argv[2]))"
    )
    line = [sys.executable, "-c", code, str(place), str(port)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert "closed" in process.stdout.read()
        assert process.wait(30) == 0
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def _free():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("kind", ["memory", "mlflow"])
def test_a_recommendation_is_registered_once_with_what_it_rests_on(kind, place, study, tmp_path):
    """Catches a version per run of the same study, and a version without its fingerprints."""
    backend = _backend(kind, place, "registered")
    named = replace(study, name=f"registered-{kind}")
    finished.save_finished(
        Store(str(tmp_path / "store")), finished.to_finished_study(named, "digest"), tmp_path
    )
    for again in range(2):
        told = replace(named, least_signal=1.0 + again)
        _live(StudyTracker(backend), told)
        _rebuild(StudyTracker(backend), told, tmp_path)
    [version] = backend.versions(named.name)
    assert version.number == "1" and not version.aliases
    assert version.tags["cuvee.recommendation"] == study.fingerprint
    assert version.tags["cuvee.study"] == named.name and version.tags["cuvee.verdict"]
    other = replace(
        named,
        recommendation=replace(named.recommendation, evidence=named.recommendation.evidence[1:]),
    )
    _rebuild(StudyTracker(backend), other, tmp_path)  # the card there is not its own
    assert len(backend.versions(named.name)) == 1
    finished.save_finished(
        Store(str(tmp_path / "store")), finished.to_finished_study(other, "digest"), tmp_path
    )
    _rebuild(StudyTracker(backend), other, tmp_path)
    backend.tag_version(named.name, "1", {"cuvee.note": "first"}, "approved")
    backend.tag_version(named.name, "2", {}, "approved")
    second, first = backend.versions(named.name)
    assert (second.number, first.number) == ("2", "1")
    assert second.aliases == {"approved"} and first.aliases == frozenset()
    assert first.tags["cuvee.note"] == "first"
    assert backend.versions("nobody") == () or list(backend.versions("nobody")) == []


def test_the_registered_version_holds_the_card(place, study, tmp_path):
    """Catches a version whose source is a folder without the recommendation."""
    from mlflow import MlflowClient

    backend = _backend("mlflow", place, "held")
    named = replace(study, name="held")
    finished.save_finished(
        Store(str(tmp_path / "store")), finished.to_finished_study(named, "digest"), tmp_path
    )
    _rebuild(StudyTracker(backend), named, tmp_path)
    client = MlflowClient(tracking_uri=local_uri(place))
    run = client.get_model_version("held", "1").run_id
    path = Path(client.download_artifacts(run, "recommendation/card.json", str(tmp_path)))
    assert finished.from_json(json.loads(path.read_text())).fingerprint == study.fingerprint


def test_repeats_that_went_through_float32_are_one_design():
    """Catches mixtures told apart on a grid, between whose cells repeats fall."""
    names = fields.MixtureNames(synthetic_study().problem.domains)
    count = len(synthetic_study().problem.domains)
    shares = (0.3000004, *[0.6999996 / (count - 1)] * (count - 1))
    again = (0.3000006, *[0.6999994 / (count - 1)] * (count - 1))
    other = (0.31, *[0.69 / (count - 1)] * (count - 1))
    assert round(shares[0], 6) != round(again[0], 6)
    one = synthetic_study().history[0].spec
    found = [
        names.tags(replace(one, stages=(Stage(w),)))["mixture"] for w in (shares, again, other)
    ]
    assert found == ["design 1", "design 1", "design 2"]


def test_children_say_which_mixture_they_are(study):
    """Catches confirmations of all mixtures and sizes under one name, designs without a number, and
    an objective written as Python would print it."""
    backend = MemoryBackend()
    _live(StudyTracker(backend), study)
    ours = [run for run in backend.runs.values() if run.parent]
    for run in ours:
        role, mixture = run.tags["cuvee.role"], run.tags["cuvee.mixture"]
        assert mixture in run.name
        assert (role == "confirmation") == (f" {run.params['size']} " in run.name)
    named = {run.tags["cuvee.mixture"] for run in ours if run.tags["cuvee.role"] == "confirmation"}
    assert {"recommended", "natural", "uniform"} <= named
    designs = {run.tags["cuvee.mixture"] for run in ours if run.tags["cuvee.role"] == "design"}
    assert designs == {f"design {i + 1}" for i in range(len(designs))}
    assert len(designs) > 1
    text = "name: x\nobjective: {name: mean, weights: {domain/a: 1}}\n"
    said = fields.study_params(text, study.problem, 1)["objective"]
    assert said == "{name: mean, weights: {domain/a: 1}}"


def test_a_record_of_an_earlier_version_opens_as_model_training_with_its_views(place, study):
    """Catches pages that open as GenAI, views that only a new experiment gets, and a choice of a
    person's that is written over at the next study."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=local_uri(place))
    own = f"{views.SHARED}{views.PROXIES}"
    saved = json.dumps({"name": "mine", "createdAt": 1, "updatedAt": 2, "state": "{}"})
    older = json.dumps({"name": "old", "createdAt": 1, "updatedAt": 1, "state": "{}"})
    stale = f"{views.SHARED}{views.STUDIES}"
    made = client.create_experiment("earlier", tags={own: saved, stale: older})
    client.create_experiment("chosen", tags={"mlflow.experimentKind": "finetuning"})
    for name in ("earlier", "chosen", "new"):
        MlflowBackend(local_uri(place), name).find_runs({})
    kinds = {
        name: client.get_experiment_by_name(name).tags["mlflow.experimentKind"]
        for name in ("earlier", "chosen", "new")
    }
    training = "custom_model_development"
    assert kinds == {"earlier": training, "chosen": "finetuning", "new": training}
    tags = client.get_experiment(made).tags
    assert tags[own] == saved
    assert json.loads(tags[stale])["name"] == "Studies: the four answers"
    assert max(map(len, tags.values())) < 5000  # MLflow's limit


def test_the_views_name_what_is_recorded(study, folder):
    """Catches a column or a chart of a key that no run has: it would stand there empty."""
    tracker = StudyTracker(backend := MemoryBackend())
    tracker.start_study(study.name, {}, {})
    tracker.finish_study(study, folder)
    for key, kind in ((views.STUDIES, "study"), (views.PROXIES, "proxy")):
        state = json.loads(json.loads(views.view_tags(0)[f"{views.SHARED}{key}"])["state"])
        assert state["searchFilter"] == f"tags.`cuvee.kind` = '{kind}'"
        runs = [run for run in backend.runs.values() if run.tags["cuvee.kind"] == kind]
        known = {"tags": set(), "metrics": set(), "params": set()}
        for run in runs:
            for part, names in known.items():
                names |= set(getattr(run, part))
        columns = [column.split(".", 1) for column in state["selectedColumns"]]
        assert len(columns) == 5 and set(map(".".join, columns)) < set(state["columnOrder"])
        assert all(name.strip("`") in known[part] for part, name in columns)
        assert {chart["metricKey"] for chart in state["compareRunCharts"]} <= known["metrics"]


def test_the_runs_table_answers_the_four_questions(study):
    """Catches a reviewer who must open every run: shares, grade, gain and cost in a few words."""
    told = study_fields(study)
    assert told.tags["cuvee.shares"].startswith("legal 36%, encyclopedia 24%")
    assert told.tags["cuvee.grade"] in {"confirmed", "not confirmed", "worse than another"}
    gain = study.confirmation.objective["natural"]
    assert told.tags["cuvee.gain"] == (
        f"{gain.gain:+.3f} ({gain.low:+.3f} to {gain.high:+.3f}), trained anew at 0.6M"
    )
    assert told.tags["cuvee.cost"].startswith(f"{study.proxies} proxies, ")
    points = {point.name: point.value for point in told.metrics}
    assert points["gain_over_natural"] == gain.gain
    assert points["gain_over_natural/low"] == gain.low
    alone = study_fields(replace(study, confirmation=None))
    assert alone.tags["cuvee.gain"].endswith(", predicted")
    points = {point.name: point.value for point in alone.metrics}
    assert points["gain_over_natural"] == dict(study.recommendation.gains)["natural"].mean
