"""A recipe as YAML with comments: what each field does, in the words of the recipe's own schema."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from cuvee.flows.recipe.schema import Recipe
from cuvee.tasks import strict_yaml

WIDTH = 100  # of a line
PLAIN = re.compile(r"[\w./+-]+$", re.ASCII)
NARROW = 40  # characters of a comment's line at least, however deep it stands


def commented_recipe(values: Mapping[str, Any], notes: Mapping[str, str], head: str) -> str:
    """A recipe's text.

    Args:
        values: plain values by field.
        notes: comments by dotted name of a field, which follow the field's own description.
        head: comment at the top.

    Raises:
        RuntimeError: the text would not give the values back, which is a mistake of this module.
    """
    lines = [*_comment(head, 0), *_part(values, notes, Recipe, "")]
    text = "\n".join(lines) + "\n"
    if repr(strict_yaml.load_yaml(text)) != repr(dict(values)):  # in which 1 is not true
        raise RuntimeError("a recipe was written that reads otherwise")
    return text


def _part(
    values: Mapping[str, Any], notes: Mapping[str, str], model: type[BaseModel] | None, place: str
) -> Iterator[str]:
    depth = place.count(".") + 1 if place else 0
    for name, value in values.items():
        where = f"{place}.{name}" if place else name
        said = [_description(model, name), notes.get(where, "")]
        inner = _inner(model, name)
        if not depth:
            yield ""
        for one in said:
            yield from _comment(one, depth)
        indent = "  " * depth
        flow = f"{indent}{scalar(name)}: {flow_style(value)}"
        nested = isinstance(value, Mapping) and value
        if nested and (inner or len(flow) > WIDTH or any(n.startswith(where + ".") for n in notes)):
            yield f"{indent}{scalar(name)}:"
            yield from _part(value, notes, inner, where)
        elif isinstance(value, list) and len(flow) > WIDTH:
            yield f"{indent}{scalar(name)}:"
            yield from (f"{indent}  - {flow_style(item)}" for item in value)
        else:
            yield flow


def _comment(text: str, depth: int) -> list[str]:
    prefix = "  " * depth + "# "
    width = max(WIDTH, len(prefix) + NARROW)
    return [
        line
        for paragraph in (text.split("\n") if text else [])
        for line in textwrap.wrap(
            paragraph, width, initial_indent=prefix, subsequent_indent=prefix,
            break_on_hyphens=False, break_long_words=False,
        ) or ["#"]
    ]  # fmt: skip


def _description(model: type[BaseModel] | None, name: str) -> str:
    field = model.model_fields.get(name) if model else None
    return " ".join((field.description or "").split()) if field else ""


def _inner(model: type[BaseModel] | None, name: str) -> type[BaseModel] | None:
    """The part of a recipe that a field is, if it is one."""
    field = model.model_fields.get(name) if model else None
    kinds = [field.annotation, *get_args(field.annotation)] if field else []
    return next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)


def flow_style(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{scalar(k)}: {flow_style(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(flow_style, value)) + "]"
    if isinstance(value, str):
        return scalar(value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return repr(value)


def scalar(text: str) -> str:
    """Text as a scalar that reads as this text, in quotes where it would not without."""
    if PLAIN.match(text):
        try:
            if strict_yaml.load_yaml(f"x: [{text}]") == {"x": [text]}:
                return text
        except yaml.YAMLError:
            pass
    dumped = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))
    return str(dumped).strip()
