"""Ray: places trainings on cores and devices, and carries their progress back.

The only file that imports Ray. A pack is one Ray task with its resources; workers import neither
Prefect nor MLflow. What comes out of here are plain values.
"""

import atexit
import contextlib
import importlib
import logging
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
import threadpoolctl

from cuvee.flows.execution.progress_queue import Board
from cuvee.flows.execution.ray_cluster import (
    check_address,
    environment,
    own_signals,
    sockets_folder,
    usable_cores,
)
from cuvee.mixtures.errors import CuveeError, ServiceError, TrainingError
from cuvee.mixtures.runs import Outcome
from cuvee.proxies.interfaces import Progress
from cuvee.proxies.train.device import WORKER_ENVIRONMENT
from cuvee.tasks.job import PackJob

RETRIES = 2  # of a pack whose worker or node died; it goes on from its last checkpoint
ATTEMPTS = 3  # to start or join Ray
POLL_SECONDS = 0.5
END_SECONDS = 10  # for a cluster to end before the program does
INHERITED = ("HF_HOME", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")  # by workers on any node
LOOPBACK = "127.0.0.1"
IMPORT = re.compile(r"\b(ModuleNotFoundError|ImportError|No module named|cannot import)\b")

_ending: list[threading.Thread] = []  # of clusters that were let go
_early: "dict[tuple[Path, str], RayExecutor]" = {}


class Interrupted(BaseException):
    """The study was told to stop while this pack was being trained."""


def _work(job: PackJob, board: Any) -> tuple[Outcome, ...]:
    _load(("cuvee.tasks.train_pack",))
    from cuvee.tasks.train_pack import run_pack

    return run_pack(job, lambda progress: board.report.remote(job.name, progress))


def _untrained(job: PackJob, _board: Any) -> dict[str, float]:
    _load(("cuvee.tasks.train_pack",))
    from cuvee.tasks.train_pack import untrained_scores

    return untrained_scores(job)


def _load(modules: Sequence[str]) -> None:
    """Import what a worker needs and the flow does not, torch first of all: it takes seconds."""
    import torch

    torch.set_num_threads(1)  # one process per core; sticks to a reused worker, so set in each task
    for name in modules:
        importlib.import_module(name)
    threadpoolctl.threadpool_limits(1)


class _Nothing(list[str]):
    """Folders that Ray adds to its workers' path, before all others: none.

    It would add the one that the user is in, and run a `tasks.py` there in place of ours.
    """

    def extend(self, _: Any) -> None:
        """Add nothing."""


class RayExecutor:
    """A Ray cluster, started or joined by `begin` or when the first pack is submitted.

    All of its life is in one thread. The kernel ends Ray's processes with the thread that started
    them, so it lasts until they are no longer needed; the others need not wait for them.

    Args:
        home: where a local cluster keeps its session, if the path is short enough for sockets.
        device: "cpu", "cuda", or "auto".
        cores: cores of a local cluster; None takes all.
    """

    def __init__(
        self,
        home: Path,
        *,
        device: str = "auto",
        cores: int | None = None,
    ) -> None:
        self._home, self._wish, self._cores = home, device, cores
        self._progress: Callable[[str, Sequence[Progress]], None] = lambda pack, reports: None
        self._lock = threading.Lock()
        self._stop, self._closed, self._up = (threading.Event() for _ in range(3))
        self._board: Any = None
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._owned = False
        self._sockets: Path | None = None

    def __enter__(self) -> "RayExecutor":
        return self

    def __exit__(self, *_: object) -> None:
        """Let the cluster go; returns at once, and the end of the program waits for it."""
        self._stop.set()
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
                    target=self._serve, args=(modules,), name="ray", daemon=True
                )
                self._thread.start()

    def listen(self, progress: Callable[[str, Sequence[Progress]], None]) -> None:
        """Have progress delivered, as (pack name, new reports), from a thread of its own."""
        self._progress = progress

    def stop(self) -> None:
        """Tell every pack that is being trained to end; `run` then raises Interrupted."""
        self._stop.set()

    def check(self) -> None:
        """Raise Interrupted if `stop` was called."""
        if self._stop.is_set():
            raise Interrupted

    @property
    def slots(self) -> int:
        """Packs that can be trained at once: GPUs where there are some, else cores."""
        self._connect()
        resources = ray.cluster_resources()
        if self.device == "cuda":
            return max(1, int(resources.get("GPU", 0)))
        return max(1, int(resources.get("CPU", 1)))

    @property
    def device(self) -> str:
        """Where packs are trained, "cpu" or "cuda"."""
        self._connect()
        gpus = ray.cluster_resources().get("GPU", 0) > 0
        if self._wish == "cuda" and not gpus:
            raise ServiceError(
                "the recipe asks for device cuda, but the Ray cluster has no GPU: "
                "add a GPU node or set `device: cpu`"
            )
        return "cuda" if gpus and self._wish != "cpu" else "cpu"

    def run(self, job: PackJob) -> tuple[Outcome, ...]:
        """Train and score a pack; blocks until it is done. Raises as `place` does."""
        outcomes: tuple[Outcome, ...] = self.place(_work, job)
        return outcomes

    def untrained(self, job: PackJob) -> dict[str, float]:
        """Scores of a pack before training, by name. Raises as `place` does."""
        scores: dict[str, float] = self.place(_untrained, job)
        return scores

    def place(self, work: Callable[[PackJob, Any], Any], job: PackJob) -> Any:
        """Have a worker do something with a pack; blocks until it is done.

        Raises:
            CuveeError: what the worker found wrong with its input.
            TrainingError: the worker died more often than it is retried.
            Interrupted: `stop` was called.
        """
        self._connect()
        gpu = 1 if job.device == "cuda" else 0
        reference = (
            ray.remote(work)
            .options(num_cpus=1, num_gpus=gpu, max_retries=RETRIES, name=f"pack-{job.name}")
            .remote(job, self._board)
        )
        while not self._stop.is_set():
            done, _ = ray.wait([reference], timeout=POLL_SECONDS)
            if done:
                return self._fetch(reference, job)
        ray.cancel(reference, force=True)
        raise Interrupted

    def _fetch(self, reference: Any, job: PackJob) -> Any:
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, BaseException) else error
            if isinstance(cause, CuveeError):
                raise cause from None
            if isinstance(cause, ImportError) or _lacks(cause):
                raise _unfit(cause) from error
            raise TrainingError(f"pack {job.name} failed in its worker: {cause!r}") from error
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.RaySystemError) as error:
            if _lacks(error):
                raise _unfit(error) from error
            raise TrainingError(
                f"the worker of pack {job.name} died {RETRIES + 1} times (out of memory?): {error}"
            ) from error

    def _connect(self) -> None:
        self.begin()
        self._up.wait()
        if self._error is not None:
            raise self._error

    def _serve(self, modules: Sequence[str]) -> None:
        for name in ("ray", "ray._private.worker"):  # it would tell of handlers that it cannot set
            logging.getLogger(name).setLevel(logging.CRITICAL)
        wait_for_clusters()  # what is ending must have ended before the next one starts
        try:
            if not ray.is_initialized():
                self._start()
            self._board = ray.remote(Board).options(num_cpus=0, max_restarts=2).remote()
            if modules:
                for _ in range(int(ray.cluster_resources().get("CPU", 1))):
                    ray.remote(_load).options(num_cpus=1, max_retries=0).remote(modules)
        except BaseException as error:  # whoever waits for the cluster is told
            self._error = error
        finally:
            self._up.set()
        while self._error is None and not self._closed.wait(POLL_SECONDS):
            self._poll()
        if self._board is not None:  # else Ray would begin anew, to find what it shall end
            with contextlib.suppress(Exception):
                ray.kill(self._board)
        if self._owned:
            ray.shutdown()
        if self._sockets and not self._sockets.is_relative_to(self._home):
            shutil.rmtree(self._sockets.parent, ignore_errors=True)

    def _start(self) -> None:
        address = os.environ.get("RAY_ADDRESS")
        if address:
            check_address(address)
        job = ray.job_config.JobConfig()
        job._py_driver_sys_path = _Nothing()  # Ray has no public way
        settings: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
        variables: dict[str, str] = {}
        if address:
            inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
            variables["RAY_BACKEND_LOG_LEVEL"] = "fatal"  # our own sentence says what is wrong
            settings["runtime_env"] = {"env_vars": {**WORKER_ENVIRONMENT, **inherited}}
        else:
            # A local cluster's workers inherit the environment that they are started in. Whoever
            # has the token runs code there, so it is new each time, and nowhere else.
            variables = {**WORKER_ENVIRONMENT, "RAY_AUTH_MODE": "token"}
            variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
            self._sockets = sockets_folder(self._home)
            settings |= {"_temp_dir": str(self._sockets), "include_dashboard": False}
            settings["num_cpus"] = self._cores or usable_cores()
            settings |= {"object_store_memory": 128 * 2**20, "_node_ip_address": LOOPBACK}
        for attempt in range(ATTEMPTS):
            try:
                with environment(variables), own_signals(), _alone(not address):
                    ray.init(address=address, job_config=job, **settings)
                break
            except (Exception, SystemExit) as error:  # Ray raises both, of no common kind
                ray.shutdown()
                if attempt + 1 < ATTEMPTS:
                    continue  # on a busy machine it gives up on itself after 30 s
                where = f"the Ray cluster at {address}" if address else "a local Ray"
                raise ServiceError(f"cannot start or join {where}: {error}") from error
        self._owned = True

    def _poll(self) -> None:
        waiting: dict[str, list[Progress]] = {}
        # A courtesy; the results come by another way. Ray exits a thread whose cluster has ended.
        with contextlib.suppress(Exception, SystemExit):
            waiting = ray.get(self._board.drain.remote(), timeout=10)
        for pack, reports in waiting.items():
            self._progress(pack, reports)


def _lacks(error: BaseException) -> bool:
    """Whether an error of Ray's own says that a worker could not import something."""
    return isinstance(error, ray.exceptions.RaySystemError) and bool(IMPORT.search(str(error)))


def _unfit(error: BaseException) -> ServiceError:
    """What a worker that cannot import what it needs is worth to a person: no retry, one line."""
    lines = [line.strip() for line in str(error).replace("\\n", "\n").splitlines() if line.strip()]
    said = next(
        (line for line in reversed(lines) if IMPORT.search(line)), lines[0] if lines else ""
    )
    return ServiceError(
        f"a Ray worker cannot do its work: {said[:300] or repr(error)[:300]}. Every node needs "
        "this Cuvee and what it depends on installed, and no other package of the same name "
        "before it: look at PYTHONPATH there, and for a file or folder called tasks, flows, "
        "evaluation, proxies or mixtures"
    )


@contextlib.contextmanager
def _alone(local: bool) -> Iterator[None]:
    """Has Ray read how it signs in anew, and a local cluster listen on this machine alone.

    Ray takes 127.0.0.1 for another address of the machine, except where it cannot form clusters.
    """
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
    constants = ray._private.ray_constants
    before = constants.ENABLE_RAY_CLUSTER
    constants.ENABLE_RAY_CLUSTER = before and not local
    try:
        yield
    finally:
        constants.ENABLE_RAY_CLUSTER = before


@atexit.register  # after ray's own, so it runs before it
def wait_for_clusters() -> None:
    """Wait for clusters that are ending: a process has one Ray."""
    while _ending:
        thread = _ending.pop()
        if thread is not threading.current_thread():  # one that was let go before it had begun
            thread.join(END_SECONDS)


@contextlib.contextmanager
def ahead(home: Path, *, device: str, modules: Sequence[str]) -> Iterator[None]:
    """Have a cluster begin while the program that will `take` it is still being imported."""
    runner = RayExecutor(home, device=device)
    _early[home, device] = runner
    runner.begin(modules)
    try:
        yield
    finally:
        _early.pop((home, device), None)
        runner.__exit__()


def take(home: Path, *, device: str) -> RayExecutor:
    """The cluster that was begun ahead for a home and a device, else one that begins when used."""
    return _early.pop((home, device), None) or RayExecutor(home, device=device)
