"""`cuvee status`: which studies run, what they have done, how long still, and what to do next.

The store is asked, and nothing is written: so it works from any terminal, and from any machine that
shares the store.
"""

import dataclasses
import re
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuvee.flows.console import Display, home_option
from cuvee.flows.progress_page import study_page
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.workspace import Workspace
from cuvee.proxies.data.node_cache import NodeCache
from cuvee.proxies.data.objects import is_remote
from cuvee.tasks.approval.approve import standing_approval
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.study.answers import Grade
from cuvee.tasks.study.finished import FinishedStudy
from cuvee.tasks.study.progress import (
    DEAD,
    DONE,
    RUNNING,
    STOPPED,
    StudyProgress,
    progress_line,
)
from cuvee.tasks.study.progress_record import ProgressReader, running_studies

NOT_BEGUN = "not begun"
REFRESH_SECONDS = 1.0  # of a page that is watched
SURE = (Grade.CONFIRMED, Grade.STRONG)  # of which nothing need be mended
RUNS_OTHER = "What runs now has another recipe of this name."
STOPPED_OTHER = "What stopped last had another recipe of this name, or other values with --set."


@dataclass(frozen=True)
class StudyStatus:
    """How things stand with one study.

    Attributes:
        name: of the study.
        state: running, done, stopped, dead, or not begun.
        progress: of every sweep that runs it now; else of the one that was begun last.
        verdict: of its latest recommendation; "" without one.
        recommendation: fingerprint of that; "" without one.
        approved: by whom it is approved; "" if it is not.
        next: the command to type next, and why.
        notes: what else one must know of what is shown.
        advice: what mends weak evidence of its latest recommendation; that first.
    """

    name: str
    state: str
    progress: tuple[StudyProgress, ...] = ()
    verdict: str = ""
    recommendation: str = ""
    approved: str = ""
    next: str = ""
    notes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values for programs."""
        return dataclasses.asdict(self)


def study_statuses(
    home: Workspace,
    recipe: Recipe | None = None,
    path: Path | None = None,
    *,
    changes: Sequence[str] = (),
) -> list[StudyStatus]:
    """How things stand with the study of a recipe, or with all studies of a home and its store.

    Args:
        home: need not exist.
        recipe: of the study; None for all.
        path: of the recipe, as it is typed.
        changes: of the recipe, as they are typed with `--set`.

    Raises:
        StorageError: the store cannot be read.
    """
    store = Store(home.store, read_only=True)
    seen = _progress(home, store, recipe.name if recipe else None)
    if recipe is None:
        names = {study.name for study in seen} | set(store.keys(finished.LATEST))
        found = [_status(name, seen, store, None, "RECIPE" + _option(home)) for name in names]
        told = [status for status in found if status.state != NOT_BEGUN]
        return sorted(told, key=lambda status: (status.state != RUNNING, status.name))
    typed = (typed_recipe(path, changes) if path else "RECIPE") + _option(home)
    return [_status(recipe.name, seen, store, recipe, typed)]


def typed_recipe(path: Path, changes: Sequence[str]) -> str:
    """A recipe and its changes as commands take them."""
    return shlex.join([str(path), *(word for change in changes for word in ("--set", change))])


def _progress(home: Workspace, store: Store, name: str | None) -> list[StudyProgress]:
    def wanted(study: StudyProgress) -> bool:
        return name is None or study.name == name

    return ProgressReader(store.objects).studies(wanted, _told_to(home.display))


def _told_to(display: Display) -> Callable[[list[StudyProgress]], None]:
    """Tells a person on whom is waited."""

    def waiting(studies: list[StudyProgress]) -> None:
        hosts = ", ".join(sorted({study.host for study in studies}))
        display.say(f"Waiting for a sign of life from {hosts} ...")

    return waiting


def _option(home: Workspace) -> str:
    return home_option(home.root)


def _status(
    name: str, seen: list[StudyProgress], store: Store, recipe: Recipe | None, typed: str
) -> StudyStatus:
    """The status of a study by its name; `typed` is its recipe as commands take it."""
    past = _finished(store, name, recipe)
    shown, notes = _shown([study for study in seen if study.name == name], past, recipe)
    state = shown[0].state if shown else DONE if past else NOT_BEGUN
    given = standing_approval(store, past.identity) if past else None
    status = StudyStatus(
        name,
        state,
        tuple(shown),
        past.verdict if past else "",
        past.fingerprint if past else "",
        given.by if given else "",
        notes=notes,
        advice=past.next_steps if past and past.grade not in SURE else (),
    )
    return dataclasses.replace(status, next=_next(status, past, recipe, typed))


def _shown(
    ours: list[StudyProgress], past: FinishedStudy | None, recipe: Recipe | None
) -> tuple[list[StudyProgress], tuple[str, ...]]:
    """Which of a study's sweeps count, and what must be said of them: whose recipe they had."""
    # the order alone, among sweeps that ended, rests on the clocks of their machines
    ordered = sorted(ours, key=lambda study: study.started)
    digest = recipe.digest if recipe else ""
    same = [study for study in ordered if not digest or study.recipe == digest]
    if now := running_studies(ordered):
        other = [study for study in now if study not in same]
        return now, (RUNS_OTHER,) if other else ()
    if same or not ordered:
        return _last_with_counts(same), ()
    if ordered[-1].state == DONE:
        return _last_with_counts(ordered), ()
    if past and past.recipe == digest:
        return [], (STOPPED_OTHER,)
    return _last_with_counts(ordered), (STOPPED_OTHER,)


def _last_with_counts(ended: list[StudyProgress]) -> list[StudyProgress]:
    """The last of what ended; one that stopped before its first round kept what was there."""
    if not ended or ended[-1].rounds or ended[-1].state == DONE:
        return ended[-1:]
    alike = [one for one in ended if one.recipe == ended[-1].recipe]
    known = next((one for one in reversed(alike) if one.rounds), ended[-1])
    counts = ("rounds", "runs", "failures", "planned", "spent", "cost", "evidence")
    return [dataclasses.replace(ended[-1], **{name: vars(known)[name] for name in counts})]


def _finished(store: Store, name: str, recipe: Recipe | None) -> FinishedStudy | None:
    """The latest finished study of a recipe, else of its name."""
    with suppress(KeyError):  # a mark of 404a3ce's is no study
        known = finished.answers_of_recipe(store, recipe.digest) if recipe else ()
        return known[0] if known else finished.latest_of_name(store, name)
    return None


def _next(
    status: StudyStatus, past: FinishedStudy | None, recipe: Recipe | None, typed: str
) -> str:
    """The command to type next, and why."""
    if status.state == RUNNING:
        return f"cuvee status {typed} --watch  (follow it; `cuvee review` shows its curves)"
    tables = recipe is not None and recipe.tables is not None
    run = f"cuvee {'fit' if tables else 'run'} {typed}"
    if status.state in (STOPPED, DEAD):
        if STOPPED_OTHER in status.notes:
            return f"{run}  (what still serves is reused)"
        return f"cuvee {status.progress[0].command} {typed}  (goes on; what is trained is kept)"
    if past is None:
        if tables:
            return f"{run}  (recommends from the tables; nothing is trained)"
        return f"cuvee plan {typed}  (what it would cost), then {run}"
    if recipe and past.recipe != recipe.digest:
        reused = "" if tables else "; what still serves is reused"
        return f"{run}  (the recipe has changed since{reused})"
    sizes = len(recipe.confirm.sizes) if recipe and recipe.confirm and not tables else 0
    if sizes and past.tests <= sizes:
        return f"cuvee confirm {typed}  (tests the recommendation at the larger sizes)"
    if not status.approved:
        return f"cuvee approve {typed}  (if its report convinces you)"
    return f"cuvee export {typed} --format FORMAT  (it is approved by {status.approved})"


def print_statuses(display: Display, statuses: list[StudyStatus], *, whole: bool) -> None:
    """Print how things stand.

    Args:
        display: where.
        statuses: of studies.
        whole: a page for each, or a line for each.
    """
    width = display.console.width
    for status in statuses:
        if not whole:
            display.say(f"{status.name}: {status_line(status)}")
            continue
        for study in status.progress:
            plain = display.console.options.ascii_only
            display.console.print(study_page(study, width, plain=plain), soft_wrap=False)
        if not status.progress:
            display.say(f"{status.name}: {status.state}")
        if status.verdict:
            before = " of the last finished run" if status.state != DONE else ""
            display.say(f"How sure{before}? {status.verdict}")
        if status.approved:
            display.say(f"Approved by {status.approved}")
        for sentence in (*status.notes, *(f"Next: {step}" for step in status.advice)):
            display.say(sentence)
    said = dict.fromkeys(status.next for status in statuses if whole or status.state != DONE)
    for sentence in said:
        display.say(f"Next: {sentence}")


def print_copies(home: Workspace) -> None:
    """Say what this node keeps of what lies in a remote store."""
    if is_remote(home.store):
        home.display.say(f"This node: {NodeCache.of_environment().said}")


def status_line(status: StudyStatus) -> str:
    """A study in one line."""
    parts = [progress_line(study) for study in status.progress] or [status.state]
    if status.state == DONE and status.verdict:
        parts.append(re.split(r"[.;:]\s", status.verdict)[0].rstrip("."))
    if status.approved:
        parts.append(f"approved by {status.approved}")
    return "; ".join(parts)


def watch_studies(home: Workspace, name: str | None) -> None:
    """Show the page of studies that run until the last of them has ended, or until Ctrl-C.

    The studies do not notice.

    Args:
        home: whose display shows it.
        name: of the study; None for all that run.
    """
    reader = ProgressReader(Store(home.store, read_only=True).objects)

    def wanted(study: StudyProgress) -> bool:
        return study.state == RUNNING and (name is None or study.name == name)

    with _left_alone(home.display):
        now = running_studies(reader.studies(wanted, _told_to(home.display)))
        followed = {(study.name, study.started) for study in now}
        if not followed:
            home.display.say(f"Nothing runs now{f' of {name}' if name else ''}.")
            return
        home.display.watch()
        while running_studies(now):
            home.display.show(now)
            time.sleep(REFRESH_SECONDS)
            now = reader.studies(lambda study: (study.name, study.started) in followed)
        home.display.show(now)


@contextmanager
def _left_alone(display: Display) -> Iterator[None]:
    """Lets Ctrl-C end the watching and nothing else."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        display.close()
        display.say("No longer watching; the study goes on.")
    finally:
        signal.signal(signal.SIGINT, before)
