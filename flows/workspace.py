"""The one directory of the embedded default, and what an earlier run left behind in it.

Every process that a run starts inherits two marks in its environment: the home, and which process
the run is. A run that was killed outright can leave servers and workers; the next one in the same
place finds them by these marks and ends them.
"""

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import psutil
import threadpoolctl

from cuvee.flows.console import Display
from cuvee.mixtures.errors import ServiceError, StorageError
from cuvee.proxies.data.objects import is_remote, within
from cuvee.tasks.process import (
    HOME_MARK,
    RUN_MARK,
    SINGLE_THREAD,
    marked_process_ended,
    process_mark,
    set_environment,
)
from cuvee.tasks.study.monitor import StudyMonitor

OWN = ".home"  # stands in a folder that is a home and nothing else
KNOWN = {"store", "studies", "mlflow", "prefect", "corpora"}  # two of them make a home of before
IN_USE = ".in-use"  # locked, in a home, by every command that uses it

QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",  # of a server whose database is away for a moment
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
    "PYTHONSAFEPATH": "1",  # no program that is started by `-m` looks into the working folder
    **SINGLE_THREAD,
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


class Step(Protocol):
    """How the steps of a study are run: as they are, or as tasks of Prefect."""

    def __call__(
        self, name: str, work: Callable[..., Any], /, *, label: str = "", retry: bool = False
    ) -> Callable[..., Any]:
        """A function that does what `work` does, as a step of this name.

        Args:
            name: of the step.
            work: what it does.
            label: of this one among those of its name.
            retry: try it once more where the failure may pass by itself.
        """
        ...


def plain_step(_name: str, work: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    """A function as it is, where nobody watches the steps."""
    return work


@dataclass(frozen=True)
class Workspace:
    """Where a study is worked on: the directory of the embedded default and the places in it.

    Attributes:
        root: of the directory.
        display: what a person sees of the work; nothing unless another is given.
        step: how steps are run.
        monitor: is told how far a study is.
    """

    root: Path
    display: Display = field(default_factory=lambda: Display(quiet=True), repr=False, compare=False)
    step: Step = field(default=plain_step, repr=False, compare=False)
    monitor: StudyMonitor = field(default_factory=StudyMonitor, repr=False, compare=False)

    @property
    def archives(self) -> Path:
        """Downloaded archives."""
        return self.root / "archives"

    @property
    def benchmarks(self) -> Path:
        """Benchmarks as JSON lines."""
        return self.root / "benchmarks"

    @property
    def corpora(self) -> Path:
        """Prepared corpora, one folder per content."""
        return self.root / "corpora"

    @property
    def digests(self) -> Path:
        """What the files of own corpora hold, by path, size and times."""
        return self.root / "digests.json"

    @property
    def shared(self) -> str:
        """Under what lies what workers read by path: the home, or a remote store's URL."""
        return self.store.rstrip("/") if is_remote(self.store) else str(self.root)

    @property
    def checkpoints(self) -> str | Path:
        """Checkpoints of packs that are being trained, branches and models among them."""
        return within(self.shared, "checkpoints")

    @property
    def trainings(self) -> Path:
        """Run directories of trainers of others, one per fingerprint."""
        return self.root / "trainings"

    @property
    def store(self) -> str:
        """URL of the store of results: CUVEE_STORE, or a folder here."""
        return os.environ.get("CUVEE_STORE") or str(self.root / "store")

    @property
    def record(self) -> Path:
        """Folder of the embedded record."""
        return self.root / "mlflow"

    @property
    def where_recorded(self) -> str:
        """The record, for people: the server's address or the folder."""
        return os.environ.get("MLFLOW_TRACKING_URI") or str(self.record)

    def study(self, name: str) -> Path:
        """The folder of a study's report and summary."""
        return self.root / "studies" / name


def find_workspace(root: Path, display: Display | None = None) -> Workspace:
    """The home at a path, of which nothing is made or changed.

    Raises:
        StorageError: there is no such path.
    """
    try:
        return Workspace(root.expanduser().resolve(), display or Display(quiet=True))
    except (OSError, RuntimeError) as error:  # a working folder that was deleted, no such user
        raise StorageError(
            f"there is no home at {root} ({error}): give --home a whole path"
        ) from error


def open_workspace(root: Path, display: Display | None = None, *, hub: bool = False) -> Workspace:
    """Make the home, end what an earlier run left behind, and set quiet defaults.

    Must come before Prefect is imported, whose settings are read at import. A variable that the
    user has set stays as it is. What is shipped needs nothing of Hugging Face and keeps away from
    it; what a user names beside it is looked for as their environment says, in their own cache.

    Args:
        root: the directory.
        display: what a person sees of the work; nothing if None.
        hub: whether the user names tasks whose data may lie on Hugging Face.

    Raises:
        StorageError: the directory cannot be made or written.
    """
    home = find_workspace(root, display)
    try:
        made = not home.root.exists()
        home.root.mkdir(parents=True, exist_ok=True)
        probe = home.root / f".write-{os.getpid()}"
        probe.touch()
        probe.unlink()
        _make_private(home, made=made)
    except OSError as error:
        raise StorageError(
            f"cannot write {home.root} ({error.strerror}): choose another folder with --home, "
            "free some space, or change its permissions"
        ) from error
    _hold(home.root)
    quiet = {"PREFECT_HOME": str(home.root / "prefect")}
    quiet |= {} if hub else {**OFFLINE, "HF_HOME": str(home.root / "huggingface")}
    set_environment({**QUIET, **quiet}, over=False)
    threadpoolctl.threadpool_limits(1)  # where numpy was imported before its variable was set
    end_leftovers(home.root)
    set_environment({HOME_MARK: str(home.root), RUN_MARK: process_mark()})
    return home


_held: dict[Path, IO[str]] = {}


def _hold(root: Path) -> None:
    """Says that this process uses a home, until it ends, to whoever would clean it.

    Raises:
        ServiceError: it is being cleaned.
    """
    path = root / IN_USE
    with contextlib.suppress(OSError):  # a shared home, in which somebody else has made it
        path.touch(mode=0o666)
    try:
        _held[root] = path.open("r")
        fcntl.flock(_held[root], fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ServiceError(f"{root} is being cleaned: run the same command in a moment") from None
    except OSError:
        return  # a file system without locks


def _make_private(home: Workspace, *, made: bool) -> None:
    """Nobody else enters a home that is ours: it holds the record, sockets and secrets.

    A folder that is shared on purpose (sticky, or its group's: setgid and writable by it) and named
    as a home, one that holds other things, and what others own, stays as it is. What is made in a
    group's folder is not.
    """
    root = home.root
    seen, group = root.stat(), stat.S_ISGID | stat.S_IWGRP
    shared = seen.st_mode & stat.S_ISVTX or (not made and seen.st_mode & group == group)
    if seen.st_uid == os.getuid() and seen.st_mode & 0o077 and not shared:
        if _foreign(root):
            home.display.say(
                f"Note: other users can enter {root}, which holds more than a home; an approval in "
                "the record does not count there. Give --home a folder of its own"
            )
            return
        with contextlib.suppress(OSError):  # some file systems have no modes
            root.chmod(seen.st_mode & 0o700)
            (root / OWN).touch()
            if not made:
                home.display.say(
                    f"Note: closed {root} to other users (mode 0700), as every home is"
                )


def _foreign(root: Path) -> bool:
    """Whether a folder held things of others before it was first named as a home."""
    names = {path.name for path in root.iterdir()}
    before = IN_USE not in names and len(names & KNOWN) >= 2  # a home of an earlier version
    return bool(names) and OWN not in names and not before


def end_leftovers(root: Path) -> tuple[int, ...]:
    """End processes that a dead run of this home left behind here; returns their ids."""
    ended = []
    for process in psutil.process_iter():
        try:
            marks = process.environ()
            if marks.get(HOME_MARK) != str(root) or process.pid == os.getpid():
                continue
            if marked_process_ended(marks.get(RUN_MARK, "")):
                process.kill()
                ended.append(process.pid)
        except psutil.Error:
            continue  # gone meanwhile, or another user's: not ours to end
    return tuple(ended)
