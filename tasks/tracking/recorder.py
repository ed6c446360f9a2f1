"""The record of a study: begun, filled while proxies train, concluded, and filled in again.

The store is the truth; the record is for people. So a record may be late or have gaps, and
`conclude` fills every gap from the study itself: a record that was lost is rebuilt by beginning and
concluding it again. Proxies are found by their fingerprint, so that nothing is recorded twice.

`Recorder` is the one life of a record; a `Ledger` is where it is kept.
"""

import json
import math
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from cuvee.mixtures.errors import ServiceError
from cuvee.mixtures.runs import Failed, Outcome, RunSpec
from cuvee.tasks.report.sections.moving_weights import SKILL_GRAPH_FILES
from cuvee.tasks.study import finished
from cuvee.tasks.study.study import Study
from cuvee.tasks.tracking import fields
from cuvee.tasks.tracking.fields import Entry, Point
from cuvee.tasks.tracking.tracker import FAILED, FINISHED, KILLED, RUNNING, Ledger
from cuvee.tasks.validation.preregistration import Card

RECOMMENDATION = "recommendation"  # folder of a run for its registered version
CURVE_SECONDS = 5.0  # between two writes of a curve; a study trains many proxies at once
SWEEP = f"{fields.PREFIX}sweep"  # tag: who wrote to a study's record last
WHOLE = f"{fields.PREFIX}whole"  # tag: which proxies the record has, all of them told in full
ARTIFACTS = (
    "report.html",
    "report.md",
    "recommendation.json",
    "summary.json",
    "recipe.yaml",
    *SKILL_GRAPH_FILES,
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

    def finish(
        self,
        outcome: Outcome,
        objective: float | None = None,
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """What came of a proxy; the objective in bits per byte where it is known already.

        Tags are those of `child`, for one that was found finished and not announced.
        """
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
    told: bool = False  # of what it is
    valued: bool = False
    steps: set[int] = field(default_factory=set)
    waiting: list[tuple[int, float]] = field(default_factory=list)  # of the curve
    due: float = 0.0  # when a server may be asked to take more of it


class Recorder:
    """The tracker over a ledger. Safe to call from the threads of one process.

    Args:
        ledger: where the record is kept.
        sweep: a name that no other sweep has, by which it is seen that another one joined.
    """

    def __init__(self, ledger: Ledger, sweep: str = "") -> None:
        self._ledger = ledger
        self._lock = threading.RLock()
        self._parent = ""
        self._mark: Mapping[str, str] = {}
        self._whole, self._loaded = "", True
        self._sweep, self._alone = sweep or uuid.uuid4().hex, True
        self._children: dict[str, _Child] = {}

    def begin(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        with self._lock:
            self._mark = fields.prefixed({"study": fields.key(name, params), "kind": "study"})
            ours = {**fields.prefixed(tags), SWEEP: self._sweep}
            known = self._ledger.find(self._mark)
            self._children = {}
            self._parent = known[-1].run if known else self._first(name, ours)
            self._alone = not known or known[-1].status != RUNNING
            if known:
                self._ledger.close(self._parent, RUNNING)
                was = f"{fields.PREFIX}reason"  # of an end that is over now
                again = {**ours, **({was: ""} if was in known[-1].tags else {})}
                self._ledger.write(self._parent, Entry(tags=again))
                self._whole = known[-1].tags.get(WHOLE, "") if self._alone else ""
                self._loaded = False  # to list thousands of runs takes a server a minute
                if not self._whole:
                    self._remember()
            else:
                self._ledger.write(self._parent, Entry(params=params))
            return self._parent

    def _first(self, name: str, tags: Mapping[str, str]) -> str:
        """A new record of a study; of several sweeps that make one at once, the oldest stays."""
        made = self._ledger.create(name, {**self._mark, **tags})
        oldest = self._ledger.find(self._mark)[-1].run
        if oldest != made:
            self._ledger.drop(made)
        return oldest

    def _remember(self) -> None:
        """Take up the proxies that are recorded; of one that stands twice, the oldest stays.

        Two sweeps may announce one proxy at once, and a server may make a run and then not answer.
        """
        label = f"{fields.PREFIX}fingerprint"
        kept: dict[str, _Child] = {}
        for known in reversed(self._ledger.find({}, self._parent)):
            name = known.tags.get(label)
            if name in kept:
                self._ledger.drop(known.run)
            elif name is not None:
                told = any(metric.startswith("weight") for metric in known.metrics)
                valued = fields.OBJECTIVE in known.metrics
                steps = self._children[name].steps if name in self._children else set()
                kept[name] = _Child(known.run, known.status, told, valued, steps)
        self._children, self._loaded = kept, True

    def child(self, spec: RunSpec, tags: Mapping[str, str]) -> None:
        with self._lock:
            if not self._parent:
                raise ServiceError("a proxy was announced before its study was begun")
            if not self._loaded:
                self._remember()
            found = self._children.get(spec.fingerprint)
            entry = fields.spec_entry(spec, {**tags, "kind": "proxy"})
            if found is None:
                name = fields.run_name(spec, tags)
                run = self._ledger.create(name, entry.tags, self._parent)
                found = self._children[spec.fingerprint] = _Child(run, RUNNING)
            elif found.status != FINISHED:
                found.steps |= self._ledger.steps(found.run, fields.LOSS)
                self._ledger.close(found.run, RUNNING)
                found.status = RUNNING
            if not found.told:
                self._ledger.write(found.run, Entry(entry.params, entry.metrics))
                found.told = True

    def curve(self, fingerprint: str, points: Iterable[tuple[int, float]]) -> None:
        with self._lock:
            child = self._children.get(fingerprint)
            if child is None:
                raise ServiceError(f"progress of a proxy that was not announced: {fingerprint}")
            child.waiting += points
            if child.status == FINISHED or time.monotonic() < child.due:
                return
            child.due = time.monotonic() + CURVE_SECONDS
            waiting, child.waiting = child.waiting, []
            self._ledger.write(child.run, Entry(metrics=self._fresh(child, waiting)))

    @staticmethod
    def _fresh(child: _Child, points: Iterable[tuple[int, float]]) -> tuple[Point, ...]:
        fresh = fields.curve_points(points, child.steps)
        child.steps |= {point.step for point in fresh}
        return fresh

    def finish(
        self,
        outcome: Outcome,
        objective: float | None = None,
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        with self._lock:
            if not self._loaded:
                return  # it was found in the store; `conclude` sees whether the record has it
            known = self._children.get(outcome.spec.fingerprint)
            if known is None or known.status != FINISHED:
                self.child(outcome.spec, tags)
                self._finish(self._children[outcome.spec.fingerprint], outcome, objective)

    def _finish(self, child: _Child, outcome: Outcome, objective: float | None) -> None:
        if isinstance(outcome, Failed):
            reason = fields.prefixed({"reason": outcome.reason[:2000]})
            self._ledger.write(child.run, Entry(tags=reason))
            child.status = FAILED
        else:
            entry = fields.result_entry(outcome, objective)
            points = entry.metrics + self._fresh(child, outcome.curve)
            self._ledger.write(child.run, Entry(metrics=points))
            child.status, child.valued = FINISHED, objective is not None
        self._ledger.close(child.run, child.status)

    def promise(self, card: Card, copy: Path) -> None:
        with self._lock:
            self._ledger.write(self._parent, Entry(tags=fields.card_tags(card)))
            self._ledger.attach(self._parent, [copy], PREDICTIONS)

    def conclude(self, study: Study, folder: Path) -> None:
        with self._lock:
            whole, joined = fields.whole(study), not self._alone or self._joined()
            if joined or (not self._loaded and whole != self._whole):
                self._remember()
            for outcome, tags in fields.outcomes(study) if self._loaded else ():
                self._fill(study, outcome, tags)
            self._ledger.write(self._parent, fields.study_entry(study))
            self._ledger.write(self._parent, Entry(tags={WHOLE: whole}))
            self._ledger.describe(self._parent, fields.description(study))
            self._ledger.data(self._parent, fields.datasets(study))
            root = Path(folder)
            self._ledger.attach(self._parent, [p for n in ARTIFACTS if (p := root / n).is_file()])
            self._ledger.attach(self._parent, sorted(root.glob("plots/*.png")), "plots")
            self._ledger.attach(
                self._parent, sorted(root.glob(f"{PREDICTIONS}/*.json")), PREDICTIONS
            )
            self._enroll(study, root / finished.FILE)
            self._ledger.close(self._parent, FINISHED)

    def _joined(self) -> bool:
        """Whether another sweep has begun to write to this record since this one did."""
        now = [known for known in self._ledger.find(self._mark) if known.run == self._parent]
        return not now or now[0].tags.get(SWEEP) != self._sweep

    def _enroll(self, study: Study, card: Path) -> None:
        """Register the recommendation, once for a purpose; what a later test showed is told."""
        if not card.is_file():
            return
        given = finished.from_json(json.loads(card.read_text(encoding="utf-8")))
        if given.fingerprint != study.fingerprint:
            return  # an approval of the version would be one of another recommendation
        tags = fields.version_tags(study, given)
        bound = fields.bound_tags(given.identity, given.purpose)
        for known in self._ledger.versions(study.name):
            if bound.items() <= known.tags.items():
                self._ledger.mark(study.name, known.number, tags)
                return
        self._ledger.attach(self._parent, [card], RECOMMENDATION)
        self._ledger.enroll(study.name, self._parent, tags, fields.description(study))

    def _fill(self, study: Study, outcome: Outcome, tags: Mapping[str, str]) -> None:
        child = self._children.get(outcome.spec.fingerprint)
        done = FAILED if isinstance(outcome, Failed) else FINISHED
        value = None if isinstance(outcome, Failed) else study.objective(outcome)
        if child is None or child.status != done:
            self.child(outcome.spec, tags)
            self.finish(outcome, value)
        elif value is not None and math.isfinite(value) and not child.valued:
            self._ledger.write(child.run, Entry(metrics=(Point(fields.OBJECTIVE, value),)))
            child.valued = True

    def abandon(self, reason: str) -> None:
        with self._lock:
            if not self._parent:
                return
            for child in self._children.values():
                if child.status == RUNNING:
                    self._ledger.close(child.run, KILLED)
                    child.status = KILLED
            self._ledger.write(self._parent, Entry(tags=fields.prefixed({"reason": reason[:2000]})))
            self._ledger.close(self._parent, KILLED)


def rebuild(tracker: Tracker, study: Study, folder: Path) -> str:
    """Make the record of a study again from what the store gave; what is there stays."""
    params = fields.study_params(study.recipe_text, study.problem, study.seed)
    run = tracker.begin(study.name, params, {"rebuilt": "true"})
    tracker.conclude(study, folder)
    return run
