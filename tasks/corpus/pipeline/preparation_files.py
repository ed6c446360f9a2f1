"""Where the files of a preparation lie, who uses them, and when they go.

Preparations of one home share spools. Each holds, locked, a list of those that it uses; one that
ends removes its own that are in no other's list. Of one that failed or was killed they stay for the
next try, a week at most. Locks are of one home: in a place that homes share, each works in a folder
of its own.
"""

import fcntl
import os
import time
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import IO

from cuvee.proxies.data.files import exclusive_lock, replace_file
from cuvee.proxies.data.objects import ObjectFolder

SPOOLS = ".parts.partial"  # of all corpora under a folder, beside them
HOME = ".home"  # beside the corpora of a home: what names it where homes share a place
LIST = ".use"  # what the name of a preparation's list of spools ends in
WEEK = 7 * 86_400.0  # seconds


class PreparationFiles:
    """The files of one preparation, a context; at its end, what nobody needs any more goes.

    Args:
        out: where the corpora of the home lie.
        shared: folder or URL that all workers can write; None where they share this disk.

    Attributes:
        folder: in which workers read and write.
        spools: those of the home, in it.
    """

    def __init__(self, out: Path, shared: str | None) -> None:
        self._lists = out / SPOOLS
        self._list = self._lists / f"{uuid.uuid4().hex}{LIST}"
        with self._alone():
            place = f"{shared}/.{home_name(out)}.partial" if shared else str(out)
        self.folder = ObjectFolder(place)
        self.spools = self.folder.within(SPOOLS)
        self._file: IO[str] | None = None

    def __enter__(self) -> "PreparationFiles":
        with self._alone():
            self._lists.mkdir(exist_ok=True)
            self._file = self._list.open("x")
            fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def use(self, names: Iterable[str]) -> None:
        """Keep spools of these names from being removed, from before they are looked for."""
        assert self._file is not None
        with self._alone():  # nobody removes one meanwhile
            self._file.write("".join(f"{name}\n" for name in names))
            self._file.flush()

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        assert self._file is not None
        with self._alone():
            own = set(self._list.read_text().split())
            self._file.close()
            if failed:
                return
            self._list.unlink()
            used, left = self._others(own)
            self._remove((own | left) - used)
            with suppress(OSError):  # of others, something is in it
                self._lists.rmdir()

    def _others(self, own: set[str]) -> tuple[set[str], set[str]]:
        """Spools that live preparations use, and those of ended ones that nobody comes back for."""
        used, left = set[str](), set[str]()
        for path in self._lists.glob(f"*{LIST}"):
            with path.open() as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    used.update(file.read().split())
                    continue
                names = set(file.read().split())
                if names <= own or time.time() - os.fstat(file.fileno()).st_mtime > WEEK:
                    left |= names
                    path.unlink()
        return used, left

    def _remove(self, spools: set[str]) -> None:
        names = self.spools.names("") if spools else ()
        self.spools.remove_all(name for name in names if name.split(".")[0] in spools)

    def _alone(self) -> AbstractContextManager[None]:
        """Within it, no other preparation of this home changes or looks at lists."""
        return exclusive_lock(self._lists.with_suffix(".lock"))


def home_name(out: Path) -> str:
    """A random name of a home, which its copy does not share; the caller is alone.

    Args:
        out: where the home's corpora lie.
    """
    path = out / HOME
    if not path.exists() or not path.read_text():
        replace_file(str(path), uuid.uuid4().hex.encode())
    return f"{path.read_text()}-{path.stat().st_ino:x}"
