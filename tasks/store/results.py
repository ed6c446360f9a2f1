"""The store of results: the truth of a study.

One directory per fingerprint; `result.json` is written last and atomically, and carries the sha256
of what it holds. A record that is not what was written is moved aside, named, and never used: its
run is trained again. A store has a format number, in `format.json`: one of a newer format is
refused, and nothing of it is moved; fields that a later version of the same format added are left
where they are. Paths are fsspec URLs, so that a store can lie on a disk, on shared storage or
in an object store.
"""

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import fsspec

from cuvee.mixtures.errors import CorruptError, CuveeError, EvidenceError, NewerError, StorageError
from cuvee.mixtures.runs import (
    Failed,
    Outcome,
    RunResult,
    RunSpec,
    canonical_json,
    outcome_from_json,
    outcome_to_json,
)

Result = TypeVar("Result")
FORMAT = 1  # of a store; raised when an older version would misread what a newer one writes
PAUSES = (0.1, 0.5, 2.0)  # seconds before a read or a write that failed is tried again
MARKER = "format.json"  # at the root of a store
LASTING = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR),
    *(errno.EISDIR, errno.EEXIST),
)


class Store:
    """Results by fingerprint.

    Args:
        url: a local path or any fsspec URL.

    Attributes:
        damaged: names of the records that were found corrupt and moved aside, oldest first.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.files, self.root = opened(url)
        self.damaged: list[str] = []
        self._known: dict[str, RunResult] = {}
        self._format: int | None = None  # not looked at yet; 0 where there is no number
        with _plainly(self.root):
            self.files.makedirs(self.root, exist_ok=True)

    def get(self, fingerprint: str) -> Outcome | None:
        """The outcome of a run, or None if it is not here or its record was damaged.

        A result is read once: another one cannot come under its fingerprint. A failure can become
        a result, so it is looked for again.
        """
        if fingerprint in self._known:
            return self._known[fingerprint]
        path = f"{self.root}/runs/{fingerprint}/result.json"
        record = self._read(path)
        if record is None:
            return None
        try:
            outcome = outcome_from_json(record)
            if outcome.spec.fingerprint != fingerprint:
                if record["spec"].keys() > dataclasses.asdict(outcome.spec).keys():
                    return None  # a later version's, of a training that this one does not know
                raise EvidenceError(f"it holds run {outcome.spec.fingerprint[:12]}")
        except CuveeError as error:
            self._set_aside(path, str(error))
            return None
        if isinstance(outcome, RunResult):
            self._known[fingerprint] = outcome
        return outcome

    def put(self, outcome: Outcome) -> None:
        """Keep an outcome. The last writer wins; equal specs give equal outcomes.

        Raises:
            StorageError: the disk is full or the place cannot be written.
        """
        self.renew(f"runs/{outcome.spec.fingerprint}", "result", outcome_to_json(outcome), "spec")

    def missing(self, specs: tuple[RunSpec, ...]) -> tuple[RunSpec, ...]:
        """The specs whose outcome is not here, each once, in their order."""
        unique = {spec.fingerprint: spec for spec in specs}
        return tuple(spec for name, spec in unique.items() if self.get(name) is None)

    def outcomes(self) -> Iterator[Outcome]:
        """Every readable outcome, in the order of fingerprints."""
        for name in self._names("runs"):
            outcome = self.get(name)
            if outcome is not None:
                yield outcome

    def forget_failures(self) -> int:
        """Remove the records of failed runs, so that they are tried again; returns how many."""
        failed = [o for o in self.outcomes() if isinstance(o, Failed)]
        for outcome in failed:
            self.files.rm(f"{self.root}/runs/{outcome.spec.fingerprint}", recursive=True)
        return len(failed)

    def recall(self, name: str, key: str) -> Any:
        """A value kept under a name and a key of what it was computed from, or None."""
        return self._read(f"{self.root}/{name}/{key}.json")

    def remember(self, name: str, key: str, value: Any) -> None:
        """Keep a value that is costly to compute again, under a key of what determines it."""
        self._write(f"{self.root}/{name}/{key}.json", value)

    def renew(self, name: str, key: str, value: Mapping[str, Any], part: str) -> None:
        """Keep a value over an earlier one of its kind.

        Fields that a later version added to the earlier one, or to a part of it, stay.
        """
        before = self.recall(name, key) or {}
        if before.get("kind") == value.get("kind"):
            value = {**before, **value, part: {**before.get(part, {}), **value[part]}}
        self.remember(name, key, value)

    def create(self, path: str, raw: bytes) -> bool:
        """Make a small object unless it is there; of several who try, one succeeds.

        A write may be done and yet be reported as failed, so that trying again finds an object
        there: it is ours if it holds what we wrote. Whoever must not be taken for another writes
        something that no other does.

        Returns:
            Whether it was made; False if it was there.

        Raises:
            StorageError: the place cannot be written.
        """
        tries = 0

        def attempt() -> bool:
            nonlocal tries
            tries += 1
            try:
                self._make(path, raw)
            except FileExistsError:
                return tries > 1 and bytes(self.files.cat_file(path)) == raw
            return True

        with _plainly(path):
            return _patiently(attempt)

    def _make(self, path: str, raw: bytes) -> None:
        if "file" not in _protocols(self.files):
            self.files.pipe_file(path, raw, mode="create")
            return
        while True:
            fresh = _folder(path)
            with contextlib.suppress(FileNotFoundError):  # whoever gave a claim back removed it
                with open(path, "xb") as file, _whole(path):
                    file.write(raw)
                    file.flush()
                    os.fsync(file.fileno())
                _sync(path, fresh)
                return

    def replace(self, path: str, raw: bytes) -> None:
        """Write a small object whole, over what is there.

        Raises:
            StorageError: the place cannot be written.
        """
        with _plainly(path):
            _patiently(lambda: self._write_atomically(path, raw))

    def seal(self, name: str, key: str, value: Any) -> None:
        """Keep a value for good.

        Raises:
            StorageError: another value is kept under the key, which is never replaced.
        """
        path = f"{self.root}/{name}/{key}.json"
        if not self.create(path, _sealed(value)) and canonical_json(
            self.sealed(name, key)
        ) != canonical_json(value):
            raise StorageError(f"{path} is kept for good and is not replaced by another value")

    def sealed(self, name: str, key: str) -> Any:
        """What was kept for good under a key.

        Unlike other records, a damaged one is left where it is: it cannot be made again.

        Raises:
            CorruptError: it is not what was written.
            StorageError: there is none.
        """
        path = f"{self.root}/{name}/{key}.json"
        with _plainly(path):
            content, problem = _unseal(_patiently(lambda: self.files.cat_file(path)))
        if problem:
            raise CorruptError(f"{path} was changed or damaged ({problem})")
        return content

    def keys(self, name: str) -> tuple[str, ...]:
        """Keys under which values are kept, in order."""
        found = (n.removesuffix(".json") for n in self._names(name) if n.endswith(".json"))
        return tuple(sorted(found))

    def records(self) -> Iterator[tuple[str, Any, str]]:
        """(path in the store, content, what is wrong with it) of every record; moves nothing."""
        self._check_format()
        with _plainly(self.root):
            paths = _patiently(lambda: sorted(self.files.find(self.root)))
        for path in paths:
            if path.endswith(".json"):
                with _plainly(path):
                    raw = _patiently(functools.partial(self.files.cat_file, path))
                try:
                    content, problem = _unseal(raw)
                except NewerError as error:
                    content, problem = None, str(error)
                yield path.removeprefix(self.root).lstrip("/"), content, problem

    def _names(self, name: str) -> tuple[str, ...]:
        """Names of what lies in a folder of the store, in order; none where there is no folder."""
        folder = f"{self.root}/{name}"

        def listed() -> tuple[str, ...]:
            self.files.invalidate_cache(folder)
            try:
                found = self.files.ls(folder, detail=False)
            except FileNotFoundError:
                return ()
            return tuple(sorted(path.rstrip("/").rsplit("/", 1)[-1] for path in found))

        with _plainly(folder):
            return _patiently(listed)

    def _check_format(self) -> None:
        """Refuse a store of a newer format.

        Raises:
            NewerError: says to update.
        """
        if self._format is None:
            known = self._read_record(f"{self.root}/{MARKER}")
            found = (
                0 if known is None else known.get("format") if isinstance(known, dict) else known
            )
            if not isinstance(found, int) or found > FORMAT:
                raise NewerError(_newer(f"the store {self.url}", found))
            self._format = found

    def _read(self, path: str) -> Any:
        self._check_format()
        return self._read_record(path)

    def _read_record(self, path: str) -> Any:
        for last in (False, True):  # a bad read of a good record must not condemn it
            with _plainly(path):
                try:
                    raw = _patiently(lambda: self.files.cat_file(path))
                except FileNotFoundError:
                    return None
            content, problem = _unseal(raw)
            if not problem:
                return content
            if last:
                self._set_aside(path, problem)
        return None

    def _write(self, path: str, content: Any) -> None:
        self._check_format()
        if not self._format:
            self.replace(f"{self.root}/{MARKER}", _sealed({"format": FORMAT}))
            self._format = FORMAT
        self.replace(path, _sealed(content))

    def _write_atomically(self, path: str, raw: bytes) -> None:
        if "file" not in _protocols(self.files):
            self.files.pipe_file(path, raw)  # object stores publish an object whole
            return
        fresh = _folder(path)
        draft = f"{path}.{uuid.uuid4().hex}.draft"
        try:
            with open(draft, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
            _sync(path, fresh)
        finally:
            if os.path.exists(draft):
                os.remove(draft)

    def _set_aside(self, path: str, why: str) -> None:
        aside = f"{path}.corrupt-{uuid.uuid4().hex[:8]}"
        with _plainly(path), contextlib.suppress(FileNotFoundError):  # another sweep was first
            self.files.mv(path, aside)
        self.damaged.append(f"{path}: {why}; moved to {aside}, it will be made again")


def opened(url: str) -> tuple[Any, str]:
    """The file system of a local path or an fsspec URL, and the place in it.

    Raises:
        StorageError: nothing here reads such URLs; says what would.
    """
    if re.match(r"[A-Za-z][\w+.-]+:/(?!/)", url):
        raise StorageError(f"{url} is neither a path nor a URL: write {url.replace(':/', '://')}")
    try:
        files, root = fsspec.core.url_to_fs(url)
    except ImportError as error:
        cure = "pip install 'cuvee[s3]'" if "s3fs" in str(error) else str(error)
        raise StorageError(f"{url} needs a package that is not installed: {cure}") from error
    except ValueError as error:
        raise StorageError(
            f"{url} cannot be opened ({error}): give a path, or a URL such as s3://bucket/folder"
        ) from error
    except Exception as error:  # whatever a file system finds wrong when it is made
        raise StorageError(f"cannot use {url}: {error}") from error
    return files, str(root)


@contextmanager
def _whole(path: str) -> Iterator[None]:
    """Removes a new file that could not be written."""
    try:
        yield
    except OSError:
        os.remove(path)
        raise


def _folder(path: str) -> bool:
    """Make the folder of a file; whether it was not there."""
    folder = os.path.dirname(path)
    fresh = not os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    return fresh


def _sync(path: str, fresh: bool) -> None:
    """Let a new name outlast a power cut, and that of a fresh folder, where a file system can."""
    own = os.path.dirname(path)
    for folder in (own, os.path.dirname(own)) if fresh else (own,):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


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


def _unseal(raw: bytes) -> tuple[Any, str]:
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


def _patiently(work: Callable[[], Result]) -> Result:
    """Try again what failed for a reason that may pass by itself."""
    for pause in PAUSES:
        try:
            return work()
        except OSError as error:
            if error.errno in LASTING or isinstance(error, FileNotFoundError | FileExistsError):
                raise
        time.sleep(pause)
    return work()


def _protocols(files: Any) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)


@contextmanager
def _plainly(path: str) -> Iterator[None]:
    """Turns errors of the disk into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageError(
                f"no space left for {path}: finished runs are kept; free some space and run again"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise StorageError(
                f"cannot write {path} ({error.strerror}): "
                "choose another folder with --home or change its permissions"
            ) from error
        raise StorageError(f"cannot use {path}: {error}") from error
    except CuveeError:
        raise
    except Exception as error:  # a remote file system's own: no credentials, not writable, ...
        raise StorageError(f"cannot use {path} ({type(error).__name__}): {error}") from error
