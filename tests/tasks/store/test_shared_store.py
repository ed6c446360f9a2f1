"""Two sweeps on one store at once: they split the work, and both get all of it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_study

ROOT = Path(__file__).parent.parent.parent.parent
pytestmark = pytest.mark.slow


def launch(folder: Path, home: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cuvee.flows", "run", str(folder / "tiny.yaml"), "--home", home],
        env={
            **os.environ,
            "CUVEE_STORE": str(folder / "shared"),
            "PREFECT_HOME": f"{home}/prefect",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


def study(folder: Path) -> list[str]:
    """A study of 9 proxies; returns the homes of two sweeps of it."""
    tiny_study.write_corpus(folder)
    method = "{name: mixing_laws, runs: 9, seeds: 1, folds: 2, refits: 10}"
    text = tiny_study.recipe(folder, method=method)
    (folder / "tiny.yaml").write_text(text)
    return [str(folder / name) for name in ("one", "two")]


def facts(folder: Path, home: str) -> tuple[dict, dict]:
    place = Path(home) / "studies/tiny"
    return tuple(
        json.loads((place / f"{n}.json").read_text()) for n in ("summary", "recommendation")
    )


def test_two_sweeps_on_one_store_split_the_work(tmp_path):
    """Catches a run trained twice, a sweep that waits for ever, and answers that differ."""
    homes = study(tmp_path)
    sweeps = [launch(tmp_path, home) for home in homes]
    said = [sweep.communicate(timeout=900)[0] for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0], said
    (one, first), (two, second) = (facts(tmp_path, home) for home in homes)
    assert one["trained_now"] + two["trained_now"] == one["proxies"] == two["proxies"]
    assert min(one["trained_now"], two["trained_now"]) > 0
    assert first == second
    assert not any((tmp_path / "shared/claims").iterdir())


def test_a_killed_sweep_leaves_its_work_to_the_other(tmp_path):
    """Catches claims that outlive their sweep, and results that are lost or counted twice."""
    homes = study(tmp_path)
    killed, survivor = (launch(tmp_path, home) for home in homes)
    claims = tmp_path / "shared/claims"
    while not (claims.is_dir() and any(claims.iterdir())):
        assert killed.poll() is None and survivor.poll() is None
    killed.kill()
    killed.communicate()
    said, _ = survivor.communicate(timeout=900)
    assert survivor.returncode == 0, said
    summary, _ = facts(tmp_path, homes[1])
    assert summary["failed"] == 0
    assert summary["trained_now"] + summary["reused"] == summary["proxies"]
    again = launch(tmp_path, homes[0])
    said, _ = again.communicate(timeout=900)
    assert again.returncode == 0, said
    assert facts(tmp_path, homes[0])[0]["trained_now"] == 0
