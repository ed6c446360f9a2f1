"""The record of a study: begun, filled while proxies train, completed, and filled in again.

The store is the truth; the record is for people. So a record may be late or have gaps, and
`finish_study` fills every gap from the study itself: a record that was lost is there again when the
study is run again. Proxies are found by their fingerprint, so that nothing is recorded twice.
"""

import json
import math
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from cuvee.mixtures.errors import ServiceError
from cuvee.mixtures.runs.run_results import Failed, Outcome
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.tasks.report.sections.moving_weights import SKILL_GRAPH_FILES
from cuvee.tasks.study import finished
from cuvee.tasks.study.progress import StudyProgress, progress_markdown
from cuvee.tasks.study.study import Study
from cuvee.tasks.tracking import fields
from cuvee.tasks.tracking.fields import MetricPoint, RunFields, cuvee_tags
from cuvee.tasks.tracking.tracker import (
    FAILED,
    FINISHED,
    KILLED,
    NO_TAGS,
    RUNNING,
    TrackedRun,
    TrackingBackend,
)
from cuvee.tasks.validation.preregistration import Card

RECOMMENDATION = "recommendation"  # folder of a run for its registered version
CURVE_SECONDS = 5.0  # between two writes of a curve; a study trains many proxies at once
SWEEP = f"{fields.PREFIX}sweep"  # tag: who wrote to a study's record last
ARTIFACTS = ("report.html", "report.md", "recommendation.json", "summary.json", "recipe.yaml")
LATER = "\n\n## The last command\n\n"  # parts the progress of a command from earlier answers
PREDICTIONS = "predictions"  # folder of preregistered predictions, also in a study's own folder


@dataclass
class _Child:
    run: str
    status: str
    told: bool = False  # of what it is
    valued: bool = False
    steps: set[int] = field(default_factory=set)
    waiting: list[tuple[int, float]] = field(default_factory=list)  # of the curve
    due: float = 0.0  # when a server may be asked to take more of it


class StudyTracker:
    """The tracker of a study over a backend. Safe to call from the threads of one process.

    Args:
        backend: where the record is kept.
        sweep: a name that no other sweep has, by which it is seen that another one joined.
    """

    def __init__(self, backend: TrackingBackend, sweep: str = "") -> None:
        self._backend = backend
        self._lock = threading.RLock()
        self._parent = ""
        self._mark: Mapping[str, str] = {}
        self._whole, self._loaded = "", True
        self._concluded, self._answered = False, ""  # the description of its last end
        self._sweep, self._alone = sweep or uuid.uuid4().hex, True
        self._children: dict[str, _Child] = {}

    def start_study(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        with self._lock:
            self._mark = cuvee_tags({"study": fields.study_key(name, params), "kind": "study"})
            ours = {**cuvee_tags(tags), SWEEP: self._sweep}
            known = self._backend.find_runs(self._mark)
            self._children, self._concluded = {}, False
            self._parent = known[-1].run if known else self._create(name, ours)
            self._answered = _answered(known[-1]) if known else ""
            self._alone = not known or known[-1].status != RUNNING
            if known:
                self._backend.set_status(self._parent, RUNNING)
                was = f"{fields.PREFIX}reason"  # of an end that is over now
                again = {**ours, **({was: ""} if was in known[-1].tags else {})}
                self._backend.log(self._parent, RunFields(tags=again))
                self._whole = known[-1].tags.get(fields.WHOLE, "") if self._alone else ""
                self._loaded = False  # to list thousands of runs takes a server a minute
                if not self._whole:
                    self._load_children()
            else:
                self._backend.log(self._parent, RunFields(params))
            return self._parent

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        """A new record of a study; of several sweeps that make one at once, the oldest stays."""
        made = self._backend.create_run(name, {**self._mark, **tags})
        oldest = self._backend.find_runs(self._mark)[-1].run
        if oldest != made:
            self._backend.delete_run(made)
        return oldest

    def _load_children(self) -> None:
        """Take up the proxies that are recorded; of one that stands twice, the oldest stays.

        Two sweeps may announce one proxy at once, and a server may make a run and then not answer.
        """
        children: dict[str, _Child] = {}
        for known in reversed(self._backend.find_runs({}, self._parent)):
            name = known.tags.get(f"{fields.PREFIX}fingerprint")
            if name in children:
                self._backend.delete_run(known.run)
            elif name is not None:
                told = any(metric.startswith("weight") for metric in known.metrics)
                valued = fields.OBJECTIVE in known.metrics
                steps = self._children[name].steps if name in self._children else set()
                children[name] = _Child(known.run, known.status, told, valued, steps)
        self._children, self._loaded = children, True

    def start_run(self, spec: RunSpec, tags: Mapping[str, str]) -> None:
        with self._lock:
            child, untold = self._begin(spec, tags)
            if untold is not None:
                self._backend.log(child.run, untold)
                child.told = True

    def _begin(self, spec: RunSpec, tags: Mapping[str, str]) -> tuple[_Child, RunFields | None]:
        """The running run of a proxy, made where it is missing, and what it is still to be told.

        The caller logs that: a call to a record costs more than what it carries, so that a proxy
        that has ended already is told everything at once.
        """
        if not self._parent:
            raise ServiceError("a proxy was announced before its study was begun")
        if not self._loaded:
            self._load_children()
        child = self._children.get(spec.fingerprint)
        about = fields.spec_fields(spec, {**tags, "kind": "proxy"})
        if child is None:
            run = self._backend.create_run(fields.run_name(spec, tags), about.tags, self._parent)
            child = self._children[spec.fingerprint] = _Child(run, RUNNING)
        elif child.status != FINISHED:
            child.steps |= self._backend.logged_steps(child.run, fields.LOSS)
            self._backend.set_status(child.run, RUNNING)
            child.status = RUNNING
        return child, None if child.told else RunFields(about.params, about.metrics)

    def log_curve(self, fingerprint: str, points: Iterable[tuple[int, float]]) -> None:
        with self._lock:
            child = self._children.get(fingerprint)
            if child is None:
                raise ServiceError(f"progress of a proxy that was not announced: {fingerprint}")
            child.waiting += points
            if child.status == FINISHED or time.monotonic() < child.due:
                return
            child.due = time.monotonic() + CURVE_SECONDS
            waiting, child.waiting = child.waiting, []
            self._backend.log(child.run, RunFields(metrics=_new_points(child, waiting)))

    def finish_run(
        self, outcome: Outcome, objective: float | None = None, tags: Mapping[str, str] = NO_TAGS
    ) -> None:
        with self._lock:
            if not self._loaded:
                return  # it was found in the store; `finish_study` sees if the record has it
            known = self._children.get(outcome.spec.fingerprint)
            if known is not None and known.status == FINISHED:
                return
            child, untold = self._begin(outcome.spec, tags)
            if isinstance(outcome, Failed):
                told, status = _reason(outcome.reason), FAILED
            else:
                points = (
                    *fields.result_points(outcome, objective),
                    *_new_points(child, outcome.curve),
                )
                told = RunFields(metrics=points)
                status, child.valued = FINISHED, objective is not None
            if untold is not None:
                told = replace(told, params=untold.params, metrics=(*untold.metrics, *told.metrics))
            self._backend.log(child.run, told)
            child.status, child.told = status, True
            self._backend.set_status(child.run, status)

    def log_preregistration(self, card: Card, copy: Path) -> None:
        with self._lock:
            self._backend.log(self._parent, RunFields(tags=fields.preregistration_tags(card)))
            self._backend.log_files(self._parent, [copy], PREDICTIONS)

    def log_progress(self, progress: StudyProgress) -> None:
        with self._lock:
            if self._parent and not self._concluded:  # its end has the last word
                text = _below(self._answered, progress_markdown(progress))
                self._backend.log(self._parent, RunFields(description=text))

    def finish_study(self, study: Study, folder: Path) -> None:
        with self._lock:
            self._concluded = True
            told, root = fields.study_fields(study), Path(folder)
            joined = not self._alone or self._joined()
            if joined or (not self._loaded and told.tags[fields.WHOLE] != self._whole):
                self._load_children()
            for outcome, tags in fields.study_outcomes(study) if self._loaded else ():
                self._fill(study, outcome, tags)
            self._backend.log(self._parent, told)
            report = [
                root / name for name in (*ARTIFACTS, *SKILL_GRAPH_FILES) if (root / name).is_file()
            ]
            self._backend.log_files(self._parent, report)
            for part, pattern in (("plots", "*.png"), (PREDICTIONS, "*.json")):
                files = sorted((root / part).glob(pattern))
                self._backend.log_files(self._parent, files, part)
            self._register(study, root / finished.FILE)
            self._backend.set_status(self._parent, FINISHED)

    def _joined(self) -> bool:
        """Whether another sweep has begun to write to this record since this one did."""
        found = self._backend.find_runs(self._mark)
        now = [known for known in found if known.run == self._parent]
        return not now or now[0].tags.get(SWEEP) != self._sweep

    def _register(self, study: Study, card: Path) -> None:
        """Register the recommendation, once for a purpose; what a later test showed is told."""
        if not card.is_file():
            return
        given = finished.from_json(json.loads(card.read_text(encoding="utf-8")))
        if given.fingerprint != study.fingerprint:
            return  # an approval of the version would be one of another recommendation
        tags = fields.version_tags(study, given)
        wanted = fields.approvable_tags(given.identity, given.purpose)
        for known in self._backend.versions(study.name):
            if wanted.items() <= known.tags.items():
                self._backend.tag_version(study.name, known.number, tags)
                return
        self._backend.log_files(self._parent, [card], RECOMMENDATION)
        text = fields.study_description(study)
        self._backend.register_version(study.name, self._parent, tags, text)

    def _fill(self, study: Study, outcome: Outcome, tags: Mapping[str, str]) -> None:
        child = self._children.get(outcome.spec.fingerprint)
        done = FAILED if isinstance(outcome, Failed) else FINISHED
        value = None if isinstance(outcome, Failed) else study.objective(outcome)
        if child is None or child.status != done:
            self.finish_run(outcome, value, tags)
        elif value is not None and math.isfinite(value) and not child.valued:
            point = MetricPoint(fields.OBJECTIVE, value)
            self._backend.log(child.run, RunFields(metrics=(point,)))
            child.valued = True

    def fail_study(self, reason: str) -> None:
        with self._lock:
            if not self._parent:
                return
            for child in self._children.values():
                if child.status == RUNNING:
                    self._backend.set_status(child.run, KILLED)
                    child.status = KILLED
            self._backend.log(self._parent, _reason(reason))
            self._backend.set_status(self._parent, KILLED)


def _answered(known: TrackedRun) -> str:
    """What the description of a study says of its last end; "" where it never ended."""
    ended = f"{fields.PREFIX}grade" in known.tags
    return known.description.partition(LATER)[0] if ended else ""


def _below(answered: str, progress: str) -> str:
    """How far a study is, below what its last end said; the recipe there gives way for room."""
    if not answered:
        return progress
    later = LATER + progress
    if len(answered) + len(later) > fields.DESCRIPTION:
        answered = answered.partition("\n\n```")[0]
    return answered[: max(fields.DESCRIPTION - len(later), 0)] + later


def _new_points(child: _Child, curve: Iterable[tuple[int, float]]) -> tuple[MetricPoint, ...]:
    """The points of a curve that its run does not have yet."""
    new = fields.curve_points(curve, child.steps)
    child.steps |= {point.step for point in new}
    return new


def _reason(text: str) -> RunFields:
    return RunFields(tags=cuvee_tags({"reason": text[:2000]}))
