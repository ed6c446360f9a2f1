"""Files on disk: written to stay, locked and hashed where others may write."""

import contextlib
import fcntl
import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

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
def exclusive_lock(
    path: Path,
    waiting: Callable[[], None] = lambda: None,
    check: Callable[[], None] | None = None,
) -> Iterator[None]:
    """Holds a lock file, so that two processes do not write one folder; freed if the holder dies.

    Args:
        path: the lock file; it stays behind, empty.
        waiting: called once if another process holds the lock.
        check: called twice a second as long as one does; may raise, which ends the waiting.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            if check is None:
                fcntl.flock(file, fcntl.LOCK_EX)
            else:
                _lock_checking(file, check)
        yield


def _lock_checking(file: IO[str], check: Callable[[], None]) -> None:
    while True:
        check()
        time.sleep(0.5)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return


def create_file(path: str, raw: bytes) -> None:
    """Write a file that is not there, so that it outlasts a power cut.

    Raises:
        FileExistsError: it is there.
    """
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


def replace_file(path: str, raw: bytes) -> None:
    """Write a file whole, over what is there, so that it outlasts a power cut."""
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
