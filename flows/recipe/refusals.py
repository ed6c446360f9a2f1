"""What a schema refused of a person's values: where, what was found and what to write instead."""

import dataclasses
import reprlib
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union

from pydantic import BaseModel, ValidationError

from cuvee.mixtures import registry
from cuvee.mixtures.errors import RecipeError, closest_name
from cuvee.mixtures.units import whole_number

SHOWN = 6  # mistakes that one message names
LONGEST = 2000  # characters of one message
_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 60
_short.maxlevel = 2
WANTED = {
    "bool": "must be true or false",
    "list": "must be a list, [a, b]",
    "tuple": "must be two numbers, [least, most]",
    "dict": "must be a mapping",
    "finite": "must be a finite number; leave it out where there is no limit",
}


def explain(error: ValidationError, where: str, root: type[BaseModel]) -> RecipeError:
    """What pydantic refused of a root model's values, in one sentence."""
    problems: dict[str, list[tuple[str, Any]]] = {}
    for item in error.errors(include_url=False):
        place, kind = _place(item["loc"], root)
        if item["type"] == "extra_forbidden":
            text = f"unknown field {place!r}{_suggest(item['loc'], root)}"
        elif item["type"] == "missing" and isinstance(item["loc"][-1], str):
            text = f"field {place!r} is missing"
        elif item["type"] == "dict_type" and place in registry.FOLDERS:
            name = item["input"] if isinstance(item["input"], str) else registry.names(place)[0]
            text = f"must be a mapping with a name, such as {{name: {name[:LONGEST]}}}"
        else:
            text = _wanted(item, kind, root)
        problems.setdefault(place, []).append((text, item["input"]))
    texts = []
    deeper = {p[:i] for p in problems for i, letter in enumerate(p) if letter == "."}
    for place, found in problems.items():
        if place in deeper:
            continue  # what a union says beside the branch that was meant
        wanted = list(dict.fromkeys(text for text, _ in found))
        text = wanted[0] if WANTED["finite"] in wanted else " or ".join(wanted)
        text = text.replace(" or must be ", " or ")
        if text.startswith(("must", "may")):
            text = f"{place}: {text}; got {_short.repr(found[0][1])}"
        texts.append(text)
    more = f"; and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return bounded(RecipeError(f"{where}: {'; '.join(texts[:SHOWN])}{more}"))


def bounded(error: RecipeError) -> RecipeError:
    """The same error with a message that a person can read."""
    if len(str(error)) <= LONGEST:
        return error
    return RecipeError(f"{str(error)[:LONGEST]} ...")


def _place(location: tuple[int | str, ...], root: Any) -> tuple[str, Any]:
    """Where a mistake stands, without the names of a union's branches, and the type there."""
    parts: list[str] = []
    kind: Any = root
    for part in location:
        kind = _plain(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = Annotated[(field.annotation, *field.metadata, "")] if field else Any
        elif typing.get_origin(kind) in (Union, types.UnionType):
            kind = next((k for k in typing.get_args(kind) if _named(k) == part), Any)
            continue
        else:
            kind = (typing.get_args(kind) or (Any,))[-1]
        parts.append(str(part))
    return ".".join(parts), kind


def _named(kind: Any) -> str:
    """A type as pydantic names it in a location."""
    kind = _plain(kind)
    return (
        kind.__name__
        if isinstance(kind, type) and not typing.get_args(kind)
        else (str(kind).replace(" ", "").replace("typing.", ""))
    )


def _plain(kind: Any) -> Any:
    """A type without its annotations, and without None."""
    while typing.get_origin(kind) is Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (Union, types.UnionType):
        rest = [k for k in typing.get_args(kind) if k is not type(None)]
        return _plain(rest[0]) if len(rest) == 1 else kind
    return kind


def _wanted(item: Mapping[str, Any], kind: Any, root: type[BaseModel]) -> str:
    """What should stand there instead."""
    what, given, limits = item["type"].split("_")[0], item["input"], item.get("ctx", {})
    if item["type"] == "value_error":
        return ": ".join(filter(None, (_place(item["loc"], root)[0], str(limits["error"]))))
    if item["type"] == "string_pattern_mismatch":
        field = typing.get_args(kind)
        return f"must be {next(part for part in field if isinstance(part, str) and part)}"
    if what == "int":
        counted = any(getattr(part, "func", None) is whole_number for part in typing.get_args(kind))
        return "must be a whole number" + (", such as 400k, 20M or 1.5B" if counted else "")
    if what == "float":
        percent = isinstance(given, str) and given.strip().endswith("%")
        return "must be a number" + (" (a share of 30 % is 0.3)" if percent else "")
    if what in ("greater", "less"):
        bound = next(iter(limits.values()))
        words = {"gt": "greater than", "ge": "greater than or equal to", "lt": "less than",
                 "le": "less than or equal to"}  # fmt: skip
        percent = bound == 1 and isinstance(given, int | float) and 1 < given <= 100
        hint = " (shares are fractions: 30 % is 0.3)" if percent else ""
        return f"must be {words[next(iter(limits))]} {bound:,g}{hint}"
    if item["type"] == "string_type":
        if isinstance(given, bool):
            return "must be text; write names such as 'no', 'on' and 'yes' in quotes"
        quoted = f": write it in quotes, '{given}'" if isinstance(given, int | float) else ""
        return f"must be text{quoted}"
    if what == "literal":
        close = closest_name(str(given), typing.get_args(_plain(kind)), cutoff=0.6)
        return f"must be {limits['expected']}" + (f", did you mean {close!r}?" if close else "")
    if what == "model":
        return f"must be a mapping with the fields {', '.join(_plain(kind).model_fields)}"
    if what in ("missing", "too") and typing.get_origin(_plain(kind)) is not list:
        what = "tuple"
    if "min_length" in limits:
        return "may not be empty"
    return WANTED.get(what, str(item["msg"]).replace("Input should", "must"))


def _suggest(location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    """Where an unknown field belongs, or which was meant."""
    name, kind = str(location[-1]), _plain(_place(location[:-1], root)[1] if location[1:] else root)
    elsewhere = [place for place, names in _fields(root) if name in names]
    if 1 <= len(elsewhere) <= 2:
        return f"; it belongs {' or '.join(f'into {p!r}' if p else 'higher up' for p in elsewhere)}"
    known = list(kind.model_fields)
    close = closest_name(name[:LONGEST], known)
    return f", did you mean {close!r}?" if close else f"; known: {', '.join(known)}"


def _fields(root: type[BaseModel], place: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every part of a model by its place, with the names of its fields."""
    yield place, list(root.model_fields)
    for name, field in root.model_fields.items():
        if field.annotation == dict[str, Any] and name in registry.FOLDERS:
            kinds = [registry.lookup(name, known) for known in registry.names(name)]
            yield name, [field.name for kind in kinds for field in dataclasses.fields(kind)]
        for part in _models(field.annotation):
            yield from _fields(part, f"{place}.{name}" if place else name)


def _models(kind: Any) -> list[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for part in typing.get_args(kind) for model in _models(part)]
