"""A whole study through the real parts: corpus, proxies, Ray, Prefect, MLflow, report.

The study is tiny (three domains of text that Python brings along, proxies of 0.3M parameters), and
it is run once for the file; each test then looks at it, harms it, or runs it again.
"""

import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest
import tiny_study
from tiny_study import run

from cuvee.flows.execution.evaluator import Evaluator
from cuvee.flows.execution.prefect_session import prefect_step, run_as_flow
from cuvee.flows.execution.ray_executor import RayExecutor
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.prepare import pose_problem, prepare
from cuvee.flows.upkeep.disk_layout import STORE_FOLDERS, STUDY_FILES
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import DataError, StorageError, TrainingError
from cuvee.mixtures.runs.run_results import Failed, RunResult
from cuvee.proxies.train.device import this_device
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.finished import latest_complete
from cuvee.tasks.study.progress import DONE
from cuvee.tasks.study.progress_record import ProgressReader
from cuvee.tasks.tracking.study_tracker import StudyTracker
from cuvee.tasks.tracking.tracker import MemoryBackend


@pytest.fixture(scope="module")
def study(tmp_path_factory, prefect_api, ray_cluster):
    folder = tmp_path_factory.mktemp("study")
    tiny_study.write_corpus(folder / "corpus")
    home = Workspace(folder / "home")
    text = tiny_study.recipe(folder / "corpus", proxy="{size: 0.3M, tokens: 41000}")
    return home, text, run(text, home, prefect_api)


def copied(study, tmp_path: Path) -> tuple[Workspace, str]:
    home, text, _ = study
    shutil.copytree(home.root, tmp_path / "home")
    return Workspace(tmp_path / "home"), text


def test_a_study_leaves_all_that_was_promised(study):
    """Catches a step that is skipped: each file and figure comes from another step."""
    home, _, summary = study
    folder = home.study("tiny")
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert summary["failed"] == 0 and summary["reused"] == 0
    assert summary["trained_now"] == summary["proxies"] == 8 + 4 + 8
    assert summary["tokens_per_second"] > 100 and -1 <= summary["rank_correlation"] <= 1
    assert sum(summary["weights"].values()) == pytest.approx(1)
    for name in ("natural", "uniform"):
        pair = summary["confirmation"][name]
        assert pair["low"] <= pair["gain"] <= pair["high"] and pair["n"] == 2
    assert summary["weights"]["prose"] > 0.5  # the objective is prose alone
    page = (folder / "report.html").read_text()
    assert page.count("<svg") >= 3 and "<script src" not in page and "<link" not in page
    assert "prose" in (folder / "report.md").read_text()
    assert (folder / "recipe.yaml").read_text() == study[1]


def test_what_a_study_leaves_on_disk_is_in_the_reference(study):
    """Catches a folder of the store, or a file of a study, that the reference does not name."""
    home, _, _ = study
    folders = {place.name for place in Path(home.store).iterdir() if place.is_dir()}
    files = {place.name for place in home.study("tiny").iterdir()}
    named = {name.rstrip("/") for names in STUDY_FILES for name in names.split(", ")}
    assert (folders - set(STORE_FOLDERS), files - named) == (set(), set())


def test_the_record_has_a_parent_and_a_child_per_proxy(study):
    """Catches a record without curves, scores, or the link from child to parent."""
    home, _, summary = study
    with sqlite3.connect(home.record / "mlflow.db") as base:
        parents = base.execute(
            "select value, count(*) from tags where key='mlflow.parentRunId' group by value"
        ).fetchall()
        assert [count for _, count in parents] == [summary["proxies"]]
        names = dict(base.execute("select key, count(distinct run_uuid) from metrics group by key"))
        states = base.execute("select distinct status from runs").fetchall()
    assert names["domain/prose"] == names["objective"] == summary["proxies"]
    assert states == [("FINISHED",)]


def test_the_same_study_again_trains_nothing_and_answers_the_same(
    study, prefect_api, tmp_path, quick_pictures
):
    """Catches a fingerprint or a fit that depends on the clock, the process or the order."""
    home, text = copied(study, tmp_path)
    before = (home.study("tiny") / "recommendation.json").read_text()
    again = run(text, home, prefect_api)
    assert again["trained_now"] == 0 and again["reused"] == again["proxies"]
    assert again["cost"]["evidence"] == study[2]["cost"]["evidence"]
    (seen,) = ProgressReader(Store(home.store).objects).studies()
    assert (seen.trained, seen.reused, seen.planned) == (0, again["proxies"], 0)
    assert again["cost"]["call"]["flops"] == 0 < again["cost"]["evidence"]["flops"]
    assert (home.study("tiny") / "recommendation.json").read_text() == before
    shutil.rmtree(Path(home.store) / "recommendations")  # now it must be computed anew
    run(text, home, prefect_api)
    assert (home.study("tiny") / "recommendation.json").read_text() == before


def test_a_damaged_result_is_trained_again_and_nothing_else(
    study, prefect_api, tmp_path, quick_pictures
):
    """Catches damage that is used, and damage that costs more than itself."""
    home, text = copied(study, tmp_path)
    before = (home.study("tiny") / "recommendation.json").read_text()
    record = min(Path(home.store).glob("runs/*/result.json"))
    raw = bytearray(record.read_bytes())
    raw[len(raw) // 2] ^= 1
    record.write_bytes(raw)
    again = run(text, home, prefect_api)
    assert again["trained_now"] == 1
    assert (home.study("tiny") / "recommendation.json").read_text() == before
    assert len(list(record.parent.glob("*corrupt*"))) == 1


def test_a_damaged_shard_is_never_trained_on(study, prefect_api, tmp_path, quick_pictures):
    """Catches a corpus that is trusted because it is there: it must be made again."""
    home, text = copied(study, tmp_path)
    shard = next(home.corpora.glob("*/code/train.bin"))
    sound = shard.read_bytes()
    shard.write_bytes(sound[:100] + bytes([sound[100] ^ 1]) + sound[101:])
    again = run(text, home, prefect_api)
    assert shard.read_bytes() == sound and again["trained_now"] == 0


def test_a_study_in_this_process_gives_the_same_bytes_and_starts_no_other(
    study, tmp_path, monkeypatch, quick_pictures
):
    """Catches an executor whose packs are trained otherwise, and one that still needs a server."""

    def refuse(*given, **named):
        raise AssertionError(f"a process is started: {given}")

    home, text, summary = study
    own, before = Workspace(tmp_path), set(psutil.Process().children())
    monkeypatch.setattr(subprocess.Popen, "__init__", refuse)
    found, ledger = tiny_study.run_inline(text, own)
    assert set(psutil.Process().children()) <= before  # those of other tests may end by themselves
    one, two = (kept["cost"]["evidence"] for kept in (found, summary))
    assert (one["flops"], one["tokens"]) == (two["flops"], two["tokens"])
    said, told = ({**kept["answers"]} for kept in (found, summary))
    assert said.pop("cost").split(" cost ")[0] == told.pop("cost").split(" cost ")[0]
    assert said == told
    price = r"about .* of one core"  # by the clock
    one, two = (re.sub(price, "", str(kept["next_steps"])) for kept in (found, summary))
    assert one == two
    clocks = ("minutes", "tokens_per_second", "cost", "answers", "next_steps")
    assert {n: v for n, v in found.items() if n not in clocks} == {
        n: v for n, v in summary.items() if n not in clocks
    }
    name = "recommendation.json"
    assert (own.study("tiny") / name).read_bytes() == (home.study("tiny") / name).read_bytes()
    (seen,) = ProgressReader(Store(own.store).objects).studies()  # as any terminal sees it
    assert (seen.state, seen.trained, seen.reused) == (DONE, found["proxies"], 0)
    assert [one.title for one in seen.rounds] == ["Proxies", "Confirmation"]
    assert seen.cost.flops == found["cost"]["call"]["flops"] and seen.left == 0
    assert seen.spent == pytest.approx(seen.planned) == pytest.approx(seen.cost.flops, rel=0.01)
    (parent,) = [run for run in ledger.runs.values() if run.parent is None]
    assert said["recommended"] in parent.description  # the end has the last word
    assert parent.status == "FINISHED" and "report.html" in parent.artifacts
    assert sum(run.status == "FINISHED" for run in ledger.runs.values()) == 1 + found["proxies"]

    def full(*_):
        raise StorageError("the disk is full")

    store, other = Store(own.store), text.replace("name: tiny", "name: other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cuvee.flows.study.study.conclude_study", full)
        with pytest.raises(StorageError):
            tiny_study.run_inline(other, own)
    assert latest_complete(store, "tiny") is not None
    assert latest_complete(store, "other") is None  # a schedule would find it done, without report


class Bench:
    """Trainings over the study's corpus, with a store of their own."""

    def __init__(self, study, folder: Path, api, failed_share: float = 0.2) -> None:
        home, text, _ = study
        self.recipe = parse(f"{text}limits: {{failed_share: {failed_share}}}\n")
        prepared = prepare(self.recipe, home)
        self.problem = pose_problem(self.recipe, prepared)
        self.store = Store(str(folder / "store"))
        self.backend = MemoryBackend()
        recorder = StudyTracker(self.backend)
        recorder.start_study("bench", {}, {})
        self.runner = RayExecutor(folder, device="cpu", cores=2)
        workspace = Workspace(folder, step=prefect_step)
        self.trainings = Evaluator(
            self.recipe, prepared, self.store, recorder, self.runner, workspace
        )
        self.api = api

    def train(self, specs):
        with self.runner:
            return run_as_flow(
                "bench", lambda: self.trainings(specs), self.api, recipe_text="", home=Path()
            )


def test_a_worker_killed_in_mid_training_costs_no_result(study, prefect_api, tmp_path):
    """Catches a pack that is lost with its worker, and a retry that gives other losses."""
    import threading
    import time

    bench = Bench(study, tmp_path, prefect_api)
    spec = bench.problem.spec((0.2, 0.3, 0.5), 9)
    (undisturbed,) = Bench(study, tmp_path / "calm", prefect_api).train((spec,))
    killed: list[int] = []

    def kill_once() -> None:
        deadline = time.monotonic() + 60
        while not killed and time.monotonic() < deadline:
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if any("ray::pack-" in word for word in process.cmdline()):
                        process.kill()
                        killed.append(process.pid)
                        return
            time.sleep(0.02)

    thread = threading.Thread(target=kill_once)
    thread.start()
    (disturbed,) = bench.train((spec,))
    thread.join()
    assert killed
    assert isinstance(disturbed, RunResult)
    assert disturbed.scores == undisturbed.scores and disturbed.curve == undisturbed.curve


def test_a_proxy_that_diverges_is_counted_and_the_others_go_on(study, prefect_api, tmp_path):
    """Catches NaN turned into a number, and one failure that ends the study."""
    import dataclasses

    bench = Bench(study, tmp_path, prefect_api)
    good = [bench.problem.spec((0.2, 0.3, 0.5), seed) for seed in range(5)]
    bad = dataclasses.replace(good[0], rate=1e9)
    outcomes = bench.train((*good[:2], bad, *good[2:]))
    assert isinstance(outcomes[2], Failed) and "diverge" in outcomes[2].reason
    assert all(isinstance(run, RunResult) for run in (*outcomes[:2], *outcomes[3:]))
    assert isinstance(bench.store.get(bad.fingerprint), Failed)  # known, so not tried for ever
    assert {run.status for run in bench.backend.runs.values() if run.parent} == {
        "FINISHED",
        "FAILED",
    }


def test_too_many_failures_stop_the_study_and_keep_the_rest(study, prefect_api, tmp_path):
    """Catches a study that goes on to fit what is left of a design."""
    import dataclasses

    bench = Bench(study, tmp_path, prefect_api)
    good = [bench.problem.spec((0.2, 0.3, 0.5), seed) for seed in range(2)]
    bad = [dataclasses.replace(spec, rate=1e9) for spec in good]
    with pytest.raises(TrainingError, match=r"2 of 4 .*failed_share"):
        bench.train((*good, *bad))
    assert all(isinstance(bench.store.get(spec.fingerprint), RunResult) for spec in good)


def test_a_run_planned_on_other_data_is_refused(study, prefect_api, tmp_path):
    """Catches evidence that is tied to a domain's name alone."""
    import dataclasses

    bench = Bench(study, tmp_path, prefect_api)
    spec = bench.problem.spec((0.2, 0.3, 0.5), 0)
    other = dataclasses.replace(spec, identities=("0" * 64, *spec.identities[1:]))
    with pytest.raises(DataError, match="code.*plan the study again"):
        bench.train((other,))


def test_order_of_specs_is_order_of_outcomes(study, prefect_api, tmp_path):
    """Catches outcomes that come back in the order in which they finished."""
    bench = Bench(study, tmp_path, prefect_api)
    specs = [bench.problem.spec(w, 0) for w in ((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0))]
    outcomes = bench.train(specs)
    assert [run.spec for run in outcomes] == specs
    best = np.argmin([[run.scores[t].value for t in bench.problem.targets] for run in outcomes], 0)
    assert list(best) == [0, 1, 2]  # each domain is learned best from itself


def test_what_the_store_holds_is_recorded_at_once_only_where_more_is_trained(
    study, prefect_api, tmp_path
):
    """Catches found proxies that a sweep's record lacks for hours, and a finished study that tells
    each of them twice: before its objective is known, and when it is."""
    bench = Bench(study, tmp_path, prefect_api)
    known = next(run for run in Store(study[0].store).outcomes() if run.spec.seed == 0)
    bench.store.put(known)
    assert bench.trainings((known.spec,)) == (known,)
    assert not any(run.parent for run in bench.backend.runs.values())
    bench.train((bench.problem.spec((0.2, 0.3, 0.5), 77),))
    children = [run for run in bench.backend.runs.values() if run.parent]
    assert [run.status for run in children] == ["FINISHED"] * 2
    assert children[0].tags["cuvee.fingerprint"] == known.spec.fingerprint
    assert all(len(run.metrics["curve/loss"]) > 1 for run in children)


def test_a_local_cluster_has_all_the_memory_of_the_machine(ray_cluster, tmp_path):
    """Catches a size refused, or trained on fewer cores, by what other programs had open."""
    with RayExecutor(tmp_path, device="cpu") as executor:
        assert [kind.memory for kind in executor.devices()] == [this_device("cpu").memory]
