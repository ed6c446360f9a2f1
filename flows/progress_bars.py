"""What a person sees while a study runs: a bar per long step, with an estimate of the time left.

On a terminal the bars are live; elsewhere (a log, a pipe) a line is printed now and then instead.
"""

import contextlib
import threading
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
)
from rich.text import Text

from cuvee.tasks.escape import printable

WIDTH = 110  # of tables where there is no terminal
FIRST_ESTIMATE = 0.02  # of a step must be done before the time left is guessed
LINE_SECONDS = 15.0  # between lines where there is no terminal


class Bar:
    """One long step. Safe to move from several threads.

    Args:
        show: called with (message, fraction done).
    """

    def __init__(self, display: "Display", title: str) -> None:
        self._display, self._title, self._begin = display, title, time.monotonic()
        self._printed, self._ended = time.monotonic(), False
        self._lock = threading.Lock()
        self._task = display.bars.add_task(title, total=1.0) if display.live else None

    def move(self, message: str, fraction: float) -> None:
        """Show a message and the share of the step that is done, in [0, 1]."""
        done = min(max(fraction, 0.0), 1.0)
        with self._lock:
            if self._task is not None:
                text = f"{self._title}: {message}" if message else self._title
                self._display.bars.update(self._task, completed=done, description=text)
                return
            now = time.monotonic()
            if self._ended or (now - self._printed < LINE_SECONDS and done < 1.0):
                return
            self._print(message, done, now - self._begin)
            self._printed, self._ended = now, done >= 1.0

    def _print(self, message: str, done: float, spent: float) -> None:
        left = (
            f", about {duration_text(spent / done * (1 - done))} left"
            if FIRST_ESTIMATE < done < 1
            else ""
        )
        detail = f" ({message})" if message else ""
        self._display.say(f"{self._title}{detail}: {done:.0%} in {duration_text(spent)}{left}")


class _Times(ProgressColumn):
    """How long a step has taken, of how long it should take in all."""

    def render(self, task: Task) -> Text:
        spent, done = task.finished_time or task.elapsed or 0.0, task.percentage / 100
        known = FIRST_ESTIMATE < done < 1
        return Text(f"{_minutes(spent)}{f' of about {_minutes(spent / done)}' if known else ''}")


def _minutes(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{f'{hours}:' if hours else ''}{rest // 60:0{2 if hours else 1}}:{rest % 60:02}"


class Display:
    """The console of a run.

    Args:
        console: where to write; the terminal if None.
        quiet: write nothing.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Console(quiet=quiet, highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = WIDTH
        self.live = self.console.is_terminal and not quiet
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            _Times(),
            console=self.console,
        )

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Bar]:
        """A long step, shown until it ends."""
        if self.live and not self.bars.tasks:
            self.bars.start()
        bar = Bar(self, title)
        try:
            yield bar
            bar.move("", 1.0)
        finally:
            if self.live and all(task.finished for task in self.bars.tasks):
                self.close()

    def say(self, text: str) -> None:
        """Print a line above the bars."""
        self.console.print(printable(text), markup=False, emoji=False)

    def close(self) -> None:
        """Stop the live bars; the cursor returns to an ordinary line."""
        if self.live:
            self.bars.stop()
            for task in list(self.bars.tasks):
                self.bars.remove_task(task.id)


def duration_text(seconds: float) -> str:
    """A duration for people: "45 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


_current: list[Display] = []


def current() -> Display:
    """The display of this process: a quiet one unless `use` set another."""
    return _current[-1] if _current else Display(quiet=True)


@contextlib.contextmanager
def use(display: Display) -> Iterator[Display]:
    """Make a display the current one; flows take plain parameters only, so it goes around them."""
    _current.append(display)
    try:
        yield display
    finally:
        display.close()
        _current.pop()
