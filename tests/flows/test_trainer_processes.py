"""Trainers of others under Ray, in several processes and on several nodes, killed in the middle.

Each test kills another part: the trainer, a worker of Ray, the command, the command by Ctrl-C.
"""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import tiny_study
from ray_nodes import PLAIN, ray_nodes, until

from cuvee.flows.execution.ray_executor import RayExecutor
from cuvee.mixtures.errors import ServiceError
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.proxies.ladder import model_size, size_name
from cuvee.proxies.model_size import PARTS
from cuvee.tasks.store.results import Store
from cuvee.tasks.trainer.supervisor import MARK, marked_processes
from tests.flows.test_trainer import COMMAND, CUVEE, ROOT, Sweep, recipe

pytestmark = pytest.mark.slow
EXAMPLE = ROOT / "examples/trainers/transformers_trainer.py"
TORCHRUN = [str(CUVEE.with_name("torchrun")), "--standalone", "--nproc-per-node"]
RUNS = 10  # of the study


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    tiny_study.write_corpus(folder)
    return folder


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    programs = [" ".join(COMMAND), sys.executable, TORCHRUN[0]]
    monkeypatch.setenv("CUVEE_TRAINER_COMMANDS", ":".join(programs))


def left_of(home: Path) -> list[psutil.Process]:
    """Processes that trainers of a home have started and that are still there."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK, "").startswith(str(home)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_the_transformers_example_in_two_processes_is_what_one_gives(corpus, tmp_path):
    """Catches processes that train on the same sequences, gradients that are not averaged over
    all, a state that cannot be gone on from, and a tokenizer that does not go with the model."""
    settings = {"save_every": 10}
    one = [sys.executable, str(EXAMPLE)]
    alone = Sweep(recipe(corpus, settings, command=one), tmp_path / "home")
    (single,) = alone.train(0)
    two = [*TORCHRUN, "2", str(EXAMPLE)]
    sweep = Sweep(recipe(corpus, settings, command=two, cpus=2), tmp_path / "home")

    def kill() -> None:
        """A process of the second attempt, once it has a state."""

        def states() -> list[Path]:
            return [p for p in sweep.folders if (p / "state" / "latest").exists()]

        (folder,) = until(states, "a state")
        ranks = [p for p in marked_processes(str(folder)) if "LOCAL_RANK" in p.environ()]
        ranks[0].send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    (double,) = sweep.train(0)
    killer.join()
    assert isinstance(single, RunResult) and isinstance(double, RunResult), (single, double)
    for name, score in single.scores.items():
        assert double.scores[name].value == pytest.approx(score.value, rel=1e-3)
    assert max(double.scores.values(), key=lambda s: s.n).stderr > 0
    assert double.tokens == single.tokens and abs(sum(double.tokens) - 42_000) < 2048
    (folder,) = [f for f in sweep.folders if "attempt" in (f / "trainer.log").read_text()[5:]]
    assert (folder / "trainer.log").read_text().count("--- attempt") == 2

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(folder / "checkpoint")
    ids = tokenizer("squared is", return_tensors="pt").input_ids
    assert model(ids).logits.shape[-1] == len(tokenizer) == 512
    assert tokenizer.decode(ids[0]) == "squared is"


def example_module():
    spec = importlib.util.spec_from_file_location("transformers_trainer", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def test_the_transformers_example_builds_the_shape_that_it_is_told(tmp_path):
    """Catches keys and values of every head, a head of its own, and another rotary base."""
    size = model_size("w96_l2_h6_kv2_c128_mlp160_rope500000_eps0.01_tied")
    told = {name: getattr(size, name) for name in PARTS}
    run = {"model": told, "settings": {}, "vocabulary": 300, "end_of_text": 0}
    model = example_module().make_model({**run, "schedule": {"sequence_length": size.context}})
    assert model.num_parameters() == size.parameters(300)
    model.save_pretrained(tmp_path)
    assert size_name(f"{tmp_path}/config.json", str) == size.size


def test_the_transformers_example_says_what_it_cannot_train_on(tmp_path):
    """Catches a process without a sequence, and a division by the sequences of a short domain."""
    example = example_module()
    (tmp_path / "ids").write_bytes(bytes(20))
    split = {"path": str(tmp_path / "ids"), "tokens": 10}
    run = {
        "schedule": {"sequence_length": 8, "batch": 2, "steps": 2},
        "domains": {"long": {"train": split}, "short": {"train": {**split, "tokens": 5}}},
        "stages": [{"tokens": 32, "shares": {"long": 1.0, "short": 0.0}}],
        "data_seed": 0,
        "tokens": 32,
        "token_type": "uint16",
    }
    example.check_fits(run, example.Mixture(run), 2)
    with pytest.raises(SystemExit, match="3 processes for 2 sequences a step"):
        example.check_fits(run, example.Mixture(run), 3)
    run["stages"][0]["shares"] = {"long": 0.5, "short": 0.5}
    with pytest.raises(SystemExit, match="domain short is shorter than one sequence of 8"):
        example.check_fits(run, example.Mixture(run), 2)


def test_a_checkpoint_alone_is_scored_here(corpus, tmp_path):
    """Catches scores of another model or text, and a run without scores that is thrown away, be it
    because its trainer had a GPU and the torch of this process knows none."""
    sweeps = [
        Sweep(
            recipe(corpus, more, command=[sys.executable, str(EXAMPLE)], gpus=gpus),
            tmp_path / "home",
        )
        for more, gpus in (({}, 0), ({"score": False}, 0.5))
    ]
    (own,), (ours,) = (sweep.train(0) for sweep in sweeps)
    assert isinstance(ours, RunResult), ours
    assert set(own.scores) == set(ours.scores)
    for name, score in own.scores.items():
        assert ours.scores[name].value == pytest.approx(score.value, rel=0.1)
    order = sorted(own.scores, key=lambda name: own.scores[name].value)
    assert order == sorted(ours.scores, key=lambda name: ours.scores[name].value)
    assert ours.scores["domain/code"].n > 1 and ours.scoring_seconds > 0


def test_a_killed_worker_loses_nothing_and_doubles_nothing(corpus, tmp_path):
    """Catches a trainer that goes on without its worker beside the one that takes its place, and
    one that begins from nothing."""
    with RayExecutor(tmp_path / "home", device="cpu", cores=2) as executor:
        sweep = Sweep(recipe(corpus, {"wait": 2}), tmp_path / "home", executor)

        def kill() -> None:
            until(lambda: "begins" in "".join(sweep.attempts()), "the trainer")
            until((sweep.folders[0] / "state/counts.npz").exists, "a state")
            own = psutil.Process().children(recursive=True)  # others' clusters are left alone
            workers = [p for p in own if name_of(p).startswith("ray::pack-")]
            workers[0].send_signal(signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        (run,) = sweep.train(0)
        killer.join()
    assert isinstance(run, RunResult) and [t for t, _ in run.curve][-1] == 42_000
    first, second = (said.splitlines()[1] for said in sweep.attempts())
    assert first == "begins at step 0 with rank 0"
    assert re.fullmatch(r"begins at step [1-5] with rank 0", second)
    progress = (sweep.folders[0] / "progress.jsonl").read_text().splitlines()
    assert 5 <= len(progress) <= 6  # at most the step that was cut off, twice
    assert left_of(tmp_path) == []


def name_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_run_on_two_nodes_is_started_on_both(corpus, tmp_path, monkeypatch):
    """Catches two ranks on one node, ranks that cannot find each other, a second result, and a
    run that waits for ever for nodes that are not there."""
    home = tmp_path / "home"
    with ray_nodes(monkeypatch, tmp_path, PLAIN, PLAIN):
        with RayExecutor(home, device="cpu") as executor:
            sweep = Sweep(recipe(corpus, {"steps": 2}, nodes=2), home, executor)
            (run,) = sweep.train(0)
        assert isinstance(run, RunResult), run
        (folder,) = sweep.folders
        assert "begins at step 0 with rank 0" in (folder / "trainer.log").read_text()
        assert "with rank 1" in (folder / "trainer-1.log").read_text()
        asked = "asks for 1 CPU, 0.5 GPU.*the most on one: 1 CPU, 0 GPU"
        for more, words in (({"nodes": 3}, "asks for 3 nodes with 1 CPU"), ({"gpus": 0.5}, asked)):
            with RayExecutor(home, device="cpu") as executor:
                sweep = Sweep(recipe(corpus, {"steps": 2}, **more), home, executor)
                with pytest.raises(ServiceError, match=words):
                    sweep.train(1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_study_goes_on(corpus, tmp_path, number):
    """Catches trainers that outlive Ctrl-C or a killed command, runs that are lost or trained
    again, and a study that ends otherwise than one that nobody stopped."""
    text = tiny_study.recipe(
        corpus,
        proxy=json.dumps(
            {
                "size": "0.3M",
                "tokens": 42_000,
                "trainer": {"command": COMMAND, "settings": {"wait": 0.4, "children": 10_000}},
            }
        ),
        method="{name: regmix, runs: 10, anchors: [], folds: 2, refits: 10, laws: [log_linear]}",
        confirm="null",
    )
    (tmp_path / "r.yaml").write_text(text)
    home, words = tmp_path / "home", [CUVEE, "run", "r.yaml", "--home", "home", "--cores", "2"]
    with (tmp_path / "out").open("w") as out:
        first = subprocess.Popen(
            words, cwd=tmp_path, stdout=out, stderr=out, start_new_session=True
        )
    said = (tmp_path / "out").read_text
    stored = lambda: sorted((home / "store/runs").glob("*/result.json"))  # noqa: E731
    until(lambda: len(stored()) >= 2 or first.poll() is not None, "two results")
    assert first.poll() is None, said()
    os.killpg(first.pid, number) if number == signal.SIGINT else first.kill()
    stopped = time.monotonic()
    first.wait(30)
    until(lambda: left_of(home) == [], "the end of all trainers")
    assert time.monotonic() - stopped < 20, said()
    kept = {path: path.stat().st_mtime_ns for path in stored()}
    done = subprocess.run(
        words, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert len(stored()) == RUNS and {path: path.stat().st_mtime_ns for path in kept} == kept
    logs = [path.read_text() for path in (home / "trainings").glob("*/trainer.log")]
    attempts = [log.count("--- attempt") for log in logs]
    assert len(logs) == RUNS and max(attempts) <= 2 and attempts.count(1) >= len(kept)
    summary = json.loads((home / "studies/tiny/summary.json").read_text())
    assert summary["proxies"] == RUNS and summary["failed"] == 0
    assert summary["reused"] == len(kept)
    whole = Store(str(home / "store"))
    for path in kept:
        assert isinstance(whole.get(path.parent.name), RunResult)


def test_a_swarm_that_is_killed_loses_nothing_and_leads_to_the_answer(corpus, tmp_path):
    """Catches a run that is lost or trained twice when the loop that trains it is killed, a round
    after which the next one is not the confirmation, and one that never ends."""
    (tmp_path / "tiny.yaml").write_text(recipe(corpus, {"wait": 0.2}, retries=0))
    swarm = tmp_path / "a swarm"

    def cuvee(*words: str) -> dict:
        said = subprocess.run(
            [CUVEE, *words, "--json", "--home", str(tmp_path / "home")],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert said.returncode == 0, said.stderr
        return json.loads(said.stdout)

    def export() -> dict | None:
        return cuvee("export", "tiny.yaml", "--swarm", "contract", "--to", str(swarm))["swarm"]

    def results() -> list[Path]:
        return sorted(swarm.glob("runs/*/result.json"))

    design = export()
    for stop in (signal.SIGTERM, signal.SIGKILL):
        ready = len(results()) + 2
        loop = subprocess.Popen(["bash", str(swarm / "run_all.sh")], start_new_session=True)
        until(lambda ready=ready: len(results()) >= ready, "two more results")
        time.sleep(0.5)
        os.killpg(loop.pid, stop)
        loop.wait(60)
    before = {path: path.stat().st_mtime_ns for path in results()}
    subprocess.run(["bash", str(swarm / "run_all.sh")], check=True)
    assert before.items() <= {path: path.stat().st_mtime_ns for path in results()}.items()
    for run in design["runs"]:
        steps = (swarm / run["folder"] / "progress.jsonl").read_text().splitlines()
        assert [json.loads(step)["tokens"] for step in steps] == [8400, 16800, 25200, 33600, 42000]
    assert cuvee("collect", "tiny.yaml", str(swarm))["counts"]["new"] == len(design["runs"])
    confirmation = export()
    assert {run["role"] for run in confirmation["runs"]} == {"confirmation"}
    assert not {r["fingerprint"] for r in confirmation["runs"]} & {
        r["fingerprint"] for r in design["runs"]
    }
    subprocess.run(["bash", str(swarm / "run_all.sh")], check=True)
    cuvee("collect", "tiny.yaml", str(swarm))
    assert export() is None
    assert cuvee("fit", "tiny.yaml")["summary"]["confirmation"]
