"""How far a study is: one value that the terminal, `cuvee status` and the record all show.

A running study keeps it in the store (`tasks.study.progress_record`). No time in it is compared
with the clock of another machine: durations are the study's own, of its monotonic clock.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.runs.run_records import revive
from cuvee.mixtures.runs.run_results import NO_COST, TrainingCost
from cuvee.mixtures.units import count_text, duration_text
from cuvee.tasks.escape import escape_markdown

RUNNING, DONE, STOPPED, DEAD = "running", "done", "stopped", "dead"  # of a study
TRAINING, TRAINED, FAILED = "training", "trained", "failed"  # of a proxy
STARTING = "Starting"  # the step in which servers and workers start
LEFT_OFF = "left off"  # of a proxy that was under way when its study ended
POINTS = 24  # most of a curve that are kept
BARS = "▁▂▃▄▅▆▇█"
PLAIN_BARS = "_.-=+*#@"  # where a terminal has no others


@dataclass(frozen=True)
class RunProgress:
    """How far one proxy is.

    Attributes:
        label: for people, as in the record.
        fingerprint: of its spec.
        state: training, trained, failed, or left off when the study ended.
        tokens: trained on so far.
        total: tokens in all.
        losses: training losses so far, nats per token, thinned out evenly.
    """

    label: str
    fingerprint: str
    state: str
    tokens: int
    total: int
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class RoundProgress:
    """What came of the proxies that were asked for at once; the counts exclude each other.

    Attributes:
        title: "Proxies", or what else they are for.
        asked: how many.
        trained: with a result, by this command.
        reused: with a result that the store held, or that another sweep trained.
        failed: without a result.
    """

    title: str
    asked: int
    trained: int = 0
    reused: int = 0
    failed: int = 0

    @property
    def done(self) -> int:
        """Those of which nothing more is expected."""
        return self.trained + self.reused + self.failed


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is.

    Attributes:
        name: of the study.
        command: that runs it, "run" or "confirm".
        recipe: digest of the recipe.
        state: running, done, stopped, or dead: its process ended without a word.
        reason: why it stopped.
        host: name of the machine that it runs on.
        home: that it works in.
        started: ISO 8601, UTC, by the clock of that machine, against which no other is held.
        elapsed: seconds since.
        step: what is done now.
        message: how far that is, in words.
        fraction: of the step that is done.
        rounds: what was asked for so far, in order.
        runs: proxies under way, then the last that ended.
        failures: why proxies failed, the latest last.
        planned: FLOPs that this command trains in all, as far as is known.
        spent: FLOPs of these that are done, of proxies under way too.
        cost: of what this command has trained.
        evidence: of that and what it found trained; None where tables do not say.
        left: seconds of training that are left; None while nothing is known of the speed.
    """

    name: str
    command: str = "run"
    recipe: str = ""
    state: str = RUNNING
    reason: str = ""
    host: str = ""
    home: str = ""
    started: str = ""
    elapsed: float = 0.0
    step: str = ""
    message: str = ""
    fraction: float = 0.0
    rounds: tuple[RoundProgress, ...] = ()
    runs: tuple[RunProgress, ...] = ()
    failures: tuple[str, ...] = ()
    planned: float = 0.0
    spent: float = 0.0
    cost: TrainingCost = NO_COST
    evidence: TrainingCost | None = None
    left: float | None = None

    @property
    def asked(self) -> int:
        """Proxies asked for so far."""
        return sum(one.asked for one in self.rounds)

    @property
    def trained(self) -> int:
        """Proxies with a result, by this command."""
        return sum(one.trained for one in self.rounds)

    @property
    def reused(self) -> int:
        """Proxies whose result was there."""
        return sum(one.reused for one in self.rounds)

    @property
    def failed(self) -> int:
        """Proxies without a result."""
        return sum(one.failed for one in self.rounds)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `progress_from_json` gives the value back."""
        return dataclasses.asdict(self)


def progress_from_json(values: Mapping[str, Any]) -> StudyProgress:
    """A progress from what `to_json` made of it, or a later version did.

    Raises:
        EvidenceError: the values are not those of one.
    """
    try:
        return revive(StudyProgress, values)
    except (KeyError, TypeError, ValueError) as error:
        raise EvidenceError(f"this is not how far a study is: {error!r}") from error


def thinned(values: Sequence[float], most: int = POINTS) -> tuple[float, ...]:
    """At most so many of some values, evenly spread; the first and the last are among them."""
    if len(values) <= most:
        return tuple(values)
    return tuple(values[round(i * (len(values) - 1) / (most - 1))] for i in range(most))


def sparkline(values: Sequence[float], width: int, bars: str = BARS) -> str:
    """A curve as one line of bars, from its least value to its greatest."""
    shown = thinned(values, max(width, 2))
    low, span = min(shown, default=0.0), max(shown, default=0.0) - min(shown, default=0.0)
    steps = [round((value - low) / span * (len(bars) - 1)) if span else 0 for value in shown]
    return "".join(bars[step] for step in steps)[:width]


def counts_text(progress: StudyProgress) -> str:
    """What came of the proxies so far, such as "8 of 18 proxies done (6 trained, 2 reused)"."""
    done = progress.trained + progress.reused + progress.failed
    parts = [
        ("trained", progress.trained),
        ("reused", progress.reused),
        ("failed", progress.failed),
    ]
    words = ", ".join(f"{count} {word}" for word, count in parts if count)
    return f"{done} of {progress.asked} proxies done{f' ({words})' if words else ''}"


def cost_so_far(progress: StudyProgress) -> str:
    """What this command has trained, against what it trains in all."""
    if not progress.planned:
        return "nothing to train"
    share = min(progress.spent / progress.planned, 1.0)
    return (
        f"{progress.spent:.2e} of about {progress.planned:.2e} FLOPs ({share:.0%}); finished "
        f"proxies took {count_text(progress.cost.tokens)} tokens and "
        f"{duration_text(progress.cost.core_seconds)} of one core"
    )


def time_text(progress: StudyProgress) -> str:
    """How long it has run, and how long training will still take."""
    spent = f"{duration_text(progress.elapsed)} so far"
    if progress.state != RUNNING:
        return f"{duration_text(progress.elapsed)} in all"
    if progress.left is None:
        return f"{spent}, time left not known yet"
    if not progress.left:
        return f"{spent}, nothing left to train"
    return f"{spent}, about {duration_text(progress.left)} of training left"


def step_text(progress: StudyProgress) -> str:
    """What is done now, such as "Proxies, round 2: 6 of 18, 38%"; of an ended study, how."""
    if progress.state == DONE:
        return "done"
    if progress.state == STOPPED:
        return f"stopped: {progress.reason}" if progress.reason else "stopped"
    if progress.state == DEAD:
        return "dead: its process ended without a word"
    rounds = len(progress.rounds)
    title = progress.step or "Beginning"
    if rounds and progress.rounds[-1].title == progress.step and rounds > 1:
        title += f", round {rounds}"
    shared = progress.step not in ("", STARTING)  # of which a share is known
    detail = [progress.message, f"{progress.fraction:.0%}" if shared else ""]
    detail = [word for word in detail if word]
    return f"{title}: {', '.join(detail)}" if detail else title


def progress_line(progress: StudyProgress) -> str:
    """A study in one line, for a log or a list."""
    parts = [step_text(progress)]
    if progress.asked:
        parts.append(counts_text(progress))
    if progress.planned and progress.state == RUNNING:
        parts.append(f"{min(progress.spent / progress.planned, 1.0):.0%} of planned FLOPs")
    return "; ".join([*parts, time_text(progress)])


def progress_markdown(progress: StudyProgress) -> str:
    """The record's page of a study that has not ended, in Markdown."""
    lines = [
        f"**{escape_markdown(step_text(progress))}** ({escape_markdown(time_text(progress))})",
        "",
        f"- {escape_markdown(counts_text(progress))}",
        f"- Cost of this command: {escape_markdown(cost_so_far(progress))}",
    ]
    if progress.reused and progress.evidence:
        total = f"{progress.evidence.flops:.2e} FLOPs"
        lines.append(f"- Cost of all proxies, what was reused included: {total}")
    lines += [f"- Failed: {escape_markdown(reason)}" for reason in progress.failures]
    if progress.rounds:
        lines += ["", "| round | for | asked | trained | reused | failed |"]
        lines += ["| --: | :-- | --: | --: | --: | --: |"]
    for number, one in enumerate(
        progress.rounds[-POINTS:], max(len(progress.rounds) - POINTS, 0) + 1
    ):
        lines.append(
            f"| {number} | {escape_markdown(one.title)} | {one.asked} | {one.trained} | "
            f"{one.reused} | {one.failed} |"
        )
    under_way = [run for run in progress.runs if run.state in (TRAINING, LEFT_OFF)]
    if under_way:
        title = "under way" if progress.state == RUNNING else LEFT_OFF
        lines += ["", f"| {title} | tokens | loss | |", "| :-- | --: | --: | :-- |"]
    for run in under_way:
        loss = f"{run.losses[-1]:.3f}" if run.losses else ""
        lines.append(
            f"| {escape_markdown(run.label)} | {count_text(run.tokens)} of {count_text(run.total)} "
            f"| {loss} | {sparkline(run.losses, POINTS)} |"
        )
    where = escape_markdown(f"on {progress.host}, begun {progress.started[:19]} UTC")
    if progress.state != RUNNING:
        return "\n".join([*lines, "", f"`cuvee {progress.command}` {where}."])
    lines += ["", f"`cuvee {progress.command}` {where}; renewed every few seconds while it runs."]
    return "\n".join([*lines, "`cuvee status` says whether it still does."])
