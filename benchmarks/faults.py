"""Faults at random moments: after each, the rerun must give the undisturbed study's results.

A small study of real proxies runs against real servers on 127.0.0.1 (PostgreSQL, Prefect, MLflow,
two Ray nodes). It is run undisturbed first. Then every trial runs it anew in an empty store, does
one thing to it at a random moment (`fault_kinds.py`), and runs it again in peace, which is compared
with the undisturbed study (`fault_judge.py`): `lost`, `double_counted`, `corrupt_used`. A rerun
that fails, a command that ends in a traceback and one that does not end are counted too. A fault
that came too late to disturb anything is no trial: another moment is drawn (`missed`).

Usage: python benchmarks/faults.py [--trials 52] [--seed 0] [--kinds ...] [--before COMMAND], where
a command, if given, is run before each trial and may wait. The last line is JSON. Needs root, to
mount a small file system that can be filled, PostgreSQL's programs, and libfaketime.
"""

import argparse
import collections
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fault_judge import Facts, facts, judge, results
from fault_kinds import FAKETIME, KINDS
from fault_servers import Servers
from fault_study import LONG, PACKED, SINGLE, Kind, Trial
from sweep import write_corpus

TRIES = 6  # moments drawn for one trial before its kind is given up
KEYS = ("trials", "lost", "double_counted", "corrupt_used", "reruns_failed", "tracebacks", "hangs",
        "missed")  # fmt: skip


@dataclass(frozen=True)
class Truth:
    """An undisturbed study: its facts, how long it took, and the home it was made in."""

    facts: Facts
    seconds: float
    home: Path


@contextmanager
def prepared(folder: Path) -> Iterator[tuple[Servers, dict[str, Truth]]]:
    """The servers, and every kind of study undisturbed."""
    write_corpus(folder / "corpus")
    with Servers(folder / "servers") as servers:
        truths: dict[str, Truth] = {}
        for kind in (SINGLE, PACKED, LONG):
            source = truths[SINGLE.name].home if truths else None
            trial = Trial(folder / kind.name, kind, np.random.default_rng(0), 0, servers.settings)
            trial.make(folder / "corpus", source)
            words = ("run",) if source else ("plan", "run")  # a plan prepares the corpus
            for word in words:
                began = time.monotonic()
                if trial.finish(trial.start(word=word)).status:
                    raise SystemExit(f"the undisturbed study failed:\n{trial.notes[-1]}")
            seconds = time.monotonic() - began
            found = facts(trial.home, trial.store, servers.recorded(trial.name))
            flaws = judge(found, {}, found)
            if flaws or not found.results:
                raise SystemExit(f"the undisturbed study is not whole: {dict(flaws)}")
            truths[kind.name] = Truth(found, seconds, trial.home)
            print(f"undisturbed, {kind}: {len(found.results)} proxies, {seconds:.0f} s", flush=True)
        yield servers, truths


def once(
    trial: Trial, fault: str, servers: Servers, truth: Facts
) -> tuple[bool, collections.Counter[str]]:
    """Disturb a study, run it again in peace, and judge; whether the fault was met, and flaws."""
    count: collections.Counter[str] = collections.Counter()
    met = KINDS[fault][0](trial, servers)
    servers.mend()
    if not met.hit:
        return False, count
    before = results(trial.store)
    again = trial.finish(trial.start())
    if again.status:
        count["reruns_failed"] += 1
    else:
        record = servers.recorded(trial.name)
        count = judge(truth, before, facts(trial.home, trial.store, record))
    for ended in (met.ended, again):
        count["tracebacks"] += ended.traceback
        count["hangs"] += ended.hang
    count["double_counted"] += met.doubled
    states = f"ended with {met.ended.status}, {len(before)} of {len(truth.results)} results kept"
    trial.notes.insert(0, states)
    return True, +count


def campaign(
    kinds: list[str], trials: range, seed: int, before: str
) -> Iterator[tuple[str, collections.Counter[str]]]:
    """Run the trials; yields the kind of each, and what was found ("missed" alone: no trial)."""
    with tempfile.TemporaryDirectory(prefix="cuvee-faults-") as name:
        Path(name).chmod(0o711)  # PostgreSQL's user passes to its data, where this is run by root
        folder = Path(name)
        with prepared(folder) as (servers, truths):
            for i in trials:
                fault = kinds[i % len(kinds)]
                for attempt in range(TRIES):
                    if before:
                        subprocess.run(shlex.split(before), check=True)
                    rng = np.random.default_rng([seed, i, attempt])
                    kind = _chosen(KINDS[fault][1], rng)
                    truth = truths[kind.name]
                    place = folder / f"trial-{i}-{attempt}"
                    trial = Trial(place, kind, rng, truth.seconds, servers.settings)
                    trial.make(folder / "corpus", truth.home)
                    began = time.monotonic()
                    try:
                        hit, count = once(trial, fault, servers, truth.facts)
                    except BaseException:  # the campaign itself is ended
                        trial.forget()
                        raise
                    said = {k: v for k, v in count.items() if v} or "as undisturbed"
                    line = f"{i:3} {fault:11} {kind.name:7} {time.monotonic() - began:4.0f} s"
                    print(
                        f"{line}  {said if hit else 'missed'}; {' '.join(trial.notes[:1])[:200]}",
                        flush=True,
                    )
                    if hit and +count:
                        print("\n".join(trial.notes), flush=True)
                    trial.forget()
                    yield fault, count if hit else collections.Counter(missed=1)
                    if hit:
                        break


def _chosen(options: tuple[Kind, ...], rng: np.random.Generator) -> Kind:
    return options[int(rng.integers(len(options)))]


def usable(kinds: list[str]) -> list[str]:
    """The kinds of faults that can be made on this machine."""
    missing = set()
    if not FAKETIME.exists():
        missing.add("clock")
    if os.geteuid() != 0 or shutil.which("mount") is None:
        missing.add("disk")
    print(f"left out on this machine: {', '.join(sorted(missing & set(kinds))) or 'nothing'}")
    return [kind for kind in kinds if kind not in missing]


def tally(found: Iterator[tuple[str, collections.Counter[str]]]) -> dict[str, Any]:
    """The figures of a campaign: totals, and trials by kind."""
    total: collections.Counter[str] = collections.Counter()
    by_kind: collections.Counter[str] = collections.Counter()
    for fault, count in found:
        total += count
        if not count["missed"]:
            total["trials"] += 1
            by_kind[fault] += 1
    figures: Mapping[str, Any] = {key: total[key] for key in KEYS}
    return {**figures, "kinds": dict(by_kind)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=52)
    parser.add_argument("--first", type=int, default=0, help="number of the first trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--before", default="", metavar="COMMAND")
    given = parser.parse_args()
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began, trials = time.monotonic(), range(given.first, given.first + given.trials)
    figures = tally(campaign(usable(given.kinds), trials, given.seed, given.before))
    print(f"{(time.monotonic() - began) / 60:.0f} minutes")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
