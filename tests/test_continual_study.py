"""A whole study that goes on from a checkpoint, through every real part, Ray and MLflow too."""

import sqlite3

import pytest
from test_continual import Trained

from cuvee.flows.runner import Runner, ended
from cuvee.flows.search import run
from cuvee.flows.server import PrefectApi
from cuvee.tasks.store import Store


@pytest.mark.slow
def test_a_study_goes_on_from_its_checkpoint_and_reports_what_was_forgotten(tmp_path):
    """Tables alone are wanted, so that code and prose would get nothing without replay. Catches
    random weights (no proxy of 29 steps could stay near the checkpoint), a replay share that is
    not kept, a checkpoint of which the record knows nothing, and a second run that trains anew."""
    import ray

    trained = Trained(tmp_path)
    text = trained.text.replace("forget: 0.3", "forget: 2.0")  # kept by anything but random weights
    with (
        PrefectApi(tmp_path / "prefect") as api,
        Runner(tmp_path / "ray", device="cpu", cores=2) as runner,
    ):
        assert runner.slots == 2
        summary = run(text, trained.home, api)
        again = run(text, trained.home, api)
    ended()
    assert not ray.is_initialized()
    assert again["trained_now"] == 0 and again["weights"] == summary["weights"]
    assert summary["weights"]["code"] + summary["weights"]["prose"] >= 0.25 - 1e-6
    found = summary["forgetting"]
    assert found["old"] == ["code", "prose"] and found["floor"] == 2.0
    ours = found["mixtures"]["recommended"]
    assert ours["code"]["seeds"] == 2 and ours["tables"]["change"] < 0  # the new one was learned
    assert max(ours["code"]["change"], ours["prose"]["change"]) < 2.0
    folder = trained.home.study("tiny")
    report = (folder / "report.md").read_text()
    assert "## Forgetting" in report and found["start"][:12] in report
    with sqlite3.connect(trained.home.record / "mlflow.db") as base:
        names = {row[0] for row in base.execute("select distinct key from metrics")}
    assert {"forgetting/recommended/code", "checkpoint/domain/prose"} <= names
    specs = {run.spec.start for run in Store(trained.home.store).outcomes()}
    assert specs == {found["start"]}
