"""The store of results: the truth of a study.

One directory per fingerprint; `result.json` is written last and atomically, and carries the sha256
of what it holds; scores by document and item lie beside it and are read when asked for. A record
that is not what was written is moved aside, named, and never used: its run is trained again. A
store has a format number, in `format.json`: one of a newer format is refused, and nothing of it is
moved; fields that a later version of the same format added are left where they are. Paths are
fsspec URLs, so that a store can lie on a disk, on shared storage or in an object store.
"""

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from cuvee.mixtures.errors import (
    CorruptError,
    CuveeError,
    EvidenceError,
    NewerError,
    StorageError,
    UnknownName,
)
from cuvee.mixtures.runs.run_records import outcome_from_json, outcome_to_json
from cuvee.mixtures.runs.run_results import Outcome, RunResult
from cuvee.mixtures.runs.run_spec import RunSpec, canonical_json
from cuvee.mixtures.runs.unit_scores import UnitScores
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.tasks.store import shared_inputs
from cuvee.tasks.store.unit_files import UNIT_FILE, units_from_bytes, units_to_bytes

FORMAT = 1  # of a store; raised when an older version would misread what a newer one writes
MARKER = "format.json"  # at the root of a store


class Store:
    """Results by fingerprint, and records of other kinds by name and key.

    Args:
        url: a local path or any fsspec URL.
        read_only: make nothing, and leave damaged records where they are.

    Attributes:
        objects: what the records lie in.
        damaged: names of the records that were found corrupt and moved aside, oldest first.
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self.url, self.objects, self._read_only = url, ObjectFolder(url), read_only
        self.damaged: list[str] = []
        self._known: dict[str, RunResult] = {}
        self._format: int | None = None  # not looked at yet; 0 where there is no number
        if not read_only:
            self.objects.make()

    def get(self, fingerprint: str) -> Outcome | None:
        """The outcome of a run as it was kept, or None if it is not here or damaged.

        A result is read once. A failure can become a result, so it is looked for again.
        """
        if fingerprint in self._known:
            return self._known[fingerprint]
        record = self.recall(f"runs/{fingerprint}", "result")
        if record is None:
            return None
        try:
            outcome = outcome_from_json(record)
            if outcome.spec.fingerprint != fingerprint:
                if record["spec"].keys() - dataclasses.asdict(outcome.spec).keys():
                    return None  # a later version's, of a training that this one does not know
                raise EvidenceError(f"it holds run {outcome.spec.fingerprint[:12]}")
        except UnknownName:
            return None  # under a controller of a package that is not installed here
        except CuveeError as error:
            self._set_aside(f"runs/{fingerprint}/result.json", str(error))
            return None
        if isinstance(outcome, RunResult):
            self._known[fingerprint] = outcome
        return outcome

    def outcome_of(self, spec: RunSpec) -> Outcome | None:
        """The outcome of a run under the names, in the order and over the domains of its spec.

        None if it is not here, or was never scored on the held-out text of one of these domains:
        then it is trained again, and `put` adds what is new.
        """
        outcome = self.get(spec.fingerprint)
        seen = outcome.seen_as(spec) if outcome else None
        if not isinstance(seen, RunResult) or not seen.lacking:
            return seen
        self._known.pop(spec.fingerprint, None)  # another sweep may add to it
        return None

    def put(self, outcome: Outcome) -> None:
        """Keep an outcome; scores that an earlier record of the run has besides stay.

        The last writer wins; equal specs give equal outcomes.

        Raises:
            StorageError: the disk is full or the place cannot be written.
        """
        self._known.pop(outcome.spec.fingerprint, None)
        had: Mapping[str, UnitScores] = {}
        before = self.get(outcome.spec.fingerprint)
        if isinstance(before, RunResult):
            if not isinstance(outcome, RunResult):
                return  # what a run gave once, a failure of training it again does not undo
            had = self.units_of(before.spec)
            outcome = outcome.merged(dataclasses.replace(before, units=had))
            self._known[outcome.spec.fingerprint] = dataclasses.replace(outcome, units={})
        if isinstance(outcome, RunResult) and (outcome.units or had):
            units = units_to_bytes(outcome.spec, outcome.units)
            self.objects.replace(f"runs/{outcome.spec.fingerprint}/{UNIT_FILE}", units)
        self.renew(f"runs/{outcome.spec.fingerprint}", "result", outcome_to_json(outcome), "spec")

    def units_of(self, spec: RunSpec) -> dict[str, UnitScores]:
        """The scores of a run by document and item, under the names of its spec.

        There are none of scores that came from elsewhere, of runs of earlier versions, and where
        their file is damaged: no run is trained again for them.
        """
        raw = self.objects.read(f"runs/{spec.fingerprint}/{UNIT_FILE}")
        return (units_from_bytes(spec, raw) if raw else None) or {}

    def with_units(
        self, outcomes: Iterable[Outcome], wanted: Container[str] = ()
    ) -> Iterator[Outcome]:
        """The outcomes with their units where their fingerprint is `wanted`, the others without."""
        for outcome in outcomes:
            if isinstance(outcome, RunResult):
                name = outcome.spec.fingerprint
                units = self.units_of(outcome.spec) if name in wanted else {}
                outcome = dataclasses.replace(outcome, units=units)
            yield outcome

    def missing(self, specs: tuple[RunSpec, ...]) -> tuple[RunSpec, ...]:
        """The specs whose outcome is not here, each once, in their order."""
        unique = {spec.fingerprint: spec for spec in specs}
        return tuple(spec for spec in unique.values() if self.outcome_of(spec) is None)

    def outcomes(self) -> Iterator[Outcome]:
        """Every readable outcome, in the order of fingerprints."""
        for name in self.objects.names("runs"):
            outcome = self.get(name)
            if outcome is not None:
                yield outcome

    def recall(self, name: str, key: str) -> Any:
        """A value kept under a name and a key of what it was computed from, or None.

        Raises:
            NewerError: the store has a newer format; says to update.
        """
        self._check_format()
        return self._read(f"{name}/{key}.json")

    def remember(self, name: str, key: str, value: Any) -> None:
        """Keep a value that is costly to compute again, under a key of what determines it."""
        self._check_format()
        if not self._format:
            self.objects.replace(MARKER, _sealed({"format": FORMAT}))
            self._format = FORMAT
        self.objects.replace(f"{name}/{key}.json", _sealed(value))

    def renew(self, name: str, key: str, value: Mapping[str, Any], part: str) -> None:
        """Keep a value over an earlier one of its kind.

        Fields that a later version added to the earlier one, or to a part of it, stay.
        """
        before = self.recall(name, key) or {}
        if before.get("kind") == value.get("kind"):
            value = {**before, **value, part: {**before.get(part, {}), **value[part]}}
        self.remember(name, key, value)

    def seal(self, name: str, key: str, value: Any) -> None:
        """Keep a value for good.

        Raises:
            StorageError: another value is kept under the key, which is never replaced.
        """
        path = f"{name}/{key}.json"
        made = self.objects.create(path, _sealed(value))
        if not made and canonical_json(self.sealed(name, key)) != canonical_json(value):
            kept = self.objects.path(path)
            raise StorageError(f"{kept} is kept for good and is not replaced by another value")

    def sealed(self, name: str, key: str) -> Any:
        """What was kept for good under a key.

        Unlike other records, a damaged one is left where it is: it cannot be made again.

        Raises:
            CorruptError: it is not what was written.
            StorageError: there is none.
        """
        path = self.objects.path(f"{name}/{key}.json")
        raw = self.objects.read(f"{name}/{key}.json")
        if raw is None:
            raise StorageError(f"cannot use {path}: there is no such record")
        content, problem = _unsealed(raw)
        if problem:
            raise CorruptError(f"{path} was changed or damaged ({problem})")
        return content

    def keys(self, name: str) -> tuple[str, ...]:
        """Keys under which values are kept, in order."""
        found = (n.removesuffix(".json") for n in self.objects.names(name) if n.endswith(".json"))
        return tuple(sorted(found))

    def records(self) -> Iterator[tuple[str, Any, str]]:
        """(path in the store, content, what is wrong with it) of every record; moves nothing."""
        self._check_format()
        for name in self.objects.all_names():
            record = name.endswith(".json") and name.split("/")[0] not in shared_inputs.FOLDERS
            raw = self.objects.read(name) if record else None
            if raw is not None:
                try:
                    yield name, *_unsealed(raw)
                except NewerError as error:
                    yield name, None, str(error)

    def _check_format(self) -> None:
        if self._format is None:
            known = self._read(MARKER)
            found = (
                known.get("format") if isinstance(known, dict) else 0 if known is None else known
            )
            if not isinstance(found, int) or found > FORMAT:
                raise NewerError(_newer(f"the store {self.url}", found))
            self._format = found

    def _read(self, name: str) -> Any:
        for last in (False, True):  # a bad read of a good record must not condemn it
            raw = self.objects.read(name)
            if raw is None:
                return None
            content, problem = _unsealed(raw)
            if not problem:
                return content
            if last:
                self._set_aside(name, problem)
        return None

    def _set_aside(self, name: str, why: str) -> None:
        if self._read_only:
            self.damaged.append(f"{self.objects.path(name)}: {why}")
            return
        aside = f"{name}.corrupt-{uuid.uuid4().hex[:8]}"
        self.objects.move(name, aside)  # unless another sweep was first
        path, aside = self.objects.path(name), self.objects.path(aside)
        self.damaged.append(f"{path}: {why}; moved to {aside}, it will be made again")


def _newer(what: str, found: object) -> str:
    return (
        f"{what} is newer than this program: it has format {found!r:.99}, and this version of "
        f"Cuvee reads up to {FORMAT}. Update cuvee; nothing there was changed"
    )


def _sealed(content: Any) -> bytes:
    """A record: a content with its checksum."""
    text = canonical_json(content)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps({"sha256": digest, "content": json.loads(text)}).encode()


def _unsealed(raw: bytes) -> tuple[Any, str]:
    """The content of a record, or what is wrong with it.

    Raises:
        NewerError: it has a newer format, which it says in `format`.
    """
    try:
        record = json.loads(raw)
        if isinstance(record.get("format"), int) and record["format"] > FORMAT:
            raise NewerError(_newer("a record", record["format"]))
        content, digest = record["content"], record["sha256"]
    except (AttributeError, ValueError, KeyError, TypeError, RecursionError) as error:
        return None, f"unreadable: {error!r}"
    if hashlib.sha256(canonical_json(content).encode()).hexdigest() != digest:
        return None, "its checksum does not match"
    return content, ""
