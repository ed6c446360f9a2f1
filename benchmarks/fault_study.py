"""The study that `faults.py` disturbs: its corpus and recipe, and the commands that run it.

A trial is an empty home with a copy of the prepared corpus, a recipe under a name of its own, and
what may be done to it: start `cuvee run`, let a random part of an undisturbed run pass, wait for a
command and note how it ended.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

PATIENCE = 420.0  # seconds after which a command counts as hanging
ROOT = Path(__file__).resolve().parent.parent
RECIPE = """\
name: {name}
seed: 5
corpus:
  vocabulary: 512
  heldout_bytes: 20000
  domains:
    code: {{path: {corpus}/code.jsonl}}
    manual: {{path: {corpus}/manual.jsonl}}
    figures: {{path: {corpus}/figures.jsonl}}
proxy: {{size: 0.3M, tokens: {tokens}, precision: float32, pack: {pack}}}
evaluation: {{suite: null, heldout_tokens: 2048}}
objective: {{name: mean, weights: {{domain/manual: 1}}}}
full_scale: {{tokens: 1M}}
method: {{name: regmix, runs: 5, seeds: 1, laws: [linear], search: auto, folds: 5, refits: 10}}
"""
# Where the clock jumps between the reckoning of a sleep's end and the sleep, libfaketime hands the
# kernel a time below zero. A real clock that is set back does no such thing, so it is no traceback.
SLEEP = re.compile(
    r"Traceback \(most recent call last\):\n(?:  .*\n)*?    time\.sleep\(.*\)\n"
    r"OSError: \[Errno 22\] Invalid argument"
)
SHIM = """\
import sys
sys.path.insert(0, {here!r})
import flaky
flaky.register({seed}, {log!r})
from cuvee.flows.cli.main import main
main()
"""


@dataclass(frozen=True)
class Kind:
    """A kind of study: how long its proxies train, and how many together."""

    name: str
    tokens: int
    pack: int


SINGLE = Kind("single", 41_000, 1)  # seven packs of one proxy
PACKED = Kind("packed", 41_000, 4)  # two packs
LONG = Kind("long", 164_000, 8)  # one pack, long enough for checkpoints


@dataclass
class Ended:
    """How a command ended: its status, whether it hung, and whether it broke off in a traceback."""

    status: int
    hang: bool = False
    traceback: bool = False


@dataclass
class Trial:
    """One disturbed study and what it may touch.

    Attributes:
        folder: of this trial alone.
        kind: of its study.
        rng: the only source of chance.
        seconds: that an undisturbed study takes.
        settings: environment of its commands, beside this process's own.
        notes: what was done and what the commands said, for the log.
        started: its commands.
    """

    folder: Path
    kind: Kind
    rng: np.random.Generator
    seconds: float
    settings: Mapping[str, str]
    notes: list[str] = field(default_factory=list)
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def home(self) -> Path:
        """The home of its commands."""
        return self.folder / "home"

    @property
    def store(self) -> Path:
        """Folder of its results."""
        return self.home / "store"

    @property
    def name(self) -> str:
        """Of the study."""
        return self.folder.name

    @property
    def recipe(self) -> Path:
        """The study's recipe."""
        return self.folder / f"{self.name}.yaml"

    def make(self, corpus: Path, source: Path | None = None) -> "Trial":
        """Write the recipe over a corpus, and copy what was prepared in a source home, if any."""
        self.home.mkdir(parents=True)
        if source:
            shutil.copytree(source / "corpora", self.home / "corpora")
        text = RECIPE.format(
            name=self.name, corpus=corpus, tokens=self.kind.tokens, pack=self.kind.pack
        )
        self.recipe.write_text(text, encoding="utf-8")
        return self

    def start(
        self,
        *,
        word: str = "run",
        shim: str = "",
        home: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """`cuvee run`, or another word, in a session of its own; what it says goes to a file."""
        place = home or self.home
        module = ["-c", shim] if shim else ["-m", "cuvee.flows"]
        command = [sys.executable, *module, word, str(self.recipe), "--home", str(place)]
        environment = {**os.environ, "CUVEE_STORE": str(place / "store"), **self.settings}
        paths = [str(ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        environment |= settings or {}
        with open(self.folder / f"{place.name}.log", "w", encoding="utf-8") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={name: value for name, value in environment.items() if value},
                cwd=self.folder,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def finish(self, process: subprocess.Popen[str], home: Path | None = None) -> Ended:
        """Wait for a command."""
        ended, waited = Ended(0), 0.0
        while process.poll() is None and waited < PATIENCE:
            with suppress(psutil.Error, subprocess.TimeoutExpired):
                halted = psutil.Process(process.pid).status() == psutil.STATUS_STOPPED
                waited += 0.0 if halted else 0.2  # whom somebody halts does not hang
                process.wait(timeout=0.2)
        if process.poll() is None:
            end(process)
            ended.hang = True
        ended.status = process.returncode
        said = (self.folder / f"{(home or self.home).name}.log").read_text(errors="replace")
        said = SLEEP.sub("libfaketime broke a sleep", said)
        ended.traceback = "Traceback (most recent call last)" in said
        words = said if ended.traceback or ended.hang else said[-600:]
        self.notes.append(f"ended with {ended.status}: {words[-4000:]}")
        return ended

    def moment(self) -> None:
        """Let a random part of an undisturbed run pass."""
        time.sleep(float(self.rng.uniform(0.05, 0.85)) * self.seconds)

    def forget(self) -> None:
        """End whatever is left of it and remove its folder."""
        for command in self.started:
            if command.poll() is None:
                end(command)
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("CUVEE_HOME_IN_USE", "").startswith(str(self.folder)):
                    process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def end(process: subprocess.Popen[str]) -> None:
    """Kill a command and everything that it started."""
    kill_tree(process.pid)
    process.wait()


def kill_tree(pid: int) -> None:
    """SIGKILL of a process and of everything below it."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    with suppress(psutil.NoSuchProcess):
        psutil.Process(pid).kill()
