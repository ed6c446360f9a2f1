"""Generated recipes for `inputs.py`: valid ones from random parts, and ways to break one."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cuvee.flows.recipe import load
from cuvee.flows.recipe import schema as recipes
from cuvee.mixtures import registry
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.proxies import ladder

Values = dict[str, Any]
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


def pick(rng: np.random.Generator, options: Any) -> Any:
    """One of the options."""
    return options[int(rng.integers(len(options)))]


def names(rng: np.random.Generator) -> list[str]:
    """Two to eight names of domains."""
    return [str(word) for word in rng.permutation(WORDS)[: rng.integers(2, 9)]]


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


PIECES = (b"\x00", b"\xff", b"\r", b"\t", b": ", b"- ", b"{", b"]", b"'", b'"', b"#", b"&a ", b"*a",
          b"|", b">", b"!!", b"%", b"1e400", b"-", b".nan", b"~", b"\xe2\x80\xa8", b"9" * 400, b",",
          b"\n\n", b"<<: ", b"---\n", b"? ")  # fmt: skip


def mangled(raw: bytes, rng: np.random.Generator) -> bytes:
    """A file with one to four bytes flipped, pieces put in, or stretches cut, doubled or moved.

    Whether what comes out is still valid is not known: it may be refused or read, and nothing else.
    """
    for _ in range(int(rng.integers(1, 5))):
        start, end = sorted(int(k) for k in rng.integers(0, len(raw) + 1, 2))
        end = min(end, start + int(rng.integers(1, 60)))
        head, middle, tail = raw[:start], raw[start:end], raw[end:]
        kind = rng.integers(6)
        if kind == 0:
            raw = head + tail
        elif kind == 1:
            raw = head + middle + middle + tail
        elif kind == 2:
            raw = head + bytes(b ^ int(rng.integers(1, 256)) for b in middle[:1]) + raw[start + 1 :]
        elif kind == 3:
            raw = head
        elif kind == 4:
            raw = tail + middle + head
        else:
            raw = head + bytes(pick(rng, PIECES)) + raw[start:]
        raw = raw or b"\n"
    return raw


def read_recipe(text: str) -> None:
    """What the command line does with a recipe before it reads data."""
    check(load.parse(text))


def read_file(path: Path) -> None:
    """The same, from a file."""
    check(load.load_recipe(path)[0])


def check(given: recipes.Recipe) -> None:
    """What is built of a recipe before its data are read."""
    if given.corpus is None or not given.corpus.domains:
        return
    rows = tuple(
        Domain(name, 10**6 * (i + 1), 4 * 10**6, f"{i:064x}")
        for i, name in enumerate(given.corpus.domains)
    )
    given.build_constraints(DomainSet(rows))
