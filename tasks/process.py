"""Which process this is, and what it set for itself that programs of others must not inherit.

Where several hosts or containers share a folder, a process id alone names nothing: a process is
known by its place (a boot of a machine, and the namespace of its ids), its id and its start.
"""

import contextlib
import json
import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds in each of so many, or "max"
HOME_MARK = "CUVEE_HOME_IN_USE"
RUN_MARK = "CUVEE_RUN"
BEFORE = "CUVEE_BEFORE"  # JSON: what variables were, before they were set for Cuvee alone
SINGLE_THREAD = dict.fromkeys(
    (
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"),
        *("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"),
    ),
    "1",
)  # must stand before numpy is imported, which reads them once


def set_environment(values: Mapping[str, str], *, over: bool = True) -> None:
    """Set variables for this process and its own children, and note what they were.

    Args:
        values: by name.
        over: also where the user has set one.
    """
    before = json.loads(os.environ.get(BEFORE, "{}"))
    for name, value in values.items():
        if over or name not in os.environ:
            before.setdefault(name, os.environ.get(name))
            os.environ[name] = value
    os.environ[BEFORE] = json.dumps(before)


def outer_environment() -> dict[str, str]:
    """The environment as it was: for a program that is no part of Cuvee, such as a launcher.

    It neither counts as a leftover when Cuvee has ended, nor runs with one thread or off line.
    """
    kept = {n: v for n, v in os.environ.items() if n not in (HOME_MARK, RUN_MARK, BEFORE)}
    for name, value in json.loads(os.environ.get(BEFORE, "{}")).items():
        kept.pop(name, None)
        if value is not None:
            kept[name] = value
    return kept


def process_mark() -> str:
    """This process as a mark in the environment of what it starts; see `abandoned`."""
    return json.dumps([process_namespace(), os.getpid(), process_start(os.getpid())])


def marked_process_ended(mark: str) -> bool:
    """Whether the process of a mark ran in this place and has ended; False where it may not."""
    try:
        where, pid, start = json.loads(mark)
    except (ValueError, TypeError):
        return False
    return bool(where == process_namespace() and not process_runs(pid, start))


def before_this_boot(mark: str, last: float) -> bool:
    """Whether a process ran on this host in an earlier boot, of which it was last heard before.

    Args:
        mark: of the process.
        last: when it was last heard of, by its own clock, in seconds of Unix time: what another
            machine of the same name does now is later than the start of this one.
    """
    with contextlib.suppress(ValueError, TypeError, IndexError, AttributeError):
        boot, _, host = json.loads(mark)[0].split(" ", 2)
        ours, _, here = process_namespace().split(" ", 2)
        return bool(host == here and boot != ours and last < psutil.boot_time())
    return False


def process_namespace() -> str:
    """The stretch of process ids: a boot of a machine, and its container if there is one."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')} {socket.gethostname()}"
    return f"{socket.gethostname()} {uuid.getnode()}"


def process_start(pid: int) -> str:
    """When a process was started, by the kernel's count of ticks where that can be read.

    Tells a process from a later one with the same id. Ticks since boot, not a time of day, which
    moves when the clock is set.
    """
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    with contextlib.suppress(psutil.Error):
        return str(psutil.Process(pid).create_time())
    return ""


def process_runs(pid: Any, start: Any) -> bool:
    """Whether a process of this place, known by its id and its start, still runs."""
    if not isinstance(pid, int) or not psutil.pid_exists(pid):
        return False
    with contextlib.suppress(psutil.Error):
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return False
    return bool(process_start(pid) == start)


def usable_cores() -> int | None:
    """Cores that this process may use, where the system says so; Ray counts all there are.

    By its affinity, and by the quota of its container (cgroup v2), which affinity does not know.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):  # no quota: "max" is no number
        quota, period = QUOTA.read_text().split()
        cores = min(cores, max(1, int(quota) // int(period)))
    return cores
