"""What a flow tells of its study (`Tracker`), and where that is kept (`TrackingBackend`).

`StudyTracker` is the tracker over a backend: MLflow, or `MemoryBackend` for tests, notebooks and
whoever wants no MLflow. `FaultTolerantTracker` keeps a failing backend from costing a result.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from cuvee.mixtures.runs.run_results import Outcome
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.tasks.study.progress import StudyProgress
from cuvee.tasks.study.study import Study
from cuvee.tasks.tracking.fields import LoggedDataset, RunFields
from cuvee.tasks.validation.preregistration import Card

RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"
NO_TAGS: Mapping[str, str] = MappingProxyType({})


class Tracker(Protocol):
    """What a flow tells of its study. Only plain values cross."""

    def start_study(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """Begin a study, or take up the record of the same one; returns its id."""
        ...

    def start_run(self, spec: RunSpec, tags: Mapping[str, str]) -> None:
        """Announce a proxy. Tags such as `method`, `round` and `role` say why it is trained."""
        ...

    def log_curve(self, fingerprint: str, points: Iterable[tuple[int, float]]) -> None:
        """Progress: (tokens seen, training loss in nats per token) pairs, in any batches."""
        ...

    def finish_run(
        self, outcome: Outcome, objective: float | None = None, tags: Mapping[str, str] = NO_TAGS
    ) -> None:
        """What came of a proxy; the objective in bits per byte where it is known already.

        Tags are those of `start_run`, for one that was found finished and not announced.
        """
        ...

    def log_preregistration(self, card: Card, copy: Path) -> None:
        """Predictions, and a file that holds them, before anything of them is trained."""
        ...

    def log_progress(self, progress: StudyProgress) -> None:
        """How far the study is, for people who look at the record meanwhile."""
        ...

    def finish_study(self, study: Study, folder: Path) -> None:
        """The end: fills every gap, adds headline, data sets and the folder's report."""
        ...

    def fail_study(self, reason: str) -> None:
        """The study ends without a recommendation, for a reason in words."""
        ...


class FaultTolerantTracker:
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

    def start_study(self, name: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        self._begun = (name, dict(params), dict(tags))
        return str(self._try(lambda: self._tracker.start_study(name, params, tags)) or "")

    def start_run(self, spec: RunSpec, tags: Mapping[str, str]) -> None:
        self._try(lambda: self._tracker.start_run(spec, tags))

    def log_curve(self, fingerprint: str, points: Iterable[tuple[int, float]]) -> None:
        self._try(lambda: self._tracker.log_curve(fingerprint, points))

    def finish_run(
        self, outcome: Outcome, objective: float | None = None, tags: Mapping[str, str] = NO_TAGS
    ) -> None:
        self._try(lambda: self._tracker.finish_run(outcome, objective, tags))

    def log_preregistration(self, card: Card, copy: Path) -> None:
        self._try(lambda: self._tracker.log_preregistration(card, copy))

    def log_progress(self, progress: StudyProgress) -> None:
        self._try(lambda: self._tracker.log_progress(progress))

    def finish_study(self, study: Study, folder: Path) -> None:
        if self._failures and (begun := self._begun):
            self._try(lambda: self._tracker.start_study(*begun), last=True)
        self._try(lambda: self._tracker.finish_study(study, folder), last=True)

    def fail_study(self, reason: str) -> None:
        self._try(lambda: self._tracker.fail_study(reason))

    def _try(self, call: Callable[[], object], *, last: bool = False) -> object:
        if self._failures >= self._patience and not last:
            return None
        try:
            return call()
        except Exception as error:  # whatever a record meets, the study must go on
            self._failures += 1
            if self._failures == 1:
                self._warn(
                    f"the record of this study has gaps: {error}. No result is lost: all are in "
                    "the store, and the record is filled in when the study ends or is run again"
                )
            return None


@dataclass(frozen=True)
class TrackedRun:
    """A run that a backend has: its id, tags, status, names of its metrics, and description."""

    run: str
    tags: Mapping[str, str]
    status: str
    metrics: frozenset[str] = frozenset()
    description: str = ""


@dataclass(frozen=True)
class RegisteredVersion:
    """A registered recommendation: its number, tags and aliases."""

    number: str
    tags: Mapping[str, str]
    aliases: frozenset[str] = frozenset()


class TrackingBackend(Protocol):
    """Where runs and registered recommendations are kept. A run belongs to a parent, or is one."""

    def find_runs(self, tags: Mapping[str, str], parent: str | None = None) -> Sequence[TrackedRun]:
        """Runs that carry all tags, below a parent if one is given; the newest first."""
        ...

    def create_run(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """A new running run; returns its id."""
        ...

    def log(self, run: str, fields: RunFields) -> None:
        """Add params, metrics, tags, data sets and a description to a run."""
        ...

    def logged_steps(self, run: str, metric: str) -> frozenset[int]:
        """Steps at which a run has a metric."""
        ...

    def set_status(self, run: str, status: str) -> None:
        """Set a run's status."""
        ...

    def delete_run(self, run: str) -> None:
        """Remove a run that stands for what another run stands for already."""
        ...

    def log_files(self, run: str, files: Sequence[Path], folder: str = "") -> None:
        """Copy files into a run's artifacts."""
        ...

    def register_version(self, name: str, run: str, tags: Mapping[str, str], text: str) -> None:
        """Register a run's recommendation as a new version under a name."""
        ...

    def versions(self, name: str) -> Sequence[RegisteredVersion]:
        """The versions registered under a name, the newest first."""
        ...

    def tag_version(
        self, name: str, number: str, tags: Mapping[str, str], alias: str | None = None
    ) -> None:
        """Tag a version, and let an alias stand for it."""
        ...

    def delete_alias(self, name: str, alias: str) -> None:
        """Let an alias stand for no version."""
        ...


@dataclass
class MemoryRun:
    """A run as it is remembered.

    Attributes:
        name: shown to people.
        parent: id of the run it belongs to, or None.
        status: RUNNING, FINISHED, FAILED or KILLED.
        metrics: name -> (step, value) pairs, in the order they came.
        artifacts: path inside the run -> content.
    """

    name: str
    parent: str | None
    tags: dict[str, str]
    status: str = RUNNING
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    datasets: dict[str, LoggedDataset] = field(default_factory=dict)
    description: str = ""


class MemoryBackend:
    """A backend that is gone when the process ends; `runs` holds everything, by id."""

    def __init__(self) -> None:
        self.runs: dict[str, MemoryRun] = {}
        self.registered: dict[str, list[RegisteredVersion]] = {}
        self._numbers = itertools.count()

    def find_runs(self, tags: Mapping[str, str], parent: str | None = None) -> Sequence[TrackedRun]:
        return [
            TrackedRun(run, dict(kept.tags), kept.status, frozenset(kept.metrics), kept.description)
            for run, kept in reversed(self.runs.items())
            if (parent is None or kept.parent == parent) and tags.items() <= kept.tags.items()
        ]

    def create_run(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        run = f"run-{next(self._numbers)}"
        self.runs[run] = MemoryRun(name, parent, dict(tags))
        return run

    def log(self, run: str, fields: RunFields) -> None:
        kept = self.runs[run]
        kept.params.update(fields.params)
        kept.tags.update(fields.tags)
        kept.datasets.update({item.name: item for item in fields.datasets})
        kept.description = fields.description or kept.description
        for point in fields.metrics:
            kept.metrics.setdefault(point.name, []).append((point.step, point.value))

    def logged_steps(self, run: str, metric: str) -> frozenset[int]:
        return frozenset(step for step, _ in self.runs[run].metrics.get(metric, []))

    def set_status(self, run: str, status: str) -> None:
        self.runs[run].status = status

    def delete_run(self, run: str) -> None:
        del self.runs[run]

    def log_files(self, run: str, files: Sequence[Path], folder: str = "") -> None:
        for file in files:
            self.runs[run].artifacts[str(Path(folder, file.name))] = file.read_bytes()

    def register_version(self, name: str, run: str, tags: Mapping[str, str], text: str) -> None:
        known = self.registered.setdefault(name, [])
        known.insert(0, RegisteredVersion(str(len(known) + 1), dict(tags)))

    def versions(self, name: str) -> Sequence[RegisteredVersion]:
        return tuple(self.registered.get(name, ()))

    def tag_version(
        self, name: str, number: str, tags: Mapping[str, str], alias: str | None = None
    ) -> None:
        if alias:
            self.delete_alias(name, alias)
        at = next(i for i, one in enumerate(self.registered[name]) if one.number == number)
        before = self.registered[name][at]
        aliases = before.aliases | ({alias} if alias else set())
        self.registered[name][at] = RegisteredVersion(number, {**before.tags, **tags}, aliases)

    def delete_alias(self, name: str, alias: str) -> None:
        self.registered[name] = [
            replace(known, aliases=known.aliases - {alias}) for known in self.registered[name]
        ]
