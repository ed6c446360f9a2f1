"""The page on the recipe: every field of every part, from the schema that editors read."""

from collections.abc import Iterator, Mapping
from typing import Any

from field_tables import field_table

from cuvee.flows.recipe.json_schema import LOADER_ALONE, SCHEMA_ALONE, recipe_schema

HEAD = """\
# The recipe

A recipe is one YAML file. `cuvee plan RECIPE` checks it whole before anything is spent; a field or
a name that does not exist is refused with a suggestion. Counts take suffixes (400k, 20M, 1.5B);
shares are fractions (30 % is 0.3); scores are in bits per byte, lower is better.

An editor with a YAML language server completes and checks a recipe that begins with the line

```yaml
# yaml-language-server: $schema=recipe.schema.json
```

where `cuvee schema > recipe.schema.json` has put the schema beside it. It knows the laws, methods
and formats of the installation that printed it, those of other packages among them.
"""


def recipe_page() -> str:
    """Every field of a recipe, in Markdown."""
    schema = recipe_schema()
    lines = [HEAD, "## Fields", ""]
    lines += field_table(schema["properties"], schema["required"], "recipe")
    for place, name in _parts(schema, schema["properties"]):
        part = schema["$defs"][name]
        lines += [f"## {place} {{#{name.removesuffix('Part').lower()}}}", ""]
        lines += [part["description"], ""]
        lines += field_table(part["properties"], part.get("required", []), place)
    lines += ["## What a schema cannot say", "", "The loader (`cuvee plan`) refuses beyond it:", ""]
    lines += [f"* {one};" for one in LOADER_ALONE]
    lines += ["", "and takes what the schema asks to be written otherwise:", ""]
    return "\n".join([*lines, *(f"* {one}." for one in SCHEMA_ALONE), ""])


def _parts(schema: Mapping[str, Any], fields: Mapping[str, Any], place: str = "") -> Iterator[Any]:
    """(dotted name, definition) of the parts, each after the one that holds it."""
    for name, field in fields.items():
        for part in _part_names(field):
            inner = f"{place}.{name}" if place else name
            yield inner, part
            yield from _parts(schema, schema["$defs"][part]["properties"], inner)


def _part_names(field: Any) -> list[str]:
    """The parts that a field's schema refers to, however deep."""
    if isinstance(field, list):
        return [name for value in field for name in _part_names(value)]
    if not isinstance(field, Mapping):
        return []
    found = field.get("$ref", "").rpartition("/")[2]
    inner = [value for key, value in field.items() if key not in ("examples", "default")]
    return ([found] if found.endswith("Part") else []) + _part_names(inner)
