"""The campaign of faults judges by itself: what it calls lost, doubled or corrupt must be so."""

import dataclasses
import json
from pathlib import Path

import fault_judge
import faults
import flaky
import pytest
import resilience
from fault_judge import Facts, judge

from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.mixtures.runs.run_spec import RunSpec, Stage
from cuvee.tasks.store.results import Store

NAMES = ("code", "manual")


def outcome(seed: int, value: float = 2.0) -> RunResult:
    weights = (0.25 + seed / 100, 0.75 - seed / 100)
    spec = RunSpec(
        domains=NAMES,
        identities=("a" * 64, "b" * 64),
        stages=(Stage(weights),),
        size="0.3M",
        tokens=1000,
        seed=seed,
    )
    scores = {f"domain/{name}": Score(value + i, 0.1, 5) for i, name in enumerate(NAMES)}
    return RunResult(spec, scores, seconds=float(seed))


def run_of(result: RunResult, status: str = "FINISHED") -> dict:
    """A proxy in the record, as MLflow's REST interface gives it."""
    metrics = [{"key": name, "value": score.value} for name, score in result.scores.items()]
    tags = [{"key": "cuvee.fingerprint", "value": result.spec.fingerprint}]
    return {"info": {"status": status}, "data": {"tags": tags, "metrics": metrics}}


@pytest.fixture
def study(tmp_path):
    """A whole study on disk and in the record; returns its place, its runs and a reader."""
    runs = [outcome(seed) for seed in range(5)]
    for run in runs:
        Store(str(tmp_path / "store")).put(run)
    folder = tmp_path / "studies/s"
    folder.mkdir(parents=True)
    summary = {"proxies": 5, "trained_now": 0}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "recommendation.json").write_text(json.dumps({"weights": [0.5, 0.5], "noise": []}))
    record = [run_of(run) for run in runs]

    def read(record=record, records=1):
        return fault_judge.facts(tmp_path, tmp_path / "store", (records, record))

    return tmp_path, runs, read


def path_of(place: Path, run: RunResult) -> Path:
    return place / "store/runs" / run.spec.fingerprint / "result.json"


def test_an_undisturbed_study_has_no_flaw_however_long_it_took(study):
    """Catches a judge that calls times a difference, and so everything corrupt."""
    place, runs, read = study
    truth = read()
    assert len(truth.results) == len(truth.finished) == 5
    Store(str(place / "store")).put(dataclasses.replace(runs[0], seconds=99.0))
    assert not judge(truth, truth.results, read())


def test_a_result_that_is_gone_or_damaged_is_lost(study):
    """Catches a judge that compares only what both have, and one that believes broken bytes."""
    place, runs, read = study
    truth = read()
    path_of(place, runs[0]).unlink()
    raw = bytearray(path_of(place, runs[1]).read_bytes())
    raw[raw.index(b"2.0")] += 1  # still JSON: only the checksum tells
    path_of(place, runs[1]).write_bytes(bytes(raw))
    path_of(place, runs[2]).write_bytes(b"{")
    assert judge(truth, truth.results, read()) == {"lost": 3}


def test_a_proxy_that_is_not_in_the_record_is_lost(study):
    """Catches a judge that looks into the store alone."""
    _, runs, read = study
    truth = read()
    record = [run_of(run) for run in runs[1:]] + [run_of(runs[0], "RUNNING")]
    assert judge(truth, truth.results, read(record)) == {"lost": 1}


def test_a_result_that_was_there_and_is_trained_again_was_lost(study):
    """Catches a study that quietly throws finished work away."""
    place, _, read = study
    truth = read()
    summary = place / "studies/s/summary.json"
    summary.write_text(json.dumps({"proxies": 5, "trained_now": 2}))
    before = dict(list(truth.results.items())[:4])
    assert judge(truth, before, read()) == {"lost": 1}
    assert not judge(truth, dict(list(truth.results.items())[:3]), read())


def test_what_stands_twice_is_counted_twice(study):
    """Catches a judge that puts proxies into a set, or takes no notice of a second record."""
    place, runs, read = study
    truth = read()
    record = [run_of(run) for run in (*runs, runs[0])]
    assert judge(truth, truth.results, read(record)) == {"double_counted": 1}
    record[-1] = run_of(runs[0], "RUNNING")
    assert judge(truth, truth.results, read(record)) == {"double_counted": 1}
    assert judge(truth, truth.results, read(records=2)) == {"double_counted": 1}
    Store(str(place / "store")).put(outcome(7))
    assert judge(truth, truth.results, read()) == {"double_counted": 1}
    (place / "studies/s/summary.json").write_text(json.dumps({"proxies": 6, "trained_now": 0}))
    assert judge(truth, truth.results, read()) == {"double_counted": 2}


def test_a_last_bit_that_differs_is_corrupt(study):
    """Catches a comparison with a tolerance, of results, of the answer and of the record."""
    place, runs, read = study
    truth = read()
    Store(str(place / "store")).put(outcome(3, 2.0000000000000004))
    assert judge(truth, truth.results, read()) == {"corrupt_used": 1}
    Store(str(place / "store")).put(runs[3])
    record = [run_of(run) for run in runs[1:]] + [run_of(outcome(0, 2.1))]
    assert judge(truth, truth.results, read(record)) == {"corrupt_used": 1}
    answer = {"weights": [0.5, 0.5], "noise": [1]}
    (place / "studies/s/recommendation.json").write_text(json.dumps(answer))
    assert judge(truth, truth.results, read()) == {"corrupt_used": 1}


def test_a_study_without_anything_is_lost_whole():
    """Catches a campaign that passes on nothing at all."""
    run = {"scores": {}}
    truth = Facts({"a": json.dumps(run)}, {"weights": []}, {"proxies": 1}, 1, ("a",), {"a": {}})
    nothing = judge(truth, {}, Facts({}, None, {}, 0))
    assert nothing == {"lost": 2, "double_counted": 2, "corrupt_used": 1}


def test_a_fault_that_missed_is_no_trial():
    """Catches trials counted in which nothing happened."""
    Count = faults.collections.Counter
    found = [("flow", Count(missed=1)), ("flow", Count()), ("two", Count(lost=2, hangs=1))]
    figures = faults.tally(iter(found))
    assert (figures["trials"], figures["missed"]) == (2, 1)
    assert (figures["lost"], figures["hangs"], figures["double_counted"]) == (2, 1, 0)
    assert figures["kinds"] == {"flow": 1, "two": 1}


def test_figures_of_the_three_programs_are_added_where_they_mean_the_same():
    """Catches a traceback of one program hidden by the zero of another."""
    nothing = dict.fromkeys(faults.KEYS, 0) | {"kinds": {}}
    disturbed = nothing | {"trials": 52, "tracebacks": 1}
    tried = {"inputs_tried": 12_000, "tracebacks": 2, "hangs": 3, "wrong_acceptances": 0}
    added = resilience.both_kinds(tried, {"inputs_tried": 30_000, "tracebacks": 1, "hangs": 0})
    assert (added["inputs_tried"], added["tracebacks"], added["hangs"]) == (42_000, 3, 3)
    found = resilience.together(disturbed, tried, {"open_10000_seconds": 9.5})
    assert (found["tracebacks"], found["hangs"], found["trials"]) == (3, 3, 52)
    assert (found["inputs_tried"], found["open_10000_seconds"]) == (12_000, 9.5)


def test_the_flaky_store_fails_and_is_stale_and_says_so(tmp_path):
    """Catches a file system that is on its best behavior, under which every store would pass."""
    flaky.register(3, str(tmp_path / "log"))
    files = flaky.Flaky(skip_instance_cache=True)
    place, failed, stale = f"flaky://{tmp_path}/folder/object", 0, 0
    for i in range(200):
        try:
            files.pipe_file(place, str(i).encode())
            stale += files.cat_file(place) != str(i).encode()
        except FileNotFoundError:
            stale += 1
        except OSError:
            failed += 1
    assert failed > 5 and stale > 5
    said = (tmp_path / "log").read_text().split("\n")
    acts = {line.split(" ")[0] for line in said if line}
    assert acts == {"writing", "having", "reading", "stale"}
    with pytest.raises(OSError, match="exists|failed"):
        files.pipe_file(place, b"", mode="create")
