"""`cuvee doctor`: what of this machine and its environment a study would stumble over.

Nothing is changed, and no secret is printed. What is not installed is not missed unless a study
needs it; servers are looked for where the environment names them alone.
"""

import contextlib
import importlib.metadata
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import CuveeError
from cuvee.proxies.data.node_cache import FOLDER, NodeCache
from cuvee.proxies.data.objects import is_remote
from cuvee.proxies.train import device
from cuvee.tasks.extras import install, lacking
from cuvee.tasks.process import SINGLE_THREAD, outer_environment, usable_cores

OK, WARNING, PROBLEM = "ok", "warning", "problem"
EXTRAS = {  # what each is for
    "train": "proxies and their scores (plan, run, init on text)",
    "flow": "run, confirm, schedule, handoff",
    "record": "the record in MLflow (review)",
    "s3": "text, stores and handoffs on s3://",
    "gcs": "the same on gs://",
    "azure": "the same on az://",
    "notebook": "tables as data frames in Python",
    "logs": "event files and offline logs of trainers, which `cuvee collect` reads",
}
GB, MB = 1e9, 1e6
LEAST_DISK, LITTLE_DISK = 1 * GB, 10 * GB  # of a home: none of the demo, or few corpora
LEAST_MEMORY, WORKER = 1 * GB, 1 * GB  # to begin at all; of a worker that has imported torch
SHARED = 128 * 2**20  # bytes that a local Ray keeps in shared memory
SHARED_PLACE = Path("/dev/shm")  # noqa: S108  looked at alone
NETWORK = {  # kinds of file systems that other machines write to as well
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "gpfs", "beegfs", "ceph", "glusterfs", "9p",
    "afs", "fuse.sshfs", "fuse.s3fs", "fuse.gcsfuse", "wekafs", "panfs", "orangefs",
}  # fmt: skip
BUSY = 1.5  # processes a core from which the machine is said to be busy
CONSTRAINTS = Path(__file__).resolve().parents[2] / "infra" / "constraints.txt"  # of a clone


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's.

    Attributes:
        state: ok, warning or problem.
        subject: what was looked at.
        said: what was found, and what to do about it.
    """

    state: str
    subject: str
    said: str


def examine_machine(home: Workspace) -> Iterator[Finding]:
    """What this machine is like, a finding each; servers are `servers.examine_servers`.

    Args:
        home: where a study would work; need not exist.
    """
    looks: tuple[Callable[[Workspace], Iterator[Finding]], ...] = (
        _python, _packages, _cores, _threads, _memory, _shared_memory, _gpu, _home, _disk, _cache,
        _clock,
    )  # fmt: skip
    for look in looks:
        try:
            yield from look(home)
        except OSError as error:  # a system without what the others have
            name = look.__name__.strip("_").replace("_", " ")
            yield Finding(WARNING, name, f"cannot be looked at here: {error}")


def _python(_home: Workspace) -> Iterator[Finding]:
    said = f"Python {platform.python_version()} at {sys.prefix}, {platform.platform(terse=True)}"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        said += f"; cuvee {importlib.metadata.version('cuvee')}"
    yield Finding(OK, "python", said)


def _packages(_home: Workspace) -> Iterator[Finding]:
    """Installed versions against what is declared, and in a clone against what is pinned."""
    wrong = list(_unmet())
    for line in wrong:
        yield Finding(PROBLEM, "packages", f"{line}: pip install --upgrade 'cuvee[all]'")
    missing = lacking(*EXTRAS)
    for name, purpose in EXTRAS.items():
        if name in missing and len(missing[name]) > 0:
            what = f"extra {name} is not installed ({', '.join(missing[name][:4])}), for {purpose}"
            yield Finding(OK, "packages", f"{what}; if you want it: {install(name)}")
    there = [name for name in EXTRAS if name not in missing]
    pinned = _differing()
    beside = ""
    if pinned:
        shown = ", ".join(pinned[:4]) + (", ..." if len(pinned) > 4 else "")
        beside = (
            f"; {len(pinned)} are not the versions that were verified together in "
            f"infra/constraints.txt ({shown}): pip install -c infra/constraints.txt '.[all]'"
        )
    if not wrong:
        said = f"what is installed is as declared (core{''.join(f', {n}' for n in there)}){beside}"
        yield Finding(WARNING if pinned else OK, "packages", said)


def _unmet() -> Iterator[str]:
    """Packages of the core, or of extras that are installed whole, of other versions."""
    try:
        lines = importlib.metadata.requires("cuvee") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for line in lines:
        wanted = Requirement(line)
        try:
            version = importlib.metadata.version(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            if wanted.marker is None:
                yield f"{wanted.name} is not installed, and the core needs it"
            continue
        applies = wanted.marker is None or any(f'"{n}"' in str(wanted.marker) for n in EXTRAS)
        if applies and not wanted.specifier.contains(version, prereleases=True):
            yield f"{wanted.name} {version} is installed, and {wanted.specifier} is declared"


def _differing() -> list[str]:
    """Packages that a clone pins and that are installed in another version."""
    if not CONSTRAINTS.exists():
        return []
    declared = {Requirement(line).name.lower() for line in _requirements()}
    found = []
    for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines():
        name, _, version = line.split("#")[0].strip().partition("==")
        if name.lower() not in declared:
            continue
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            there = importlib.metadata.version(name)
            if there.partition("+")[0] != version.strip().partition("+")[0]:
                found.append(f"{name} {there}")
    return found


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("cuvee") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _cores(_home: Workspace) -> Iterator[Finding]:
    whole = os.cpu_count() or 1
    usable = usable_cores() or whole
    said = f"{usable} of {whole} cores may be used" if usable < whole else f"{usable} cores"
    if usable < whole:
        said += " (affinity or the container's quota); a local Ray takes these"
    busy = os.getloadavg()[0]
    if busy > BUSY * usable:
        yield Finding(
            WARNING,
            "cores",
            f"{said}; {busy:.1f} processes want them now: trainings will be slow, and limits on "
            "time are met sooner. Wait, or leave some with --cores",
        )
    else:
        yield Finding(OK, "cores", said)


def _threads(_home: Workspace) -> Iterator[Finding]:
    given = {n: v for n, v in outer_environment().items() if n in SINGLE_THREAD and v != "1"}
    if given:
        named = ", ".join(f"{name}={value}" for name, value in sorted(given.items()))
        said = f"{named}: processes share the cores, and one thread in each is fastest: unset them"
        yield Finding(WARNING, "threads", said)
    else:
        yield Finding(OK, "threads", "one in every process, and a process a core")


def _memory(_home: Workspace) -> Iterator[Finding]:
    seen = psutil.virtual_memory()
    total, free = float(seen.total), float(seen.available)
    limit = device.memory_limit()
    said = f"{free / GB:.1f} of {total / GB:.1f} GB free"
    if limit and limit < total:
        said += f"; this container may use {limit / GB:.1f} GB"
        free = min(free, limit)
    cores = usable_cores() or os.cpu_count() or 1
    if free < LEAST_MEMORY:
        yield Finding(PROBLEM, "memory", f"{said}: end something, or take a larger machine")
    elif free < WORKER * cores:
        few = max(1, int(free / WORKER))
        said += f", and a training on each of {cores} cores takes about {WORKER / GB:.0f} GB"
        yield Finding(WARNING, "memory", f"{said}: give --cores {few}")
    else:
        yield Finding(OK, "memory", said)


def _shared_memory(_home: Workspace) -> Iterator[Finding]:
    if not SHARED_PLACE.is_dir():
        return
    seen = shutil.disk_usage(SHARED_PLACE)
    said = f"{SHARED_PLACE} has {seen.free / MB:,.0f} MB free"
    if seen.free < SHARED:
        yield Finding(
            WARNING,
            "shared memory",
            f"{said}, and a local Ray wants {SHARED / MB:.0f} MB: it goes on with files on disk, "
            "more slowly. For a container: docker run --shm-size=1g",
        )
    else:
        yield Finding(OK, "shared memory", said)


def _gpu(_home: Workspace) -> Iterator[Finding]:
    driver = next((path for path in device.DRIVERS if path.exists()), None)
    if lacking("train"):
        yield Finding(OK, "gpu", "not looked for: the extra train is not installed")
    elif device.has_gpu():
        yield Finding(OK, "gpu", "torch finds one: trainings use it (proxy.device: auto)")
    elif driver:
        yield Finding(
            WARNING,
            "gpu",
            f"{driver} is there, and torch cannot use it: install a build of torch for it "
            "(https://pytorch.org/get-started), or check the driver; trainings use the cores",
        )
    else:
        kind = "bfloat16" if device.precision("cpu") == "bfloat16" else "float32"
        yield Finding(OK, "gpu", f"none: trainings use the cores, in {kind}")


def _home(home: Workspace) -> Iterator[Finding]:
    place = _existing(home.root)
    what = str(home.root) if place == home.root else f"{home.root} (not there yet)"
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        said = f"{what} cannot be written: choose another folder with --home"
        yield Finding(PROBLEM, "home", said)
        return
    kind = file_system(place)
    if kind in NETWORK:
        yield Finding(
            WARNING,
            "home",
            f"{what} is on a file system of the network ({kind}), on which databases and sockets "
            "of the servers fail: put the home on a disk of this machine with --home, and share "
            "the results alone with CUVEE_STORE",
        )
    else:
        yield Finding(OK, "home", f"{what}, on {kind or 'a disk'}")


def file_system(path: Path) -> str:
    """The kind of file system on which a path lies, such as "ext4"; "" where it is not known."""
    real = path.resolve()
    mounts = [
        (len(Path(one.mountpoint).parts), one.fstype)
        for one in psutil.disk_partitions(all=True)
        if real.is_relative_to(one.mountpoint)
    ]
    return max(mounts, default=(0, ""))[1]


def _disk(home: Workspace) -> Iterator[Finding]:
    places = {"home": home.root}
    if "://" not in home.store or home.store.startswith("file://"):
        places["store"] = Path(home.store.removeprefix("file://"))
    seen = set()
    for name, path in places.items():
        place = _existing(path)
        if (disk := place.stat().st_dev) in seen:
            continue
        seen.add(disk)
        free = shutil.disk_usage(place).free
        said = f"{free / GB:.1f} GB free for the {name}"
        if free < LEAST_DISK:
            said += ": `cuvee clean` shows what may go, or choose another place"
            yield Finding(PROBLEM, "disk", said)
        elif free < LITTLE_DISK:
            said += ", which a corpus of a few GB fills: `cuvee clean` shows what may go"
            yield Finding(WARNING, "disk", said)
        else:
            yield Finding(OK, "disk", said)


def _cache(home: Workspace) -> Iterator[Finding]:
    """The node's copies, where the store is remote."""
    if not is_remote(home.store):
        return
    try:
        cache = NodeCache.of_environment()
    except CuveeError as error:
        yield Finding(PROBLEM, "cache", str(error))
        return
    if not os.access(_existing(cache.root), os.W_OK | os.X_OK):
        said = f"{cache.root} cannot be written: name a folder of this machine in {FOLDER}"
        yield Finding(PROBLEM, "cache", said)
    else:
        yield Finding(OK, "cache", cache.said)


def _existing(path: Path) -> Path:
    """A path, or the nearest folder above it that is there."""
    return next((one for one in (path, *path.parents) if one.exists()), Path("/"))


def _clock(_home: Workspace) -> Iterator[Finding]:
    installed = Path(__file__).stat().st_mtime
    now = time.time()
    shown = time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(now))
    if now < installed - 86_400:
        yield Finding(
            PROBLEM, "clock", f"it says {shown}, before this program was installed: set it"
        )
    else:
        yield Finding(OK, "clock", shown)
