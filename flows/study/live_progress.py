"""While a study runs: its progress goes into the store, into the record, and onto the terminal."""

import contextlib
import dataclasses
import datetime
import socket
import threading
from collections.abc import Callable, Iterator

from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import CuveeError
from cuvee.tasks.store.objects import ObjectFolder
from cuvee.tasks.study.monitor import StudyMonitor
from cuvee.tasks.study.progress import DONE, STOPPED, StudyProgress
from cuvee.tasks.study.progress_record import ProgressRecord
from cuvee.tasks.tracking.tracker import Tracker

RECORD_SECONDS = 15.0  # between two descriptions in the record, which may lie on a server
PAGE_SECONDS = 0.5
STOP_SECONDS = 5.0


@contextlib.contextmanager
def live_progress(
    recipe: Recipe, workspace: Workspace, tracker: Tracker, command: str = "run"
) -> Iterator[Workspace]:
    """A workspace whose study is followed until the context ends.

    Args:
        recipe: of the study.
        workspace: where it runs.
        tracker: its record, which is told now and then.
        command: that runs it.
    """
    begun = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    study = StudyProgress(
        recipe.name,
        command,
        recipe.digest,
        host=socket.gethostname(),
        home=str(workspace.root),
        started=begun,
    )
    monitor, display = StudyMonitor(study), workspace.display
    display.listener = monitor.follow_step

    def show() -> None:
        with contextlib.suppress(OSError):  # a terminal that was closed costs no study
            display.show([monitor.snapshot()])

    try:
        with (
            ProgressRecord(monitor, ObjectFolder(workspace.store)),
            _ended_with_reason(monitor),
            _every(RECORD_SECONDS, lambda: tracker.log_progress(monitor.snapshot())),
            _every(PAGE_SECONDS, show) if display.page else contextlib.nullcontext(),
        ):
            yield dataclasses.replace(workspace, monitor=monitor)
    except BaseException:
        tracker.log_progress(monitor.snapshot())
        raise
    finally:
        show()


@contextlib.contextmanager
def _ended_with_reason(monitor: StudyMonitor) -> Iterator[None]:
    try:
        yield
    except CuveeError as error:
        monitor.end(STOPPED, str(error))
        raise
    except Exception as error:
        monitor.end(STOPPED, repr(error))
        raise
    except BaseException:
        monitor.end(STOPPED, "by the user")
        raise
    monitor.end(DONE)


@contextlib.contextmanager
def _every(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    """Does something every so many seconds, in a thread of its own, until the context ends."""
    over = threading.Event()

    def repeat() -> None:
        while not over.wait(seconds):
            work()

    thread = threading.Thread(target=repeat, name="live-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(STOP_SECONDS)  # it may wait for a server that does not answer
