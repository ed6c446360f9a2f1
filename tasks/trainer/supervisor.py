"""Keeps one program and all that it starts: ends them with whoever asked for it, and in time.

A process of its own, since a worker may be killed and could then end nothing. It reads one line of
JSON, and goes on until its input ends: then whoever asked is gone, or wants the program ended. It
writes the program's output to a log, in which no secret stands, and says at last in a line how the
program ended. Run as a file, with the standard library and psutil alone, so that it starts fast.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

import psutil

MARK = "CUVEE_RUN_DIRECTORY"  # in the environment of all that a trainer starts
GRACE = 4.0  # seconds between asking a program to end and ending it
GIVE_UP = 30.0  # seconds more for a program that even SIGKILL does not end, as in a dead disk
POLL = 0.1
BLOCK = 1 << 16
DEATH_SIGNAL, SUBREAPER = 1, 36  # of Linux's prctl
ENDED, TIMED_OUT, STOPPED, NOT_STARTED = "ended", "timed out", "stopped", "not started"


def marked_processes(mark: str) -> list[psutil.Process]:
    """What a trainer of a run directory has started and is still there, this process left out."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone meanwhile, or another user's
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def end_marked(mark: str, grace: float = GRACE) -> int:
    """End all that a trainer of a run directory has started; how many processes there were."""
    until, ended = time.monotonic() + grace, set[int]()
    while True:
        left = {p.pid: p for p in [*marked_processes(mark), *_children()]}
        if not left or time.monotonic() >= until + GIVE_UP:
            return len(ended)
        last = time.monotonic() >= until
        for pid, process in left.items():
            with contextlib.suppress(psutil.Error):
                if last:
                    process.kill()
                elif pid not in ended:
                    process.terminate()
        ended |= left.keys()
        time.sleep(POLL)


def _children() -> list[psutil.Process]:
    """What this supervisor has started, whatever its environment; of other processes nothing."""
    if not _supervising:
        return []
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    found = psutil.Process().children(recursive=True)
    return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


_supervising = False


def redacted(text: bytes, secrets: Sequence[bytes]) -> bytes:
    """A text without its secrets."""
    for secret in secrets:
        text = text.replace(secret, b"***")
    return text


def copy_output(source: BinaryIO, log: BinaryIO, secrets: Sequence[bytes]) -> None:
    """Copy what a program says to a log as it comes; a secret may stand across two reads."""
    held, longest = b"", max(map(len, secrets), default=1) - 1
    while block := os.read(source.fileno(), BLOCK):
        text = redacted(held + block, secrets)
        cut = len(text) - longest
        if text.endswith(b"\n") or longest <= 0:
            cut = len(text)  # no secret has a line's end in it
        held = text[max(cut, 0) :]
        log.write(text[: max(cut, 0)])
        log.flush()
    log.write(held)
    log.flush()


def _with_supervisor() -> None:
    """In the program's process, before it begins: die with the supervisor, where systems can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)


def supervise(job: Mapping[str, Any]) -> dict[str, Any]:
    """Run a program until it ends, its time is over, or the input of this process ends."""
    until, mark = time.monotonic() + job["timeout"], job["mark"]
    secrets = [one.encode() for one in sorted(job["secrets"], key=len, reverse=True) if one]
    end_marked(mark)  # left by a supervisor that was killed
    with open(job["log"], "ab") as log:
        log.write(f"--- attempt of {time.strftime('%Y-%m-%d %H:%M:%S %z')}\n".encode())
        log.flush()
        try:
            process = subprocess.Popen(
                job["command"],
                env={**job["environment"], MARK: mark},
                cwd=job["folder"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_with_supervisor,  # noqa: PLW1509 (no thread has begun)
            )
        except OSError as error:
            return {"how": NOT_STARTED, "code": error.errno, "said": error.strerror}
        assert process.stdout is not None
        copying = threading.Thread(target=copy_output, args=(process.stdout, log, secrets))
        copying.daemon = True
        copying.start()
        how, code = _watch(process, until)
        end_marked(mark)
        copying.join(GRACE)
    return {"how": how, "code": code}


def _watch(process: "subprocess.Popen[bytes]", until: float) -> tuple[str, int | None]:
    while (code := process.poll()) is None:
        if time.monotonic() > until:
            return TIMED_OUT, None
        if select.select([0], [], [], POLL)[0] and not os.read(0, 1):
            return STOPPED, None
    return ENDED, code


def main() -> None:
    """Read a job, leave whoever started this, and keep the job's program."""
    global _supervising
    job = json.loads(sys.stdin.buffer.readline())
    if os.fork():
        os._exit(0)  # a worker's children are ended with it; this one ends its program first
    os.setsid()
    _supervising = True
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os.dup2(os.open(os.devnull, os.O_RDONLY), 0))
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(SUBREAPER, 1)
    sys.stdout.write(json.dumps(supervise(job)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
