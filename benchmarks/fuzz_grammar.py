"""Recipes and Olmix's fit files drawn from their schema for `fuzz.py`, with hostile values.

The grammar is what the product declares: fields of the pydantic models, and the fields of whatever
is registered as a method, law, objective, design or search. A field that is added is drawn from the
day on which it is added, and nobody has to think of it.
"""

import dataclasses
import functools
import json
import types
import typing
from typing import Annotated, Any, Literal, Union

from hypothesis import strategies as st
from pydantic import BaseModel

from cuvee.mixtures import registry

NAMES = (
    "a",
    "b",
    "domain/a",
    "domain/b",
    "loss",
    "t0",
    "0.3M",
    "1M",
    "run",
    "natural",
    "x y",
    "no",
)
KINDS = {  # fields of registered classes that are built from a nested value of this kind
    "law": "law", "laws": "law", "design": "design", "search": "search", "scaling": "scaling",
    "method": "method", "main": "method", "objective": "objective", "controller": "controller",
}  # fmt: skip


class Raw(str):
    """A scalar that stands in YAML as it is, unquoted."""


HOSTILE = (
    *map(Raw, (
        ".nan", ".inf", "-.inf", "1e400", "0x_", "0b2", "0o9", "1:30:99", "2026-02-30", "2026-13-1",
        "!!int twelve", "!!float x", "!!bool maybe", "!!timestamp x", "!!null x", "!!binary ====",
        "!!set {a, b}", "!!omap [a: 1]", "!!python/name:os.system", "&x [*x]", "*x", "no", "on",
        "=", "<<", "010", "1_000", "40B", "20M", "1.5T", "-3M", "30%", "1e-3", "2e7", ".", "-", "",
        "[" * 60 + "]" * 60, "{a: " * 40 + "1" + "}" * 40, "9" * 5000, "0." + "3" * 5000, "{<<: 5}",
        "!!int", "!!float", "!!bool",
        "{a: 1, a: 2}", "? [a]", "'", "|", "@", "`", "%", "1e18", "1e19", "-0.0", "5e-324", "~",
        "[&y [1, 1, 1, 1], *y, *y]", "{? [a] : b}", "{1: 2, 1.0: 3}", "!<tag:x> y", "!!str",
    )),
    "", " ", "\u202e", "\x1b[2J", "\x00", "\ud800", "é" * 300, "a" * 70_000, "../../x", "-", "nan",
    "%(x)s", "{x}", "$(id)", "\n", "0", "1e999", True, False, None, 0, -1, 1, 2, 10**6, 10**12,
    10**30, -(10**30), 0.5, 1.0, -0.5, 1e300, 1e-300, float("nan"), float("inf"), [], {}, [[]],
    {"": ""}, {"name": None}, {"name": []}, {"name": {"name": "a"}}, ["a", "a"], [None], [[1, 2]],
    {"a": {"b": {"c": {}}}}, {"a": float("nan")}, [{}],
)  # fmt: skip
RARE = 60  # values to a hostile one
hostile = st.sampled_from(HOSTILE)
names = st.sampled_from(NAMES)


def rarely(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values, and now and then a hostile one instead."""
    return st.integers(0, 2**20).flatmap(lambda n: hostile if n % RARE == 7 else values)


def of(kind: Any, field: str = "") -> st.SearchStrategy[Any]:
    """Values of a type as a schema declares it, most of them of that type."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return of(inside[0], field)
    if origin in (Union, types.UnionType):
        return st.one_of(*(of(part, field) for part in inside))
    if origin is Literal:
        return rarely(st.sampled_from(inside))
    if origin is list:
        return rarely(st.lists(of(inside[0], field), max_size=3))
    if origin is tuple:
        return rarely(st.lists(of(inside[0], field), min_size=1, max_size=3))
    if origin is dict and inside[1] is Any and field in registry.FOLDERS:
        kinds = st.sampled_from(registry.names(field))
        return rarely(kinds.flatmap(lambda name: configured(field, name, bare=False)))
    if origin is not None:
        return rarely(st.dictionaries(names, of((*inside, Any)[-1]), max_size=3))
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return rarely(model(kind))
    return rarely(scalar(kind, field))


def scalar(kind: Any, field: str) -> st.SearchStrategy[Any]:
    """Plain values of a type."""
    if field in KINDS:
        return registered(KINDS[field])
    plain = {
        bool: st.booleans(),
        int: st.integers(0, 40) | st.sampled_from((Raw("400k"), 10**6, 512)),
        float: st.floats(0, 1) | st.integers(0, 5),
        str: names,
        type(None): st.none(),
    }
    return plain.get(kind, st.one_of(*plain.values(), st.lists(names, max_size=2), hostile))


@functools.cache
def model(kind: type[BaseModel]) -> st.SearchStrategy[Any]:
    """A model's fields: those that are required nearly always, some of the others."""
    fields = kind.model_fields
    parts = {name: st.deferred(lambda n=name: of(fields[n].annotation, n)) for name in fields}
    needed = {name: part for name, part in parts.items() if fields[name].is_required()}
    others = {name: part for name, part in parts.items() if name not in needed}
    return some_of(needed, others)


@functools.cache
def registered(kind: str) -> st.SearchStrategy[Any]:
    """Something that is registered, by its name or with some of its fields."""
    return st.sampled_from(registry.names(kind)).flatmap(lambda name: configured(kind, name))


@functools.cache
def configured(kind: str, name: str, *, bare: bool = True) -> st.SearchStrategy[Any]:
    """One registered class, with some of its fields."""
    cls = registry.lookup(kind, name)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    parts = {n: st.deferred(lambda n=n: of(hints[n], n)) for n in fields}
    empty = dataclasses.MISSING
    needed = {n for n, f in fields.items() if f.default is empty and f.default_factory is empty}
    whole = some_of(
        {"name": st.just(name)} | {n: parts[n] for n in needed},
        {n: part for n, part in parts.items() if n not in needed},
    )
    return st.just(name) | whole if bare and not needed else whole


def some_of(needed: dict[str, Any], others: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Mappings with what is needed and up to three of the others, rarely a wrong field."""
    chosen = (
        st.lists(st.sampled_from(sorted(others)), max_size=3, unique=True)
        if others
        else (st.just([]))
    )

    @st.composite
    def build(draw: st.DrawFn) -> dict[str, Any]:
        values = {name: draw(part) for name, part in needed.items()}
        values |= {name: draw(others[name]) for name in draw(chosen)}
        if draw(st.integers(0, 2**20)) % RARE == 7:
            values[draw(names)] = draw(hostile)
        if values and draw(st.integers(0, 2**20)) % RARE == 7:
            values.pop(draw(st.sampled_from(sorted(values))))
        return values

    return build()


def written(value: Any) -> str:
    """A value in YAML's flow style; strings as JSON writes them, which YAML reads alike."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{written(k)}: {written(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(written, value)) + "]"
    if isinstance(value, float) and value != value:
        return ".nan"
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return ".inf" if value > 0 else "-.inf"
    return json.dumps(value)


def document(values: dict[str, Any]) -> str:
    """A mapping as a YAML document, a line for each of its fields."""
    return "".join(f"{json.dumps(name)}: {written(value)}\n" for name, value in values.items())
