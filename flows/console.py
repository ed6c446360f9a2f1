"""What a person sees at the command line: long steps while they last, and a finished study.

On a terminal there is a bar per long step, with an estimate of the time left; elsewhere (a log, a
pipe) a line is printed now and then instead.
"""

import contextlib
import json
import logging
import os
import shlex
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
)
from rich.table import Table
from rich.text import Text

from cuvee.flows.progress_page import LivePage
from cuvee.mixtures import recommendation
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.units import duration_text
from cuvee.tasks.escape import printable
from cuvee.tasks.study.answers import QUESTIONS
from cuvee.tasks.study.progress import StudyProgress

LOG, SAID = logging.getLogger("cuvee"), logging.getLogger("cuvee.said")
Say = Callable[[str], None]  # is given a line for people

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
        self._logged, self._closed = time.monotonic(), False
        self._lock = threading.Lock()
        self._task = display.bars.add_task(title, total=1.0) if display.live else None
        display.listener(title, "", 0.0)

    def move(self, message: str, fraction: float) -> None:
        """Show a message and the share of the step that is done, in [0, 1]."""
        done = min(max(fraction, 0.0), 1.0)
        self._display.listener(self._title, message, done)
        with self._lock:
            if self._display.page is not None:
                self._log(message, done)
                return  # the page shows it
            if self._task is not None:
                self._log(message, done)
                text = f"{self._title}: {message}" if message else self._title
                self._display.bars.update(self._task, completed=done, description=text)
                return
            now = time.monotonic()
            if self._ended or (now - self._printed < LINE_SECONDS and done < 1.0):
                return
            self._print(message, done, now - self._begin)
            self._printed, self._ended = now, done >= 1.0

    def _log(self, message: str, done: float) -> None:
        now = time.monotonic()
        if not self._closed and (now - self._logged >= LINE_SECONDS or done >= 1.0):
            detail, spent = f" ({message})" if message else "", now - self._begin
            LOG.info("%s%s: %.0f%% after %.1f s", self._title, detail, 100 * done, spent)
            self._logged, self._closed = now, done >= 1.0

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
        lines: print lines even on a terminal, where log lines would tear the bars.

    Attributes:
        listener: is told of every long step: its title, a message, the share that is done.
        page: of the study, where it is watched; it stands in the place of the bars.
    """

    def __init__(
        self, console: Console | None = None, *, quiet: bool = False, lines: bool = False
    ) -> None:
        self.console = console or Console(quiet=quiet, highlight=False, soft_wrap=True)
        if not self.console.is_terminal:
            self.console.width = WIDTH
        self.live = self.console.is_terminal and not (quiet or lines)
        self.listener: Callable[[str, str, float], None] = unheard
        self.page: LivePage | None = None
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
        LOG.info("%s: begun", title)
        try:
            yield bar
            bar.move("", 1.0)
        finally:
            if self.live and all(task.finished for task in self.bars.tasks):
                self.close()

    def watch(self) -> None:
        """Show one live page of the study, in the place of bars."""
        self.live, self.page = False, LivePage(self.console, self.say, live=self.live)

    def show(self, studies: Sequence[StudyProgress]) -> None:
        """Show how far studies are, where they are watched."""
        if self.page is not None:
            self.page.show(studies)

    def say(self, text: str) -> None:
        """Print a line above the bars, and keep it in the log."""
        SAID.info(printable(text))
        self.console.print(printable(text), markup=False, emoji=False)

    def close(self) -> None:
        """Stop the live bars or the page; the cursor returns to an ordinary line."""
        if self.page is not None:
            self.page.close()
        if self.live:
            self.bars.stop()
            for task in list(self.bars.tasks):
                self.bars.remove_task(task.id)


def silent(_line: str) -> None:
    """Tells nobody."""


def unheard(_title: str, _message: str, _fraction: float) -> None:
    """Tells nobody of a step."""


def print_study(console: Console, folder: Path, record: str) -> None:
    """Print the recommendation as a table, what is known of it, and where the rest is.

    Args:
        console: where to print.
        folder: of the study's files.
        record: where the record is, or "" if none was kept.
    """
    answer = recommendation.revive_recommendation(
        json.loads((folder / "recommendation.json").read_text(encoding="utf-8"))
    )
    digest = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    console.print()
    console.print(shares_table(answer))
    for line in _findings(answer, digest):
        console.print(line, markup=False, emoji=False)
    console.print()
    console.print(f"report:   {folder / 'report.html'}", markup=False)
    console.print(f"summary:  {folder / 'summary.json'}", markup=False)
    if record:
        console.print(f"record:   {record}{review_hint(record)}", markup=False)


def review_hint(record: str | Path) -> str:
    """How a local record is opened from here; nothing for that of a server."""
    if not Path(record).is_dir():
        return ""
    return f" (open it with: cuvee review{home_option(Path(record).parent)})"


def home_option(home: Path) -> str:
    """What must be typed here so that a command works in a home; nothing for the default one."""
    default = Path(os.environ.get("CUVEE_HOME") or ".cuvee").resolve()
    return "" if home == default else f" --home {shlex.quote(str(home))}"


def shares_table(answer: Recommendation) -> Table:
    """Shares of tokens: recommended with its interval, and what it stands beside."""
    table = Table(title="Recommended shares of tokens (90 % intervals)")
    table.add_column("domain", overflow="fold", min_width=min(24, max(map(len, answer.domains))))
    others = [c for c in answer.candidates if c.name != "recommended"]
    for column in ("shares", "interval", *(c.name for c in others), "epochs"):
        table.add_column(column, justify="right", no_wrap=True)
    for i, name in enumerate(answer.domains):
        low, high = answer.intervals[i]
        table.add_row(
            Text(name),  # a plain string would turn "web:art:high" into a picture
            f"{answer.weights[i]:.1%}",
            f"{100 * low:.1f}-{100 * high:.1f}%",
            *(f"{c.weights[i]:.1%}" for c in others),
            f"{answer.epochs[i]:.2f}" if answer.epochs else "unknown",
        )
    return table


def _findings(answer: Recommendation, digest: dict[str, Any]) -> list[str]:
    lines = answer_lines(digest["answers"])
    lines += [f"Step: {answer.step.said}"] if answer.step else []
    lines += [f"Asked: {one.said}" for one in answer.demands]
    lines += [f"Next: {step}" for step in digest.get("next_steps", ())]
    lines += [f"Warning: {warning}" for warning in answer.warnings]
    return lines + (_predicted(digest["card"]) if digest["card"] else [])


def answer_lines(answers: Mapping[str, str]) -> list[str]:
    """The answers to the four questions, a line each."""
    return [f"{asked}? {answers[name]}" for name, asked in QUESTIONS.items() if name in answers]


def _predicted(card: dict[str, Any]) -> list[str]:
    known = [one for one in card["predictions"] if one["predicted"] and not one["trained_before"]]
    late = sum(bool(one["trained_before"]) for one in card["predictions"])
    lines = [f"Prediction card {card['sha256'][:16]}, written {card['written']}"]
    if known:
        lines[0] += (
            f": {sum(one['inside'] for one in known)} of {len(known)} gains inside their "
            f"interval, {sum(one['sign'] for one in known)} with the predicted sign"
        )
    if late:
        lines.append(f"{late} gains had runs before the card was written: these are no predictions")
    return lines + [f"Warning: {sentence}" for sentence in card["changed_cards"]]
