"""Files of a preparation in a folder: plain files on a disk, objects under any fsspec URL.

A file appears under its name when it is whole. On a disk reading is plain reading, without a layer
between.
"""

import contextlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.spec import AbstractBufferedFile


@dataclass(frozen=True)
class WorkFolder:
    """A folder by its path or URL; picklable, and made when something is written.

    Attributes:
        url: a local path or any fsspec URL; credentials come from the environment.
    """

    url: str

    @cached_property
    def _place(self) -> tuple[Any, str]:
        files, root = fsspec.core.url_to_fs(self.url)
        return files, str(root)

    @cached_property
    def local(self) -> Path | None:
        """The folder on a disk; None where it lies elsewhere."""
        files, root = self._place
        kinds = (files.protocol,) if isinstance(files.protocol, str) else files.protocol
        return Path(root) if "file" in kinds else None

    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def path(self, name: str) -> str:
        """The path of a file in its file system."""
        return f"{self._place[1]}/{name}"

    def within(self, name: str) -> "WorkFolder":
        """A folder in this one."""
        return WorkFolder(f"{self.url.rstrip('/')}/{name}")

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (
            os.path.exists(self.path(name))
            if self.local
            else self._place[0].exists(self.path(name))
        )

    def open(self, name: str) -> BinaryIO:
        """A file, to be read."""
        file: BinaryIO = (
            open(self.path(name), "rb")  # noqa: SIM115 (the caller closes it)
            if self.local
            else self._place[0].open(self.path(name), "rb")
        )
        return file

    @contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """A file to be written, which has its name once it is whole."""
        path = self.path(name)
        if not self.local:
            file = self._place[0].open(path, "wb")
            try:
                yield file
            except BaseException:
                file.discard()
                if isinstance(file, AbstractBufferedFile):
                    file.closed = True  # to close it would be to write what was thrown away
                raise
            file.close()
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        draft = f"{path}.{uuid.uuid4().hex[:8]}.draft"
        try:
            with open(draft, "wb") as file:
                yield file
            os.replace(draft, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.remove(draft)
            raise

    def write(self, name: str, raw: bytes) -> None:
        """Write a small file whole."""
        with self.create(name) as file:
            file.write(raw)

    def read(self, name: str) -> bytes | None:
        """A small file whole, or None if there is none."""
        try:
            with self.open(name) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self._place[0].rm_file(self.path(name))

    def names(self, start: str = "") -> list[str]:
        """Names of the files that begin so."""
        found = self._place[0].glob(self.path(f"{start}*"))
        return [str(path).rsplit("/", 1)[-1] for path in found]
