"""This node's copies of what lies in a remote store: fetched once, verified, the oldest out first.

A worker maps its shards from a disk, so what lies in object storage is copied to one: into a folder
of the cache that is named by its content. Files are written into a draft, each held against its
sha256, and the draft gets its name when it is whole: a fetch that was killed leaves nothing that
could be taken for a copy, and the next one goes on from its files. Of several processes that want
one copy, one fetches. A copy that a live process uses is locked, and never goes; of the others, the
least recently used goes first when the limit is reached.

    CUVEE_CACHE          folder of the cache; else `cuvee` in XDG_CACHE_HOME or ~/.cache
    CUVEE_CACHE_LIMIT    bytes that it may take, such as 500GB; else half of its disk
"""

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from cuvee.mixtures.errors import CorruptError, DataError, RecipeError, StorageError
from cuvee.proxies.data.files import exclusive_lock, file_digest

FOLDER, LIMIT = "CUVEE_CACHE", "CUVEE_CACHE_LIMIT"
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
AT_ONCE = 4  # files that are fetched at a time
PARTIAL = ".partial"

_in_use: dict[Path, IO[bytes]] = {}  # copies that this process uses until it ends, by their lock


class CachedSource(Protocol):
    """Where a copy comes from; `ObjectFolder` is one."""

    @property
    def url(self) -> str: ...
    def sizes(self) -> dict[str, int]: ...
    def download(self, name: str, target: Path, size: int, /) -> str: ...


@dataclass(frozen=True)
class CachedCopy:
    """A copy in the cache: its folder, bytes on disk, and when it was last used, in Unix time."""

    path: Path
    size: int
    used: float


@dataclass(frozen=True)
class NodeCache:
    """The cache of this node; safe for several processes, on a disk of this machine.

    Attributes:
        root: its folder.
        limit: bytes that it may take.
    """

    root: Path
    limit: int

    @classmethod
    def of_environment(cls) -> "NodeCache":
        """The cache that the environment names.

        Raises:
            RecipeError: a limit that is none.
        """
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        root = Path(os.environ.get(FOLDER) or Path(base) / "cuvee")
        given = os.environ.get(LIMIT, "")
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)B?", given.strip().upper())
        if given and not match:
            raise RecipeError(f"{LIMIT} is bytes, such as 500GB or 2TB; got {given!r}")
        if match:
            return cls(root, int(float(match[1]) * UNITS[match[2]]))
        there = next(path for path in (root, *root.parents) if path.exists())
        return cls(root, shutil.disk_usage(there).total // 2)

    def folder(self, key: str, source: CachedSource, files: Mapping[str, str]) -> Path:
        """The folder of a copy, fetched if it is not here, and this process's until it ends.

        Args:
            key: names the content.
            source: where it lies.
            files: sha256 of each by its name there.

        Raises:
            DataError: a file is missing in the source.
            CorruptError: a file there is not what was written; names it.
            StorageError: no room for it, or the cache or the source cannot be used.
        """
        place = self.root / key
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)
            self._use(place)
            if not self._intact(place, files):
                with exclusive_lock(self.root / ".lock"):
                    if not self._intact(place, files):
                        self._fetch(place, source, files)
            os.utime(place)
        return place

    def copies(self) -> tuple[CachedCopy, ...]:
        """What is in the cache, begun fetches too, the least recently used first."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for path in self.root.iterdir():
                if path.is_dir():
                    sizes = [file.stat().st_size for file in path.rglob("*") if file.is_file()]
                    found.append(CachedCopy(path, sum(sizes), path.stat().st_mtime))
        return tuple(sorted(found, key=lambda copy: (copy.used, copy.path)))

    @property
    def said(self) -> str:
        """What is in it, in a sentence."""
        copies = self.copies()
        taken = sum(copy.size for copy in copies) / 1e9
        return (
            f"{len(copies)} copies of what lies in the store, {taken:.2f} of at most "
            f"{self.limit / 1e9:.2f} GB, in {self.root}"
        )

    def evict(self, copy: CachedCopy) -> bool:
        """Remove a copy unless a live process uses it; whether it went."""
        name = copy.path.name.removeprefix(".").removesuffix(PARTIAL)
        with self._lock_file(self.root / name) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            draft = self._draft(self.root / name)
            if copy.path != draft:
                shutil.rmtree(draft, ignore_errors=True)
                copy.path.rename(draft)  # at once: half of a copy is no copy
                self._record(copy.path).unlink(missing_ok=True)
            shutil.rmtree(draft, ignore_errors=True)
        return True

    def _fetch(self, place: Path, source: CachedSource, files: Mapping[str, str]) -> None:
        """Fetch what is not here and whole; the cache's lock is held."""
        there, draft = source.sizes(), self._draft(place)
        for name in files:
            if name not in there:
                raise DataError(f"{source.url}/{name} is missing: run the study again to write it")
        if place.exists():  # damaged here
            place.rename(draft)
        self._make_room(sum(there[name] for name in files), draft, source.url)

        def fetch(name: str) -> None:
            target, expected = draft / name, files[name]
            if target.exists() and file_digest(target) == expected:
                return  # of a fetch that was killed
            target.parent.mkdir(parents=True, exist_ok=True)
            for last in (False, True):  # a bad read of a good object must not condemn it
                found = source.download(name, target, there[name])
                if found == expected:
                    return
                target.unlink()
                if last:
                    raise CorruptError(
                        f"{source.url}/{name} is damaged: {there[name]:,} bytes there have the "
                        f"sha256 {found}, and {expected} was written. Remove "
                        f"{source.url} and run the study again to write it anew"
                    )

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(fetch, files))
        looks = _file_looks(draft, files)
        self._record(place).write_text(json.dumps(looks))
        draft.rename(place)

    def _make_room(self, need: int, draft: Path, what: str) -> None:
        """Let the least recently used go, until there is room.

        Raises:
            StorageError: there would not be any.
        """
        others = [copy for copy in self.copies() if copy.path != draft]
        taken = sum(copy.size for copy in others)
        for copy in others:
            if taken + need <= self.limit:
                break
            taken -= copy.size if self.evict(copy) else 0
        if taken + need > self.limit:
            raise StorageError(
                f"{what} needs {need / 1e9:.2f} GB, but the cache {self.root} may take "
                f"{self.limit / 1e9:.2f} GB, of which {taken / 1e9:.2f} GB are in use by running "
                f"processes: raise {LIMIT}, or name a folder on a larger disk in {FOLDER}"
            )

    def _intact(self, place: Path, files: Mapping[str, str]) -> bool:
        """Whether a copy is here and was not touched since it was verified."""
        with contextlib.suppress(OSError, ValueError):
            return bool(json.loads(self._record(place).read_text()) == _file_looks(place, files))
        return False

    def _use(self, place: Path) -> None:
        """Lock a copy as used by this process, until it ends."""
        if place not in _in_use:
            lock = self._lock_file(place)
            fcntl.flock(lock, fcntl.LOCK_SH)
            _in_use[place] = lock

    def _lock_file(self, place: Path) -> IO[bytes]:
        return place.with_name(f".{place.name}.use").open("ab")

    def _draft(self, place: Path) -> Path:
        return place.with_name(f".{place.name}{PARTIAL}")

    def _record(self, place: Path) -> Path:
        return place.with_name(f".{place.name}.verified")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"cannot write the cache {self.root} ({error.strerror or error}): free some space, "
                f"or name a folder of this machine in {FOLDER}"
            ) from error


def _file_looks(folder: Path, files: Mapping[str, str]) -> list[list[str | int]]:
    """Digest and what the file system says of each file: any write changes it."""
    looks: list[list[str | int]] = []
    for name, digest in sorted(files.items()):
        seen = (folder / name).stat()
        looks.append([name, digest, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns, seen.st_ino])
    return looks
