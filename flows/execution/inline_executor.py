"""Trains packs in this process, one at a time: for tests, notebooks and debugging.

It starts no process, and imports neither Ray nor Prefect.
"""

import contextlib
import threading
from collections.abc import Iterator

from cuvee.flows.execution.executor import Interrupted, Listener
from cuvee.mixtures.errors import CuveeError, ServiceError, TrainingError
from cuvee.mixtures.runs.run_results import Outcome
from cuvee.proxies.interfaces import Progress
from cuvee.proxies.train.batching import PackTrial
from cuvee.proxies.train.device import DeviceKind, has_gpu, this_device
from cuvee.tasks.corpus.pipeline.task_pool import InlinePool
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.train_by_program import train_by_program
from cuvee.tasks.train_pack import (
    probe_packs,
    run_pack,
    single_thread,
    untrained_scores,
)
from cuvee.tasks.trainer.program import TrainerProgram


@contextlib.contextmanager
def training_errors(job: PackJob) -> Iterator[None]:
    """Says which pack failed, unless that is said already."""
    try:
        yield
    except CuveeError:
        raise
    except Exception as error:
        raise TrainingError(f"pack {job.name} failed: {error!r}") from error


class InlineExecutor:
    """An executor without workers.

    Args:
        device: "cpu", "cuda", or "auto": the GPU of this machine where there is one.
    """

    slots = 1

    def __init__(self, device: str = "auto") -> None:
        self.device = "cuda" if device == "cuda" or (device == "auto" and has_gpu()) else "cpu"
        self._turn, self._cancelled = threading.Lock(), threading.Event()

    def __enter__(self) -> "InlineExecutor":
        self._cancelled.clear()
        return self

    def __exit__(self, *_: object) -> None: ...  # nothing was started

    def devices(self) -> tuple[DeviceKind, ...]:
        return (this_device(self.device),)

    def probe(self, job: PackJob, most: int) -> tuple[PackTrial, ...]:
        with self._turn, training_errors(job):
            return probe_packs(job, most, self.raise_if_cancelled)

    def places(self, program: TrainerProgram) -> int:
        if program.nodes > 1:
            raise ServiceError(
                f"a run of {program.name} takes {program.nodes} nodes (proxy.trainer.nodes), and "
                "this process is on one: run it on a Ray cluster, with `cuvee run`"
            )
        return 1

    def train(self, job: PackJob, listener: Listener) -> tuple[Outcome, ...]:
        def report(progress: Progress) -> None:
            self.raise_if_cancelled()
            listener([progress])

        with self._turn, single_thread(), training_errors(job):
            self.raise_if_cancelled()
            if job.program:
                return train_by_program(job, report, self.raise_if_cancelled)
            return run_pack(job, report)

    def untrained_scores(self, job: PackJob) -> dict[str, float]:
        with self._turn, single_thread():
            return untrained_scores(job)

    def pool(self, shared: str | None) -> InlinePool:
        return InlinePool()

    def cancel(self) -> None:
        self._cancelled.set()

    def raise_if_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise Interrupted
