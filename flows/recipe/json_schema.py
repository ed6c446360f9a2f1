"""The JSON schema of a recipe: what an editor completes and checks, made of the fields themselves.

Types, limits, defaults, descriptions and examples are those of `schema.Recipe` and its parts, and
of every registered class (`cuvee.mixtures.catalog`). What the loader reads as a number is one here:
20M where it takes a suffix, a quoted number where it takes that. What no schema can say stays with
the loader: `LOADER_ALONE` lists it.
"""

import collections.abc
import inspect
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union

from pydantic.json_schema import GenerateJsonSchema

from cuvee.flows.recipe.schema import Recipe
from cuvee.mixtures import registry
from cuvee.mixtures.catalog import CatalogEntry, FieldEntry, attribute_texts, catalog
from cuvee.mixtures.units import SUFFIXES, whole_number
from cuvee.tasks import export

Schema = dict[str, Any]
LOADER_ALONE = (
    "names held against one another: targets and domains that the corpus does not have",
    "numbers held against one another: clashing constraints, shares that do not sum to 1, a ladder "
    "whose rungs grow, tokens that make no training at a size",
    "what goes together: `path` or `dataset`, `proxy.start` with `continual`, `evaluation.curve` "
    "with `proxy.schedule`, `continual.forget` and `limits.drop_noisy` with the objective, the "
    "call of a handoff",
    "ranges and lengths in a registered class's own fields, such as folds of at least 2",
    "numbers in quotes beyond a field's range, infinity, and 5.0 where a registered class counts",
)
SCHEMA_ALONE = (  # what the loader takes as it comes
    "in an objective, and in anchors and rungs of a method: numbers in quotes, true for 1, and "
    "anything for a name",
)
MANTISSA = r"(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)"
SIGNED = r"^\s*[+-]?" + MANTISSA + r"([eE][+-]?\d+)?\s*$"
UNSIGNED = SIGNED.replace("[+-]?", r"\+?", 1)
COUNTED = (  # 20M, 1.5B, 2e7: whole and above zero
    r"^(?=[^eE]*[1-9])\s*\+?(\d[\d_]*(\.0*)?|" + MANTISSA + rf"(\s*[{''.join(SUFFIXES)}]|"
    r"[eE]\+?\d+))\s*$"
)
MEASURED = r"^(?=[^eE]*[1-9])\s*\+?" + MANTISSA + rf"([eE][+-]?\d+)?\s*[{''.join(SUFFIXES)}]?\s*$"
COUNT = {  # the second key is what editors say
    "pattern": COUNTED,
    "patternErrorMessage": "Must be a whole number above 0, such as 400k, 20M or 1.5B.",
}
AMOUNT = {
    "pattern": MEASURED,
    "patternErrorMessage": "Must be a number above 0, such as 400k, 20M or 1.5B.",
}
WHOLE = r"^\s*\+?\d[\d_]*(\.0+)?\s*$"
YES_OR_NO = "|".join(
    "".join(f"[{letter.upper()}{letter}]" for letter in word)
    for word in ("true", "t", "yes", "y", "on", "false", "f", "no", "n", "off")
)


class RecipeJsonSchema(GenerateJsonSchema):
    """Pydantic's schema, with numbers as the loader reads them."""

    def sort(self, value: Any, parent_key: str | None = None) -> Any:
        return value  # fields and examples stand in the order of the recipe

    def int_schema(self, schema: Any) -> Schema:
        return {**super().int_schema(schema), "type": ["integer", "string"], "pattern": WHOLE}

    def float_schema(self, schema: Any) -> Schema:
        made = super().float_schema(schema)
        positive = "minimum" in made or "exclusiveMinimum" in made
        return {**made, "type": ["number", "string"], "pattern": UNSIGNED if positive else SIGNED}

    def bool_schema(self, schema: Any) -> Schema:
        return {"type": ["boolean", "integer", "string"], "maximum": 1, "minimum": 0} | {
            "pattern": f"^({YES_OR_NO}|0|1)$"
        }

    def function_before_schema(self, schema: Any) -> Schema:
        made = super().function_before_schema(schema)
        if schema["function"]["function"] is whole_number:
            made |= COUNT if "integer" in made["type"] else AMOUNT
        return made

    def nullable_schema(self, schema: Any) -> Schema:
        made = super().nullable_schema(schema)
        first, *rest = made.get("anyOf", [{}])
        if rest == [{"type": "null"}] and "type" in first and "enum" not in first:
            kinds = first["type"] if isinstance(first["type"], list) else [first["type"]]
            return {**first, "type": [*kinds, "null"]}
        return made


def recipe_schema() -> Schema:
    """The schema of a recipe, draft 2020-12, with everything that is registered here."""
    made = Recipe.model_json_schema(schema_generator=RecipeJsonSchema)
    parts = made.pop("$defs")
    _rename_limits(parts)
    for part in (made, *parts.values()):
        part.pop("title", None)
        for field in part["properties"].values():
            field.pop("title", None)
            if field.get("default", "") is None:  # which says no more than that it may be null
                del field["default"]
            if "$ref" in field:  # whose defaults are its fields'; its own words may say as much
                field.pop("default", None)
                field.setdefault("description", parts[field["$ref"].split("/")[-1]]["description"])
    for name in ("objective", "method"):
        described = {k: made["properties"][name][k] for k in ("description", "examples")}
        made["properties"][name] = {**described, "$ref": f"#/$defs/{name}"}
    formats = parts["ExportPart"]["properties"]["formats"]
    formats["additionalProperties"] = False
    formats["properties"] = {
        one.name: {"$ref": f"#/$defs/export.{one.name}"} for one in catalog("export")
    }
    parts["HandoffPart"]["properties"]["format"] |= {
        "oneOf": [_name(one) for one in catalog(export.KIND)]
    }
    _say_what_goes_together(made, parts)
    for kind in registry.FOLDERS:
        if kind != "world":
            parts |= _kind(kind)
    rung = parts["method.ladder"]["properties"]["rungs"]["items"]["properties"]
    rung["size"] = parts["SizePart"]["properties"]["size"] | {
        "description": rung["size"]["description"]
    }
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "Recipe of a Cuvée study",
        **made,
        "$defs": dict(sorted(parts.items())),
    }


def schema_text() -> str:
    """The schema as JSON, as it is shipped and printed."""
    return json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"


def _rename_limits(value: Any) -> None:
    """Limits that pydantic cannot place beside a validator keep its names: give them theirs."""
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            _rename_limits(inner)
    if isinstance(value, dict):
        for name, meant in (("gt", "exclusiveMinimum"), ("ge", "minimum"), ("le", "maximum")):
            if isinstance(value.get(name), int | float):
                value[meant] = value.pop(name)


def _say_what_goes_together(recipe: Schema, parts: Mapping[str, Schema]) -> None:
    """Either a corpus, and then the tokens at full scale, or tables; either domains of one kind."""
    given = {"required": ["corpus"], "properties": {"corpus": {"type": "object"}}}
    tokens = {"required": ["tokens"]}
    recipe |= {
        "if": given,
        "then": {
            "required": ["full_scale"],
            "properties": {"full_scale": tokens, "tables": {"type": "null"}},
        },
        "else": {"required": ["tables"], "properties": {"tables": {"type": "object"}}},
    }
    parts["CorpusPart"] |= {
        "if": {"required": ["domains"], "properties": {"domains": {"minProperties": 1}}},
        "then": {
            "properties": {"domains": {"minProperties": 2}, "quickstart": {"maxItems": 0}},
        },
        "else": {"required": ["quickstart"], "properties": {"quickstart": {"minItems": 2}}},
    }


def _kind(kind: str) -> Schema:
    """What may stand for a kind: names, and mappings of a name with the fields of its class."""
    entries = catalog(kind)
    made = {f"{kind}.{entry.name}": _member(entry) for entry in entries}
    mappings = [{"$ref": f"#/$defs/{place}"} for place in made]
    named = [] if kind in ("method", "objective", export.KIND) else entries
    short = [_name(one) for one in named if not any(field.required for field in one.fields)]
    for other, meant in registry.aliases(kind).items() if short else ():
        short.append({"const": other, "description": f"Another name of `{meant}`."})
    return {kind: {"oneOf": [*short, *mappings]}, **made}


def _name(entry: CatalogEntry) -> Schema:
    return {"const": entry.name, "description": _about(entry)}


def _about(entry: CatalogEntry) -> str:
    return f"{entry.summary} {entry.guidance}".strip()


def _member(entry: CatalogEntry) -> Schema:
    """A mapping that builds a registered class."""
    fields = {field.name: _field(field) for field in entry.fields}
    needed = [field.name for field in entry.fields if field.required]
    name: Schema = {"const": entry.name, "description": _about(entry)}
    if entry.kind == export.KIND:
        name = {"description": "Without effect: the name stands before the options."}
    return {
        "title": f"{entry.name} with its fields",
        "description": _about(entry),
        "type": "object",
        "properties": {"name": name, **fields},
        "required": needed if entry.kind == export.KIND else ["name", *needed],
        "additionalProperties": False,
    }


def _field(field: FieldEntry) -> Schema:
    made = {"description": field.description, **type_schema(field.type)}
    if field.required:
        return {**made, "minProperties": 1, "minItems": 1}
    default = {} if field.default is None else {"default": field.default}
    return {**made, **json.loads(json.dumps(default))}


def type_schema(kind: Any) -> Schema:
    """The schema of a field of a registered class, which holds values to its type as it stands."""
    if isinstance(kind, registry.Registered):
        one = (
            {"enum": list(registry.names(kind.kind))}
            if kind.named
            else {"$ref": f"#/$defs/{kind.kind}"}
        )
        return {"anyOf": [one, {"type": "array", "items": one}]} if kind.many else one
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        beside = inner[1]
        if beside is whole_number:
            return {"type": ["integer", "string"], "exclusiveMinimum": 0, **COUNT}
        return type_schema(inner[0] if inspect.isfunction(beside) else beside)
    if origin is Literal:
        return {"enum": list(inner)}
    if origin in (Union, types.UnionType):
        made = [type_schema(one) for one in inner]
        if all(set(one) - {"minimum", "maximum"} == {"type"} for one in made):
            whole = {key: value for one in made for key, value in one.items()}
            return {**whole, "type": [one["type"] for one in made]}
        return {"anyOf": made}
    if origin is collections.abc.Mapping:
        return {"type": "object", "additionalProperties": type_schema(inner[1])}
    if origin is tuple:
        return _tuple(inner)
    if typing.is_typeddict(kind):
        return _mapping(kind)
    return dict(SIMPLE[kind])


SIMPLE: Mapping[Any, Schema] = {
    int: {"type": "integer", "minimum": 0, "maximum": int(registry.LARGEST / 1000)},
    float: {"type": "number", "minimum": -registry.LARGEST, "maximum": registry.LARGEST},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
}


def _tuple(inner: tuple[Any, ...]) -> Schema:
    if inner[-1] is Ellipsis:
        return {"type": "array", "items": type_schema(inner[0])}
    exact = {"minItems": len(inner), "maxItems": len(inner)}
    return {"type": "array", "prefixItems": [type_schema(one) for one in inner], **exact}


def _mapping(kind: Any) -> Schema:
    told, hints = attribute_texts(kind), typing.get_type_hints(kind, include_extras=True)
    return {
        "type": "object",
        "properties": {
            name: {"description": told[name], **type_schema(hint)} for name, hint in hints.items()
        },
        "required": list(hints),
        "additionalProperties": False,
    }
