"""Leases on runs, so that two sweeps on one store never train the same fingerprint twice.

Before a sweep trains a run it acquires its lease: it creates `claims/<fingerprint>/<generation>` in
the store, which only one sweep can, since the store creates an object or refuses because it is
there. A lease of a sweep that is gone is never removed and written anew, for two sweeps could both
do so; it is outbid by the next generation, which again only one sweep can create.

A sweep is gone at once when its process is, where that can be seen: in the same boot of the same
machine. Else it is gone when its heartbeat, a counter in `sweeps/<id>`, has not moved for
`patience` seconds of the observer's own monotonic clock. No time is ever written or compared, so
that clocks that differ or are set back change nothing.

What remains: a sweep that was halted for longer than `patience` and then goes on trains what
another has taken over. The result is stored once all the same, and is the same.

Object stores create by a conditional write (S3: If-None-Match). A store where several who create
one object all succeed is found by trying once; it is not shared: a sweep begins there only when no
other one lives.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from dataclasses import dataclass

from cuvee.mixtures.errors import StorageError
from cuvee.tasks.process import process_namespace, process_runs, process_start
from cuvee.tasks.store.results import Store

BEAT_SECONDS = 3.0
PATIENCE_SECONDS = 30.0
MOST_GENERATIONS = 1000  # a store on which creation never succeeds must not be asked for ever


@dataclass
class _Heartbeat:
    """What an observer knows of another sweep's heartbeat."""

    beat: bytes
    since: float


class LeaseStore:
    """The leases of one sweep; a context in which they are kept alive. Safe to use from threads.

    Args:
        store: where they are kept.
        beat: seconds between heartbeats.
        patience: seconds without a heartbeat after which a sweep counts as gone.
    """

    def __init__(
        self, store: Store, *, beat: float = BEAT_SECONDS, patience: float = PATIENCE_SECONDS
    ) -> None:
        self._objects, self._beat, self._patience = store.objects, beat, patience
        self._alone = False  # known to be, on a store that cannot be shared
        self.sweep = uuid.uuid4().hex
        process = {
            "place": process_namespace(),
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
        }
        self._mark = json.dumps({"sweep": self.sweep, **process}).encode()
        self._held: dict[str, int] = {}
        self._seen: dict[str, _Heartbeat] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._heart: threading.Thread | None = None

    def __enter__(self) -> "LeaseStore":
        self._stop.clear()
        self._write_beat(0)
        try:
            if not self._alone and not self._objects.creates_once():
                self._refuse_to_share()
        except BaseException:  # no heart will beat: nobody should wait for this one
            self._remove(f"sweeps/{self.sweep}")
            raise
        self._heart = threading.Thread(target=self._live, name="leases", daemon=True)
        self._heart.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._heart is not None:
            self._heart.join()
        for fingerprint in tuple(self._held):
            self.release(fingerprint)
        self._remove(f"sweeps/{self.sweep}")

    def acquire(self, fingerprint: str) -> bool:
        """Lease a run, unless another sweep that is alive has.

        After it, look into the store once more: the other sweep may have finished just before.

        Returns:
            Whether the run is this sweep's to train.

        Raises:
            StorageError: the store cannot be written.
        """
        with self._lock:
            if fingerprint in self._held:
                return True
            for generation in range(MOST_GENERATIONS):
                path = f"claims/{fingerprint}/{generation}"
                if self._objects.create(path, self._mark):
                    self._held[fingerprint] = generation
                    return True
                if not self._gone(path):
                    return False
            return False

    def _refuse_to_share(self) -> None:
        """See that no other sweep lives; of two that begin at once, both see each other's beat.

        Raises:
            StorageError: one does.
        """
        others = [name for name in self._objects.names("sweeps") if name != self.sweep]
        before = {name: self._read(f"sweeps/{name}") for name in others}
        until = time.monotonic() + self._patience if others else 0.0
        while time.monotonic() < until:
            if any(self._read(f"sweeps/{name}") not in (None, before[name]) for name in others):
                raise StorageError(
                    f"another sweep runs on {self._objects.url}, and this store cannot be shared: "
                    "of two that create one object there both succeed, so both would train the "
                    "same runs. Wait until the other has ended, or use a store with conditional "
                    "writes (S3, or a folder on a disk)"
                )
            self._write_beat(int(time.monotonic()))  # the other one may be looking, too
            time.sleep(self._beat)
        self._alone = True

    def release(self, fingerprint: str) -> None:
        """Give a lease back, when its run is in the store or will not be trained."""
        with self._lock:
            generation = self._held.pop(fingerprint, None)
            if generation is None or self._read(f"claims/{fingerprint}/{generation + 1}"):
                return  # outbid, when this sweep was thought dead: the other one clears up
            for g in range(generation + 1):  # ours, the highest, last: no lower one shows through
                path = f"claims/{fingerprint}/{g}"
                if g < generation or self._read(path) == self._mark:
                    self._remove(path)
            if not self._objects.remote:  # where there are no folders
                with contextlib.suppress(OSError):
                    self._objects.files.rmdir(self._objects.path(f"claims/{fingerprint}"))

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            self._objects.files.rm_file(self._objects.path(name))

    def _live(self) -> None:
        count = 0
        while not self._stop.wait(self._beat):
            count += 1
            self._write_beat(count)

    def _write_beat(self, count: int) -> None:
        # A store that refuses now may not in three seconds; the results themselves will tell.
        with contextlib.suppress(Exception):
            self._objects.replace(f"sweeps/{self.sweep}", str(count).encode())

    def _gone(self, name: str) -> bool:
        """Whether the sweep that made a lease is gone; the lock is held."""
        raw = self._read(name)
        if raw is None:
            return False  # given back a moment ago: the next look takes it
        try:
            mark = dict(json.loads(raw))
            sweep = str(mark["sweep"])
        except (ValueError, KeyError, TypeError):
            mark, sweep = {}, ""  # half written or damaged: it has no heart, and ages as it is
        here = mark.get("place") == process_namespace()
        if here and not process_runs(mark.get("pid"), mark.get("started")):
            return True
        beat = (self._read(f"sweeps/{sweep}") or b"") if sweep else raw
        key, now = sweep or name, time.monotonic()
        seen = self._seen.get(key)
        if seen is None or seen.beat != beat:
            self._seen[key] = _Heartbeat(beat, now)
            return False
        return now - seen.since > self._patience

    def _read(self, name: str) -> bytes | None:
        try:
            return bytes(self._objects.files.cat_file(self._objects.path(name)))
        except OSError:
            return None
