"""Trains packs on a Ray cluster: on its cores and devices, with their progress carried back.

A pack is one Ray task with its resources; workers import neither Prefect nor MLflow. What comes out
of here are plain values.
"""

import atexit
import contextlib
import importlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
import threadpoolctl

from cuvee.flows.execution.executor import Interrupted, Listener
from cuvee.flows.execution.ray_cluster import sockets_folder, start_cluster
from cuvee.flows.execution.ray_devices import living_nodes, node_devices, pack_options
from cuvee.flows.execution.ray_pool import POLL_SECONDS, RETRIES, RayPool, task_result
from cuvee.flows.execution.ray_programs import (
    program_options,
    program_places,
    train_in_worker,
    train_on_nodes,
)
from cuvee.mixtures.errors import ServiceError, TrainingError
from cuvee.mixtures.runs.run_results import Outcome
from cuvee.proxies.interfaces import Progress
from cuvee.proxies.train.batching import PackTrial
from cuvee.proxies.train.device import DeviceKind
from cuvee.tasks.corpus.pipeline.task_pool import TaskPool
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.trainer.program import TrainerProgram

END_SECONDS = 10  # for a cluster to end before the program does

_ending: list[threading.Thread] = []  # of clusters that were let go


class ProgressQueue:
    """What the packs under way have reported and nobody has picked up: a Ray actor."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Progress]] = {}

    def report(self, pack: str, progress: Progress) -> None:
        """Leave a progress report."""
        self._waiting.setdefault(pack, []).append(progress)

    def drain(self) -> dict[str, list[Progress]]:
        """Everything that was left since the last call."""
        waiting, self._waiting = self._waiting, {}
        return waiting


def _train_in_worker(job: PackJob, queue: Any) -> tuple[Outcome, ...]:
    import_in_worker(("cuvee.tasks.train_pack",))
    from cuvee.tasks.train_pack import run_pack

    return run_pack(job, lambda progress: queue.report.remote(job.name, progress))


def _score_in_worker(job: PackJob, _queue: Any) -> dict[str, float]:
    import_in_worker(("cuvee.tasks.train_pack",))
    from cuvee.tasks.train_pack import untrained_scores

    return untrained_scores(job)


def _probe_in_worker(job: PackJob, _queue: Any, most: int) -> tuple[PackTrial, ...]:
    import_in_worker(("cuvee.tasks.train_pack",))
    from cuvee.tasks.train_pack import probe_packs

    return probe_packs(job, most)


def import_in_worker(modules: Sequence[str]) -> None:
    """Import what a worker needs and the flow does not, torch first of all: it takes seconds."""
    import torch

    torch.set_num_threads(1)  # one process per core; sticks to a reused worker, so set in each task
    for name in modules:
        importlib.import_module(name)
    threadpoolctl.threadpool_limits(1)


class RayExecutor:
    """A Ray cluster, started or joined by `begin` or when the first pack is submitted.

    All of its life is in one thread. The kernel ends Ray's processes with the thread that started
    them, so it lasts until they are no longer needed; the others need not wait for them.

    Args:
        home: where a local cluster keeps its session, if the path is short enough for sockets.
        device: "cpu", "cuda", or "auto".
        cores: cores of a local cluster; None takes all.
    """

    def __init__(self, home: Path, *, device: str = "auto", cores: int | None = None) -> None:
        self._home, self._wish, self._cores = home, device, cores
        self._listeners: dict[str, Listener] = {}
        self._lock = threading.Lock()
        self._cancelled, self._closed, self._up = (threading.Event() for _ in range(3))
        self._queue: Any = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._sockets: Path | None = None
        self._kinds: tuple[DeviceKind, ...] = ()

    def __enter__(self) -> "RayExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        """Let the cluster go; returns at once, and the end of the program waits for it."""
        self._cancelled.set()
        if self._thread is not None:
            _ending.append(self._thread)
        self._closed.set()

    def begin(self, modules: Sequence[str] = ()) -> None:
        """Start or join the cluster without waiting for it.

        Args:
            modules: what its workers shall have imported when the first pack comes.
        """
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._live, args=(modules,), name="ray", daemon=True
                )
                self._thread.start()

    def cancel(self) -> None:
        self._cancelled.set()

    def raise_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Interrupted

    @property
    def slots(self) -> int:
        """Packs that can be trained at once: GPUs where there are some, else cores."""
        self.connect()
        kind = "GPU" if self.device == "cuda" else "CPU"
        return max(1, int(ray.cluster_resources().get(kind, 0)))

    @property
    def device(self) -> str:
        """Where packs are trained, "cpu" or "cuda"."""
        self.connect()
        gpus = ray.cluster_resources().get("GPU", 0) > 0
        if self._wish == "cuda" and not gpus:
            raise ServiceError(
                "the recipe asks for device cuda, but the Ray cluster has no GPU: "
                "add a GPU node or set `device: cpu`"
            )
        return "cuda" if gpus and self._wish != "cpu" else "cpu"

    def devices(self) -> tuple[DeviceKind, ...]:
        self.connect()
        self._kinds = self._kinds or node_devices(self.device, self.raise_if_cancelled)
        return self._kinds

    def probe(self, job: PackJob, most: int) -> tuple[PackTrial, ...]:
        trials: tuple[PackTrial, ...] = self.run_in_worker(_probe_in_worker, job, None, most)
        return trials

    def places(self, program: TrainerProgram) -> int:
        self.connect()
        return program_places(program)

    def train(self, job: PackJob, listener: Listener) -> tuple[Outcome, ...]:
        self._listeners[job.name] = listener
        try:
            outcomes: tuple[Outcome, ...]
            if job.program and job.program.nodes > 1:
                self.connect()
                outcomes = train_on_nodes(job, job.program, self._queue, self.raise_if_cancelled)
            elif job.program:
                outcomes = self.run_in_worker(train_in_worker, job, program_options(job.program))
            else:
                outcomes = self.run_in_worker(_train_in_worker, job)
        finally:
            del self._listeners[job.name]  # late reports of a pack that has ended go nowhere
        return outcomes

    def untrained_scores(self, job: PackJob) -> dict[str, float]:
        scores: dict[str, float] = self.run_in_worker(_score_in_worker, job)
        return scores

    def pool(self, shared: str | None) -> TaskPool:
        return RayPool(self.connect, self.raise_if_cancelled, shared)

    def run_in_worker(
        self,
        work: Callable[..., Any],
        job: PackJob,
        resources: Mapping[str, Any] | None = None,
        *more: Any,
    ) -> Any:
        """Have a worker do something with a pack; blocks, and raises, as `train` does."""
        self.connect()
        own = resources or pack_options(job)
        task = ray.remote(work).options(max_retries=RETRIES, name=f"pack-{job.name}", **own)
        reference = task.remote(job, self._queue, *more)
        while not ray.wait([reference], timeout=POLL_SECONDS)[0]:
            if self._cancelled.is_set():
                ray.cancel(reference, force=True)
                raise Interrupted
            self._require_nodes(job)
        try:
            return task_result(reference, f"pack {job.name}")
        except ServiceError:
            self._require_nodes(job)  # which is why Ray could not finish it
            raise

    def _require_nodes(self, job: PackJob) -> None:
        """Give up a pack all of whose nodes are gone, for which Ray may wait for ever."""
        nodes = job.request.nodes if job.request else ()
        if nodes and living_nodes().keys().isdisjoint(nodes):
            self._kinds = ()  # so that the next pack, and the next try, are told who is there
            raise TrainingError(f"pack {job.name}: none of the nodes that it may go to is left")

    def connect(self) -> None:
        """Start or join the cluster, unless that was done, and wait for it.

        Raises:
            ServiceError: it does not answer or does not start.
        """
        self.begin()
        self._up.wait()
        if self._error is not None:
            raise self._error

    def _live(self, modules: Sequence[str]) -> None:
        for name in ("ray", "ray._private.worker"):  # it would tell of handlers that it cannot set
            logging.getLogger(name).setLevel(logging.CRITICAL)
        wait_for_clusters()  # what is ending must have ended before the next one starts
        started = False
        try:
            if not ray.is_initialized():
                if not os.environ.get("RAY_ADDRESS"):
                    self._sockets = sockets_folder(self._home)
                start_cluster(self._sockets, self._cores)
                started = True
            self._queue = ray.remote(ProgressQueue).options(num_cpus=0, max_restarts=2).remote()
            if modules:
                for _ in range(int(ray.cluster_resources().get("CPU", 1))):
                    ray.remote(import_in_worker).options(num_cpus=1, max_retries=0).remote(modules)
        except BaseException as error:  # whoever waits for the cluster is told
            self._error = error
        finally:
            self._up.set()
        while self._error is None and not self._closed.wait(POLL_SECONDS):
            self._deliver_progress()
        if self._queue is not None:  # else Ray would begin anew, to find what it shall end
            with contextlib.suppress(Exception):
                ray.kill(self._queue)
        if started:
            ray.shutdown()
        if self._sockets and not self._sockets.is_relative_to(self._home):
            shutil.rmtree(self._sockets.parent, ignore_errors=True)

    def _deliver_progress(self) -> None:
        waiting: dict[str, list[Progress]] = {}
        # A courtesy; the results come by another way. Ray exits a thread whose cluster has ended.
        with contextlib.suppress(Exception, SystemExit):
            waiting = ray.get(self._queue.drain.remote(), timeout=10)
        for pack, reports in waiting.items():
            if pack in self._listeners:
                self._listeners[pack](reports)


@atexit.register  # after ray's own, so it runs before it
def wait_for_clusters() -> None:
    """Wait for clusters that are ending: a process has one Ray."""
    while _ending:
        thread = _ending.pop()
        if thread is not threading.current_thread():  # one that was let go before it had begun
            thread.join(END_SECONDS)
