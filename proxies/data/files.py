"""Files on disk: lock, digest and removal where others may write."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cuvee.mixtures.errors import StorageError
from cuvee.proxies.data.objects import ObjectFolder, is_remote

LARGE, BLOCK = 1 << 26, 1 << 16  # bytes of a file that is not read to identify it, and of a look


def file_digest(path: Path) -> str:
    """sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digests:
    """Digests of files, each computed once for what the file system says of it.

    A file that was touched or copied is hashed again; one that was changed with its size and time
    kept shows by its inode or by the time of its change of status, which no program sets.

    Args:
        path: where they are kept; losing it costs time alone.
    """

    SETTLED = 2.0  # seconds after which a further write must show in a file's times

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[object]] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            known = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(known, dict):
                self._known = {name: v for name, v in known.items() if isinstance(v, list) and v}

    def __call__(self, path: Path) -> str:
        seen = path.stat()
        look = [seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns]
        name = str(path.resolve())
        known = self._known.get(name)
        if known and known[:-1] == look:
            return str(known[-1])
        digest = file_digest(path)
        if time.time() - max(seen.st_mtime, seen.st_ctime) > self.SETTLED:
            self._known[name] = [*look, digest]
        return digest

    def keep(self) -> None:
        """Write them down for the next process, where that can be."""
        draft = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(self._known), encoding="utf-8")
            draft.replace(self._path)


def sampled_digest(digest: Callable[[Path], str], path: Path) -> str:
    """Identity of a file of which perhaps only a part will be read: a large one is not read for it.

    It goes by its size, its time, and what stands at its beginning, middle and end.
    """
    seen = path.stat()
    if seen.st_size <= LARGE:
        return digest(path)
    found = hashlib.sha256(f"{seen.st_size} {seen.st_mtime_ns}".encode())
    with path.open("rb") as file:
        for place in (0, seen.st_size // 2, seen.st_size - BLOCK):
            file.seek(place)
            found.update(file.read(BLOCK))
    return found.hexdigest()


@contextmanager
def exclusive_lock(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds a lock file, so that two processes do not write one folder; freed if the holder dies.

    Args:
        path: the lock file; it stays behind, empty.
        waiting: called once if another process holds the lock.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def remove_folder(folder: str | Path) -> None:
    """Remove a pack's checkpoints, which the caller does once its results are stored."""
    if is_remote(folder):
        with contextlib.suppress(StorageError):  # what stays costs space, and no run
            ObjectFolder(str(folder)).clear()
    else:
        shutil.rmtree(folder, ignore_errors=True)
