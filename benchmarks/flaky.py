"""A file system whose reads and writes now and then fail or are stale, for `faults.py`.

`flaky:///folder` is the folder itself, except that a read may fail or miss a file that was written
within the last `STALE_SECONDS`, and a write may fail, as shared disks and object stores do on bad
days. Atomic creation stays atomic: what it promises is what a store must keep.
"""

import errno
import os
import random
import time
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

FAIL, STALE, STALE_SECONDS = 0.04, 0.08, 20.0


class Flaky(LocalFileSystem):
    """A local folder on a bad day."""

    protocol = "flaky"
    chance = random.Random(0)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(p) for p in path]
        text = os.fspath(path)
        return LocalFileSystem._strip_protocol(text.removeprefix("flaky://"))

    def _may_fail(self, path: str, act: str) -> None:
        if self.chance.random() < FAIL:
            raise OSError(errno.EIO, f"{act} failed, on purpose", path)

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> Any:
        """Read a file; may fail, or not see a file that is new."""
        self._may_fail(path, "reading")
        place = self._strip_protocol(path)
        new = os.path.exists(place) and time.time() - os.path.getmtime(place) < STALE_SECONDS
        if new and self.chance.random() < STALE:
            raise FileNotFoundError(errno.ENOENT, "not seen yet, on purpose", path)
        return super().cat_file(path, *args, **kwargs)

    def pipe_file(self, path: str, *args: Any, **kwargs: Any) -> Any:
        """Write a file whole; may fail before anything is written."""
        self._may_fail(path, "writing")
        os.makedirs(os.path.dirname(self._strip_protocol(path)), exist_ok=True)
        return super().pipe_file(path, *args, **kwargs)


def register(seed: int) -> None:
    """Make `flaky://` known to fsspec in this process."""
    Flaky.chance = random.Random(seed)
    fsspec.register_implementation("flaky", Flaky, clobber=True)
