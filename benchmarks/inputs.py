"""Generated recipes and tables, valid and broken: what the readers accept, refuse, or choke on.

Half of the inputs are recipes, half are pairs of CSV tables with a recipe that reads them. Each is
built valid from random parts; then, for two of three, one thing is broken of which it is known that
no reader may accept it. An input counts as

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
import math
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from flows import recipe as recipes
from flows.refit import posed, read_tables
from mixtures import registry
from mixtures.domains import Domain, DomainSet
from mixtures.errors import CuveeError
from proxies import ladder

PATIENCE = 10.0
SHOWN = 2  # examples of each kind of defect
WORDS = (
    "web",
    "code",
    "docs",
    "legal",
    "math",
    "news",
    "a b",
    "x:y:z",
    "Ünïcode",
    "0",
    "true",
    "~",
)
JUNK = ("many", [], {}, [1, 2], {"a": 1}, True, "", "1 2", "0x", math.nan, math.inf, -math.inf)
Values = dict[str, Any]


class Hang(Exception):
    """An input took longer than `PATIENCE`."""


def pick(rng: np.random.Generator, options: Any) -> Any:
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def names(rng: np.random.Generator) -> list[str]:
    """Two to eight names of domains."""
    return [str(word) for word in rng.permutation(WORDS)[: rng.integers(2, 9)]]


# --- recipes ---------------------------------------------------------------------------------


def valid_recipe(rng: np.random.Generator) -> Values:
    """A recipe that must be accepted."""
    domains = names(rng)
    tokens = pick(rng, (5_000_000, "20M", "1.5B", "2e7", "3T", 2e7))
    low = round(float(rng.uniform(0, 0.8 / len(domains))), 3)
    recipe: Values = {
        "name": f"study-{rng.integers(1000)}",
        "corpus": {"domains": {name: {"path": f"{name}.txt"} for name in domains}},
        "objective": {
            "name": "mean",
            "weights": {f"domain/{name}": float(rng.uniform(0.1, 5)) for name in domains[:2]},
        },
        "full_scale": {"tokens": tokens},
        "method": {
            "name": pick(rng, ("regmix", "mixing_laws", "olmix")),
            "runs": int(rng.integers(1, 600)),
        },
    }
    extras: list[tuple[str, Any]] = [
        ("seed", int(rng.integers(0, 2**31))),
        (
            "proxy",
            {"size": pick(rng, list(ladder.LADDER)), "tokens": pick(rng, ("400k", 1_000_000))},
        ),
        ("evaluation", {"suite": pick(rng, (None, "quickstart")), "heldout_tokens": 4096}),
        ("confirm", {"seeds": int(rng.integers(2, 9))}),
        ("limits", {"failed_share": float(rng.uniform(0, 1))}),
        ("constraints", {"bounds": {domains[0]: [low, 1]}, "epochs": None}),
        ("constraints", {"groups": [{"domains": domains[:2], "at_least": low, "at_most": 1}]}),
        ("constraints", {"most_kl": float(rng.uniform(0.1, 3)), "most_domains": len(domains)}),
        ("constraints", {"required": {domains[-1]: max(low, 0.001)}}),
    ]
    for key, value in extras:
        if rng.random() < 0.4:
            recipe[key] = value
    if rng.random() < 0.3:
        recipe["method"]["laws"] = [pick(rng, registry.names("law")), "log_linear"]
    return recipe


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of every mapping in a nested value, the whole one first."""
    found = [path] if isinstance(value, dict) else []
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        found += places(item, (*path, key))
    return found


def at(value: Any, path: tuple[Any, ...]) -> Any:
    """What lies at a path."""
    for key in path:
        value = value[key]
    return value


CLOSED = ((), ("corpus",), ("full_scale",), ("method",), ("objective",), ("proxy",), ("confirm",),
          ("evaluation",), ("constraints",), ("limits",))  # fmt: skip


def unknown_field(recipe: Values, rng: np.random.Generator) -> str:
    """A field that nothing has, in a place whose fields are known."""
    path = pick(rng, [p for p in places(recipe) if p in CLOSED])
    at(recipe, path)[
        pick(rng, ("tokns", "Runs", "sizes_", "", "weight s", "__class__", "name "))
    ] = 1
    return dump(recipe)


def missing_field(recipe: Values, rng: np.random.Generator) -> str:
    """A field without which there is no study."""
    del recipe[pick(rng, ("name", "corpus", "objective", "method", "full_scale"))]
    return dump(recipe)


NUMBERS = (("full_scale", "tokens"), ("method", "runs"), ("seed",), ("proxy", "tokens"),
           ("confirm", "seeds"), ("limits", "failed_share"))  # fmt: skip


def no_number(recipe: Values, rng: np.random.Generator) -> str:
    """Something that is no number where one belongs, or a number out of range."""
    path = pick(rng, [p for p in NUMBERS if len(p) == 1 or p[0] in recipe])
    at(recipe, path[:-1])[path[-1]] = pick(rng, (*JUNK, -1, -0.5, "-3M", "1e999"))
    return dump(recipe)


def unknown_name(recipe: Values, rng: np.random.Generator) -> str:
    """A method, law, objective, schedule or size that does not exist."""
    kind = pick(rng, ("method", "law", "objective", "size", "schedule"))
    wrong = pick(rng, ("regmx", "", "os.system", "../regmix", "Mean", "0.6m", "1e9M"))
    if kind == "law":
        recipe["method"]["laws"] = [wrong]
    elif kind in ("size", "schedule"):
        recipe["proxy"] = {kind: wrong}
    else:
        recipe[kind]["name"] = wrong
    return dump(recipe)


def bad_weights(recipe: Values, rng: np.random.Generator) -> str:
    """An objective without weights, or with ones that are not positive."""
    wrong = pick(
        rng,
        ({}, {"domain/x": 0}, {"domain/x": -1}, {"domain/x": math.nan}, {"domain/x": "y"}, None),
    )
    recipe["objective"] = {"name": "mean", "weights": wrong}
    return dump(recipe)


def empty_set(recipe: Values, rng: np.random.Generator) -> str:
    """Constraints that no mixture satisfies, or that name what is not there."""
    domains = list(recipe["corpus"]["domains"])
    recipe["constraints"] = pick(
        rng,
        (
            {"bounds": {domains[0]: [0.7, 1], domains[1]: [0.6, 1]}},
            {"bounds": {domains[0]: [0.5, 0.2]}},
            {"bounds": {domains[0]: [-0.1, 1]}},
            {"bounds": {domains[0]: [0.1]}},
            {"bounds": {"nowhere": [0, 1]}},
            {"groups": [{"domains": domains, "at_most": 0.5}]},
            {"groups": [{"domains": ["nowhere"], "at_least": 0.1}]},
            {"required": {domains[0]: 0}},
            {"epochs": -1},
            {"most_domains": 0},
            {"most_kl": -0.1},
            {"bounds": {name: [0, 0] for name in domains}},
        ),
    )
    return dump(recipe)


def not_yaml(recipe: Values, rng: np.random.Generator) -> str:
    """Text that is no YAML mapping of fields: cut, binary, tagged, nested or doubled."""
    text = dump(recipe)
    return str(
        pick(
            rng,
            (
                text + "\n  - : [",
                text + "\nseed: !!python/object/apply:os.system ['true']\n",
                text + "\nproxy: !!python/name:os.system\n",
                "- " + text.replace("\n", "\n  "),
                "\x00\x01" + text,
                text + "\n\tname: x\n",
                text + f"\nname: {recipe['name']}\n",  # the same field twice
                "name: " + "[" * 400 + "]" * 400,
                "a: &a [x,x,x,x,x,x,x,x,x]\n"
                + "\n".join(
                    f"{c}: &{c} [{','.join(['*' + b] * 9)}]"
                    for b, c in zip("abcdefgh", "bcdefghi", strict=True)
                ),
                "",
                "42",
                "null",
            ),
        )
    )


BREAK_RECIPE = (
    unknown_field,
    missing_field,
    no_number,
    unknown_name,
    bad_weights,
    empty_set,
    not_yaml,
)


def dump(values: Values) -> str:
    """A mapping as YAML."""
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def read_recipe(text: str) -> None:
    """What the command line does with a recipe before it reads data."""
    given = recipes.parse(text)
    if given.corpus is None or not given.corpus.domains:
        return
    rows = tuple(
        Domain(name, 10**6 * (i + 1), 4 * 10**6, f"{i:064x}")
        for i, name in enumerate(given.corpus.domains)
    )
    given.build_constraints(DomainSet(rows))


# --- tables ----------------------------------------------------------------------------------

Tables = tuple[list[list[str]], list[list[str]]]


def valid_tables(rng: np.random.Generator) -> Tables:
    """A table of mixtures and one of scores, rows in orders of their own, header rows first."""
    domains = [f"d{i}" for i in range(rng.integers(2, 7))]
    targets = [f"t{i}" for i in range(rng.integers(1, 5))]
    count = int(rng.integers(2, 40))
    ids = [f"{pick(rng, ('run', 'r', ''))}{i}" for i in range(count)]
    W = rng.dirichlet(np.ones(len(domains)), count)
    Y = rng.normal(2, 0.3, (count, len(targets)))
    left = [[ids[i], *(repr(float(x)) for x in W[i])] for i in rng.permutation(count)]
    right = [[ids[i], *(repr(float(x)) for x in Y[i])] for i in rng.permutation(count)]
    return [["run", *domains], *left], [["run", *targets], *right]


def cell(tables: Tables, rng: np.random.Generator) -> None:
    """A cell that is no finite number."""
    rows = pick(rng, tables)
    i, j = rng.integers(1, len(rows)), rng.integers(1, len(rows[0]))
    rows[i][j] = pick(
        rng, ("", "nan", "inf", "-inf", "n/a", "1,5", "1e999", "0x10", "one", "1 2", "--1")
    )


def twice(tables: Tables, rng: np.random.Generator) -> None:
    """A run that stands twice."""
    rows = pick(rng, tables)
    rows.append(list(rows[int(rng.integers(1, len(rows)))]))


def alone(tables: Tables, rng: np.random.Generator) -> None:
    """A run in one table only."""
    rows = pick(rng, tables)
    rows[int(rng.integers(1, len(rows)))][0] = "stranger"


def off(tables: Tables, rng: np.random.Generator) -> None:
    """Shares that are negative, or miss 1 by more than rounding."""
    rows = tables[0]
    row = rows[int(rng.integers(1, len(rows)))]
    row[1] = repr(float(row[1]) + float(pick(rng, (0.3, -0.3, 5.0, 1e300, -1e300))))


def headless(tables: Tables, rng: np.random.Generator) -> None:
    """No id column, no column of numbers, no rows, or nothing."""
    rows = pick(rng, tables)
    kind = rng.integers(4)
    if kind == 0:
        rows[0][0] = "which"
    elif kind == 1:
        rows[:] = [[row[0]] for row in rows]
    elif kind == 2:
        del rows[1:]
    else:
        rows.clear()


def ragged(tables: Tables, rng: np.random.Generator) -> None:
    """A row with more cells than the header has."""
    rows = pick(rng, tables)
    rows[int(rng.integers(1, len(rows)))] += ["0.5", "0.5"]


def same_names(tables: Tables, rng: np.random.Generator) -> None:
    """Two columns of one name."""
    rows = pick(rng, tables)
    for row in rows:
        row.append(row[1])


BREAK_TABLES = (cell, twice, alone, off, headless, ragged, same_names)


def write_tables(tables: Tables, folder: Path, rng: np.random.Generator) -> str:
    """Both tables as CSV, in any of the ways that spreadsheets write them; returns the recipe."""
    mark, end = pick(rng, ("", "\ufeff")), pick(rng, ("\n", "\r\n"))
    quoted = rng.random() < 0.3
    for name, rows in zip(("mixtures", "scores"), tables, strict=True):
        lines = [",".join(f'"{c}"' if quoted else c for c in row) for row in rows]
        text = mark + end.join(lines) + (end if rng.random() < 0.8 else "")
        (folder / f"{name}.csv").write_bytes(text.encode())
    weights = {tables[1][0][1]: 1.0} if tables[1] and len(tables[1][0]) > 1 else {"t0": 1.0}
    return dump(
        {
            "name": "tables",
            "tables": {
                "mixtures": str(folder / "mixtures.csv"),
                "scores": str(folder / "scores.csv"),
            },
            "objective": {"name": "mean", "weights": weights},
            "method": {"name": "mixing_laws"},
        }
    )


def read_pair(text: str) -> Any:
    """What `cuvee fit` does with two tables before it fits."""
    given = recipes.parse(text)
    joined = read_tables(given)
    posed(given, joined)
    return joined


def same_numbers(tables: Tables, joined: Any) -> bool:
    """Whether every run has the numbers that were written for it, whatever the order of rows."""
    for rows, names, read in (
        (tables[0], joined.domains, joined.W),
        (tables[1], joined.targets, joined.Y),
    ):
        written = {
            row[0]: dict(zip(rows[0][1:], map(float, row[1:]), strict=True)) for row in rows[1:]
        }
        for i, run in enumerate(joined.ids):
            ours = [written[run][name] for name in names]
            if not np.allclose(read[i], ours, rtol=0, atol=1e-12):
                return False
    return len(joined.ids) == len(tables[0]) - 1


# --- the count -------------------------------------------------------------------------------


class Tally:
    """What became of the inputs, and examples of what should not have happened."""

    def __init__(self) -> None:
        self.count: collections.Counter[str] = collections.Counter()
        self.seen: collections.Counter[tuple[str, str]] = collections.Counter()
        self.examples: list[str] = []

    def tried(self, kind: str, act: Callable[[], bool], text: str, *, valid: bool) -> None:
        """Try one input; `act` returns whether what was read is what was written."""
        self.count["inputs_tried"] += 1
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            right = act()
        except Hang:
            self.note("hangs", kind, text)
        except CuveeError as error:
            self.count["refused"] += 1
            if valid:
                self.note("wrong_refusals", kind, f"{error}\n{text}")
            elif "\n" in str(error) or not str(error):
                self.note("long_messages", kind, f"{error}\n{text}")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            last = traceback.format_exception_only(error)[-1].strip()
            self.note("tracebacks", kind, f"{last}\n{text}")
        else:
            self.count["accepted"] += 1
            if not valid:
                self.note("wrong_acceptances", kind, text)
            elif not right:
                self.note("misread", kind, text)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def note(self, what: str, kind: str, text: str) -> None:
        """Count a defect and keep an example."""
        self.count[what] += 1
        self.seen[what, kind] += 1
        if self.seen[what, kind] <= SHOWN:
            self.examples.append(f"[{what}: {kind}]\n{text[:700]}")


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
    """Try `count` inputs, half recipes and half tables."""
    tally = Tally()

    def late(_number: int, _frame: Any) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, late)
    with tempfile.TemporaryDirectory(prefix="cuvee-inputs-") as name:
        for i in range(count):
            rng = np.random.default_rng([seed, i])
            if i % 2:
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
