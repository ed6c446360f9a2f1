"""The progress of running studies in the store, by which any terminal and machine sees them.

A running study writes `progress/<sweep>`, an object that is replaced whole every few seconds: how
far it is, which process it is, and a counter. Whoever asks writes nothing. A study whose process is
gone is dead: at once where that can be seen, in the same boot of the same machine, and where it was
last heard of before this machine was started or hours ago; else when the counter has not moved for
`patience` seconds of the observer's own clock, as with leases (`tasks.store.leases`). Times of day
are compared where they differ by hours, and the study's own and the store's agree.
"""

import contextlib
import dataclasses
import datetime
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterable

from cuvee.mixtures.errors import CuveeError
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.tasks.process import (
    before_this_boot,
    marked_process_ended,
    process_mark,
    process_namespace,
)
from cuvee.tasks.study.monitor import StudyMonitor
from cuvee.tasks.study.progress import DEAD, RUNNING, StudyProgress, progress_from_json

FOLDER = "progress"  # of a store
BEAT_SECONDS = 3.0  # between two writes
PATIENCE_SECONDS = 12.0  # without a beat, after which a study of another machine counts as dead
LOOK_SECONDS = 0.5
OLD_SECONDS = 2 * 3600.0  # since a last word, after which nothing more is waited for


@dataclasses.dataclass(frozen=True)
class KeptProgress:
    """A progress as it lies in a store.

    Attributes:
        key: of the sweep that writes it.
        process: mark of its process.
        beat: a counter that moves as long as it lives.
        study: how far it is.
    """

    key: str
    process: str
    beat: int
    study: StudyProgress

    @property
    def written(self) -> float | None:
        """When it was written, by the clock of its machine, in seconds of Unix time."""
        with contextlib.suppress(ValueError):
            begun = datetime.datetime.fromisoformat(self.study.started)
            return begun.timestamp() + self.study.elapsed
        return None


class ProgressRecord:
    """Keeps a study's progress in the store while its context lasts; its failures cost nothing.

    Args:
        monitor: knows how far the study is.
        objects: of the store.
        beat: seconds between two writes; one comes at once when a proxy has ended.
    """

    def __init__(
        self, monitor: StudyMonitor, objects: ObjectFolder, beat: float = BEAT_SECONDS
    ) -> None:
        self._monitor, self._objects, self._beat = monitor, objects, beat
        self._key, self._process, self._count = uuid.uuid4().hex, process_mark(), 0
        self._stop, self._cleared = threading.Event(), False
        self._others = ProgressReader(objects)
        self._thread = threading.Thread(target=self._live, name="progress", daemon=True)

    def __enter__(self) -> "ProgressRecord":
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._monitor.changed.set()
        self._thread.join()
        self._write()

    def _live(self) -> None:
        while not self._stop.is_set():
            self._monitor.changed.wait(self._beat)
            self._monitor.changed.clear()
            self._write()
            self._stop.wait(LOOK_SECONDS)  # at most so often, however many proxies end

    def _write(self) -> None:
        self._count += 1
        study = self._monitor.snapshot()
        if study.rounds and not self._cleared:  # until then the last one's counts are the latest
            self._cleared = self._remove_earlier(study.name)
        kept = {"process": self._process, "beat": self._count, "study": study.to_json()}
        # A store that refuses now may not in three seconds; the results themselves will tell.
        with contextlib.suppress(Exception):
            self._objects.replace(f"{FOLDER}/{self._key}", json.dumps(kept).encode())

    def _remove_earlier(self, name: str) -> bool:
        """Remove what runs of the same study left that have ended; whether all is decided.

        Of one elsewhere only its beat can tell, so that this takes some calls.
        """
        decided = False
        with contextlib.suppress(Exception):
            looked = [
                (kept, state)
                for kept, state in self._others.look(lambda study: study.name == name)
                if kept.key != self._key
            ]
            decided = all(state is not None for _, state in looked)
            for kept, state in looked:
                if state not in (None, RUNNING):
                    self._objects.files.rm_file(self._objects.path(f"{FOLDER}/{kept.key}"))
        return decided


def process_place(mark: str) -> str:
    """The place in which the process of a mark runs; see `process_namespace`."""
    with contextlib.suppress(ValueError, TypeError, IndexError):
        return str(json.loads(mark)[0])
    return ""


def read_progress(objects: ObjectFolder) -> tuple[KeptProgress, ...]:
    """Every progress that a store holds, as it was written; what cannot be read is left out."""
    keys = (name for name in objects.names(FOLDER) if "." not in name)  # which drafts have
    kept = (_read_one(objects, key) for key in keys)
    return tuple(one for one in kept if one)


def _read_one(objects: ObjectFolder, key: str) -> KeptProgress | None:
    try:
        values = json.loads(objects.read(f"{FOLDER}/{key}") or b"")
        study = progress_from_json(values["study"])
        return KeptProgress(key, str(values["process"]), int(values["beat"]), study)
    except (CuveeError, ValueError, KeyError, TypeError, AttributeError):
        return None  # gone meanwhile, or of a version that writes it otherwise


def any_study(_study: StudyProgress) -> bool:
    """Takes every study."""
    return True


def unheard_wait(_studies: list[StudyProgress]) -> None:
    """Tells nobody that it waits."""


class ProgressReader:
    """Reads the progress of all studies of a store; knows of each whether it still runs.

    Args:
        objects: of the store; nothing is written.
        patience: seconds without a beat after which a study of another machine is dead.
        clock: seconds that only go forward.
        pause: waits for seconds.
        now: the time of day, in seconds of Unix time.
    """

    def __init__(
        self,
        objects: ObjectFolder,
        *,
        patience: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._objects, self._patience = objects, patience
        self._clock, self._pause, self._now = clock, pause, now
        self._seen: dict[str, tuple[int, float, bool]] = {}  # beat, since when, whether it moved

    def studies(
        self,
        wanted: Callable[[StudyProgress], bool] = any_study,
        waiting: Callable[[list[StudyProgress]], None] = unheard_wait,
    ) -> list[StudyProgress]:
        """How far studies are, each running, ended or dead.

        Waits where that is not known yet: until a study of another machine has moved its counter,
        or `patience` is over.

        Args:
            wanted: says of which studies it matters.
            waiting: is told once for which ones it waits.
        """
        told = False
        while True:
            looked = self.look(wanted)
            unknown = [kept.study for kept, state in looked if state is None]
            if not unknown:
                return [self._told(kept, state or DEAD) for kept, state in looked]
            if not told:
                waiting(unknown)
                told = True
            self._pause(LOOK_SECONDS)

    def look(
        self, wanted: Callable[[StudyProgress], bool]
    ) -> list[tuple[KeptProgress, str | None]]:
        """What the store holds of studies, with the state of each; None while it is not known.

        Called again and again it is known after `patience`.
        """
        kept = [one for one in read_progress(self._objects) if wanted(one.study)]
        return [(one, self._state(one)) for one in kept]

    def _state(self, kept: KeptProgress) -> str | None:
        """The state of a study; None while it may run or not."""
        if kept.study.state != RUNNING:
            return kept.study.state
        if process_place(kept.process) == process_namespace():
            return DEAD if marked_process_ended(kept.process) else RUNNING
        fresh = kept.key not in self._seen
        beat, since, moved = self._seen.get(kept.key, (kept.beat, self._clock(), False))
        if kept.beat != beat:
            since, moved = self._clock(), True
        self._seen[kept.key] = (kept.beat, since, moved)
        if fresh and self._long_silent(kept):
            self._seen[kept.key] = (kept.beat, since - 2 * self._patience, False)
            return DEAD
        if self._clock() - since > self._patience:
            return DEAD
        return RUNNING if moved else None

    def _long_silent(self, kept: KeptProgress) -> bool:
        """Whether a study elsewhere was last heard of before this boot of its host, or hours ago.

        A clock may be wrong: so the store's own time of the object must be as old.
        """
        if kept.written is None:
            return False
        if before_this_boot(kept.process, kept.written):
            return True
        oldest = self._now() - OLD_SECONDS
        if kept.written > oldest:
            return False
        with contextlib.suppress(Exception):  # some file systems of fsspec know no times
            name = self._objects.path(f"{FOLDER}/{kept.key}")
            return bool(self._objects.files.modified(name).timestamp() < oldest)
        return False

    def _told(self, kept: KeptProgress, state: str) -> StudyProgress:
        """A progress in its state; what a dead study kept after its last word counts as well."""
        study = dataclasses.replace(kept.study, state=state)
        if state != DEAD:
            return study
        late = sum(self._stored(run.fingerprint) for run in study.runs if run.state == "training")
        *earlier, last = study.rounds or (None,)
        if not late or last is None:
            return study
        last = dataclasses.replace(last, trained=min(last.trained + late, last.asked))
        return dataclasses.replace(study, rounds=(*filter(None, earlier), last))

    def _stored(self, fingerprint: str) -> bool:
        return self._objects.read(f"runs/{fingerprint}/result.json") is not None


def running_studies(studies: Iterable[StudyProgress]) -> list[StudyProgress]:
    """Those that run now."""
    return [study for study in studies if study.state == RUNNING]
