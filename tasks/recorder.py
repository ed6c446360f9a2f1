"""The record of a study: begun, filled while proxies train, concluded, and filled in again.

The store is the truth; the record is for people. So a record may be late or have gaps, and
`conclude` fills every gap from the study itself: a record that was lost is rebuilt by beginning and
concluding it again. Proxies are found by their fingerprint, so that nothing is recorded twice.

`Recorder` is the one life of a record; a `Ledger` is where it is kept.
"""

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mixtures.errors import ServiceError
from mixtures.history import Failed, Outcome, RunSpec
from tasks import handoff_card, record
from tasks.ledger import FAILED, FINISHED, KILLED, RUNNING, Ledger
from tasks.moving import FILES
from tasks.predictions import Card
from tasks.record import Entry, Point
from tasks.study import Study

RECOMMENDATION = "recommendation"  # folder of a run for its registered version
ARTIFACTS = (
    "report.html",
    "report.md",
    "recommendation.json",
    "summary.json",
    "recipe.yaml",
    *FILES,
)
PREDICTIONS = (
    "predictions"  # folder of prediction cards, in a study's folder and among its artifacts
)


class Tracker(Protocol):
    """What a flow tells of its study. Only plain values cross."""

    def begin(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """Begin a study, or take up the record of the same one; returns its id."""
        ...

    def child(self, spec: RunSpec, tags: Mapping[str, str]) -> None:
        """Announce a proxy. Tags such as `method`, `round` and `role` say why it is trained."""
        ...

    def curve(self, fingerprint: str, points: Iterable[tuple[int, float]]) -> None:
        """Progress: (tokens seen, training loss in nats per token) pairs, in any batches."""
        ...

    def finish(self, outcome: Outcome, objective: float | None = None) -> None:
        """What came of a proxy; the objective in bits per byte where it is known already."""
        ...

    def promise(self, card: Card, copy: Path) -> None:
        """A prediction card, and a file that holds it, before anything of it is trained."""
        ...

    def conclude(self, study: Study, folder: Path) -> None:
        """The end: fills every gap, adds headline, data sets and the folder's report."""
        ...

    def abandon(self, reason: str) -> None:
        """The study ends without a recommendation, for a reason in words."""
        ...


@dataclass
class _Child:
    run: str
    status: str
    valued: bool = False
    steps: set[int] = field(default_factory=set)


class Recorder:
    """The tracker over a ledger. Safe to call from the threads of one process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lock = threading.RLock()
        self._parent = ""
        self._children: dict[str, _Child] = {}

    def begin(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        with self._lock:
            mark = record.prefixed({"study": record.key(name, params), "kind": "study"})
            known = self._ledger.find(mark)
            self._children = {}
            if known:
                self._parent = known[0].run
                self._ledger.close(self._parent, RUNNING)
                was = f"{record.PREFIX}reason"  # of an end that is over now
                again = {**record.prefixed(tags), **({was: ""} if was in known[0].tags else {})}
                self._ledger.write(self._parent, Entry(tags=again))
                self._remember()
            else:
                self._parent = self._ledger.create(name, {**mark, **record.prefixed(tags)})
                self._ledger.write(self._parent, Entry(params=params))
            return self._parent

    def _remember(self) -> None:
        label = f"{record.PREFIX}fingerprint"
        for known in reversed(self._ledger.find({}, self._parent)):
            if label in known.tags:
                valued = record.OBJECTIVE in known.metrics
                self._children[known.tags[label]] = _Child(known.run, known.status, valued)

    def child(self, spec: RunSpec, tags: Mapping[str, str]) -> None:
        with self._lock:
            if not self._parent:
                raise ServiceError("a proxy was announced before its study was begun")
            found = self._children.get(spec.fingerprint)
            if found is None:
                entry = record.spec_entry(spec, {**tags, "kind": "proxy"})
                name = record.run_name(spec, tags)
                run = self._ledger.create(name, entry.tags, self._parent)
                self._ledger.write(run, Entry(entry.params, entry.metrics))
                self._children[spec.fingerprint] = _Child(run, RUNNING)
            elif found.status != FINISHED:
                found.steps |= self._ledger.steps(found.run, record.LOSS)
                self._ledger.close(found.run, RUNNING)
                found.status = RUNNING

    def curve(self, fingerprint: str, points: Iterable[tuple[int, float]]) -> None:
        with self._lock:
            child = self._children.get(fingerprint)
            if child is None:
                raise ServiceError(f"progress of a proxy that was not announced: {fingerprint}")
            if child.status != FINISHED:
                self._ledger.write(child.run, Entry(metrics=self._fresh(child, points)))

    @staticmethod
    def _fresh(child: _Child, points: Iterable[tuple[int, float]]) -> tuple[Point, ...]:
        fresh = record.curve_points(points, child.steps)
        child.steps |= {point.step for point in fresh}
        return fresh

    def finish(self, outcome: Outcome, objective: float | None = None) -> None:
        with self._lock:
            known = self._children.get(outcome.spec.fingerprint)
            if known is None or known.status != FINISHED:
                self.child(outcome.spec, {})
                self._finish(self._children[outcome.spec.fingerprint], outcome, objective)

    def _finish(self, child: _Child, outcome: Outcome, objective: float | None) -> None:
        if isinstance(outcome, Failed):
            reason = record.prefixed({"reason": outcome.reason[:2000]})
            self._ledger.write(child.run, Entry(tags=reason))
            child.status = FAILED
        else:
            entry = record.result_entry(outcome, objective)
            points = entry.metrics + self._fresh(child, outcome.curve)
            self._ledger.write(child.run, Entry(metrics=points))
            child.status, child.valued = FINISHED, objective is not None
        self._ledger.close(child.run, child.status)

    def promise(self, card: Card, copy: Path) -> None:
        with self._lock:
            self._ledger.write(self._parent, Entry(tags=record.card_tags(card)))
            self._ledger.attach(self._parent, [copy], PREDICTIONS)

    def conclude(self, study: Study, folder: Path) -> None:
        with self._lock:
            for outcome, tags in record.outcomes(study):
                self._fill(study, outcome, tags)
            self._ledger.write(self._parent, record.study_entry(study))
            self._ledger.describe(self._parent, record.description(study))
            self._ledger.data(self._parent, record.datasets(study))
            root = Path(folder)
            self._ledger.attach(self._parent, [p for n in ARTIFACTS if (p := root / n).is_file()])
            self._ledger.attach(self._parent, sorted(root.glob("plots/*.png")), "plots")
            self._ledger.attach(
                self._parent, sorted(root.glob(f"{PREDICTIONS}/*.json")), PREDICTIONS
            )
            self._enroll(study, root / handoff_card.FILE)
            self._ledger.close(self._parent, FINISHED)

    def _enroll(self, study: Study, card: Path) -> None:
        """Register the recommendation, once; what a later test showed is told of it."""
        if not card.is_file():
            return
        tags = record.version_tags(study)
        mark = f"{record.PREFIX}recommendation"
        for known in self._ledger.versions(study.name):
            if known.tags.get(mark) == study.fingerprint:
                self._ledger.mark(study.name, known.number, tags)
                return
        self._ledger.attach(self._parent, [card], RECOMMENDATION)
        self._ledger.enroll(study.name, self._parent, tags, record.description(study))

    def _fill(self, study: Study, outcome: Outcome, tags: Mapping[str, str]) -> None:
        child = self._children.get(outcome.spec.fingerprint)
        done = FAILED if isinstance(outcome, Failed) else FINISHED
        value = None if isinstance(outcome, Failed) else study.objective(outcome)
        if child is None or child.status != done:
            self.child(outcome.spec, tags)
            self.finish(outcome, value)
        elif value is not None and math.isfinite(value) and not child.valued:
            self._ledger.write(child.run, Entry(metrics=(Point(record.OBJECTIVE, value),)))
            child.valued = True

    def abandon(self, reason: str) -> None:
        with self._lock:
            if not self._parent:
                return
            for child in self._children.values():
                if child.status == RUNNING:
                    self._ledger.close(child.run, KILLED)
                    child.status = KILLED
            self._ledger.write(self._parent, Entry(tags=record.prefixed({"reason": reason[:2000]})))
            self._ledger.close(self._parent, KILLED)


def rebuild(tracker: Tracker, study: Study, folder: Path) -> str:
    """Make the record of a study again from what the store gave; what is there stays."""
    params = record.study_params(study.recipe_text, study.problem, study.seed)
    run = tracker.begin(study.name, params, {"rebuilt": "true"})
    tracker.conclude(study, folder)
    return run


class Careful:
    """A tracker whose failures cost no result: they are told once, and the study goes on.

    After `patience` failures it stops asking, so that a dead server does not slow the study, and
    tries once more at the end, when the whole record can be made from the study.

    Args:
        tracker: does the work.
        warn: is given one sentence for people, once.
        patience: failures after which it stops asking.
    """

    def __init__(self, tracker: Tracker, warn: Callable[[str], None], *, patience: int = 3) -> None:
        self._tracker, self._warn, self._patience = tracker, warn, patience
        self._failures = 0
        self._begun: tuple[str, Mapping[str, str], Mapping[str, str]] | None = None

    def begin(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        self._begun = (name, dict(params), dict(tags))
        ids: list[str] = []
        self._try(lambda: ids.append(self._tracker.begin(name, params, tags)))
        return ids[0] if ids else ""

    def child(self, spec: RunSpec, tags: Mapping[str, str]) -> None:
        self._try(lambda: self._tracker.child(spec, tags))

    def curve(self, fingerprint: str, points: Iterable[tuple[int, float]]) -> None:
        self._try(lambda: self._tracker.curve(fingerprint, points))

    def finish(self, outcome: Outcome, objective: float | None = None) -> None:
        self._try(lambda: self._tracker.finish(outcome, objective))

    def promise(self, card: Card, copy: Path) -> None:
        self._try(lambda: self._tracker.promise(card, copy))

    def conclude(self, study: Study, folder: Path) -> None:
        if self._failures and self._begun:
            name, params, tags = self._begun
            self._try(lambda: self._tracker.begin(name, params, tags), last=True)
        self._try(lambda: self._tracker.conclude(study, folder), last=True)

    def abandon(self, reason: str) -> None:
        self._try(lambda: self._tracker.abandon(reason))

    def _try(self, call: Callable[[], object], *, last: bool = False) -> None:
        if self._failures >= self._patience and not last:
            return
        try:
            call()
        except Exception as error:  # whatever a record meets, the study must go on
            self._failures += 1
            if self._failures == 1:
                self._warn(
                    f"the record of this study has gaps: {error}. No result is lost: all are in "
                    "the store, and the record is filled in when the study ends or is run again"
                )
