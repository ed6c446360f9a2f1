"""Leases: of several sweeps on one store, one trains a run, and a dead one blocks nobody."""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from cuvee.mixtures.errors import StorageError
from cuvee.tasks.store.leases import LeaseStore
from cuvee.tasks.store.results import Store

ROOT = Path(__file__).parent.parent.parent.parent
PRINTS = [f"{i:064x}" for i in range(40)]
TAKER = """
import sys, time
from cuvee.tasks.store.leases import LeaseStore
from cuvee.tasks.store.results import Store
leases = LeaseStore(Store(sys.argv[1]), beat=0.2)
with leases:
    print("ready", flush=True)
    sys.stdin.readline()
    for fingerprint in sys.argv[2:]:
        if leases.acquire(fingerprint):
            print(fingerprint, flush=True)
    print("done", flush=True)
    sys.stdin.readline()
"""


def sweep(url: str, *fingerprints: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", TAKER, url, *fingerprints],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "ready\n"
    return process


class Clock:
    """The clock of sweeps, which only a test moves, or who sleeps by it."""

    def __init__(self):
        self.now, self.slept = 1000.0, 0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept += 1


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr("cuvee.tasks.store.leases.time", found)
    return found


@pytest.mark.parametrize("place", ["disk", "s3"])
def test_of_processes_that_race_each_claim_has_one_winner(place, tmp_path, request):
    """Catches a claim that is looked for and then written: two would both find nothing."""
    url = str(tmp_path) if place == "disk" else request.getfixturevalue("s3") + "/store"
    prints = PRINTS if place == "disk" else PRINTS[:12]
    sweeps = [sweep(url, *prints) for _ in range(3 if place == "disk" else 2)]
    for process in sweeps:
        process.stdin.write("go\n")
        process.stdin.flush()
    won = [list(iter(lambda p=process: p.stdout.readline().strip(), "done")) for process in sweeps]
    for process in sweeps:
        process.communicate("end\n")
    assert sorted(name for names in won for name in names) == prints
    store = Store(url).objects
    assert not set(store.names("claims")) - {"exclusive"} and not store.names("sweeps")
    if place == "s3":
        asked = request.getfixturevalue("s3_server").asked
        tried = [path for method, path in asked if method == "PUT" and "/claims/0000" in path]
        assert len(tried) == 2 * len(prints)  # both, for each


def test_of_threads_that_race_for_an_outbid_claim_one_wins(tmp_path):
    """Catches a stale claim that is removed and made anew: one would remove another's new claim."""
    store = Store(str(tmp_path))
    rivals = [LeaseStore(store) for _ in range(16)]
    for fingerprint in PRINTS[:20]:
        dead = json.dumps({"sweep": "s", "place": _here(), "pid": 2**22 + 1, "started": "1"})
        store.objects.create(f"claims/{fingerprint}/0", dead.encode())
        start, won = threading.Barrier(len(rivals)), []

        def race(rival, fingerprint=fingerprint, start=start, won=won):
            start.wait()
            if rival.acquire(fingerprint):
                won.append(rival)

        threads = [threading.Thread(target=race, args=(rival,)) for rival in rivals]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1


def _here() -> str:
    from cuvee.tasks.store import leases

    return leases.process_namespace()


def test_a_sweep_that_was_killed_gives_way_at_once(tmp_path):
    """Catches a lease that must first run out before the same command can go on."""
    process = sweep(str(tmp_path), PRINTS[0])
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline().strip() == PRINTS[0]
    with LeaseStore(Store(str(tmp_path))) as mine:
        assert not mine.acquire(PRINTS[0])
        process.kill()
        process.wait()
        assert mine.acquire(PRINTS[0])
    process.stdin.close()
    process.stdout.close()


@pytest.mark.parametrize("url", ["{}", "memory://claims/{}"])
def test_a_sweep_on_another_machine_counts_as_gone_only_without_a_heartbeat(
    tmp_path, monkeypatch, clock, url
):
    """Catches leases that expire while their owner lives, and ones that never do."""
    store, beats = Store(url.format(tmp_path)), itertools.count(1)
    theirs = LeaseStore(store, beat=3600)  # its heart beats when the test says so
    monkeypatch.setattr("cuvee.tasks.store.leases.process_namespace", lambda: "elsewhere")
    theirs._mark = json.dumps({"sweep": theirs.sweep, "place": "there"}).encode()
    with LeaseStore(store, patience=30) as mine:
        with theirs:
            assert theirs.acquire(PRINTS[0])
            for _ in range(4):  # three times the patience
                theirs._write_beat(next(beats))
                assert not mine.acquire(PRINTS[0])
                clock.now += 29
                assert not mine.acquire(PRINTS[0])
            clock.now += 2  # its machine is cut off
        assert mine.acquire(PRINTS[0])  # the late end of the other took nothing from us
        assert not LeaseStore(store).acquire(PRINTS[0])


def test_a_clock_set_back_or_forward_changes_nothing(tmp_path, monkeypatch):
    """Catches leases with times of day in them."""
    store = Store(str(tmp_path))
    with LeaseStore(store, beat=0.05) as theirs, LeaseStore(store, beat=0.05) as mine:
        assert theirs.acquire(PRINTS[0])
        real = time.time
        for shift in (-86400.0, 86400.0):
            monkeypatch.setattr(time, "time", lambda shift=shift: real() + shift)
            assert not mine.acquire(PRINTS[0])
            time.sleep(0.1)
            assert not mine.acquire(PRINTS[0])


@pytest.mark.parametrize("raw", [b"", b"{", b'{"sweep": 3}', b"\xff\xfe", b"[]"])
def test_a_damaged_claim_ages_and_is_outbid(tmp_path, clock, raw):
    """Catches a traceback on a half-written claim, and one that blocks its run for ever."""
    store = Store(str(tmp_path))
    store.objects.create(f"claims/{PRINTS[0]}/0", raw)
    with LeaseStore(store, patience=30) as mine:
        assert not mine.acquire(PRINTS[0])
        clock.now += 29
        assert not mine.acquire(PRINTS[0])
        clock.now += 2
        assert mine.acquire(PRINTS[0])
    assert not list((tmp_path / "claims").iterdir())


class Careless(MemoryFileSystem):
    """A file system that knows no conditional create."""

    protocol = "careless"

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        return super().pipe_file(path, value, mode="overwrite", **kwargs)


def test_a_store_that_creates_one_object_twice_is_not_shared(clock, monkeypatch):
    """Catches leases that trust any file system: two sweeps would both train every run; and a sweep
    that waits for ever for one that is gone."""
    fsspec.register_implementation("careless", Careless, clobber=True)
    store = Store(f"careless://{uuid.uuid4().hex}")
    first, second, third = (LeaseStore(store, beat=3600, patience=10800) for _ in range(3))
    with first:
        assert first.acquire(PRINTS[0])
        sleep = clock.sleep

        def beating(seconds):
            first._write_beat(clock.slept + 1)
            sleep(seconds)

        monkeypatch.setattr(clock, "sleep", beating)
        with pytest.raises(StorageError, match="cannot be shared"), second:
            pass
        assert clock.slept == 1
        monkeypatch.setattr(clock, "sleep", sleep)
        with third:  # the first is cut off
            assert clock.slept == 4 and third.acquire(PRINTS[1])
    with second:  # the first has ended
        assert second.acquire(PRINTS[0])
    assert store.objects.read("claims/exclusive") == b"no"
