"""Where the tasks of a preparation run: in this process, or on the workers of a cluster."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class TaskPool(Protocol):
    """Runs tasks that do not know where they run, nor in which order.

    Attributes:
        shared: folder or URL that all workers can write; None where they share this disk.
    """

    shared: str | None

    @property
    def workers(self) -> int:
        """Tasks that run at once."""
        ...

    def map(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result]]:
        """The place of each item among `items` and what became of it, as they finish.

        Args:
            work: what is done with an item; picklable, and the same for all, so that it travels to
                a worker but once.
            items: plain values.

        Raises:
            CuveeError: what a task found wrong with its input.
        """
        ...


class InlinePool:
    """Runs tasks in this process, one after the other."""

    shared: str | None = None
    workers = 1

    def map(
        self, work: Callable[[Item], Result], items: Sequence[Item]
    ) -> Iterator[tuple[int, Result]]:
        """As in `TaskPool`; in order."""
        for i, item in enumerate(items):
            yield i, work(item)
