"""One live page of a study on a terminal: time, cost, failures, rounds, proxies with their curves.

What matters most stands first, since a low terminal cuts a live page off: it shows fewer rounds and
proxies, and says how many it does not show.

`cuvee run --watch` and `cuvee status --watch` show the same page of the same value. Where there is
no terminal a line is printed now and then instead.
"""

import io
import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from cuvee.mixtures.units import count_text, duration_text
from cuvee.tasks.escape import printable
from cuvee.tasks.study.progress import (
    BARS,
    FAILED,
    PLAIN_BARS,
    POINTS,
    RUNNING,
    TRAINED,
    TRAINING,
    RoundProgress,
    StudyProgress,
    cost_so_far,
    counts_text,
    progress_line,
    sparkline,
    step_text,
    time_text,
)

NARROW = 60  # columns below which a curve has no room beside its figures
ROUNDS = 6  # the last ones that are shown one by one
LONG = 10_000  # lines: more than any page has
LINE_SECONDS = 15.0  # between lines where there is no terminal
STYLES = {RUNNING: "bold", TRAINED: "green", FAILED: "red"}


class LivePage:
    """The page of studies on a console, kept up to date; lines where it is no terminal.

    Args:
        console: where to show it.
        say: prints a line, where the page cannot be written over.
        live: whether it can.
    """

    def __init__(self, console: Console, say: Callable[[str], None], *, live: bool) -> None:
        self._console, self._print = console, say
        self._live = Live(console=console, auto_refresh=False) if live else None
        self._said: dict[str, tuple[str, float]] = {}

    def show(self, studies: Sequence[StudyProgress]) -> None:
        """Show how far studies are."""
        if self._live is None:
            for study in studies:
                self._say(study)
            return
        if not self._live.is_started:
            self._live.start()
        plain, rows = self._console.options.ascii_only, self._console.height - 1
        height = max(rows // max(len(studies), 1), 1)
        pages = [
            study_page(study, self._console.width, height=height, plain=plain) for study in studies
        ]
        self._live.update(Group(*pages), refresh=True)

    def close(self) -> None:
        """Leave the page as it is; the cursor returns to an ordinary line."""
        if self._live is not None:
            self._live.stop()

    def _say(self, study: StudyProgress) -> None:
        """A line, at once where a study began another step or ended, else now and then."""
        mark, now = f"{study.state} {study.step} {len(study.rounds)}", time.monotonic()
        before, since = self._said.get(study.name, ("", 0.0))
        if mark == before and (study.state != RUNNING or now - since < LINE_SECONDS):
            return
        self._said[study.name] = (mark, now)
        self._print(f"{study.name}: {progress_line(study)}")


def study_page(
    study: StudyProgress, width: int, *, height: int | None = None, plain: bool = False
) -> RenderableType:
    """The page of one study, for so many columns.

    Args:
        study: how far it is.
        width: columns of the terminal.
        height: lines that there are for it; None for as many as it takes.
        plain: without characters beyond ASCII.
    """
    parts = _figures(study, width)
    room = LONG if height is None else height - _lines(parts, width)
    failures = _failures(study, width, room if height is None else max(room // 2, 1))
    parts += failures
    room -= _lines(failures, width)
    bars = PLAIN_BARS if plain else BARS

    def rounds(count: int) -> list[RenderableType]:
        return [Text(), _rounds(study, width, count)]

    def proxies(count: int) -> list[RenderableType]:
        left = len(study.runs) - count
        more = [Text(f"and {left} more, not shown")] if left else []
        return [Text(), _proxies(study, width, bars, count), *more]

    if study.rounds:
        half = room if height is None or not study.runs else room // 2
        shown = _fitting(rounds, min(len(study.rounds), ROUNDS), width, half)
        parts += shown
        room -= _lines(shown, width)
    if study.runs:
        none = [Text(f"Proxies: {len(study.runs)}, not shown")][: max(room, 0)]
        parts += _fitting(proxies, len(study.runs), width, room) or none
    return Group(*parts)


def _figures(study: StudyProgress, width: int) -> list[RenderableType]:
    """What is said first: what is done now, how long still, what came of it, at what cost."""
    parts: list[RenderableType] = [
        Rule(Text(f"{study.name} ({study.state})", STYLES.get(study.state, "bold")), align="left"),
        _line(step_text(study)),
        _line(time_text(study)),
    ]
    if study.planned and study.state == RUNNING:
        share = min(study.spent / study.planned, 1.0)
        bar = ProgressBar(total=1.0, completed=share, width=min(width, 60))
        parts.append(Padding(bar, 0))  # which ends its line
    if study.asked:
        parts.append(_line(counts_text(study)))
        parts.append(_line(f"Cost of this command: {cost_so_far(study)}"))
    if study.reused and study.evidence:
        parts.append(
            _line(
                f"Cost of all proxies, reused ones included: {study.evidence.flops:.2e} FLOPs, "
                f"{duration_text(study.evidence.core_seconds)} of one core"
            )
        )
    return parts


def _failures(study: StudyProgress, width: int, room: int) -> list[RenderableType]:
    """Why proxies failed, the latest last; of those that have no room, how many they are."""
    texts = [f"Failed: {reason}" for reason in study.failures]
    if room < LONG:  # a reason can be pages long
        texts = [
            text if len(text) <= 2 * width else text[: 2 * width - 3] + "..." for text in texts
        ]
    lines = [_line(text, "red") for text in texts]
    for skipped in range(len(lines)):
        more = [_line(f"Failed before: {skipped}, not shown", "red")] if skipped else []
        shown: list[RenderableType] = [*more, *lines[skipped:]]
        if _lines(shown, width) <= room:
            return shown
    return [_line(f"Failed: {len(lines)}, reasons not shown", "red")] if lines else []


def _lines(parts: Sequence[RenderableType], width: int) -> int:
    """How many lines parts of a page take."""
    console = Console(width=width, file=io.StringIO())
    return len(console.render_lines(Group(*parts))) if parts else 0


def _fitting(
    part: Callable[[int], list[RenderableType]], most: int, width: int, room: int
) -> list[RenderableType]:
    """A part of a page with as many of its rows as have room; nothing where not one has."""
    for count in range(min(most, max(room, 0)), 0, -1):
        if _lines(found := part(count), width) <= room:
            return found
    return []


def _line(text: str, style: str = "") -> Text:
    return Text(printable(text), style, overflow="fold", no_wrap=False)


def _rounds(study: StudyProgress, width: int, count: int) -> Table:
    """The last rounds one by one, and those before them as one row."""
    table = Table(box=None, pad_edge=False, padding=(0, 2 if width >= NARROW else 1, 0, 0))
    table.add_column("round", overflow="fold")
    for name in ("asked", "trained", "reused", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    earlier, last = study.rounds[:-count], study.rounds[-count:]
    rows: list[tuple[str, Sequence[RoundProgress]]] = []
    if earlier:
        rows.append((f"1 to {len(earlier)}", earlier))
    rows += [(f"{i}. {one.title}", [one]) for i, one in enumerate(last, len(earlier) + 1)]
    for name, rounds in rows:
        counts = [(r.asked, r.trained, r.reused, r.failed) for r in rounds]
        table.add_row(Text(name), *(str(sum(column)) for column in zip(*counts, strict=True)))
    return table


def _proxies(study: StudyProgress, width: int, bars: str, count: int) -> Table:
    """Proxies under way and the last that ended, each with its loss and its curve."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    wide = POINTS + 2 if width >= NARROW else 0
    room = max(width - 22 - wide, 12)
    table.add_column("proxy", no_wrap=True, overflow="ellipsis", max_width=room)
    for name in ("tokens", "loss"):
        table.add_column(name, justify="right", no_wrap=True)
    if wide:
        table.add_column("curve", no_wrap=True)
    for run in study.runs[:count]:
        share = f"{run.tokens / run.total:.0%}" if run.state == TRAINING else run.state
        tokens = f"{share} of {count_text(run.total)}" if wide and run.state == TRAINING else share
        cells = [tokens, f"{run.losses[-1]:.3f}" if run.losses else ""]
        cells += [sparkline(run.losses, POINTS, bars)] if wide else []
        table.add_row(Text(printable(run.label), STYLES.get(run.state, "")), *map(Text, cells))
    return table
