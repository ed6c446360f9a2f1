"""Objects under a local path or any fsspec URL: written whole, created once, tried again.

On a disk an object is written beside its place, flushed, and renamed; its name is flushed as well,
so that it outlasts a power cut. Object stores publish an object whole by themselves, create one
unless it is there by a conditional write (S3: If-None-Match), and ask for patience when they are
asked too much, which they get: requests are tried again after growing, random pauses.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec

from cuvee.mixtures.errors import StorageError
from cuvee.proxies.data.files import create_file, replace_file
from cuvee.proxies.data.storage_errors import (
    PRECONDITION,
    may_pass,
    patiently,
    status_of,
    storage_errors,
)

Result = TypeVar("Result")
RANGE = 8 << 20  # bytes of a large object that one request reads
BUFFER = 1 << 20  # and of a file that is read from anywhere in it
PART = 32 << 20  # and of one that is written in parts
AT_ONCE = 4  # such requests, and parts of a large object that is written
PROBE = "claims/exclusive"  # says whether a store creates an object once
PROBES = 8  # that try to create one object at the same moment


def is_remote(url: str | Path) -> bool:
    """Whether a URL names a place that every node can reach, and none of this machine's."""
    return "://" in str(url) and not str(url).startswith(("file://", "local://", "memory://"))


def within(folder: str | Path, name: str) -> str | Path:
    """A place in a folder, which is a local path or a URL."""
    return f"{folder}/{name}" if is_remote(folder) else Path(folder) / name


class ObjectFolder:
    """The objects of a place, by their names in it; nothing is made before something is written.

    It can be pickled. On a disk, reading is plain reading, without a layer between.

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

    def __reduce__(self) -> tuple[type["ObjectFolder"], tuple[str]]:
        return ObjectFolder, (self.url,)

    def path(self, name: str) -> str:
        """The path of an object in the file system."""
        return f"{self.root}/{name}"

    def within(self, name: str) -> "ObjectFolder":
        """A folder in this one."""
        return ObjectFolder(f"{self.url.rstrip('/')}/{name}")

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
                    create_file(path, raw)
            except OSError as error:
                if not isinstance(error, FileExistsError) and status_of(error) != PRECONDITION:
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
                    if isinstance(error.__cause__, Exception) and may_pass(error.__cause__):
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
        write = self.files.pipe_file if self.remote else replace_file
        with storage_errors(path):
            self._patiently(lambda: write(path, raw))

    def write(self, name: str, raw: bytes) -> None:
        """Write a small object whole, as `writing` does."""
        if self.remote:
            self.replace(name, raw)
        else:
            with self.writing(name) as file:
                file.write(raw)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """A file to be written, large or not, which has its name once it is whole.

        It is written on a disk of this machine, and goes from there to a store elsewhere, so that a
        request that fails can be made again. It may be lost in a power cut.
        """
        path = self.path(name)
        if self.remote:
            with tempfile.NamedTemporaryFile() as draft:
                yield cast(BinaryIO, draft)
                draft.flush()
                self.upload(Path(draft.name), name)
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        beside = f"{path}.{uuid.uuid4().hex[:8]}.draft"
        try:
            with open(beside, "wb") as file:
                yield file
            os.replace(beside, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(beside)
            raise

    def open(self, name: str) -> BinaryIO:
        """A file to be read, from anywhere in it.

        Raises:
            FileNotFoundError: there is none.
        """
        path = self.path(name)
        if not self.remote:
            return open(path, "rb")
        size = self.size(name)
        if size is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return cast(BinaryIO, io.BufferedReader(_RangeReader(self, path, size), BUFFER))

    def size(self, name: str) -> int | None:
        """Bytes of an object, or None if there is none."""
        path = self.path(name)
        with storage_errors(path):
            try:
                return int(self._patiently(lambda: self.files.info(path))["size"])
            except FileNotFoundError:
                return None

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with storage_errors(self.path(name)), contextlib.suppress(FileNotFoundError):
            self._patiently(lambda: self.files.rm_file(self.path(name)))

    def remove_all(self, names: Iterable[str]) -> None:
        """Remove objects that are there, many at a time where a store can."""
        paths = [self.path(name) for name in names]
        with storage_errors(self.root), contextlib.suppress(FileNotFoundError):
            self._patiently(lambda: self.files.rm(paths) if paths else None)

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

    def read_range(self, path: str, start: int, stop: int) -> bytes:
        """Bytes of an object by its path, as many as it holds of those."""
        with storage_errors(path):
            return bytes(self._patiently(lambda: self.files.cat_file(path, start=start, end=stop)))

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


class _RangeReader(io.RawIOBase):
    """An object of a remote store as a file: each read is a request of its own, made patiently."""

    def __init__(self, folder: ObjectFolder, path: str, size: int) -> None:
        self._folder, self._path, self._size, self._place = folder, path, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        stop = min(self._place + len(buffer), self._size)
        if stop <= self._place:
            return 0
        data = self._folder.read_range(self._path, self._place, stop)
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place}.get(whence, self._size)
        return self._place

    def tell(self) -> int:
        return self._place


def _options(url: str) -> dict[str, Any]:
    """How a remote file system is opened: its listings fresh, its own retries few."""
    if not is_remote(url):
        return {}
    fresh: dict[str, Any] = {"use_listings_cache": False}  # another process writes there too
    if url.startswith(("s3://", "s3a://")) and "AWS_MAX_ATTEMPTS" not in os.environ:
        fresh["config_kwargs"] = {"retries": {"mode": "standard", "total_max_attempts": 3}}
    return fresh


def remove_folder(folder: str | Path) -> None:
    """Remove a pack's checkpoints, which the caller does once its results are stored."""
    if is_remote(folder):
        with contextlib.suppress(StorageError):  # what stays costs space, and no run
            ObjectFolder(str(folder)).clear()
    else:
        shutil.rmtree(folder, ignore_errors=True)
