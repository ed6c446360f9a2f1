"""Studies on a real Slurm: through Ray inside an allocation.

`make test-slurm` installs Slurm where it can; without one these tests are skipped.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_study
from slurm_cluster import NoSlurm, SlurmCluster

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "infra/slurm/ray.sbatch"
CUVEE = Path(sys.executable).with_name("cuvee")
RUNS = 12  # of the study
SETTINGS = {"PATH": f"{CUVEE.parent}:{os.environ.get('PATH', '')}", "SLURM_JOB_ID": ""}


@pytest.fixture(scope="module")
def slurm():
    try:
        with SlurmCluster() as cluster:
            yield cluster
    except NoSlurm as reason:
        pytest.skip(str(reason))


def test_the_script_says_what_is_lacking():
    """Catches a script that begins outside an allocation, or without a command to run."""
    for words in ([], ["cuvee", "run", "study.yaml"]):
        done = subprocess.run(
            ["bash", SCRIPT, *words], check=False, capture_output=True, text=True,
            env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
        assert done.returncode == 2 and "give this script to sbatch" in done.stderr


class Study:
    """A study in a folder, run through `sbatch` on both nodes."""

    def __init__(self, slurm: SlurmCluster, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        tiny_study.write_corpus(folder)
        text = tiny_study.recipe(
            folder,
            proxy="{size: 0.3M, tokens: 150000, pack: 1}",
            method=f"{{name: regmix, runs: {RUNS}, anchors: [], folds: 2, refits: 10, "
            "laws: [log_linear]}",
            confirm="null",
        )
        (folder / "study.yaml").write_text(text)

    def submit(self) -> str:
        words = [str(SCRIPT), "cuvee", "run", "study.yaml", "--home", "home"]
        return self.slurm.submit(
            "--nodes=2", "--output=job.log", *words, cwd=self.folder, **SETTINGS
        )

    @property
    def results(self) -> dict[Path, int]:
        """Those stored so far, and when each was written."""
        found = (self.folder / "home/store/runs").glob("*/result.json")
        return {path: path.stat().st_mtime_ns for path in found}

    @property
    def log(self) -> str:
        return (self.folder / "job.log").read_text()

    def trained_more(self, job: str, count: int) -> dict[Path, int]:
        """Wait until a job has trained some runs; all results then."""
        before = len(self.results)

        def there() -> bool:
            state = self.slurm.job(job)
            assert state in ("PENDING", "RUNNING", "COMPLETING"), f"{state}: {self.log}"
            return len(self.results) >= before + count

        self.slurm.until(there, f"{count} results; {self.folder}/job.log", 240)
        found = self.results
        assert len(found) < RUNS, "the study was too short to be stopped"
        return found


def restarts(slurm: SlurmCluster, job: str) -> int:
    said = slurm.call("scontrol", "show", "job", job)
    return int(said.partition("Restarts=")[2].split()[0])


@pytest.mark.slurm
def test_a_study_on_two_nodes_loses_nothing(slurm, tmp_path):
    """Catches Ray or a study that outlives scancel, files left in /tmp, a job that is not queued
    again when its time is over or its node was lost, and runs that are lost or trained again."""
    study = Study(slurm, tmp_path)
    first = study.submit()
    kept = study.trained_more(first, 1)
    slurm.call("scancel", "--batch", "--signal=USR1", first)  # as Slurm does before the limit
    slurm.until(lambda: restarts(slurm, first) == 1, "the job to be queued again", 120)
    assert kept.items() <= study.results.items()
    kept = study.trained_more(first, 1)
    slurm.call("scancel", first)
    slurm.until(lambda: not slurm.processes(), "the end of all processes of the job")
    assert slurm.ended(first) == "CANCELLED"
    assert list((slurm.folder / "t").glob("cuvee-*")) == []
    assert kept.items() <= study.results.items()
    second = study.submit()
    kept = study.trained_more(second, 1)
    slurm.reset_node("node1")
    slurm.until(lambda: restarts(slurm, second) == 1, "the job to be queued again")
    assert slurm.ended(second) == "COMPLETED", study.log
    assert len(study.results) == RUNS and kept.items() <= study.results.items()
    summary = json.loads((tmp_path / "home/studies/tiny/summary.json").read_text())
    assert summary["proxies"] == RUNS and summary["failed"] == 0
    assert summary["reused"] >= len(kept)
