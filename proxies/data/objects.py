"""Objects under a local path or any fsspec URL: written whole, created once, tried again.

On a disk an object is written beside its place, flushed, and renamed; its name is flushed as well,
so that it outlasts a power cut. Object stores publish an object whole by themselves, create one
unless it is there by a conditional write (S3: If-None-Match), and ask for patience when they are
asked too much, which they get: requests are tried again after growing, random pauses.
"""

import contextlib
import errno
import hashlib
import os
import random
import re
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from cuvee.mixtures.errors import CuveeError, StorageError

Result = TypeVar("Result")
PAUSES = (0.1, 0.5, 2.0)  # seconds before a read or a write that failed is tried again
REMOTE_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)  # of a remote store: each times 0.5 to 1.5, by chance
RANGE = 8 << 20  # bytes of a large object that one request reads
PART = 32 << 20  # and of one that is written in parts
AT_ONCE = 4  # such requests, and parts of a large object that is written
PROBE = "claims/exclusive"  # says whether a store creates an object once
PROBES = 8  # that try to create one object at the same moment
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
LASTING = (*FULL, *REFUSED, errno.EISDIR)
BUSY = (429, 503)  # statuses by which a store asks for fewer requests
PASSING = (*BUSY, 408, 409, 500, 502, 504)  # statuses of what may pass by itself
PRECONDITION = 412  # the status of a conditional write that found an object


def is_remote(url: str | Path) -> bool:
    """Whether a URL names a place that every node can reach, and none of this machine's."""
    return "://" in str(url) and not str(url).startswith(("file://", "local://", "memory://"))


def within(folder: str | Path, name: str) -> str | Path:
    """A place in a folder, which is a local path or a URL."""
    return f"{folder}/{name}" if is_remote(folder) else Path(folder) / name


class ObjectFolder:
    """The objects of a place, by their names in it; nothing is made before something is written.

    Args:
        url: a local path or any fsspec URL; credentials come from the environment.

    Attributes:
        files: fsspec's file system.
        root: the place in it.
        remote: whether it is no file system of this machine.

    Raises:
        StorageError: nothing here reads such URLs; says what would. So does every method where a
            place cannot be read or written.
    """

    def __init__(self, url: str) -> None:
        if re.match(r"[A-Za-z][\w+.-]+:/(?!/)", url):
            fix = url.replace(":/", "://")
            raise StorageError(f"{url} is neither a path nor a URL: write {fix}")
        try:
            self.files, root = fsspec.core.url_to_fs(url, **_options(url))
        except ImportError as error:
            cure = "pip install 'cuvee[s3]'" if "s3fs" in str(error) else str(error)
            raise StorageError(f"{url} needs a package that is not installed: {cure}") from error
        except ValueError as error:
            raise StorageError(
                f"{url} cannot be opened ({error}): give a path, or a URL such as "
                "s3://bucket/folder"
            ) from error
        except Exception as error:  # whatever a file system finds wrong when it is made
            raise StorageError(f"cannot use {url}: {error}") from error
        self.url, self.root = url, str(root)
        kinds = self.files.protocol
        self.remote = "file" not in ((kinds,) if isinstance(kinds, str) else kinds)
        if self.remote and hasattr(self.files, "retries"):  # s3fs: on top of botocore's, and ours
            self.files.retries = 1

    def path(self, name: str) -> str:
        """The path of an object in the file system."""
        return f"{self.root}/{name}"

    def make(self) -> None:
        """Make the folder itself, so that a place that cannot be written is told at once."""
        with storage_errors(self.root):
            self._patiently(lambda: self.files.makedirs(self.root, exist_ok=True))

    def read(self, name: str) -> bytes | None:
        """An object, or None if there is none."""
        path = self.path(name)
        with storage_errors(path):
            try:
                return bytes(self._patiently(lambda: self.files.cat_file(path)))
            except FileNotFoundError:
                return None

    def create(self, name: str, raw: bytes) -> bool:
        """Make an object unless it is there; of several who try, one succeeds.

        A write may be done and yet be reported as failed, so that trying again, which a client of
        object storage does by itself, finds an object there: it is ours if it holds what we wrote.
        Whoever must not be taken for another writes something that no other does.

        Returns:
            Whether it was made; False if it was there.
        """
        path, tries = self.path(name), 0

        def attempt() -> bool:
            nonlocal tries
            tries += 1
            try:
                if self.remote:
                    self.files.pipe_file(path, raw, mode="create")
                else:
                    _create_file(path, raw)
            except OSError as error:
                if not isinstance(error, FileExistsError) and _status(error) != PRECONDITION:
                    raise
                retried = self.remote or tries > 1
                return retried and bytes(self.files.cat_file(path)) == raw
            return True

        with storage_errors(path):
            return self._patiently(attempt)

    def creates_once(self) -> bool:
        """Whether of several who create an object one succeeds: tried once, and remembered there.

        Raises:
            StorageError: the place cannot be written at all, or not now: nothing is remembered.
        """
        if not self.remote:
            return True
        known = self.read(PROBE)
        if known is None:
            trial = f"{PROBE}-{uuid.uuid4().hex}"

            def made(number: int) -> bool:
                try:
                    return self.create(trial, str(number).encode())
                except StorageError as error:
                    if isinstance(error.__cause__, Exception) and _passes(error.__cause__):
                        raise  # asked too much, or cut off: that says nothing of the store
                    return False  # a file system that knows no such mode

            try:
                with ThreadPoolExecutor(PROBES) as pool:
                    first = sum(pool.map(made, range(PROBES)))
                known = b"yes" if first == 1 and not made(PROBES) else b"no"
            finally:
                with contextlib.suppress(StorageError):
                    self.remove(trial)
            self.replace(PROBE, known)
        return known == b"yes"

    def replace(self, name: str, raw: bytes) -> None:
        """Write an object whole, over what is there."""
        path = self.path(name)
        write = self.files.pipe_file if self.remote else _replace_file
        with storage_errors(path):
            self._patiently(lambda: write(path, raw))

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with storage_errors(self.path(name)), contextlib.suppress(FileNotFoundError):
            self._patiently(lambda: self.files.rm_file(self.path(name)))

    def move(self, name: str, new: str) -> None:
        """Give an object another name, if it is there."""
        with storage_errors(self.path(name)), contextlib.suppress(FileNotFoundError):
            self.files.mv(self.path(name), self.path(new))

    def sizes(self) -> dict[str, int]:
        """Bytes of all objects by their names, of folders within as well; none where none is."""
        with storage_errors(self.root):
            found = self._patiently(lambda: self.files.find(self.root, detail=True))
        start = len(self.root.rstrip("/")) + 1
        return {path[start:]: int(one["size"]) for path, one in found.items()}

    def clear(self) -> None:
        """Remove all objects, of folders within as well."""
        with storage_errors(self.root), contextlib.suppress(FileNotFoundError):
            self._patiently(lambda: self.files.rm(self.root, recursive=True))

    def upload(self, source: Path, name: str) -> None:
        """Write a file as an object; a large one in parts, of which nobody sees any before all."""
        path, chunks = self.path(name), dict[str, int]()
        if "s3" in self.files.protocol:
            chunks = {"chunksize": PART, "max_concurrency": AT_ONCE}
        with storage_errors(path):
            self._patiently(lambda: self.files.put_file(str(source), path, **chunks))

    def download(self, name: str, target: Path, size: int) -> str:
        """Write an object of a size to a file by requests for its ranges; returns its sha256.

        Raises:
            StorageError: it is gone, or became shorter meanwhile.
        """
        path, digest = self.path(name), hashlib.sha256()
        with storage_errors(path), target.open("wb") as file:
            for start in range(0, size, RANGE * AT_ONCE):
                starts = range(start, min(start + RANGE * AT_ONCE, size), RANGE)
                ends = [min(begin + RANGE, size) for begin in starts]
                for part in self._patiently(partial(self._ranges, path, starts, ends)):
                    digest.update(part)
                    file.write(part)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def _ranges(self, path: str, starts: range, ends: list[int]) -> list[bytes]:
        parts = self.files.cat_ranges([path] * len(ends), list(starts), ends, on_error="raise")
        for part, start, end in zip(parts, starts, ends, strict=True):
            if len(part) != end - start:
                raise OSError(f"{len(part)} bytes came of {end - start} that were asked for")
        return list(parts)

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of what lies in a folder, in order; none where there is no folder."""
        path = self.path(folder)

        def listed() -> tuple[str, ...]:
            self.files.invalidate_cache(path)
            try:
                found = self.files.ls(path, detail=False)
            except FileNotFoundError:
                return ()
            return tuple(sorted(one.rstrip("/").rsplit("/", 1)[-1] for one in found))

        with storage_errors(path):
            return self._patiently(listed)

    def all_names(self) -> list[str]:
        """Names of all objects, of folders within as well, in order."""
        with storage_errors(self.root):
            paths = self._patiently(lambda: sorted(self.files.find(self.root)))
        return [path.removeprefix(self.root).lstrip("/") for path in paths]

    def _patiently(self, work: Callable[[], Result]) -> Result:
        return patiently(work, remote=self.remote)


def patiently(work: Callable[[], Result], *, remote: bool = True) -> Result:
    """Try again what failed for a reason that may pass by itself."""
    for pause in REMOTE_PAUSES if remote else PAUSES:
        try:
            return work()
        except Exception as error:
            if not _passes(error):
                raise
        time.sleep(pause * random.uniform(0.5, 1.5) if remote else pause)
    return work()


def _options(url: str) -> dict[str, Any]:
    """How a remote file system is opened: its listings fresh, its own retries few."""
    if not is_remote(url):
        return {}
    fresh: dict[str, Any] = {"use_listings_cache": False}  # another process writes there too
    if url.startswith(("s3://", "s3a://")) and "AWS_MAX_ATTEMPTS" not in os.environ:
        fresh["config_kwargs"] = {"retries": {"mode": "standard", "total_max_attempts": 3}}
    return fresh


def _status(error: BaseException) -> int:
    """The HTTP status that a remote store answered; 0 where none is known."""
    for each in (error, error.__cause__):
        answer = getattr(each, "response", None)
        found = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
        for value in (found.get("HTTPStatusCode"), getattr(each, "status", None)):
            if isinstance(value, int):
                return value
    return 0


def _passes(error: Exception) -> bool:
    """Whether what failed may pass by itself."""
    status = _status(error)
    if status:
        return status in PASSING
    if isinstance(error, OSError):
        lasting = (FileNotFoundError, FileExistsError, PermissionError)
        return error.errno not in LASTING and not isinstance(error, lasting)
    s3fs = sys.modules.get("s3fs.core")  # it says which of botocore's errors are of the connection
    return isinstance(error, s3fs.S3_RETRYABLE_ERRORS if s3fs else ())


def _create_file(path: str, raw: bytes) -> None:
    while True:
        fresh = _make_parent(path)
        with contextlib.suppress(FileNotFoundError):  # whoever gave a lease back removed the folder
            with open(path, "xb") as file:
                try:
                    _write_through(file, raw)
                except OSError:
                    os.remove(path)
                    raise
            _sync_folders(path, fresh)
            return


def _replace_file(path: str, raw: bytes) -> None:
    fresh = _make_parent(path)
    draft = f"{path}.{uuid.uuid4().hex}.draft"
    try:
        with open(draft, "wb") as file:
            _write_through(file, raw)
        os.replace(draft, path)
        _sync_folders(path, fresh)
    finally:
        if os.path.exists(draft):
            os.remove(draft)


def _write_through(file: Any, raw: bytes) -> None:
    file.write(raw)
    file.flush()
    os.fsync(file.fileno())


def _make_parent(path: str) -> bool:
    """Make the folder of a file; whether it was not there."""
    folder = os.path.dirname(path)
    fresh = not os.path.isdir(folder)
    os.makedirs(folder, exist_ok=True)
    return fresh


def _sync_folders(path: str, fresh: bool) -> None:
    """Let a new name outlast a power cut, and that of a fresh folder, where a file system can."""
    own = os.path.dirname(path)
    for folder in (own, os.path.dirname(own)) if fresh else (own,):
        with contextlib.suppress(OSError):
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Turns errors of the disk into sentences."""
    try:
        yield
    except OSError as error:
        if _status(error) in BUSY:
            raise StorageError(
                f"the store of {path} asks for fewer requests (status {_status(error)}: {error}), "
                f"and did so at {len(REMOTE_PAUSES) + 1} tries with growing pauses: run again "
                "later, or on fewer cores; finished runs are kept"
            ) from error
        if error.errno in FULL:
            raise StorageError(
                f"no space left for {path}: finished runs are kept; free some space and run again"
            ) from error
        if error.errno in REFUSED:
            raise StorageError(
                f"cannot write {path} ({error.strerror}): "
                "choose another folder with --home or change its permissions"
            ) from error
        raise StorageError(f"cannot use {path}: {error}") from error
    except CuveeError:
        raise
    except Exception as error:  # a remote file system's own: no credentials, not writable, ...
        raise StorageError(f"cannot use {path} ({type(error).__name__}): {error}") from error
