"""What `faults.py` does to a study: every kind of fault, each with a check that it happened.

A fault returns how the disturbed command ended and whether the fault met it while it worked; one
that came too late, or found nothing to harm, is no trial and is tried again.
"""

import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from fault_judge import facts, results
from fault_servers import Servers, packs_under
from fault_study import LONG, PACKED, SHIM, SINGLE, Ended, Kind, Trial, end

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
LOOK = 0.05  # seconds between two looks for what is to be harmed


@dataclass
class Met:
    """What became of a disturbed command.

    Attributes:
        ended: how it ended; a command that the fault itself killed has status 0.
        hit: whether the fault happened, while there was work to disturb.
        doubled: proxies that were trained twice by two sweeps.
    """

    ended: Ended
    hit: bool
    doubled: int = 0


Fault = Callable[[Trial, Servers], Met]


def _wait(process: subprocess.Popen[str], found: Callable[[], Any]) -> Any:
    """Look for something while a command runs; None if it ends first."""
    while process.poll() is None:
        if seen := found():
            return seen
        time.sleep(LOOK)
    return None


def _killed(trial: Trial, process: subprocess.Popen[str], after: Callable[[], Any]) -> bool:
    """SIGKILL of a command at a random moment, but not before something is there."""
    trial.moment()
    _wait(process, after)
    hit = process.poll() is None
    process.kill()
    process.wait()
    return hit


def flow(trial: Trial, _servers: Servers) -> Met:
    """SIGKILL of the flow's process."""
    return Met(Ended(0), _killed(trial, trial.start(), lambda: True))


def worker(trial: Trial, servers: Servers) -> Met:
    """SIGKILL of a Ray worker that trains."""
    process = trial.start()
    trial.moment()
    found = _wait(process, lambda: [*servers.packs(), *packs_under(process.pid)])
    hit = False
    if found:
        victim = found[int(trial.rng.integers(len(found)))]
        with suppress(psutil.NoSuchProcess):
            victim.kill()
            hit = process.poll() is None
    return Met(trial.finish(process), hit)


def node(trial: Trial, servers: Servers) -> Met:
    """SIGKILL of a Ray node with all its workers: the head, or the other one."""
    process = trial.start()
    trial.moment()
    name = ("ray-0", "ray-1")[int(trial.rng.integers(2))]
    trial.notes.append(f"killed {name}")
    hit = process.poll() is None and servers.kill(name)
    return Met(trial.finish(process), hit)


def _server(name: str) -> Fault:
    def fault(trial: Trial, servers: Servers) -> Met:
        process = trial.start()
        trial.moment()
        hit = process.poll() is None and servers.kill(name)
        if hit and trial.rng.random() < 0.5:  # it comes back while the study runs, or stays away
            time.sleep(float(trial.rng.uniform(0, 5)))
            servers.revive(name)
            trial.notes.append(f"{name} came back")
        return Met(trial.finish(process), hit)

    fault.__doc__ = f"SIGKILL of {name}, which comes back after a while or stays away."
    return fault


def disk(trial: Trial, _servers: Servers) -> Met:
    """The disk runs full: the home lies on a small file system, which something else fills."""
    mounted = trial.folder / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300m", "tmpfs", str(mounted)], check=True)
    home, full = mounted / "home", False
    try:
        shutil.copytree(trial.home, home)
        process = trial.start(home=home)
        trial.moment()
        running = process.poll() is None
        try:
            with open(mounted / "filler", "wb", buffering=0) as filler:
                while True:
                    filler.write(bytes(1 << 16))
        except OSError:
            full = True
        ended = trial.finish(process, home)
        (mounted / "filler").unlink()
        shutil.rmtree(trial.home)
        left_out = shutil.ignore_patterns("ray", "sockets", "*.lock")
        shutil.copytree(home, trial.home, ignore=left_out)
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=False)
    return Met(ended, running and full)


def _damage(trial: Trial, folder: Path, pattern: str) -> bool:
    """Flip bytes of a random file under a folder, or cut it; whether there was one."""
    files = sorted(p for p in folder.rglob(pattern) if p.is_file() and p.stat().st_size)
    if not files:
        return False
    path = files[int(trial.rng.integers(len(files)))]
    raw = bytearray(path.read_bytes())
    place = int(trial.rng.integers(len(raw)))
    if trial.rng.random() < 0.4:
        raw = raw[:place]
    else:
        for i in range(place, min(len(raw), place + int(trial.rng.integers(1, 9)))):
            raw[i] ^= int(trial.rng.integers(1, 256))
    with open(path, "r+b") as file:  # in place: who has it open or mapped sees it
        file.write(raw)
        file.truncate()
    trial.notes.append(f"damaged {path.relative_to(folder)} at byte {place}")
    return True


def shards(trial: Trial, _servers: Servers) -> Met:
    """Bytes of the corpus are flipped or cut while the study trains on it, or between two runs."""
    process = trial.start()
    trial.moment()
    if trial.rng.random() < 0.3:
        hit = process.poll() is None
        end(process)
        return Met(Ended(0), hit and _damage(trial, trial.home / "corpora", "*"))
    hit = process.poll() is None and len(results(trial.store)) < 7
    hit = hit and _damage(trial, trial.home / "corpora", "*.bin")
    return Met(trial.finish(process), hit)


def checkpoints(trial: Trial, _servers: Servers) -> Met:
    """The flow is killed once there are checkpoints, and bytes of one are flipped or cut."""
    process = trial.start()
    folder = trial.home / "checkpoints"
    hit = _killed(trial, process, lambda: next(folder.rglob("step-*.pt"), None))
    return Met(Ended(0), hit and _damage(trial, folder, "step-*.pt"))


def stored(trial: Trial, _servers: Servers) -> Met:
    """Bytes of results are flipped or cut, while the study runs or after it was killed."""
    process = trial.start()
    place = trial.store / "runs"
    if trial.rng.random() < 0.5:
        hit = _killed(trial, process, lambda: next(place.glob("*/result.json"), None))
        return Met(Ended(0), hit and _damage(trial, trial.store, "*.json"))
    trial.moment()
    _wait(process, lambda: next(place.glob("*/result.json"), None))
    hit = process.poll() is None and _damage(trial, trial.store, "*.json")
    return Met(trial.finish(process), hit)


def store(trial: Trial, _servers: Servers) -> Met:
    """Reads and writes of the store fail, or are stale, each now and then."""
    log = trial.folder / "flaky.log"
    log.touch()
    seed = int(trial.rng.integers(2**31))
    shim = SHIM.format(here=str(Path(__file__).parent), seed=seed, log=str(log))
    process = trial.start(shim=shim, settings={"CUVEE_STORE": f"flaky://{trial.store}"})
    ended = trial.finish(process)
    met = log.read_text(encoding="utf-8").splitlines()
    trial.notes.append(f"{len(met)} faults of the store: {met[:20]}")
    return Met(ended, bool(met))


def two(trial: Trial, _servers: Servers) -> Met:
    """Two sweeps at once on one store, from two homes, the second a moment later."""
    other = trial.folder / "other"
    shutil.copytree(trial.home, other)
    shared = {"CUVEE_STORE": str(trial.store)}
    first = trial.start(settings=shared)
    time.sleep(float(trial.rng.uniform(0, 0.5)) * trial.seconds)
    hit = first.poll() is None
    second = trial.start(home=other, settings=shared)
    one, two_ = trial.finish(first), trial.finish(second, other)
    trained = []
    for home in (trial.home, other):
        summary = facts(home, trial.store, (0, [])).summary
        trained.append(int(summary.get("trained_now", 0)))
    trial.notes.append(f"trained {trained}")
    whole = one.status == two_.status == 0
    doubled = max(0, sum(trained) - len(results(trial.store))) if whole else 0
    return Met(one if one.status or one.traceback else two_, hit, doubled)


def clock(trial: Trial, _servers: Servers) -> Met:
    """The clock is set back by up to a day while the study runs; half of the time it is killed."""
    setting = trial.folder / "clock"
    setting.write_text("+0\n")
    back = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(setting),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    process = trial.start(settings=back)
    trial.moment()
    hit = process.poll() is None
    before = _now(back)
    seconds = int(trial.rng.integers(60, 86400))
    setting.write_text(f"-{seconds}\n")
    hit = hit and _now(back) < before - seconds + 30
    trial.notes.append(f"clock set back by {seconds} s")
    if trial.rng.random() < 0.5:
        time.sleep(float(trial.rng.uniform(0, 0.3)) * trial.seconds)
        process.kill()
        process.wait()
        return Met(Ended(0), hit)
    return Met(trial.finish(process), hit)


def _now(settings: dict[str, str]) -> float:
    done = subprocess.run(["date", "+%s"], env=settings, capture_output=True, check=True, text=True)
    return float(done.stdout)


KINDS: dict[str, tuple[Fault, tuple[Kind, ...]]] = {
    "flow": (flow, (SINGLE,)),
    "worker": (worker, (SINGLE, PACKED)),
    "node": (node, (SINGLE,)),
    "mlflow": (_server("mlflow"), (SINGLE,)),
    "prefect": (_server("prefect"), (SINGLE,)),
    "postgres": (_server("postgres"), (SINGLE,)),
    "disk": (disk, (SINGLE,)),
    "shards": (shards, (SINGLE,)),
    "checkpoints": (checkpoints, (LONG,)),
    "results": (stored, (SINGLE,)),
    "store": (store, (SINGLE,)),
    "two": (two, (SINGLE,)),
    "clock": (clock, (SINGLE,)),
}
