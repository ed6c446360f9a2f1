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
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.tasks.study.monitor import StudyMonitor
from cuvee.tasks.study.progress import DONE, RUNNING, STARTING, STOPPED, StudyProgress
from cuvee.tasks.study.progress_record import ProgressRecord
from cuvee.tasks.tracking.tracker import Tracker

RECORD_SECONDS = 15.0  # between two descriptions in the record, which may lie on a server
PAGE_SECONDS = 0.5
STOP_SECONDS = 5.0


@contextlib.contextmanager
def followed_study(
    recipe: Recipe, workspace: Workspace, command: str = "run"
) -> Iterator[Workspace]:
    """A workspace whose study is seen in the store, and on its page, until the context ends.

    Args:
        recipe: of the study.
        workspace: where it runs.
        command: that runs it.
    """
    study = StudyProgress(
        recipe.name,
        command,
        recipe.digest,
        host=socket.gethostname(),
        home=str(workspace.root),
        started=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
        step=STARTING,
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
            _every(PAGE_SECONDS, show) if display.page else contextlib.nullcontext(),
        ):
            yield dataclasses.replace(workspace, monitor=monitor)
    finally:
        show()


@contextlib.contextmanager
def live_progress(
    recipe: Recipe, workspace: Workspace, tracker: Tracker, command: str = "run"
) -> Iterator[Workspace]:
    """A workspace whose study is followed, in its record too, until the context ends.

    Whoever had to start servers and workers first has followed the study since then: it goes on.

    Args:
        recipe: of the study.
        workspace: where it runs; perhaps of `followed_study`.
        tracker: its record, which is told now and then.
        command: that runs it.
    """
    begun = workspace.monitor.snapshot().name == recipe.name
    with (
        contextlib.nullcontext(workspace) if begun else followed_study(recipe, workspace, command)
    ) as within:
        monitor = within.monitor
        try:
            with (
                _ended_with_reason(monitor),
                _every(RECORD_SECONDS, lambda: tracker.log_progress(monitor.snapshot())),
            ):
                yield within
        except BaseException:
            tracker.log_progress(monitor.snapshot())
            raise


@contextlib.contextmanager
def _ended_with_reason(monitor: StudyMonitor) -> Iterator[None]:
    """Tells a monitor how its study ended, unless it knows: what is nearest to the cause counts."""

    def end(state: str, reason: str = "") -> None:
        if monitor.snapshot().state == RUNNING:
            monitor.end(state, reason)

    try:
        yield
    except CuveeError as error:
        end(STOPPED, str(error))
        raise
    except Exception as error:
        end(STOPPED, repr(error))
        raise
    except BaseException:
        end(STOPPED, "by the user")
        raise
    end(DONE)


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
