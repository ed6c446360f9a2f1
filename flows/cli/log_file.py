"""The log of a home: what commands said and did there, with times, for whoever looks later.

One file for all processes that use a home, `logs/cuvee.log`; when it is full it becomes
`cuvee.log.1`. A line is written whole under a lock, so that two commands at once mix no lines and
lose none. No secret stands in it: addresses lose users, passwords and queries, and the values of
variables of the environment that are named like secrets are left out.
"""

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from cuvee.tasks.escape import without_secrets

LOG = logging.getLogger("cuvee")
SAID = logging.getLogger("cuvee.said")  # what a person was told anyway
LARGEST = 5_000_000  # bytes of the file before it is put aside
KEPT = 3  # files that were put aside
LINE = "%(asctime)s %(process)d %(levelname)s %(message)s"


class _Lines(logging.Formatter):
    """One line for every record, and as many more as its traceback has."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(logging.Formatter.format(self, record))


class HomeLog(logging.Handler):
    """Adds records to the log of a home, which other processes may write at the same time."""

    def __init__(self, path: Path) -> None:
        logging.Handler.__init__(self, logging.INFO)
        self.path = path
        self.setFormatter(_Lines(LINE))

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError), self._alone() as file:  # a full disk stops no study
            os.write(file, (self.format(record) + "\n").encode("utf-8", "replace"))

    @contextlib.contextmanager
    def _alone(self) -> Iterator[int]:
        """The file, held by a lock and with room for more."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not _is_at(file, self.path):
                    continue  # put aside by another process, while this one waited
                if os.fstat(file).st_size < LARGEST:
                    yield file
                    return
                self._put_aside()
            finally:
                os.close(file)

    def _put_aside(self) -> None:
        names = [self.path, *(Path(f"{self.path}.{i}") for i in range(1, KEPT + 1))]
        for older, newer in reversed(list(zip(names[1:], names[:-1], strict=True))):
            if newer.exists():
                newer.replace(older)


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def own_log(*, shown: bool) -> Iterator[None]:
    """Keeps what is logged to our own handlers, which Prefect would print; all end with the block.

    Args:
        shown: on stderr too, with times, but for what the person is told anyway.
    """
    before, propagate, level = list(LOG.handlers), LOG.propagate, LOG.level
    LOG.propagate = False
    LOG.setLevel(logging.INFO)
    LOG.addHandler(logging.NullHandler())  # else Python prints errors that no handler takes
    if shown:
        handler = logging.StreamHandler()
        handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
        handler.addFilter(lambda record: record.name != SAID.name)
        LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.handlers[:], LOG.propagate = before, propagate
        LOG.setLevel(level)


def write_log(home: Path) -> Path:
    """Write what is logged to a home's file too, until `own_log` ends; returns its path."""
    handler = HomeLog(home / "logs" / "cuvee.log")
    LOG.addHandler(handler)
    return handler.path
