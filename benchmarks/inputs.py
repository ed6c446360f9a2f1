"""Generated recipes and tables, valid and broken: what the readers accept, refuse, or choke on.

Half of the inputs are recipes, half are pairs of CSV tables with a recipe that reads them. Each is
built valid from random parts; then, for two of three, one thing is broken of which it is known that
no reader may accept it. A third are files damaged at random, of which nothing is known: they may be
read or refused. An input counts as

* accepted or refused, when the reader returns or raises a `CuveeError` in one line;
* a traceback, when anything else is raised, and a hang, when it takes over `PATIENCE` seconds;
* wrong, when a broken input is accepted, a valid one refused, or a valid table is read as other
  numbers than were written.

Usage: python benchmarks/inputs.py [--count 12000] [--seed 0]. The last line is JSON.
"""

import argparse
import collections
import copy
import json
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from input_recipes import (
    BREAK_RECIPE,
    dump,
    mangled,
    pick,
    read_file,
    read_recipe,
    valid_recipe,
)
from input_tables import BREAK_TABLES, read_pair, same_numbers, valid_tables, write_tables

from cuvee.mixtures.errors import CuveeError

PATIENCE = 10.0
SHOWN = 2  # examples of each kind of defect


class Hang(Exception):
    """An input took longer than `PATIENCE`."""


class Tally:
    """What became of the inputs, and examples of what should not have happened."""

    def __init__(self) -> None:
        self.count: collections.Counter[str] = collections.Counter()
        self.kinds: dict[str, collections.Counter[str]] = collections.defaultdict(
            collections.Counter
        )
        self.seen: collections.Counter[tuple[str, str]] = collections.Counter()
        self.examples: list[str] = []

    def tried(self, kind: str, act: Callable[[], bool], text: str, *, valid: bool | None) -> None:
        """Try one input; `act` returns whether what was read is what was written.

        `valid` is None where it is not known whether the input is.
        """
        self.add("inputs_tried", kind)
        began = time.process_time()
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            right = act()
        except Hang:
            self.note("hangs", kind, text)
        except CuveeError as error:
            self.add("refused", kind)
            if valid:
                self.note("wrong_refusals", kind, f"{error}\n{text}")
            elif "\n" in str(error) or not str(error):
                self.note("long_messages", kind, f"{error}\n{text}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            last = traceback.format_exception_only(error)[-1].strip()
            frame = traceback.extract_tb(error.__traceback__)[-1]
            self.note("tracebacks", kind, f"{last} ({frame.filename}:{frame.lineno})\n{text}")
        else:
            self.add("accepted", kind)
            if valid is False:
                self.note("wrong_acceptances", kind, text)
            elif not right:
                self.note("misread", kind, text)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if time.process_time() - began > PATIENCE:  # where the alarm was lost, as in a callback
            self.note("hangs", kind, text)

    def add(self, what: str, kind: str) -> None:
        """Count what became of an input."""
        self.count[what] += 1
        self.kinds[kind][what] += 1

    def note(self, what: str, kind: str, text: str) -> None:
        """Count a defect and keep an example."""
        self.add(what, kind)
        self.seen[what, kind] += 1
        if self.seen[what, kind] <= SHOWN:
            self.examples.append(f"[{what}: {kind}]\n{text[:700]}")


def mangled_recipe(tally: Tally, rng: np.random.Generator, folder: Path) -> None:
    """One recipe's file, damaged."""
    raw = mangled(dump(valid_recipe(rng)).encode(), rng)
    path = folder / "mangled.yaml"
    path.write_bytes(raw)

    def act() -> bool:
        read_file(path)
        return True

    tally.tried("mangled recipe", act, repr(raw), valid=None)


def mangled_tables(tally: Tally, rng: np.random.Generator, folder: Path) -> None:
    """One pair of tables, the file of one of them damaged."""
    text = write_tables(valid_tables(rng), folder, rng)
    path = folder / pick(rng, ("mixtures.csv", "scores.csv"))
    raw = mangled(path.read_bytes(), rng)
    path.write_bytes(raw)

    def act() -> bool:
        read_pair(text)
        return True

    tally.tried("mangled tables", act, repr(raw), valid=None)


def recipe_once(tally: Tally, rng: np.random.Generator) -> None:
    """One generated recipe."""
    values = valid_recipe(rng)
    broken = pick(rng, (None, *BREAK_RECIPE, *BREAK_RECIPE)) if rng.random() < 0.67 else None
    text = broken(values, rng) if broken else dump(values)

    def act() -> bool:
        read_recipe(text)
        return True

    tally.tried(broken.__name__ if broken else "valid recipe", act, text, valid=broken is None)


def tables_once(tally: Tally, rng: np.random.Generator, folder: Path) -> None:
    """One generated pair of tables."""
    tables = valid_tables(rng)
    broken = pick(rng, BREAK_TABLES) if rng.random() < 0.67 else None
    if broken:
        before = copy.deepcopy(tables)
        broken(tables, rng)
        if tables == before:
            broken = None
    text = write_tables(tables, folder, rng)

    def act() -> bool:
        joined = read_pair(text)
        return broken is not None or same_numbers(tables, joined)

    shown = "\n".join(",".join(row) for rows in tables for row in rows[:4])
    tally.tried(broken.__name__ if broken else "valid tables", act, shown, valid=broken is None)


def campaign(count: int, seed: int) -> Tally:
    """Try `count` inputs, half recipes and half tables, a third of both damaged files."""
    tally = Tally()

    def late(_number: int, _frame: Any) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, late)
    with tempfile.TemporaryDirectory(prefix="cuvee-inputs-") as name:
        for i in range(count):
            rng = np.random.default_rng([seed, i])
            if i % 6 == 4:
                mangled_recipe(tally, rng, Path(name))
            elif i % 6 == 5:
                mangled_tables(tally, rng, Path(name))
            elif i % 2:
                tables_once(tally, rng, Path(name))
            else:
                recipe_once(tally, rng)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began = time.perf_counter()
    tally = campaign(given.count, given.seed)
    for example in tally.examples:
        print(example, end="\n\n")
    keys = ("inputs_tried", "accepted", "refused", "tracebacks", "hangs", "wrong_acceptances",
            "wrong_refusals", "misread", "long_messages")  # fmt: skip
    found = {key: tally.count[key] for key in keys}
    for key, value in found.items():
        print(f"{key:20}{value:8}")
    print(f"{time.perf_counter() - began:.0f} s")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
