"""Runs tasks on a Ray cluster, a core each, and says in a sentence what became of one that failed.

A task whose worker died is done again.
"""

import errno
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import ray

from cuvee.mixtures.errors import CuveeError, ServiceError, StorageError, TrainingError

Item = TypeVar("Item")
Result = TypeVar("Result")
RETRIES = 2  # of a task whose worker or node died; a pack goes on from its last checkpoint
POLL_SECONDS = 0.5
IMPORT = re.compile(r"\b(ModuleNotFoundError|ImportError|No module named|cannot import)\b")
AHEAD = 2  # tasks submitted for each core, so that none waits for the driver


def _work_in_worker(work: Callable[[Any], Any], item: Any) -> Any:
    os.environ["RAYON_NUM_THREADS"] = "1"  # one process per core; read when a worker first encodes
    return work(item)


class RayPool:
    """A `TaskPool` on a cluster, which is joined with the first task.

    Args:
        connect: starts or joins the cluster, unless that was done, and waits for it.
        check: raises where the work was told to stop.
        shared: folder or URL that all its nodes can write; None where they share this disk.
    """

    def __init__(
        self,
        connect: Callable[[], None],
        check: Callable[[], None] = lambda: None,
        shared: str | None = None,
    ) -> None:
        self._connect, self._check, self.shared = connect, check, shared

    @property
    def workers(self) -> int:
        self._connect()
        return max(1, int(ray.cluster_resources().get("CPU", 1)))

    def map(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result]]:
        """As in `TaskPool`; in the order in which tasks end.

        Raises:
            CuveeError: what a task found wrong with its input.
            TrainingError: a worker died more often than it is retried.
            Interrupted: the executor was cancelled.
        """
        most = AHEAD * self.workers
        task = ray.remote(_work_in_worker).options(
            num_cpus=1, max_retries=RETRIES, name=type(work).__name__
        )
        shared = ray.put(work)
        left = enumerate(items)
        waiting: dict[Any, int] = {}
        try:
            while True:
                for number, item in itertools.islice(left, most - len(waiting)):
                    waiting[task.remote(shared, item)] = number
                if not waiting:
                    return
                self._check()
                done, _ = ray.wait([*waiting], timeout=POLL_SECONDS)
                for reference in done:
                    yield waiting.pop(reference), task_result(reference, "a part of the corpus")
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


def task_result(reference: Any, what: str) -> Any:
    """What a task of Ray gave.

    Args:
        reference: to its result.
        what: it did, in a few words.

    Raises:
        CuveeError: what the worker found wrong with its input.
        ServiceError: the worker lacks what it needs, or Ray cannot run it.
        StorageError: a file could not be read or written there.
        TrainingError: it failed, or died more often than it is retried.
    """
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, CuveeError):
            raise cause from None
        if isinstance(cause, ImportError) or _lacks_module(cause):
            raise _unfit_worker(cause) from error
        if isinstance(cause, OSError):
            raise _unfit_disk(cause, what) from error
        raise TrainingError(f"{what} failed in its worker: {cause!r}") from error
    except ray.exceptions.OutOfMemoryError as error:
        raise TrainingError(
            f"the worker of {what} used more memory than its node has, and was stopped "
            f"{RETRIES + 1} times: run on fewer cores, or on nodes with more memory for each core"
        ) from error
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.RaySystemError) as error:
        if _lacks_module(error):
            raise _unfit_worker(error) from error
        raise TrainingError(
            f"the worker of {what} died {RETRIES + 1} times (out of memory?): {error}"
        ) from error
    except ray.exceptions.TaskCancelledError:
        raise  # by this process, which knows why
    except (ray.exceptions.ObjectStoreFullError, ray.exceptions.OutOfDiskError) as error:
        raise StorageError(
            f"no space is left on the disk or in the object store of Ray for {what}: free some "
            "space on the node and run again"
        ) from error
    except ray.exceptions.RayError as error:  # a node that went, an object lost with it, ...
        said = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        raise ServiceError(
            f"Ray could not finish {what} ({type(error).__name__}): {said[:300]}. Run again: what "
            "is done is found; where it goes on, look at the logs of the nodes"
        ) from error


def _unfit_disk(error: OSError, what: str) -> StorageError:
    """What a file that a worker could not read or write is worth to a person."""
    said = f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    cure = "free some space there" if full else "see that every node can read and write it"
    return StorageError(f"{what} failed in its worker ({said}): {cure}, and run again")


def _lacks_module(error: BaseException) -> bool:
    """Whether an error of Ray's own says that a worker could not import something."""
    return isinstance(error, ray.exceptions.RaySystemError) and bool(IMPORT.search(str(error)))


def _unfit_worker(error: BaseException) -> ServiceError:
    """What a worker that cannot import what it needs is worth to a person: no retry, one line."""
    lines = [line.strip() for line in str(error).replace("\\n", "\n").splitlines() if line.strip()]
    said = next(
        (line for line in reversed(lines) if IMPORT.search(line)), lines[0] if lines else ""
    )
    return ServiceError(
        f"a Ray worker cannot do its work: {said[:300] or repr(error)[:300]}. Every node needs "
        "this Cuvee and what it depends on installed, and no other package of the same name "
        "before it: look at PYTHONPATH there, and for a file or folder called cuvee"
    )
