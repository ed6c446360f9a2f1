"""Small objects under a local path or any fsspec URL: written whole, created once, tried again.

On a disk an object is written beside its place, flushed, and renamed; its name is flushed as well,
so that it outlasts a power cut. Object stores publish an object whole by themselves.
"""

import contextlib
import errno
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import fsspec

from cuvee.mixtures.errors import CuveeError, StorageError

Result = TypeVar("Result")
PAUSES = (0.1, 0.5, 2.0)  # seconds before a read or a write that failed is tried again
FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
LASTING = (*FULL, *REFUSED, errno.EISDIR)


class ObjectFolder:
    """The objects of a place, by their names in it; nothing is made before something is written.

    Args:
        url: a local path or any fsspec URL; credentials come from the environment.

    Attributes:
        files: fsspec's file system.
        root: the place in it.

    Raises:
        StorageError: nothing here reads such URLs; says what would. So does every method where a
            place cannot be read or written.
    """

    def __init__(self, url: str) -> None:
        if re.match(r"[A-Za-z][\w+.-]+:/(?!/)", url):
            fix = url.replace(":/", "://")
            raise StorageError(f"{url} is neither a path nor a URL: write {fix}")
        try:
            self.files, root = fsspec.core.url_to_fs(url)
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
        self._local = "file" in ((kinds,) if isinstance(kinds, str) else kinds)

    def path(self, name: str) -> str:
        """The path of an object in the file system."""
        return f"{self.root}/{name}"

    def make(self) -> None:
        """Make the folder itself, so that a place that cannot be written is told at once."""
        with _storage_errors(self.root):
            self.files.makedirs(self.root, exist_ok=True)

    def read(self, name: str) -> bytes | None:
        """An object, or None if there is none."""
        path = self.path(name)
        with _storage_errors(path):
            try:
                return bytes(_patiently(lambda: self.files.cat_file(path)))
            except FileNotFoundError:
                return None

    def create(self, name: str, raw: bytes) -> bool:
        """Make an object unless it is there; of several who try, one succeeds.

        A write may be done and yet be reported as failed, so that trying again finds an object
        there: it is ours if it holds what we wrote. Whoever must not be taken for another writes
        something that no other does.

        Returns:
            Whether it was made; False if it was there.
        """
        path, tries = self.path(name), 0

        def attempt() -> bool:
            nonlocal tries
            tries += 1
            try:
                if self._local:
                    _create_file(path, raw)
                else:
                    self.files.pipe_file(path, raw, mode="create")
            except FileExistsError:
                return tries > 1 and bytes(self.files.cat_file(path)) == raw
            return True

        with _storage_errors(path):
            return _patiently(attempt)

    def replace(self, name: str, raw: bytes) -> None:
        """Write an object whole, over what is there."""
        path = self.path(name)
        write = _replace_file if self._local else self.files.pipe_file
        with _storage_errors(path):
            _patiently(lambda: write(path, raw))

    def move(self, name: str, new: str) -> None:
        """Give an object another name, if it is there."""
        with _storage_errors(self.path(name)), contextlib.suppress(FileNotFoundError):
            self.files.mv(self.path(name), self.path(new))

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

        with _storage_errors(path):
            return _patiently(listed)

    def all_names(self) -> list[str]:
        """Names of all objects, of folders within as well, in order."""
        with _storage_errors(self.root):
            paths = _patiently(lambda: sorted(self.files.find(self.root)))
        return [path.removeprefix(self.root).lstrip("/") for path in paths]


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


@contextmanager
def _storage_errors(path: str) -> Iterator[None]:
    """Turns errors of the disk into sentences."""
    try:
        yield
    except OSError as error:
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
