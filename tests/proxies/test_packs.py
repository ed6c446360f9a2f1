"""Packs in a study: their order and size mean nothing, and their checkpoints end with their work.

Proxies are trained for real, in this process instead of Ray's workers.
"""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import tiny_study
import torch
from synthetic_corpus import SyntheticCorpus

from cuvee.flows.execution.evaluator import Evaluator, StoreEvaluator
from cuvee.flows.execution.inline_executor import InlineExecutor
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.prepare import pose_problem, prepare
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import StorageError
from cuvee.mixtures.runs.run_results import RunResult, training_cost
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.proxies import ladder
from cuvee.proxies.train import batching, device, trainer
from cuvee.tasks.store.results import Store
from cuvee.tasks.tracking.study_tracker import StudyTracker
from cuvee.tasks.tracking.tracker import MemoryBackend
from cuvee.tasks.train_pack import run_pack

MIXTURES = ((0.2, 0.3, 0.5), (0.6, 0.2, 0.2), (0.1, 0.8, 0.1))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("packs")
    tiny_study.write_corpus(folder / "corpus")
    text = tiny_study.recipe(folder / "corpus", proxy="{size: 0.3M, tokens: 41000}")
    prepared = prepare(parse(text), Workspace(folder / "home"))
    return prepared, pose_problem(parse(text), prepared)


class Here:
    """A runner whose workers are this process; it looks at what lies on the disk meanwhile.

    Attributes:
        jobs: models of every pack that was run, in order.
        most: most checkpoints that a pack had at once.
    """

    device, slots = "cpu", 1
    devices = InlineExecutor("cpu").devices

    def __init__(self):
        self.jobs, self.most, self.place = [], 0, threading.Lock()

    def raise_if_cancelled(self):
        """Nothing can be wrong with this process that it would not raise itself."""

    def train(self, job, _listener):
        with self.place:  # packs that wait for a place are submitted before it is free
            return self.alone(job)

    def alone(self, job):
        self.jobs.append(len(job.specs))
        folder = Path(job.checkpoints)

        def look(_progress):
            self.most = max(self.most, len(list(folder.glob("*"))))

        outcomes = run_pack(job, look)
        self.most = max(self.most, len(list(folder.glob("*"))))
        return outcomes

    def cancel(self):
        """Nothing runs elsewhere."""


def trained(corpus, folder, specs, *, limit=None, store=None, runner=None, place=None):
    """What a study's trainings make of specs; returns outcomes and the runner."""
    recorder = StudyTracker(MemoryBackend())
    recorder.start_study("packs", {}, {})
    runner = runner or Here()
    given = parse(tiny_study.recipe(folder, proxy=f"{{pack: {limit or 'null'}}}"))
    place, store = place or Workspace(folder), store or Store(str(folder / "store"))
    evaluator = Evaluator(given, corpus[0], store, recorder, runner, place)
    return evaluator(specs), runner


@pytest.mark.slow
def test_order_and_size_of_packs_change_no_result(corpus, tmp_path):
    """Catches a score, curve or fingerprint that depends on a run's place or its neighbors."""
    specs = [corpus[1].spec(weights, 5) for weights in MIXTURES]
    found = []
    for limit, order, sizes in (
        (1, (0, 1, 2), [1, 1, 1]),
        (2, (2, 0, 1), [2, 1]),
        (3, (1, 2, 0), [3]),
    ):
        folder = tmp_path / str(limit)
        asked = [specs[i] for i in order]
        outcomes, runner = trained(corpus, folder, asked, limit=limit)
        assert (
            sorted(runner.jobs, reverse=True) == sizes
        )  # the recipe's limit is what packs are made by
        assert [run.spec for run in outcomes] == asked
        store = Store(str(folder / "store"))
        kept = [store.get(spec.fingerprint) for spec in specs]
        assert [run.spec for run in kept] == specs
        assert all(run.seconds > 0 and run.scoring_seconds > 0 for run in kept)
        found.append(kept)
    for alone, *packed in zip(*found, strict=True):
        values = [alone.scores[t].value for t in corpus[1].targets]
        for run in packed:
            assert (run.curve, run.tokens) == (alone.curve, alone.tokens)
            assert [run.scores[t].value for t in corpus[1].targets] == pytest.approx(
                values, rel=1e-5
            )
    assert len({run.curve for run in found[0]}) == len(specs)


def test_checkpoints_are_few_and_end_when_the_results_are_stored(corpus, tmp_path, monkeypatch):
    """Catches a folder that grows with every save, and one that outlives its pack."""
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    specs = [corpus[1].spec(weights, 6) for weights in MIXTURES]
    store = Store(str(tmp_path / "store"))
    outcomes, runner = trained(corpus, tmp_path, specs, limit=2, store=store)
    assert all(isinstance(run, RunResult) for run in outcomes)
    assert runner.most == 2  # there were some, and never more
    assert not [path for path in (tmp_path / "checkpoints").rglob("*") if path.is_file()]
    assert not any(run.units for run in outcomes)
    confirmed = {specs[0].fingerprint: "natural"}
    first, second, _ = StoreEvaluator(store)(specs, "", confirmed)
    assert not second.units and first.units.keys() >= first.scores.keys()
    for name, score in first.scores.items():
        assert first.units[name].value == pytest.approx(score.value, rel=1e-6)


class Killed(StorageError):
    """What a test raises where a kill would strike; no step tries it again."""


class Mortal(Here):
    """A runner that dies in the n-th report of the packs whose name begins with a word."""

    def __init__(self, word="", after=10**9):
        super().__init__()
        self.word, self.after, self.names = word, after, []

    def alone(self, job):
        self.names.append(job.name)

        def look(_progress):
            self.after -= job.name.startswith(self.word)
            if self.after <= 0:
                raise Killed

        return run_pack(job, look)


@pytest.mark.parametrize(("word", "after"), [("trunk-", 5), ("trunk-", 16), ("", 18)])
def test_a_killed_study_of_schedules_ends_like_an_undisturbed_one(
    corpus,
    tmp_path,
    monkeypatch,
    word,
    after,
):
    """Killed in the trunk, at its end, or in a branch; taken up in another order.

    Catches a half-made trunk that is used, one that is trained again although it is there, and
    states that outlive their study.
    """
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    problem = corpus[1]
    tails = ((0.1, 0.8, 0.1), (0.8, 0.1, 0.1), (0.3, 0.3, 0.4))
    specs = [
        problem.staged((Stage((0.4, 0.3, 0.3), 0.8), Stage(tail, 0.2)), seed=4) for tail in tails
    ]
    calm = trained(corpus, tmp_path / "calm", specs[:1])[0][0]  # alone: trained whole
    assert calm.trunks == ()
    with pytest.raises(Killed):
        trained(corpus, tmp_path, specs, runner=Mortal(word, after))
    folder = tmp_path / "checkpoints"
    there = list((folder / "trunks").rglob("step-*.pt"))
    assert len(there) == (0 if word else 1)
    again, place = Mortal(), Workspace(tmp_path)
    outcomes, _ = trained(corpus, tmp_path, specs[::-1], runner=again, place=place)
    assert [o.spec for o in outcomes] == specs[::-1]
    assert sum(name.startswith("trunk-") for name in again.names) == (1 if word else 0)
    assert outcomes[-1].curve == calm.curve and outcomes[-1].scores == calm.scores
    assert all(len(o.trunks) == 1 for o in outcomes)
    cost = training_cost(outcomes)
    assert cost is not None and cost.flops == pytest.approx((0.8 + 3 * 0.2) * calm.flops)
    now, shared = place.monitor.snapshot(), 0.8 if word else 0.0  # what is announced is trained
    assert now.planned == pytest.approx((shared + 3 * 0.2) * calm.flops)
    assert now.spent == pytest.approx(now.planned)
    assert not [path for path in folder.rglob("*") if path.is_file()]
    assert Store(str(tmp_path / "store")).get(specs[0].fingerprint) == outcomes[-1]


class Full(Store):
    """A store on a disk that is full."""

    def put(self, outcome):
        raise StorageError("no space left")


def test_checkpoints_outlive_results_that_could_not_be_stored(corpus, tmp_path, monkeypatch):
    """Catches checkpoints removed before the results are safe: hours would be lost."""
    monkeypatch.setattr(trainer, "SAVE_SECONDS", 0.0)
    specs = [corpus[1].spec(MIXTURES[0], 7)]
    with pytest.raises(StorageError):
        trained(corpus, tmp_path, specs, store=Full(str(tmp_path / "store")))
    assert list((tmp_path / "checkpoints").rglob("step-*.pt"))


def test_the_device_and_the_size_say_how_many_models_make_a_pack():
    """Catches one size for all: small models leave a GPU idle, large ones do not fit together."""
    assert (
        batching.pack_limit("0.3M", "cuda")
        >= batching.pack_limit("2M", "cuda")
        > batching.pack_limit("30M", "cuda")
        >= 1
    )
    assert batching.pack_limit("0.3M", "cpu") == 1  # measured: see docs/results/trainer.md
    for size in ("0.3M", "0.6M", "4M", "30M"):
        most = [batching.pack_limit(size, "cuda", v) for v in (4096, 32_768, 131_072, 262_144)]
        each = ladder.model_size(size).parameters(262_144) * 16  # its state alone, by hand
        assert most == sorted(most, reverse=True) and 1 <= most[-1] < (24 << 30) / each
    assert batching.pack_limit("0.6M", "cuda", 131_072) > 16  # not one: that leaves a GPU idle
    data = SyntheticCorpus(256, {"a": 30_000, "b": 30_000})
    specs = [data.spec({"a": 0.5, "b": 0.5}, seed=s) for s in range(4)]
    assert [len(p) for p in batching.group_into_packs(specs, "cpu")] == [1] * 4
    assert [len(p) for p in batching.group_into_packs(specs, "cuda")] == [4]


@pytest.mark.parametrize(
    ("asked", "gpu", "cpu", "expected"),
    [
        ("cpu", True, False, "float32"),
        ("cpu", False, True, "bfloat16"),
        ("cuda", False, False, "bfloat16"),
        ("auto", True, False, "bfloat16"),
        ("auto", False, False, "float32"),
    ],
)
def test_bfloat16_is_used_where_the_device_has_it(monkeypatch, tmp_path, asked, gpu, cpu, expected):
    """Catches bfloat16 emulated in software, and float32 where the hardware has both."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: cpu, raising=False)
    monkeypatch.setattr(device, "DRIVERS", (Path("/"),))
    monkeypatch.setattr(device, "CPU_FLAGS", Path("/does/not/exist"))
    assert device.precision(asked) == expected
    flags = tmp_path / "cpuinfo"
    flags.write_text("flags : fpu avx512_bf16 avx2\n" if cpu else "flags : fpu avx512f\n")
    monkeypatch.setattr(device, "CPU_FLAGS", flags)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: not cpu, raising=False)
    assert device.precision(asked) == expected  # of Linux' own words, without torch


def test_what_the_machine_says_is_what_torch_says():
    """Catches a guess without torch that splits the runs of one store."""
    expected = torch.cuda.is_available() or torch.cpu._is_avx512_bf16_supported()
    assert (device.precision("auto") == "bfloat16") is expected


def test_master_weights_are_float32_and_a_cpu_process_has_one_thread():
    """Catches updates that are rounded away in bfloat16, and processes that share their cores."""
    data = SyntheticCorpus(256, {"a": 30_000, "b": 30_000})
    torch.set_num_threads(2)
    result = trainer.train_pack([data.spec({"a": 0.5, "b": 0.5}, precision="bfloat16")], data)
    assert torch.get_num_threads() == 1
    assert {buffer.dtype for buffer in result.likelihood.model.parameters.buffers} == {
        torch.float32
    }


def test_a_step_on_an_accelerator_never_waits_for_it(monkeypatch):
    """Catches a step that reads a value back (item, tolist, nonzero, a branch on a tensor): on the
    meta device tensors take the way of an accelerator and have no values to read."""
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # needs a driver
    data = SyntheticCorpus(256, {"a": 30_000, "b": 30_000})
    specs = [data.spec({"a": 0.5, "b": 0.5}, seed=s) for s in range(3)]
    training = trainer.Training(specs, data, device="meta", references={})
    for _ in range(3):
        training.advance()
    assert training.step == 3
    assert {b.device.type for b in training.model.parameters.buffers} == {"meta"}
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        training.progress(1)  # the only place that waits


def test_a_flow_that_scores_no_task_imports_neither_torch_nor_lm_eval():
    """Catches seconds of imports that only workers need, at the top of what every study imports."""
    program = (
        "import sys; import cuvee.flows.cli.main, cuvee.flows.study.study\n"
        "from pathlib import Path\n"
        "from types import SimpleNamespace\n"
        "from cuvee.flows.study.prepare import _benchmarks\n"
        "from cuvee.flows.recipe.evidence_parts import EvaluationPart\n"
        "from cuvee.flows.workspace import Workspace\n"
        "recipe = SimpleNamespace(evaluation=EvaluationPart(suite=None))\n"
        "assert not _benchmarks(recipe, Workspace(Path('/none')), {}).tasks\n"
        "print(*{'torch', 'lm_eval', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
