"""Trainers of `examples/trainers`, run with the libraries they are for, as far as they install.

On a CPU: torchtitan in one process (its reductions need NCCL), OLMo-core in two.
"""

import importlib.util
import os
from pathlib import Path

import pytest
import tiny_study

from cuvee.mixtures.runs.run_results import RunResult
from tests.flows.test_trainer import CUVEE, ROOT, Sweep, recipe

EXAMPLES = ROOT / "examples/trainers"
TORCHRUN = str(CUVEE.with_name("torchrun"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    tiny_study.write_corpus(folder)
    return folder


def library(name: str, module: str) -> None:
    """Skip unless a trainer's library is installed; fail where `make test-trainers` promised it."""
    if importlib.util.find_spec(module) is None:
        assert os.environ.get("CUVEE_TRAINER") != name, f"{module} is not there"
        pytest.skip(f"{name} is not installed")


def trained(corpus: Path, home: Path, monkeypatch, processes: int, *programs: Path) -> RunResult:
    """A run by an example."""
    command = [TORCHRUN, "--standalone", "--nproc-per-node", str(processes), *map(str, programs)]
    monkeypatch.setenv("CUVEE_TRAINER_COMMANDS", TORCHRUN)
    sweep = Sweep(recipe(corpus, {"save_every": 8}, command=command, cpus=processes), home)
    (run,) = sweep.train(0)
    (folder,) = sweep.folders
    assert isinstance(run, RunResult), (folder / "trainer.log").read_text()[-6000:]
    return run


def hold_trained(run: RunResult) -> None:
    """The checkpoint scores as the model did at the end; at first it is at 4.6 bits per byte."""
    assert run.scores["domain/tables"].value < 3.6
    assert all(score.value < 4.5 for score in run.scores.values())
    assert run.curve[0][1] > 6 > 5.6 > min(loss for _, loss in run.curve)
    assert len(run.curve) > 5


@pytest.mark.trainers
def test_ai2_olmo_core_trains_a_run(corpus, tmp_path, monkeypatch):
    """Catches a model, a mixture or a schedule that OLMo-core refuses, a checkpoint that scores as
    an untrained model, and a curve without points."""
    library("ai2-olmo-core", "olmo_core")
    hold_trained(trained(corpus, tmp_path, monkeypatch, 2, EXAMPLES / "olmo_core/train.py"))


@pytest.mark.trainers
def test_torchtitan_trains_a_run(corpus, tmp_path, monkeypatch):
    """Catches a configuration that torchtitan refuses, targets that are not the next ids, weights
    that transformers reads otherwise (queries and keys lie in another order there)."""
    library("torchtitan", "torchtitan")
    on_cpu = ROOT / "tests/trainer_programs/torchtitan_on_cpu.py"
    run = trained(corpus, tmp_path, monkeypatch, 1, on_cpu, EXAMPLES / "torchtitan/train.py")
    hold_trained(run)
    assert max(run.tokens) - min(run.tokens) <= 256 and sum(run.tokens) == 40_960
