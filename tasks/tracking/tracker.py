"""Where a record is kept: the seam between the life of a record and the server that holds it.

`MemoryLedger` is a ledger like any other, without a disk: for tests, and for those who want none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cuvee.tasks.tracking.fields import Data, Entry

RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"


@dataclass(frozen=True)
class Known:
    """A run that a ledger has: its id, tags, status, and the names of its metrics."""

    run: str
    tags: Mapping[str, str]
    status: str
    metrics: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Version:
    """A registered recommendation: its number, tags and aliases."""

    number: str
    tags: Mapping[str, str]
    aliases: frozenset[str] = frozenset()


class Ledger(Protocol):
    """Where a record is kept. A run belongs to a parent, or is one."""

    def find(self, tags: Mapping[str, str], parent: str | None = None) -> Sequence[Known]:
        """Runs that carry all tags, below a parent if one is given; the newest first."""
        ...

    def create(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """A new running run; returns its id."""
        ...

    def write(self, run: str, entry: Entry) -> None:
        """Add params, metrics and tags to a run."""
        ...

    def steps(self, run: str, metric: str) -> frozenset[int]:
        """Steps at which a run has a metric."""
        ...

    def close(self, run: str, status: str) -> None:
        """Set a run's status."""
        ...

    def drop(self, run: str) -> None:
        """Remove a run that stands for what another run stands for already."""
        ...

    def attach(self, run: str, files: Sequence[Path], folder: str = "") -> None:
        """Copy files into a run's artifacts."""
        ...

    def data(self, run: str, datasets: Sequence[Data]) -> None:
        """Name the data that a run used."""
        ...

    def describe(self, run: str, text: str) -> None:
        """Set a run's description, in Markdown."""
        ...

    def enroll(self, name: str, run: str, tags: Mapping[str, str], text: str) -> None:
        """Register a run's recommendation as a new version under a name."""
        ...

    def versions(self, name: str) -> Sequence[Version]:
        """The versions registered under a name, the newest first."""
        ...

    def mark(
        self, name: str, number: str, tags: Mapping[str, str], alias: str | None = None
    ) -> None:
        """Tag a version, and let an alias stand for it."""
        ...

    def retract(self, name: str, alias: str) -> None:
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
    datasets: dict[str, Data] = field(default_factory=dict)
    description: str = ""


class MemoryLedger:
    """A ledger that is gone when the process ends; `runs` holds everything, by id."""

    def __init__(self) -> None:
        self.runs: dict[str, MemoryRun] = {}
        self.registered: dict[str, list[Version]] = {}

    def find(self, tags: Mapping[str, str], parent: str | None = None) -> Sequence[Known]:
        return [
            Known(run, dict(kept.tags), kept.status, frozenset(kept.metrics))
            for run, kept in reversed(self.runs.items())
            if (parent is None or kept.parent == parent) and tags.items() <= kept.tags.items()
        ]

    def create(self, name: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        run = f"run-{len(self.runs)}"
        self.runs[run] = MemoryRun(name, parent, dict(tags))
        return run

    def write(self, run: str, entry: Entry) -> None:
        kept = self.runs[run]
        kept.params.update(entry.params)
        kept.tags.update(entry.tags)
        for point in entry.metrics:
            kept.metrics.setdefault(point.name, []).append((point.step, point.value))

    def steps(self, run: str, metric: str) -> frozenset[int]:
        return frozenset(step for step, _ in self.runs[run].metrics.get(metric, []))

    def close(self, run: str, status: str) -> None:
        self.runs[run].status = status

    def drop(self, run: str) -> None:
        del self.runs[run]

    def attach(self, run: str, files: Sequence[Path], folder: str = "") -> None:
        for file in files:
            name = f"{folder}/{file.name}" if folder else file.name
            self.runs[run].artifacts[name] = file.read_bytes()

    def data(self, run: str, datasets: Sequence[Data]) -> None:
        self.runs[run].datasets.update({item.name: item for item in datasets})

    def describe(self, run: str, text: str) -> None:
        self.runs[run].description = text

    def enroll(self, name: str, run: str, tags: Mapping[str, str], text: str) -> None:
        known = self.registered.setdefault(name, [])
        known.insert(0, Version(str(len(known) + 1), dict(tags)))

    def versions(self, name: str) -> Sequence[Version]:
        return tuple(self.registered.get(name, ()))

    def mark(
        self, name: str, number: str, tags: Mapping[str, str], alias: str | None = None
    ) -> None:
        marked = []
        for known in self.registered[name]:
            aliases = known.aliases - {alias or ""}
            if known.number == number:
                own = aliases | ({alias} if alias else set())
                marked.append(Version(number, {**known.tags, **tags}, frozenset(own)))
            else:
                marked.append(Version(known.number, known.tags, aliases))
        self.registered[name] = marked

    def retract(self, name: str, alias: str) -> None:
        self.registered[name] = [
            Version(known.number, known.tags, known.aliases - {alias})
            for known in self.registered[name]
        ]
