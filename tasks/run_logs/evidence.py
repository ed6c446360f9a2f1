"""What lies in folders of others that could say something of runs, and which run each is of."""

import dataclasses
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from cuvee.mixtures.errors import CuveeError, DataError
from cuvee.tasks.run_logs import RunLog, form_of, read_log
from cuvee.tasks.study.table_file import first_names
from cuvee.tasks.trainer.contract import (
    CHECKPOINT,
    PROGRESS,
    RESULT,
    RUN,
    SPENT,
    STATE,
    read_run,
)

DIGITS = re.compile(r"(?<![0-9a-zA-Z])[0-9a-f]{12,64}(?![0-9a-zA-Z])")
PASSED_OVER = re.compile(rf"{STATE}|tokens|\..*|.*\.refused-\d+")  # folders beside what is read


@dataclasses.dataclass(frozen=True)
class Evidence:
    """A run directory, or what one log says of one run.

    Attributes:
        path: of it.
        form: its format.
        names: what it says itself of whose it is.
        given: what the run.json of the folder above says of it; without, its place tells.
        log: what it says; None of a run directory.
        metrics: names of all that it measures.
    """

    path: Path
    form: str
    names: tuple[str, ...]
    log: RunLog | None = None
    metrics: tuple[str, ...] = ()
    given: tuple[str, ...] = ()


class Reading:
    """Everything that is read, folder by folder; links that lead out of one are not followed.

    Args:
        metrics: names of the metrics to keep.

    Attributes:
        evidence: what was read.
        unreadable: (path, why) of what could not be.
    """

    def __init__(self, metrics: Iterable[str]) -> None:
        self._metrics, self._read = set(metrics), set[Path]()
        self.evidence: list[Evidence] = []
        self.unreadable: list[tuple[Path, str]] = []

    def read(self, path: Path) -> None:
        """Read a log, or all that a folder holds.

        Raises:
            DataError: nothing is there.
        """
        path = Path(os.path.abspath(path))
        if path.is_dir():
            self._walk(path, Path(os.path.realpath(path)), ())
        elif path.is_file():
            if not form_of(path):
                self.unreadable.append((path, "is no log of a known format, by its name"))
            self._log(path, ())
        else:
            raise DataError(f"{path} is not there: name swarm folders, run directories or logs")

    def _walk(self, folder: Path, root: Path, names: tuple[str, ...]) -> None:
        """Read a folder, whose logs are of the run that its run.json names."""
        if self._seen(folder):
            return None
        try:
            entries = {path.name: path for path in sorted(folder.iterdir())}
            real = {name: Path(os.path.realpath(path)) for name, path in entries.items()}
            out = {name for name, path in real.items() if not path.is_relative_to(root)}
            led = {RUN, RESULT, PROGRESS, SPENT}
            led |= set() if RESULT in entries else {CHECKPOINT}  # which a result stands over
            if RUN in entries and not led & out:
                names = (read_run(entries[RUN]).fingerprint,)
                self.evidence.append(Evidence(folder, "contract", names))
                if RESULT in entries:
                    return None
        except (OSError, CuveeError) as error:
            said = (
                f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
            )
            return self.unreadable.append((folder, said))
        for name, path in entries.items():
            if name in out:
                if path.is_dir() or name in led or form_of(path):
                    said = "is a link that leads out of the folder, and is not followed"
                    self.unreadable.append((path, said))
            elif path.is_file():
                self._log(path, names)
            elif path.is_dir() and not path.is_symlink() and not PASSED_OVER.fullmatch(name):
                self._walk(path, root, names)
        return None

    def _seen(self, path: Path) -> bool:
        """Whether something was read before; from now on it was."""
        before = path in self._read
        self._read.add(path)
        return before

    def _log(self, path: Path, names: tuple[str, ...]) -> None:
        if self._seen(path):
            return
        try:
            form, logs = read_log(path)
        except CuveeError as error:
            self.unreadable.append((path, str(error)))
            return
        for log in logs:
            seen = sorted({name for _, values in log.points for name in values})
            points = [
                (step, {n: values[n] for n in values.keys() & self._metrics})
                for step, values in log.points
            ]
            kept = dataclasses.replace(log, points=[point for point in points if point[1]])
            self.evidence.append(Evidence(path, form, log.names, kept, tuple(seen), names))


def owner_of(evidence: Evidence, names: Mapping[str, str]) -> tuple[str, str]:
    """The run that something is of, by fingerprint; or "", and why it is of none.

    Args:
        evidence: names its run itself, or by its place.
        names: of the runs that are known, by fingerprint.
    """
    inside = {mark for text in evidence.names for mark in _named(text, names)}
    places = (_named(part, names) for part in reversed(evidence.path.parts))
    place = next(filter(None, places), set())
    if evidence.given:
        given = {mark for text in evidence.given for mark in _named(text, names)}
        place = place | given if given else set()
    row = evidence.form == "CSV" and any(evidence.names)  # of a table that lies anywhere
    if row or (not inside and any(map(DIGITS.search, evidence.names))):  # another study's run
        place = set()
    every = inside | place
    if len(every) == 1:
        return every.pop(), ""
    if every:
        which = " and ".join(sorted(f"{names[mark]}, {mark[:12]}" for mark in every)[:2])
        return "", f"names more than one run: {which}"
    called = first_names([text for text in evidence.names or evidence.given if text.strip()])
    return "", f"names no run that this study asks for ({called or 'it has no run id'})"


def _named(text: str, names: Mapping[str, str]) -> set[str]:
    """The runs that a text names: by their name alone, or by digits of their fingerprint."""
    digits = DIGITS.findall(text)
    return {
        mark
        for mark, name in names.items()
        if text.strip() == name or any(mark.startswith(part) for part in digits)
    }
