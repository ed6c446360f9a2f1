"""One attempt at a run by a program of others: started, followed, ended in time, its log kept."""

import contextlib
import dataclasses
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuvee.mixtures.errors import TrainingError
from cuvee.mixtures.units import duration_text
from cuvee.proxies.train.device import WORKER_ENVIRONMENT
from cuvee.tasks.process import HOME_MARK, RUN_MARK, outer_environment
from cuvee.tasks.trainer import supervisor
from cuvee.tasks.trainer.contract import PROGRESS, Point, ProgressFile
from cuvee.tasks.trainer.program import TrainerProgram

LOG = "trainer{}.log"
POLL_SECONDS = 0.5
TAIL_LINES, TAIL_BYTES = 12, 1500  # of a log in a message
OURS = ("RAY_", "CUVEE_STORE", "CUVEE_WEBHOOK")  # how variables begin that are not the trainer's


@dataclasses.dataclass(frozen=True)
class NodePlace:
    """Which of the nodes of a run this is, and where they meet.

    Attributes:
        rank: from 0, which writes the result.
        address, port: of the node of rank 0, where the trainer's own processes can meet.
    """

    rank: int = 0
    address: str = "127.0.0.1"
    port: int = 0


def run_program(
    program: TrainerProgram,
    run: Path,
    follow: Callable[[list[Point]], None],
    *,
    check: Callable[[], None] = lambda: None,
    node: NodePlace = NodePlace(),
) -> None:
    """Run a trainer once, until it ends.

    Args:
        program: the trainer.
        run: path of run.json, whose directory it is in.
        follow: is given what progress.jsonl gets, as it comes.
        check: raises where the run was told to stop; called twice a second.
        node: this one.

    Raises:
        TrainingError: it failed, took too long, or did not start; with the end of its log.
    """
    log = run.parent / LOG.format(f"-{node.rank}" if node.rank else "")
    job = {
        "command": program.words(run, _node_words(node)),
        "environment": trainer_environment(program, run, node),
        "folder": str(run.parent),
        "log": str(log),
        "mark": f"{run.parent}{f' of node {node.rank}' if node.rank else ''}",
        "secrets": list(program.secrets),
        "timeout": program.timeout,
    }
    progress = ProgressFile(run.parent / PROGRESS)
    progress.points()  # of an earlier attempt: they were told
    with _supervised(job, log) as ended:
        while (report := ended()) is None:
            check()
            if node.rank == 0 and (points := progress.points()):
                follow(points)
    if points := progress.points() if node.rank == 0 else []:
        follow(points)
    if report.get("how") != supervisor.ENDED or report["code"] != 0:
        raise TrainingError(_failure(program, report, log))


def trainer_environment(program: TrainerProgram, run: Path, node: NodePlace) -> dict[str, str]:
    """What a trainer finds in its environment: the machine's, its devices, the recipe's, the run.

    What Cuvée and Ray set for their own workers is left out: threads, being off line, tokens.
    """
    outer = outer_environment()
    for name in (HOME_MARK, RUN_MARK):  # by which leftovers are known
        if name in os.environ:
            outer[name] = os.environ[name]
    kept = {
        name: value
        for name, value in outer.items()
        if not name.startswith(OURS) and WORKER_ENVIRONMENT.get(name) != value
    }
    threads = {"OMP_NUM_THREADS": str(max(1, math.floor(program.cpus)))}
    mine = {"CUVEE_RUN_JSON": str(run), "CUVEE_NODE_RANK": str(node.rank)}
    return {**kept, **threads, **program.environment, **mine}


def log_tail(path: Path) -> str:
    """The last lines of a log, for a message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.rsplit("\r", 1)[-1].rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-TAIL_LINES:])


def _node_words(node: NodePlace) -> dict[str, object]:
    return {
        "node_rank": node.rank,
        "master_address": node.address,
        "master_port": node.port,
    }


@contextmanager
def _supervised(job: Mapping[str, Any], log: Path) -> Iterator[Callable[[], dict[str, Any] | None]]:
    """A trainer under a supervisor; gives what tells how it ended, None as long as it has not.

    When it is left the trainer has ended, whatever was raised.
    """
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", supervisor.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert process.stdin is not None and process.stdout is not None
    said, heard = b"", process.stdout.fileno()

    def ended() -> dict[str, Any] | None:
        nonlocal said
        if not select.select([heard], [], [], POLL_SECONDS)[0]:
            return None
        block = os.read(heard, 1 << 16)
        said += block
        if block and not said.endswith(b"\n"):
            return None
        report: dict[str, Any] = json.loads(said) if said.endswith(b"\n") else {}
        return report

    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode() + b"\n")
            process.stdin.flush()
        yield ended
    finally:
        with contextlib.suppress(OSError):
            process.stdin.close()  # which the supervisor takes for the word to stop
        until = time.monotonic() + 2 * supervisor.GRACE
        while not said.endswith(b"\n") and time.monotonic() < until and ended() is None:
            pass
        process.stdout.close()
        process.wait()
        supervisor.end_marked(job["mark"], 0.0)  # where the supervisor itself was killed


def _failure(program: TrainerProgram, report: Mapping[str, Any], log: Path) -> str:
    """Why an attempt failed, with the end of its log."""
    how, code = report.get("how"), report.get("code")
    if how == supervisor.NOT_STARTED:
        return f"{program.command[0]} does not start: {report['said']}"
    if how == supervisor.TIMED_OUT:
        what = (
            f"was ended after {duration_text(program.timeout)}, its limit (proxy.trainer.timeout)"
        )
    elif how != supervisor.ENDED or code is None:
        what = "was ended from outside"
    elif code < 0:
        what = f"was killed by {_signal_name(-code)}" + (
            " (out of memory?)" if -code == signal.SIGKILL else ""
        )
    else:
        what = f"ended with code {code}"
    tail = log_tail(log)
    return f"the trainer {program.name} {what}. The end of {log}:\n{tail}"


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
