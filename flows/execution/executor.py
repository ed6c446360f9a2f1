"""The executor of a study: what trains packs, as many at once as it has slots.

An evaluator (`flows.execution.evaluator`) decides what is trained, under its leases, its budget and
its branch plans; an executor only trains it. `RayExecutor` trains on the cores and devices of a
cluster, `InlineExecutor` in this process.
"""

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

from cuvee.mixtures.runs.run_results import Outcome
from cuvee.proxies.interfaces import Progress
from cuvee.proxies.train.batching import PackTrial
from cuvee.proxies.train.device import DeviceKind
from cuvee.tasks.corpus.pipeline.task_pool import TaskPool
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.trainer.program import TrainerProgram

Listener = Callable[[Sequence[Progress]], None]  # is given a pack's new reports, in their order


class Interrupted(BaseException):
    """The study was told to stop while a pack was being trained."""


class Executor(Protocol):
    """Trains packs; safe to use from several threads. When its context is left, it lets go."""

    @property
    def device(self) -> str:
        """Where packs are trained, "cpu" or "cuda"."""
        ...

    @property
    def slots(self) -> int:
        """Packs that can be trained at once."""
        ...

    def devices(self) -> tuple[DeviceKind, ...]:
        """The kinds of devices that packs are trained on.

        Raises:
            ServiceError: a GPU was promised that torch cannot use.
        """
        ...

    def probe(self, job: PackJob, most: int) -> tuple[PackTrial, ...]:
        """Try packs of up to so many models like the job's first run; raises as `train` does."""
        ...

    def places(self, program: TrainerProgram) -> int:
        """Runs that a trainer of others can train at once.

        Raises:
            ServiceError: none, since nothing here has what a run asks for.
        """
        ...

    def train(self, job: PackJob, listener: Listener) -> tuple[Outcome, ...]:
        """Train and score a pack; blocks until it is done. A job's program is run once.

        Args:
            job: the pack.
            listener: told of its progress, maybe from another thread.

        Raises:
            CuveeError: what the worker found wrong with its input.
            TrainingError: the worker died more often than it is retried.
            Interrupted: `cancel` was called.
        """
        ...

    def untrained_scores(self, job: PackJob) -> dict[str, float]:
        """Scores of a pack before training, by name. Raises as `train` does."""
        ...

    def pool(self, shared: str | None) -> TaskPool:
        """Runs the tasks of a preparation where packs are trained; nothing is started for it yet.

        Args:
            shared: folder or URL that all nodes can write; None where they share this disk.
        """
        ...

    def cancel(self) -> None:
        """Have every pack that is being trained end; `train` then raises Interrupted."""
        ...

    def raise_if_cancelled(self) -> None:
        """Raise Interrupted if `cancel` was called."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...
