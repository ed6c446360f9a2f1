"""Logs of trainers, read as measurements by step: one function a format, under `@log_reader`.

A reader is told a path and gives what the file says of its runs; whose they are, whether they have
ended and what becomes of them is decided by whoever reads (`evidence`, `final_scores`). Nothing is
unpickled. A file that ends in the middle of a record gives what is whole.
"""

import importlib
import json
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cuvee.mixtures.errors import CuveeError, DataError

LARGEST = 1 << 26  # bytes of a log that is read as one value
LATEST = 1 << 62  # the step of what names none and is measured at the end
Measured = tuple[float, float, int]  # value, standard error (0: unknown), documents or items
Points = Sequence[tuple[int, Mapping[str, Measured]]]  # steps, and metrics by name


@dataclass(frozen=True)
class RunLog:
    """What one log says of one run.

    Attributes:
        path: of the log.
        points: steps, and metrics by name; what a requeued job did again stands there twice.
        names: what the log calls its run; where it says nothing, its place tells.
        last: the last step that the log knows of, measured or not.
        length: steps that the run has, as the log says; 0 where it does not.
        tokens: trained on, as the log says; 0 where it does not.
        ended: whether the log says that its run ended well; None where it does not say.
    """

    path: Path
    points: Points
    names: tuple[str, ...] = ()
    last: int = 0
    length: int = 0
    tokens: int = 0
    ended: bool | None = None


Read = Callable[[Path], list[RunLog]]
READERS: dict[str, tuple[re.Pattern[str], Read]] = {}


def log_reader(name: str, files: str) -> Callable[[Read], Read]:
    """Decorator: a function reads the files whose names match a pattern, lower case."""

    def enter(read: Read) -> Read:
        READERS[name] = re.compile(files), read
        return read

    return enter


@cache
def log_readers() -> Mapping[str, tuple[re.Pattern[str], Read]]:
    """Every reader, by the name of its format."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(module.name)
    return READERS


def form_of(path: Path) -> str:
    """The format that a file is of by its name; "" if none."""
    known = log_readers().items()
    return next((name for name, (files, _) in known if files.fullmatch(path.name.lower())), "")


def read_log(path: Path) -> tuple[str, list[RunLog]]:
    """The format of a file, and what it says of runs: nothing where it is another kind of file.

    Raises:
        DataError: it is of a format by its name, and cannot be read.
    """
    name = form_of(path)
    try:
        return name, log_readers()[name][1](path) if name else []
    except CuveeError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from None
    except Exception as error:  # each format's library has errors of its own
        raise DataError(f"{path} is no whole {name} log ({error!r:.200})") from None


def json_values(path: Path) -> Iterator[Any]:
    """The values of a file of JSON, or of its lines where it has one in each.

    Raises:
        DataError: it is neither, or too large.
    """
    if path.stat().st_size > LARGEST:
        raise DataError(f"{path} has more than {LARGEST >> 20} MiB: it is no log of one run")
    raw = path.read_bytes()
    by_line = path.suffix.lower() == ".jsonl"
    lines = raw.splitlines() if by_line else [raw]
    for number, line in enumerate(lines, start=1):
        if by_line and not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            if by_line and number == len(lines) and not raw.endswith(b"\n"):
                return  # the line that a killed trainer was writing
            raise DataError(f"{path} is no whole JSON ({error})") from None


def numbers(values: Mapping[str, Any]) -> dict[str, Measured]:
    """The metrics among values, by name."""
    return {
        str(name): (float(value), 0.0, 1)
        for name, value in values.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
