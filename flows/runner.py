"""Ray: places trainings on cores and devices, and carries their progress back.

The only file that imports Ray. A pack is one Ray task with its resources; workers import neither
Prefect nor MLflow. What comes out of here are plain values.
"""

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray

from mixtures.errors import CuveeError, ServiceError, TrainingError
from mixtures.history import Outcome
from proxies.allocator import WORKER_ENVIRONMENT
from proxies.train import Progress
from tasks.pack import PackJob, run_pack, untrained_scores

RETRIES = 2  # of a pack whose worker or node died; it goes on from its last checkpoint
ATTEMPTS = 3  # to start or join Ray
POLL_SECONDS = 0.5
REACH_SECONDS = 10
SOCKET_PATH_ROOM = 40  # of the 107 characters that a socket's path may have, what the home may take
INHERITED = (
    "HF_HOME",
    "HF_HUB_OFFLINE",
    "HF_DATASETS_OFFLINE",
    "CUVEE_HOME_IN_USE",
    "CUVEE_RUN_PID",
)


class Interrupted(BaseException):
    """The study was told to stop while this pack was being trained."""


class Board:
    """An actor: where workers leave their progress and the flow picks it up."""

    def __init__(self) -> None:
        self._latest: dict[str, list[Progress]] = {}

    def report(self, pack: str, progress: Progress) -> None:
        """Leave a progress report."""
        self._latest.setdefault(pack, []).append(progress)

    def drain(self) -> dict[str, list[Progress]]:
        """Everything that was left since the last call."""
        latest, self._latest = self._latest, {}
        return latest


def _work(job: PackJob, board: Any) -> tuple[Outcome, ...]:
    import torch

    torch.set_num_threads(1)  # one process per core; sticks to a reused worker, so set in each task
    return run_pack(job, lambda progress: board.report.remote(job.name, progress))


def _untrained(job: PackJob, _board: Any) -> dict[str, float]:
    import torch

    torch.set_num_threads(1)
    return untrained_scores(job)


class Runner:
    """A Ray cluster, started or joined when the first pack is submitted.

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
        self._stop = threading.Event()
        self._board: Any = None
        self._poller: threading.Thread | None = None
        self._owned = False

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._poller is not None:
            self._poller.join(timeout=5)
        if self._board is not None:
            with contextlib.suppress(Exception):
                ray.kill(self._board)
        if self._owned:
            ray.shutdown()

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
            raise TrainingError(f"pack {job.name} failed in its worker: {cause!r}") from error
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.RaySystemError) as error:
            raise TrainingError(
                f"the worker of pack {job.name} died {RETRIES + 1} times (out of memory?): {error}"
            ) from error

    def _connect(self) -> None:
        with self._lock:
            if self._board is not None:
                return
            if not ray.is_initialized():
                self._start()
            self._board = ray.remote(Board).options(num_cpus=0, max_restarts=2).remote()
            self._poller = threading.Thread(target=self._poll, name="progress", daemon=True)
            self._poller.start()

    def _start(self) -> None:
        address = os.environ.get("RAY_ADDRESS")
        if address:
            _reach(address)
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        settings: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}
        if address:
            settings["runtime_env"] = {"env_vars": {**WORKER_ENVIRONMENT, **inherited}}
        else:
            settings |= {"num_cpus": self._cores, "include_dashboard": False}
            settings |= {"object_store_memory": 128 * 2**20, "_temp_dir": str(self._folder())}
        for attempt in range(ATTEMPTS):
            try:
                # A local cluster's workers inherit the environment that they are started in.
                with _environment({} if address else WORKER_ENVIRONMENT), _own_signals():
                    ray.init(address=address, **settings)
                break
            except (Exception, SystemExit) as error:  # Ray raises both, of no common kind
                ray.shutdown()
                if attempt + 1 < ATTEMPTS:
                    continue  # on a busy machine it gives up on itself after 30 s
                where = f"the Ray cluster at {address}" if address else "a local Ray"
                raise ServiceError(f"cannot start or join {where}: {error}") from error
        self._owned = True

    def _folder(self) -> Path:
        folder = self._home / "ray"
        if len(str(folder)) <= SOCKET_PATH_ROOM:
            return folder
        return Path(tempfile.gettempdir()) / f"cuvee-ray-{os.getuid()}"

    def _poll(self) -> None:
        while not self._stop.is_set():
            time.sleep(POLL_SECONDS)
            waiting: dict[str, list[Progress]] = {}
            with contextlib.suppress(Exception):  # a courtesy; the results come by another way
                waiting = ray.get(self._board.drain.remote(), timeout=10)
            for pack, reports in waiting.items():
                self._progress(pack, reports)


def _reach(address: str) -> None:
    """Look whether anyone listens at a cluster's address: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return  # "auto" and the like name no address
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        raise ServiceError(
            f"no Ray cluster answers at {address} ({error}): start it, correct RAY_ADDRESS, "
            "or unset it to use a local one"
        ) from error


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Keep this process's reaction to SIGTERM: Ray would replace it by one that aborts."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    yield
    if main and callable(before):
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
