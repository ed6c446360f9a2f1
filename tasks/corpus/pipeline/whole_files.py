"""Sees that files of a preparation are as long as they were written, when they are found again.

A power cut may leave a file short, or lose it, while the record of it is whole. So the record of a
task names the size of each file that the task wrote, and no read gives less than is asked for.
"""

import json
from collections.abc import Iterable
from typing import Any, BinaryIO

from cuvee.mixtures.errors import CorruptError
from cuvee.proxies.data.objects import ObjectFolder


def file_sizes(folder: ObjectFolder, names: Iterable[str]) -> dict[str, int]:
    """Bytes of each file; one that is not there is left out."""
    sizes = {name: folder.size(name) for name in names}
    return {name: size for name, size in sizes.items() if size is not None}


def finished_task(folder: ObjectFolder, name: str) -> dict[str, Any] | None:
    """The record of a task that has ended; None where it, or a file that it names, is not whole."""
    raw = folder.read(f"{name}.json")
    try:
        body = json.loads(raw or b"null")
    except ValueError:
        return None
    files = body.get("files") if isinstance(body, dict) else None
    return body if files and file_sizes(folder, files) == files else None


def read_written(folder: ObjectFolder, name: str) -> bytes:
    """A small file whole, which must be there.

    Raises:
        CorruptError: it is not.
    """
    raw = folder.read(name)
    if raw is None:
        raise not_whole(folder.path(name))
    return raw


def read_exactly(file: BinaryIO, size: int, path: str) -> bytes:
    """The next bytes of a file.

    Raises:
        CorruptError: there are fewer.
    """
    data = file.read(size)
    if len(data) < size:
        raise not_whole(path)
    return data


def not_whole(path: str) -> CorruptError:
    """What to raise where a file is missing or short."""
    return CorruptError(
        f"{path} is missing, or shorter than it was written: its disk lost some of it. Run again: "
        "what was lost is made anew"
    )
