"""Studies on a real Slurm: through Ray inside an allocation, and as an array that others train.

`make test-slurm` installs Slurm where it can; without one these tests are skipped.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import tiny_study
from slurm_cluster import ENDS, NoSlurm, SlurmCluster

from cuvee.tasks.trainer.swarm_folder import read_swarm

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples/trainers/transformers_trainer.py"
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


RAY = """\
echo "$@" >"$SAID"
echo "Ray runtime started"
sleep 60 & trap 'kill %1; exit' TERM; wait"""


@pytest.mark.parametrize(
    ("memory", "code", "requeued", "given"),
    [("0", 0, False, ""), ("4096", 3, True, f"--memory {4096 * (1 << 20) // 10 * 9} ")],
)
def test_the_script_gives_ray_its_memory_and_queues_what_has_not_ended(
    tmp_path, memory, code, requeued, given
):
    """Catches a Ray with no memory, where a job has all of a node, and a study that has ended well
    and is queued again since its time ended just then."""
    said, called, early = (tmp_path / name for name in ("said", "called", "early"))
    scontrol = f'case $1 in show) echo NodeAddr=127.0.0.1;; *) echo "$@" >>"{called}";; esac'
    for name, text in {"ray": RAY, "scontrol": scontrol, "study": f"exit {code}"}.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    early.write_text(  # bash reads it first: the time of the job ends once its study has
        """case $0 in *ray.sbatch) trap 'case $BASH_COMMAND in "trap '"''"'"*) """
        """kill -USR1 $$;; esac' DEBUG;; esac"""
    )
    done = subprocess.run(
        ["bash", SCRIPT, "study"], check=False, capture_output=True, text=True, timeout=60,
        env={
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "BASH_ENV": str(early), "SAID": str(said),
            "SLURM_JOB_ID": "77", "SLURM_JOB_NUM_NODES": "1", "SLURMD_NODENAME": "node1",
            "SLURM_CPUS_ON_NODE": "1", "SLURM_MEM_PER_NODE": memory,
        },
    )  # fmt: skip
    assert done.returncode == code and "is nearly over" in done.stderr
    assert called.exists() == requeued == ("is queued again" in done.stderr)
    assert ("--memory" in said.read_text()) == bool(given) and given in said.read_text()


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
            assert state not in ENDS, f"{state}: {self.log}"
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
    slurm.until(lambda: restarts(slurm, second) == 1, "the job to be queued again", 180)
    assert slurm.ended(second) == "COMPLETED", study.log
    assert len(study.results) == RUNS and kept.items() <= study.results.items()
    summary = json.loads((tmp_path / "home/studies/tiny/summary.json").read_text())
    assert summary["proxies"] == RUNS and summary["failed"] == 0
    assert summary["reused"] >= len(kept)


class Sweep:
    """A study whose runs the example for transformers trains, in homes of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tiny_study.write_corpus(folder)
        trainer = {
            "command": [sys.executable, str(EXAMPLE)],
            "settings": {"save_every": 5},
        }
        text = tiny_study.recipe(
            folder,
            proxy=json.dumps({"size": "0.3M", "tokens": 42_000, "trainer": trainer}),
            method="{name: mixing_laws, runs: 8, seeds: 2, folds: 2, refits: 10}",
            confirm="null",
        )
        (folder / "sweep.yaml").write_text(text)

    def begin(self, home: str, command: str, *words: str) -> subprocess.Popen[str]:
        """Begin a command of Cuvée on the recipe, in a home."""
        return subprocess.Popen(
            [CUVEE, command, "sweep.yaml", *words, "--home", home], text=True, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, "CUVEE_TRAINER_COMMANDS": f"{sys.executable} {EXAMPLE}"},
        )  # fmt: skip

    def call(self, home: str, command: str, *words: str) -> str:
        """What a command of Cuvée says that ends well."""
        process = self.begin(home, command, *words)
        said, _ = process.communicate(timeout=600)
        assert process.returncode == 0, said
        return said

    def table(self, home: str) -> dict[str, dict]:
        """By fingerprint, the outcomes of a home, but for what they cost in time."""
        found = {}
        for path in (self.folder / home / "store/runs").glob("*/result.json"):
            outcome = json.loads(path.read_text())["content"]
            found[path.parent.name] = {k: v for k, v in outcome.items() if "seconds" not in k}
        return found

    def collected_in_part(self) -> bool:
        """Kill `collect` as soon as something is stored; whether something was left to do."""
        process = self.begin("slurm", "collect", "swarm")
        while process.poll() is None and not self.table("slurm"):
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), said
        return 0 < len(self.table("slurm")) < 12

    def attempts(self, folder: str) -> int:
        """How often a trainer was begun, in all run directories of a folder."""
        logs = (self.folder / folder).glob("*/trainer.log")
        return sum(path.read_text().count("--- attempt") for path in logs)

    def answer(self, folder: str) -> dict:
        """What is recommended, and how much of it rests on which runs."""
        found = self.folder / folder / "recommendation.json"
        return json.loads(found.read_text())


def stopped_trainer(folder: Path) -> psutil.Process | None:
    """One of the example that has kept a state of a run below a folder, and is stopped now."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or [""]
        if str(EXAMPLE) not in words or not words[-1].startswith(str(folder)):
            continue
        if Path(words[-1]).parent.joinpath("state", "latest").exists():
            with contextlib.suppress(psutil.Error):
                process.suspend()
                if not Path(words[-1]).with_name("result.json").exists():
                    return process
                process.resume()
    return None


def kill(process: psutil.Process | None) -> bool:
    if process:
        process.kill()
    return process is not None


def reset(slurm: SlurmCluster, process: psutil.Process | None) -> bool:
    """Let the node of a process lose its power."""
    if process:
        slurm.reset_node(process.environ()["SLURMD_NODENAME"])
    return process is not None


@pytest.mark.slurm
def test_a_sweep_by_ray_and_one_by_slurm_are_the_same(slurm, tmp_path):
    """Catches runs that are not those that `cuvee run` trains, results that are paired by
    position, lost or doubled where a trainer, a node or `collect` is killed, and a run that is
    not what it would have been without."""
    sweep = Sweep(tmp_path)
    by_ray = sweep.begin("ray", "run", "--cores", "2")
    slurm.until(lambda: kill(stopped_trainer(tmp_path / "ray")), "a trainer", 240)
    said, _ = by_ray.communicate(timeout=600)
    assert by_ray.returncode == 0, said
    sweep.call("slurm", "export", "--swarm", "contract", "--to", "swarm")
    swarm = read_swarm(tmp_path / "swarm")
    job = slurm.submit("swarm/array.slurm", cwd=tmp_path)
    slurm.until(lambda: reset(slurm, stopped_trainer(tmp_path / "swarm")), "a trainer", 240)
    assert slurm.ended(job, 600) == "COMPLETED"
    while not sweep.collected_in_part():
        shutil.rmtree(tmp_path / "slurm/store/runs")
    for _ in range(2):
        sweep.call("slurm", "collect", "swarm")
        assert sweep.table("slurm") == sweep.table("ray")
    sweep.call("slurm", "fit")
    assert {one.fingerprint for one in swarm.runs} == set(sweep.table("ray"))
    assert len(swarm.runs) == 12
    assert sweep.attempts("ray/trainings") == sweep.attempts("swarm/runs") == 12 + 1
    assert sweep.answer("slurm/studies/tiny/fit") == sweep.answer("ray/studies/tiny")
