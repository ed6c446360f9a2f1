"""A command of `cuvee` as tests call it in their own process, which has imported everything."""

import contextlib
import os
import signal
import subprocess
import traceback
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner

ROOT = Path(__file__).parent.parent


def inside(*words: str, home: Path, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """What a command says in a folder, and its exit code; an exception as a person would see it."""
    from cuvee.flows.cli.main import app

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with mock.patch.dict(os.environ), contextlib.chdir(folder):
            done = CliRunner().invoke(app, [*words, "--home", str(home)])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    said = done.stderr + ("" if done.exception is None else _trace(done.exc_info))
    return subprocess.CompletedProcess(words, done.exit_code, done.stdout, said)


def _trace(exc_info: tuple) -> str:
    """What a person would see of an exception; nothing of an exit."""
    if issubclass(exc_info[0], SystemExit):
        return ""
    return "".join(traceback.format_exception(*exc_info))
