"""Sizes of packs, what they ask of devices, and what is refused for want of memory.

No GPU is needed: trials run on a core, and Ray believes in the GPUs that its nodes are given.
"""

import dataclasses
import functools
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
import tiny_study
import torch.profiler
from ray_nodes import ray_nodes
from synthetic_corpus import SyntheticCorpus

from cuvee.flows.execution import ray_devices
from cuvee.flows.execution.evaluator import Evaluator
from cuvee.flows.execution.executor import Interrupted
from cuvee.flows.execution.inline_executor import InlineExecutor
from cuvee.flows.execution.pack_resources import PROBES, PackResources
from cuvee.flows.execution.ray_executor import RayExecutor
from cuvee.flows.plan_speed import memory_sentences
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.prepare import pose_problem, prepare
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import RecipeError, ServiceError, TrainingError
from cuvee.mixtures.multiscale.steps import LadderStep
from cuvee.mixtures.runs.run_results import Failed
from cuvee.proxies import ladder
from cuvee.proxies.model import layers, loss
from cuvee.proxies.train import batching, probe
from cuvee.proxies.train.batching import PackRequest, PackTrial
from cuvee.proxies.train.device import DeviceKind, this_device
from cuvee.proxies.train.trainer import Training
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.store.results import Store
from cuvee.tasks.tracking.study_tracker import StudyTracker
from cuvee.tasks.tracking.tracker import MemoryBackend

GIB = 1 << 30
H200, SLICE = DeviceKind("H200", 140 * GIB, "2.11"), DeviceKind("H200 MIG 1g", 6 * GIB, "2.11")
# Of docs/results/trainer.md: tokens a second, in thousands, by models of a pack.
RATES = {
    "0.6M": {1: 2673, 4: 7215, 16: 12_220, 64: 13_707, 256: 12_797},
    "10M": {1: 1047, 4: 1602, 16: 1762},
}
DATA = SyntheticCorpus(4096, {"one": 60_000, "two": 60_000})


def trials(size: str) -> tuple[PackTrial, ...]:
    return tuple(PackTrial(models, 1e3 * rate) for models, rate in RATES[size].items())


def spec(size: str = "0.6M", **fields):
    fields = {"size": size, "tokens": 10**6, "precision": "bfloat16", **fields}
    return DATA.spec({"one": 0.5, "two": 0.5}, **fields)


def begun(models: int) -> Training:
    own = [spec(precision="float32", seed=k, tokens=82_000) for k in range(models)]
    return Training(own, DATA, device="cpu", references={})


@pytest.mark.parametrize(
    ("size", "vocabulary", "models", "measured"),
    [
        ("0.6M", 4096, 64, 2.2),
        ("0.6M", 131_072, 39, 13.0),
        ("10M", 131_072, 7, 14.6),
        ("0.6M", 262_144, 19, 12.3),
        ("10M", 262_144, 3, 11.0),
    ],
)
def test_memory_is_planned_as_a_gpu_measured_it(size, vocabulary, models, measured):
    """Catches a plan without moments, heads' gradients or activations (docs/results/trainer.md)."""
    planned = batching.pack_memory(
        ladder.model_size(size),
        vocabulary,
        models=models,
        device="cuda",
        precision="bfloat16",
    )
    assert 0.95 < planned.total / GIB / measured < 1.15


@pytest.mark.parametrize(
    ("size", "vocabulary", "precision", "measured"),
    [
        ("0.6M", 32_768, "float32", 234),
        ("0.6M", 131_072, "float32", 784),
        ("0.6M", 131_072, "bfloat16", 643),
        ("0.6M", 262_144, "float32", 1380),
        ("10M", 4096, "float32", 1324),
        ("30M", 4096, "float32", 4577),
    ],
)
def test_memory_is_planned_as_a_process_on_a_core_took_it(size, vocabulary, precision, measured):
    """Catches a plan that forgets what the heap keeps, and one that refuses what would train."""
    shape = ladder.model_size(size)
    planned = batching.pack_memory(shape, vocabulary, precision=precision)
    assert 0.9 < planned.total / 1e6 / measured < 1.15


@pytest.mark.parametrize("models", [1, 2])
def test_a_step_takes_the_memory_that_is_planned(models):
    """Catches activations or logits counted once for all models, or of another shape."""
    training = begun(models)
    training.advance()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True) as seen:
        training.advance()
    rows = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for row in sorted(rows, key=lambda row: row.start_ns()):
        held += row.nbytes()
        most = max(most, held)
    planned = batching.pack_memory(ladder.model_size("0.6M"), 4096, models=models)
    assert 0.9 < (planned.activations + planned.logits) / most < 1.4
    state = [*training.model.parameters.buffers, *training.model.parameters.gradients]
    state += [*training.optimizer.first, *training.optimizer.second]
    taken = sum(tensor.numel() * tensor.element_size() for tensor in state)
    assert planned.state == taken


def test_the_plan_knows_the_chunks_of_the_loss_and_of_attention():
    """Catches chunks that were made larger in the model alone."""
    assert batching.LOGITS_BYTES == loss.CHUNK_BYTES
    assert loss.LEAST_TOKENS["cpu"] == batching.LOGITS_TOKENS
    assert batching.WHOLE_ATTENTION == layers.LONGEST


def test_the_smallest_pack_that_is_as_fast_is_taken_and_asks_for_its_share():
    """Catches the largest pack, a whole GPU for two models, and a share below the memory's."""
    assert batching.best_models(trials("0.6M")) == 64
    assert batching.best_models(trials("10M")) == 16
    share = lambda models, memory: batching.gpu_share(models, memory, trials("0.6M"), 1)  # noqa: E731
    assert share(64, 0.1) == 0.5 and share(1, 0.01) == 0.1  # 2673 / 13707 of a half
    assert share(1, 0.7) == 0.7 and share(64, 3.0) == 1.0
    assert 0.1 < share(2, 0.0) < share(4, 0.0) < 0.3
    assert batching.gpu_share(4, 0.0, (), 16) == 0.13  # a quarter of what is guessed to fill it


def test_packs_are_tried_as_long_as_there_is_room_and_gain():
    """Catches trials beyond the memory, that go on after no gain, that cannot be stopped, and that
    are lost with a larger one that failed."""
    tried = probe.try_packs(begun, 2, seconds=0.01)
    assert [trial.models for trial in tried] == [1, 2] and all(t.rate > 0 for t in tried)
    speeds = {1: 100.0, 4: 300.0, 16: 310.0, 64: 900.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe, "step_rate", lambda training, _: speeds[training])
        assert [t.models for t in probe.try_packs(lambda k: k, 64)] == [1, 4, 16]

    def full(models, error):
        if models > 4:
            raise error
        return begun(1)

    for error in (torch.OutOfMemoryError(), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")):
        begin = functools.partial(full, error=error)
        assert [t.models for t in probe.try_packs(begin, 64, seconds=0.01)][-1] <= 4
    with pytest.raises(RuntimeError, match="CUBLAS"):
        probe.try_packs(lambda _: full(5, error), 64)
    stopped = iter([None])

    def check():
        if next(stopped, "now"):
            raise Interrupted

    with pytest.raises(Interrupted):
        probe.try_packs(begun, 4, seconds=0.01, check=check)


class Machine:
    """An executor whose GPUs are given and are as fast as an H200; it trains nothing."""

    slots = 1

    def __init__(self, *kinds: DeviceKind, device: str = "cuda", broken: bool = False) -> None:
        self.kinds, self.device, self.broken = kinds, device, broken
        self.probed: list[PackJob] = []
        self.training: list[PackJob] = []
        self.most = 0

    def raise_if_cancelled(self):
        pass

    def train(self, job, _listener):
        self.training.append(job)
        self.most = max(self.most, len(self.training))
        time.sleep(0.2)
        self.training.remove(job)
        raise TrainingError(f"for {job.request.nodes}")

    def devices(self):
        return self.kinds

    def probe(self, job, most):
        self.probed.append(job)
        if self.broken:
            raise TrainingError("its worker died")
        return tuple(trial for trial in trials(job.specs[0].size) if trial.models <= most)


def resources(machine, store, *, pack=None, vocabulary=4096):
    said: list[str] = []
    own = PackResources(machine, Store(str(store)), vocabulary, pack, said.append)
    return own, said


def job(run) -> PackJob:
    return PackJob(specs=(run,), corpus="", suite=None, checkpoints="", device="cuda")


def test_what_was_tried_is_remembered_for_that_device_and_version_alone(tmp_path):
    """Catches trials at every start, those of another GPU, torch, size or vocabulary, and one
    that waits for a node that may go while others are as good."""
    machine = Machine(dataclasses.replace(H200, nodes=("one", "two")))
    for _ in range(2):
        own, said = resources(machine, tmp_path)
        assert own.limits([spec(), spec(seed=1)], job) == {"0.6M": 64}
        assert len(machine.probed) == 1
    assert said == []
    (tried,) = machine.probed
    assert tried.request == PackRequest(gpus=1.0)
    for other in (
        Machine(dataclasses.replace(H200, name="H100")),
        Machine(dataclasses.replace(H200, torch="2.12")),
        Machine(dataclasses.replace(H200, memory=100 * GIB)),
    ):
        resources(other, tmp_path)[0].limits([spec()], job)
        assert len(other.probed) == 1
    resources(machine, tmp_path)[0].limits([spec("10M")], job)
    resources(machine, tmp_path, vocabulary=8192)[0].limits([spec()], job)
    resources(machine, tmp_path)[0].limits([spec(precision="float32")], job)
    assert len(machine.probed) == 4
    for path in (tmp_path / PROBES).glob("*.json"):
        path.write_text('{"no": "trials"}')
    assert resources(machine, tmp_path)[0].limits([spec()], job) == {"0.6M": 64}
    assert len(machine.probed) == 5


def test_a_recipe_a_core_and_a_trial_that_fails_need_none(tmp_path):
    """Catches a CPU study that waits for a trial, a recipe's word that is not kept, and a study
    that ends because packs could not be tried, or that waits for memory that no node declares."""
    machine = Machine(H200)
    assert resources(machine, tmp_path, pack=8)[0].limits([spec()], job) == {"0.6M": 8}
    core = Machine(DeviceKind("cpu", 8 * GIB), device="cpu")
    own, _ = resources(core, tmp_path)
    assert own.limits([spec()], job) == {"0.6M": 1} and not core.probed and not machine.probed
    asked = own.request([spec()])
    assert asked.gpus == 0 and 50e6 < asked.memory < 200e6
    assert own.slots(dataclasses.replace(job(spec()), request=asked)) == 1
    core.slots = 8
    assert own.slots(dataclasses.replace(job(spec()), request=PackRequest(memory=4 * GIB))) == 4
    core.kinds = (dataclasses.replace(core.kinds[0], nodes=("told",)), DeviceKind("cpu", 0))
    assert own.request([spec()]).memory == 0  # which a node of unknown memory could never give
    own, said = resources(Machine(H200, broken=True), tmp_path)
    assert own.limits([spec()], job) == {"0.6M": batching.MOST_CUDA["0.6M"]}
    assert "its worker died" in said[-1]


def test_what_fits_no_device_is_refused_and_what_fits_some_goes_there(tmp_path):
    """Catches a run that dies of want of memory after hours, and one sent to a slice too small."""
    machine = Machine(
        dataclasses.replace(SLICE, nodes=("small",)), dataclasses.replace(H200, nodes=("large",))
    )
    own, _ = resources(machine, tmp_path)
    own.limits([spec()], job)
    assert own.request([spec()]).nodes == ()
    wide, _ = resources(machine, tmp_path, vocabulary=2_000_000)
    wide.limits([spec("10M")], job)
    assert wide.request([spec("10M")]).nodes == ("large",)
    assert 0.2 < wide.request([spec("10M")]).gpus < 1
    with pytest.raises(RecipeError, match=r"10M takes .* GB .* H200 MIG 1g, has 5.37 GB.*trainer"):
        resources(Machine(SLICE), tmp_path, vocabulary=2_000_000)[0].limits([spec("10M")], job)
    node = Machine(DeviceKind("cpu", GIB), device="cpu")
    with pytest.raises(RecipeError, match=r"the largest node has 1.07 GB"):
        resources(node, tmp_path, vocabulary=500_000)[0].limits([spec("10M")], job)


def test_a_margin_is_no_bound_and_a_guess_knows_the_batch(tmp_path):
    """Catches one model refused for what packs leave free, and a guess that fits no GPU."""
    own, _ = resources(Machine(DeviceKind("H100", 80 * GIB), broken=True), tmp_path)
    large, long = spec("100M", tokens=2 * 10**9), spec("10M", tokens=10**9)
    assert own.limits([large, long], job) == {"100M": 1, "10M": 9}
    assert own.request([large]).gpus == 1.0 and own.request([long] * 9).gpus < 1.0
    small, _ = resources(Machine(DeviceKind("H100", 70 * GIB), broken=True), tmp_path)
    assert small.limits([large], job) == {"100M": 1}
    unknown, _ = resources(Machine(DeviceKind("GPU", 0), broken=True), tmp_path)
    assert unknown.limits([spec()], job)["0.6M"] >= 1 and unknown.request([spec()]).gpus == 1.0


@pytest.mark.parametrize(
    ("nodes", "kinds"),
    [
        ({}, [0]),
        ({"a": {"Resources": {"CPU": 2.0, "memory": 5.0}}}, [5]),
        ({"a": {"Resources": {"CPU": 2.0}, "Labels": {ray_devices.GROUP: "w"}}}, [0, 1 << 60]),
        ({"a": {"Resources": {"memory": 5.0}, "Labels": {ray_devices.GROUP: "head"}}}, [0]),
    ],
)
def test_nodes_that_may_be_added_may_have_any_memory(monkeypatch, nodes, kinds):
    """Catches a size refused for the small nodes of a cluster that would grow for it."""
    monkeypatch.setattr(ray_devices, "living_nodes", lambda: nodes)
    assert [kind.memory for kind in ray_devices.node_devices("cpu", print)] == kinds


@pytest.fixture(scope="module")
def prepared_study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("devices")
    tiny_study.write_corpus(folder / "corpus")
    recipe = parse(tiny_study.recipe(folder / "corpus", proxy="{size: 0.3M, tokens: 41000}"))
    prepared = prepare(recipe, Workspace(folder / "home"))
    run = pose_problem(recipe, prepared).spec((0.2, 0.3, 0.5), 1)
    job = PackJob((run,), str(prepared.corpus.root), prepared.suite, str(folder / "packs"))
    return job, recipe, prepared


@pytest.fixture(scope="module")
def tiny(prepared_study):
    return prepared_study[0]


def test_a_ladder_is_refused_before_its_first_rung(prepared_study, tmp_path):
    """Catches rungs that are trained for one that no device can hold, and finished ones refused."""
    one, recipe, prepared = prepared_study
    tracker, store = StudyTracker(MemoryBackend()), Store(str(tmp_path / "store"))
    machine = Machine(DeviceKind("cpu", 4 * GIB), device="cpu")
    evaluator = Evaluator(recipe, prepared, store, tracker, machine, Workspace(tmp_path))
    small = LadderStep("0.3M", 41_000, 4)
    evaluator.require_memory(one.specs, [small, LadderStep("1M", 10**6, 2)])
    with pytest.raises(RecipeError, match="a proxy of size 300M takes"):
        evaluator.require_memory(one.specs, [small, LadderStep("300M", 10**8, 1)])
    store.put(Failed(one.specs[0], "diverged"))
    evaluator.require_memory(one.specs, [small, LadderStep("300M", 10**8, 1)])


def test_packs_are_launched_by_what_each_takes_and_go_where_nodes_are_now(prepared_study, tmp_path):
    """Catches a small last pack by which all large ones are launched and leased at once, and
    another try that is sent to the nodes of the first."""
    one, recipe, prepared = prepared_study
    machine = Machine(dataclasses.replace(H200, nodes=("now",)))
    recipe = recipe.model_copy(update={"proxy": recipe.proxy.model_copy(update={"pack": 16})})
    place = dataclasses.replace(Workspace(tmp_path), step=lambda _name, work, **_: work)
    tracker, store = StudyTracker(MemoryBackend()), Store(str(tmp_path / "store"))
    evaluator = Evaluator(recipe, prepared, store, tracker, machine, place)
    large = [
        dataclasses.replace(one.specs[0], size="10M", seed=k, tokens=10**6) for k in range(8 * 16)
    ]
    packs = [evaluator._job(large[k : k + 16], "cuda") for k in range(0, len(large), 16)]
    tail = evaluator._job(one.specs, "cuda")
    with ThreadPoolExecutor(32) as pool:
        launched = evaluator._launch([tail, *packs], pool, len(large) + 1)
    assert len(launched) == 9 and machine.most <= 5  # one slot and one ahead, of halves of a GPU
    old = dataclasses.replace(tail, request=PackRequest(gpus=1.0, nodes=("gone",)))
    with pytest.raises(TrainingError, match=r"^for \(\)$"):
        evaluator._train_pack(old)


@pytest.mark.parametrize(
    ("device", "address", "places"),
    [
        ("cpu", "", ["machine"]),
        ("cpu", "far:1", ["machine"]),
        ("cuda", "far:1", ["GPU"]),
        ("auto", "far:1", ["machine", "GPU"]),
    ],
)
def test_a_plan_does_not_take_this_machine_for_a_cluster(
    prepared_study, monkeypatch, device, address, places
):
    """Catches the memory of a core told before a cluster of GPUs."""
    _, recipe, prepared = prepared_study
    monkeypatch.setenv("RAY_ADDRESS", address)
    recipe = recipe.model_copy(update={"proxy": recipe.proxy.model_copy(update={"device": device})})
    said = memory_sentences(recipe, pose_problem(recipe, prepared), 4096, [])
    assert [re.search("of a (machine|GPU)", line)[1] for line in said] == places


def test_trials_run_on_a_prepared_corpus_and_leave_nothing(tiny):
    """Catches a trial that cannot read what proxies train on, one that keeps checkpoints, and one
    whose failure ends the study as a fault of Cuvee's own."""
    with InlineExecutor("cpu") as executor:
        assert [trial.models for trial in executor.probe(tiny, 1)] == [1]
        (kind,) = executor.devices()
        assert kind.name == "cpu" and kind.memory > GIB / 2
        strange = dataclasses.replace(tiny, device="no device")
        with pytest.raises(TrainingError, match=f"pack {tiny.name} failed: RuntimeError"):
            executor.probe(strange, 1)
        executor.cancel()
        with pytest.raises(Interrupted):
            executor.probe(tiny, 1)


@pytest.mark.slow
def test_packs_go_where_a_cluster_has_what_they_ask_for(tiny, tmp_path, monkeypatch):
    """Catches a pack on a node without its memory or its GPU, one GPU for one pack, a study that
    begins where torch cannot use the GPUs that Ray was promised, trials that go on, a pack that
    waits for a node that is gone, and a start that waits for GPUs that are all taken."""
    small = ["--num-cpus=2", "--num-gpus=0", f"--memory={200 << 20}"]
    large = ["--num-cpus=2", "--num-gpus=1", f"--memory={3 << 30}", '--resources={"large": 1}']

    def where(asked, _queue):
        """The node's memory, its GPUs, and whether another like this came meanwhile."""
        me = ray.get_runtime_context()
        own = next(n for n in ray.nodes() if n["NodeID"] == me.get_node_id())["Resources"]
        folder, end = tmp_path / asked.checkpoints, time.monotonic() + 60
        folder.mkdir(exist_ok=True)
        (folder / me.get_task_id()).touch()
        while len(list(folder.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.1)
        return own["memory"], ray.get_gpu_ids(), len(list(folder.iterdir()))

    def both(executor, one):
        """What two packs like one saw that were begun together."""
        seen: list[tuple] = []
        two = [
            threading.Thread(target=lambda: seen.append(executor.run_in_worker(where, one)))
            for _ in range(2)
        ]
        for thread in two:
            thread.start()
        for thread in two:
            thread.join()
        return seen

    with ray_nodes(monkeypatch, tmp_path, small, large):
        with RayExecutor(tmp_path, device="cpu") as executor:
            kinds = {kind.memory: kind.nodes for kind in executor.devices()}
            assert sorted(kinds) == [200 << 20, 3 << 30]
            heavy = dataclasses.replace(
                tiny, checkpoints="heavy", request=PackRequest(memory=1 << 30)
            )
            assert both(executor, heavy) == [(3 << 30, [], 2)] * 2
            (node,) = kinds[200 << 20]
            for left in (("ab" * 28,), ("ab" * 28, "cd" * 28)):
                gone = dataclasses.replace(tiny, request=PackRequest(nodes=left))
                with pytest.raises(TrainingError, match="none of the nodes"):
                    executor.run_in_worker(where, gone)
            begun, busy = (
                ray.remote(this_device).options(num_cpus=count).remote("cpu") for count in (1, 64)
            )
            looks = {begun: node, busy: kinds[3 << 30][0]}
            ray.wait([begun])
            with monkeypatch.context() as patch:
                patch.setattr(ray_devices, "LOOK_SECONDS", 1.0)
                assert [name for name, _ in ray_devices._seen(looks, print)] == [node]
            ray.cancel(busy)
            assert list(ray_devices._seen({busy: "gone"}, print)) == []
            for others in ((), ("ab" * 28,)):  # which may have left
                asked = PackRequest(0, 0, (node, *others))
                named = dataclasses.replace(tiny, checkpoints=f"{len(others)}", request=asked)
                assert both(executor, named) == [(200 << 20, [], 2)] * 2
            half = dataclasses.replace(tiny, checkpoints="half", request=PackRequest(gpus=0.5))
            assert both(executor, half) == [(3 << 30, [0], 2)] * 2
            assert [trial.models for trial in executor.probe(tiny, 1)] == [1]
            threading.Timer(1.0, executor.cancel).start()
            began = time.monotonic()
            with pytest.raises(Interrupted):
                executor.probe(dataclasses.replace(tiny, request=PackRequest(gpus=2.0)), 1)
            assert time.monotonic() - began < 20
        with RayExecutor(tmp_path, device="auto") as executor:
            assert executor.device == "cuda" and executor.slots == 1
            with pytest.raises(ServiceError, match=r"torch finds none.*--num-gpus 0"):
                executor.devices()
