"""Tables of fields in Markdown, from a recipe's JSON schema: type, default, meaning, example."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from cuvee.flows.recipe.json_schema import COUNTED, MEASURED

Schema = Mapping[str, Any]
WORDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
}
PAGES = {
    "design": "designs",
    "export": "exporters",
    "law": "laws",
    "method": "methods",
    "objective": "objectives",
    "scaling": "scaling",
    "search": "searches",
}


def field_table(properties: Schema, required: list[str], place: str) -> Iterator[str]:
    """The rows of a table of fields.

    Args:
        properties: of a mapping's schema.
        required: names that must be given.
        place: dotted name of the mapping, by which fields can be linked to.
    """
    yield from ["| field | type | default | what it is |", "| --- | --- | --- | --- |"]
    for name, field in properties.items():
        default = "needed" if name in required else "`null`" if _may_be_null(field) else ""
        default = _yaml(field["default"]) if "default" in field else default
        anchor = f"{place}.{name}".replace(".", "-").replace("_", "-")
        shown = " or ".join(_yaml(one) for one in field.get("examples", ()))
        about = field["description"] + (f"<br>Example: {shown}" if shown else "")
        yield _row([f"`{name}`{{#{anchor}}}", type_words(field), default, about])
    yield ""


def type_words(field: Schema) -> str:
    """What may stand in a field, in a few words."""
    if "$ref" in field:
        return _reference(field["$ref"].rpartition("/")[2])
    if "enum" in field or "const" in field:
        values = field.get("enum", [field.get("const")])
        return ", ".join(f"`{one}`" for one in values)
    if "anyOf" in field or "oneOf" in field:
        parts = [type_words(one) for one in field.get("anyOf") or field["oneOf"]]
        return " or ".join(dict.fromkeys(parts))
    kinds = field["type"] if isinstance(field["type"], list) else [field["type"]]
    null = " or null" if "null" in kinds and len(kinds) > 1 else ""
    first = kinds[0]
    if first == "array":
        if "prefixItems" in field:
            return "[" + ", ".join(type_words(one) for one in field["prefixItems"]) + "]"
        return f"list of {type_words(field['items'])}"
    if first == "object":
        inner = field.get("additionalProperties")
        return f"mapping of {type_words(inner)}" if isinstance(inner, Mapping) else "mapping"
    if field.get("pattern") in (COUNTED, MEASURED):
        return ("count" if first == "integer" else "amount") + ", such as 20M" + null
    return WORDS[first] + ("" if first == "boolean" else _range(field)) + null


def _may_be_null(field: Schema) -> bool:
    return "null" in str(field.get("type")) or {"type": "null"} in field.get("anyOf", ())


def _reference(name: str) -> str:
    if name in PAGES:
        return f"[{name}]({PAGES[name]}.md)"
    kind, _, member = name.partition(".")
    if member:
        return f"[options]({PAGES[kind]}.md#{member})"
    return f"[mapping](#{name.removesuffix('Part').lower()})"


def _range(field: Schema) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if abs(high or 0) >= 10**5:
        high = None
    if low is not None and low <= -(10**5):
        low = None
    if low is not None and high is not None:
        return f" from {low:g} to {high:g}"
    if field.get("exclusiveMinimum") is not None:
        return f" above {field['exclusiveMinimum']:g}"
    return f", at least {low:g}" if low else ""


def _yaml(value: Any) -> str:
    """A value as a recipe has it, on one line of code."""
    if isinstance(value, str) and ("\n" in value or not value):
        return f"`{json.dumps(value)}`"
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    text = text.strip().removesuffix("...").strip().replace("|", "\\|")
    return f"`{text}`"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("\n", " ") for cell in cells) + " |"
