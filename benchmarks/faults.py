"""Faults at random moments: after each, the rerun must give the undisturbed study's results.

A small study of real proxies runs against servers on 127.0.0.1 (PostgreSQL if it is installed, a
Prefect server, an MLflow server, a local Ray). It is run once undisturbed. Then every trial runs it
anew in an empty store, does one thing to it at a random moment, and runs it again in peace. Of the
second run it is asked whether

* a result is missing, or was lost after it had been reported (`lost`),
* a proxy was trained twice by two sweeps, or counted twice in a record (`double_counted`),
* a result or the recommendation differs from the undisturbed one in any bit (`corrupt_used`).

A command that ends in a traceback or does not end is counted too. Usage: python
benchmarks/faults.py [--trials 55] [--seed 0] [--kinds ...]. The last line is JSON. The trials take
about half an hour on two cores; `benchmarks/inputs.py` and `benchmarks/records.py` print the other
figures of the campaign.
"""

import argparse
import collections
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from servers import Servers
from sweep import write_corpus

FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
PATIENCE = 600.0  # seconds after which a command counts as hanging
RECIPE = """\
name: {name}
seed: 5
corpus:
  vocabulary: 512
  heldout_bytes: 20000
  domains:
    code: {{path: {folder}/code.jsonl}}
    manual: {{path: {folder}/manual.jsonl}}
    figures: {{path: {folder}/figures.jsonl}}
proxy: {{size: 0.3M, tokens: 120000, precision: float32}}
evaluation: {{suite: null, heldout_tokens: 2048}}
objective: {{name: mean, weights: {{domain/manual: 1}}}}
full_scale: {{tokens: 1M}}
method: {{name: mixing_laws, runs: 7, seeds: 1, folds: 2, refits: 10}}
"""
SHIM = """\
import sys
sys.path.insert(0, {here!r})
import flaky
flaky.register({seed})
from flows.__main__ import main
main()
"""


@dataclass
class Trial:
    """One disturbed run and what it may touch.

    Attributes:
        home: of this trial alone; its corpus is a copy.
        recipe: the study, under a name of its own.
        rng: the only source of chance.
        servers: what the study talks to.
        notes: what the commands said, for the log.
    """

    home: Path
    recipe: Path
    rng: np.random.Generator
    servers: Servers
    notes: list[str] = field(default_factory=list)

    @property
    def store(self) -> Path:
        """Folder of the results."""
        return self.home / "store"

    def start(
        self, *, shim: str = "", home: Path | None = None, **settings: str
    ) -> subprocess.Popen[str]:
        """`cuvee run`, in a process group of its own."""
        module = ["-c", shim] if shim else ["-m", "flows"]
        command = [
            sys.executable,
            *module,
            "run",
            str(self.recipe),
            "--home",
            str(home or self.home),
        ]
        return subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **self.servers.urls, **settings},
            start_new_session=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> int:
        """Wait for a command; returns its exit status, -99 for a hang, -98 for a traceback."""
        try:
            said, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            end(process)
            self.notes.append("hang")
            return -99
        self.notes.append(said[-600:])
        if "Traceback (most recent call last)" in said:
            return -98
        return process.returncode

    def moment(self) -> None:
        """Let a random part of an undisturbed run pass."""
        time.sleep(float(self.rng.uniform(0.02, 1.0)) * self.servers.seconds)


def end(process: subprocess.Popen[str]) -> None:
    """Kill a command and everything that it started."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    process.kill()
    process.communicate()


def kill_named(trial: Trial, process: subprocess.Popen[str], words: tuple[str, ...]) -> None:
    """Kill a random process under a command whose command line has one of the words."""
    with suppress(psutil.NoSuchProcess):
        every = psutil.Process(process.pid).children(recursive=True)
        found = [p for p in every if any(w in " ".join(p.cmdline() or [p.name()]) for w in words)]
        if found:
            found[int(trial.rng.integers(len(found)))].kill()
        else:
            trial.notes.append(f"no {words[0]} to kill yet")


# --- what is done to a study ------------------------------------------------------------------


def flow(trial: Trial) -> int:
    """SIGKILL of the flow's process."""
    process = trial.start()
    trial.moment()
    process.kill()
    process.communicate()
    return 0


def worker(trial: Trial) -> int:
    """SIGKILL of a Ray worker."""
    process = trial.start()
    trial.moment()
    kill_named(trial, process, ("ray::pack", "ray::"))
    return trial.finish(process)


def node(trial: Trial) -> int:
    """SIGKILL of the raylet, which is the Ray node."""
    process = trial.start()
    trial.moment()
    kill_named(trial, process, ("raylet/raylet",))
    return trial.finish(process)


def _server(name: str) -> Callable[[Trial], int]:
    def fault(trial: Trial) -> int:
        process = trial.start()
        trial.moment()
        trial.servers.kill(name)
        status = trial.finish(process)
        trial.servers.restart(name)
        return status

    fault.__doc__ = f"SIGKILL of {name}."
    return fault


def disk(trial: Trial) -> int:
    """The disk runs full: the home lies on a small file system, which something else fills."""
    mounted = trial.home.parent / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(mounted)], check=True)
    try:
        shutil.copytree(trial.home, mounted / "home", dirs_exist_ok=True)
        process = trial.start(home=mounted / "home")
        trial.moment()
        with suppress(OSError), open(mounted / "filler", "wb") as filler:
            while True:
                filler.write(bytes(1 << 20))
                filler.flush()
        status = trial.finish(process)
        (mounted / "filler").unlink()
        shutil.rmtree(trial.home)
        shutil.copytree(
            mounted / "home", trial.home, ignore=shutil.ignore_patterns("ray", "sockets")
        )
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=False)
    return status


def _damage(trial: Trial, places: tuple[str, ...]) -> None:
    """Flip bytes of a random file under one of the places, or cut it."""
    files = [
        p
        for place in places
        for p in (trial.home / place).rglob("*")
        if p.is_file() and p.stat().st_size
    ]
    if not files:
        trial.notes.append("nothing to damage yet")
        return
    path = sorted(files)[int(trial.rng.integers(len(files)))]
    raw = bytearray(path.read_bytes())
    at = int(trial.rng.integers(len(raw)))
    if trial.rng.random() < 0.4:
        raw = raw[:at]
    else:
        for i in range(at, min(len(raw), at + int(trial.rng.integers(1, 9)))):
            raw[i] ^= int(trial.rng.integers(1, 256))
    path.write_bytes(bytes(raw))
    trial.notes.append(f"damaged {path.relative_to(trial.home)} at byte {at}")


def bytes_(trial: Trial) -> int:
    """The flow is killed, and bytes of shards, checkpoints or results are flipped or cut."""
    status = flow(trial)
    places = (("corpora",), ("checkpoints",), ("store",), ("corpora", "checkpoints", "store"))
    for _ in range(3):
        _damage(trial, places[int(trial.rng.integers(len(places)))])
    return status


def store(trial: Trial) -> int:
    """Reads and writes of the store fail, or are stale, each now and then."""
    seed = int(trial.rng.integers(2**31))
    shim = SHIM.format(here=str(Path(__file__).parent), seed=seed)
    return trial.finish(trial.start(shim=shim, CUVEE_STORE=f"flaky://{trial.store}"))


def two(trial: Trial) -> int:
    """Two sweeps at once on one store, from two homes, the second a moment later."""
    other = trial.home.parent / "other"
    shutil.copytree(trial.home, other)
    shared = {"CUVEE_STORE": str(trial.store)}
    first = trial.start(**shared)
    time.sleep(float(trial.rng.uniform(0, 0.5)) * trial.servers.seconds)
    second = trial.start(home=other, **shared)
    statuses = trial.finish(first), trial.finish(second)
    trained = [summary(home).get("trained_now", 0) for home in (trial.home, other)]
    total = trial.servers.proxies
    if sum(trained) > total and statuses == (0, 0):
        trial.notes.append(f"trained {trained} of {total}")
        return -97
    return min(statuses)


def clock(trial: Trial) -> int:
    """The clock is set back by up to a day between a killed run and the next."""
    status = flow(trial)
    back = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"-{int(trial.rng.integers(60, 86400))}s"}
    back["FAKETIME_DONT_FAKE_MONOTONIC"] = "1"
    process = trial.start(**back)
    trial.moment()
    process.kill()
    process.communicate()
    return status


KINDS: dict[str, Callable[[Trial], int]] = {
    "flow": flow,
    "worker": worker,
    "node": node,
    "mlflow": _server("mlflow"),
    "prefect": _server("prefect"),
    "postgresql": _server("postgresql"),
    "disk": disk,
    "bytes": bytes_,
    "store": store,
    "two": two,
    "clock": clock,
}


# --- what is asked afterwards -----------------------------------------------------------------


def summary(home: Path) -> dict[str, Any]:
    """A study's summary; empty where it has none."""
    found = sorted(home.glob("studies/*/summary.json"))
    return dict(json.loads(found[0].read_text(encoding="utf-8"))) if found else {}


def results(folder: Path) -> dict[str, str]:
    """What every result says, by fingerprint, without the times that it took."""
    found = {}
    for path in sorted(folder.glob("runs/*/result.json")):
        content = json.loads(path.read_text(encoding="utf-8"))["content"]
        content = {k: v for k, v in content.items() if k not in ("seconds", "scoring_seconds")}
        found[path.parent.name] = json.dumps(content, sort_keys=True)
    return found


def verdict(trial: Trial, truth: dict[str, str], shares: Any) -> collections.Counter[str]:
    """What the rerun in peace shows."""
    count: collections.Counter[str] = collections.Counter()
    status = trial.finish(trial.start())
    if status:
        trial.notes.append(f"the rerun ended with {status}")
        count["reruns_failed"] += 1
        return count
    found, said = results(trial.store), summary(trial.home)
    count["lost"] = len(set(truth) - set(found))
    count["corrupt_used"] = sum(found[k] != truth[k] for k in set(truth) & set(found))
    count["corrupt_used"] += said.get("weights") != shares
    count["double_counted"] = len(set(found) - set(truth))
    count["double_counted"] += abs(int(said.get("proxies", 0)) - len(truth))
    count["double_counted"] += trial.servers.recorded(trial.recipe.stem) != len(truth)
    return count


@contextmanager
def prepared(folder: Path) -> Iterator[tuple[Servers, Path, dict[str, str], Any]]:
    """The servers, an undisturbed home, its results and its recommended shares."""
    write_corpus(folder / "corpus")
    with Servers(folder / "servers") as servers:
        first = trial_in(folder, "undisturbed", servers, np.random.default_rng(0), None)
        for _ in range(2):  # the second is timed: corpus and caches are warm, as in the trials
            shutil.rmtree(first.store, ignore_errors=True)
            began = time.monotonic()
            status = first.finish(first.start())
            servers.seconds = time.monotonic() - began
            if status:
                raise SystemExit(f"the undisturbed study failed:\n{first.notes[-1]}")
        truth, said = results(first.store), summary(first.home)
        servers.proxies = len(truth)
        yield servers, first.home, truth, said["weights"]


def trial_in(
    folder: Path, name: str, servers: Servers, rng: np.random.Generator, source: Path | None
) -> Trial:
    """A trial in an empty home that has, if given, the corpus of another."""
    root = folder / name
    (root / "home").mkdir(parents=True)
    if source:
        shutil.copytree(source / "corpora", root / "home" / "corpora")
    recipe = root / f"{name}.yaml"
    recipe.write_text(RECIPE.format(name=name, folder=folder / "corpus"), encoding="utf-8")
    return Trial(root / "home", recipe, rng, servers)


def campaign(
    kinds: list[str], trials: int, seed: int
) -> tuple[collections.Counter[str], dict[str, int]]:
    """Run the trials; returns the counts and the trials by kind."""
    total: collections.Counter[str] = collections.Counter()
    by_kind: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="cuvee-faults-") as name:
        folder = Path(name)
        with prepared(folder) as (servers, home, truth, shares):
            usable = [kind for kind in kinds if servers.can(kind)]
            left_out = sorted(set(kinds) - set(usable))
            print(f"undisturbed: {len(truth)} proxies, {servers.seconds:.1f} s, {servers.database}")
            print(f"left out on this machine: {', '.join(left_out) or 'nothing'}", flush=True)
            for i in range(trials):
                kind = usable[i % len(usable)]
                rng = np.random.default_rng([seed, i])
                trial = trial_in(folder, f"trial-{i}", servers, rng, home)
                status = KINDS[kind](trial)
                there = len(results(trial.store)) if kind != "bytes" else -1
                count = verdict(trial, truth, shares)
                count["tracebacks"] += status == -98
                count["hangs"] += status == -99
                count["double_counted"] += status == -97
                total += count
                total["trials"] += 1
                by_kind[kind] += 1
                bad = {k: v for k, v in count.items() if v}
                line = f"{i:3} {kind:11} status {status:4}, {there:2} results before the rerun"
                print(f"{line}, {bad or 'as undisturbed'}", flush=True)
                if bad:
                    print("\n".join(trial.notes), flush=True)
                shutil.rmtree(folder / f"trial-{i}", ignore_errors=True)
    return total, dict(by_kind)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=55)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    total, by_kind = campaign(given.kinds, given.trials, given.seed)
    keys = (
        "trials",
        "lost",
        "double_counted",
        "corrupt_used",
        "reruns_failed",
        "tracebacks",
        "hangs",
    )
    found: dict[str, Any] = {key: total[key] for key in keys}
    print(f"{(time.monotonic() - began) / 60:.0f} minutes")
    print(json.dumps({**found, "kinds": by_kind}))


if __name__ == "__main__":
    main()
