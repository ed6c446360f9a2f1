"""A file system whose reads and writes now and then fail or are stale, for `faults.py`.

`flaky:///folder` is the folder itself, except that, as on shared disks and object stores on bad
days,

* a read may fail, or miss a file that was written within the last `STALE_SECONDS`, or bring what
  a file held before it was last replaced;
* a write may fail before anything is written, or be done and reported as failed.

An object is published whole, and creation stays atomic: what these promise is what a store must
keep. Every fault is written to a log, so that a trial can tell that it met one.
"""

import errno
import os
import random
import time
import uuid
from pathlib import Path
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

FAIL, STALE, STALE_SECONDS = 0.04, 0.08, 20.0


class Flaky(LocalFileSystem):
    """A local folder on a bad day."""

    protocol = "flaky"
    chance = random.Random(0)
    log = Path(os.devnull)
    before: ClassVar[dict[str, bytes]] = {}

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(p) for p in path]
        text = os.fspath(path)
        return LocalFileSystem._strip_protocol(text.removeprefix("flaky://"))

    def _happened(self, what: str, path: str) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{what} {path}\n")

    def _fail(self, act: str, path: str) -> OSError:
        self._happened(act, path)
        return OSError(errno.EIO, f"{act} failed, on purpose", path)

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> Any:
        """Read a file; may fail, not see a file that is new, or see what was there before."""
        place = self._strip_protocol(path)
        if self.chance.random() < FAIL:
            raise self._fail("reading", place)
        new = os.path.exists(place) and time.time() - os.path.getmtime(place) < STALE_SECONDS
        if new and self.chance.random() < STALE:
            self._happened("stale", place)
            if place in self.before:
                return self.before[place]
            raise FileNotFoundError(errno.ENOENT, "not seen yet, on purpose", path)
        return super().cat_file(path, *args, **kwargs)

    def ls(self, path: str, *args: Any, **kwargs: Any) -> Any:
        """List a folder; may fail."""
        if self.chance.random() < FAIL:
            raise self._fail("listing", path)
        return super().ls(path, *args, **kwargs)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> Any:
        """Write an object whole; may fail before anything is written, or after all is."""
        place = self._strip_protocol(path)
        if self.chance.random() < FAIL:
            raise self._fail("writing", place)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if os.path.exists(place) and mode != "create":
            self.before[place] = Path(place).read_bytes()
        draft = f"{place}.{uuid.uuid4().hex}.flaky"
        Path(draft).write_bytes(value)
        try:
            if mode == "create":
                os.link(draft, place)  # atomic, and refuses what is there
            else:
                os.replace(draft, place)
        finally:
            Path(draft).unlink(missing_ok=True)
        if self.chance.random() < FAIL:
            raise self._fail("having written,", place)


def register(seed: int, log: str) -> None:
    """Make `flaky://` known to fsspec in this process; faults are told in a log."""
    Flaky.chance, Flaky.log = random.Random(seed), Path(log)
    fsspec.register_implementation("flaky", Flaky, clobber=True)
