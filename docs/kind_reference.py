"""Pages on what is registered: when to take a law, its equation and source, its fields."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from field_tables import field_table

from cuvee.mixtures import registry
from cuvee.mixtures.catalog import CatalogEntry, catalog

HEADS = {
    "method": "A method is a complete way to a recommendation. **Take `regmix` with `laws: "
    "[kriging]` unless you know why not.** In a recipe: `method: {name: regmix, runs: "
    "64, laws: [kriging]}`.",
    "law": "A law predicts every score of a mixture, and how sure it is. **Take `kriging`.** "
    "In a method's fields: `laws: [kriging]`, or `laws: [kriging, {name: log_linear, "
    "huber: 0}]` to let cross-validation choose.",
    "scaling": "A scaling law predicts scores at other sizes and tokens too. In the fields of the "
    "method `ladder`: `scaling: [additive, joint]`; one is used if it beats the order "
    "at the largest size.",
    "design": "A design says which mixtures are tried. **Take `dirichlet`.** In a method's "
    "fields: `design: sobol`, or `design: {name: dirichlet, temperature: 1.0}`.",
    "search": "A search goes from a fitted law to its best mixture within the constraints. **Take "
    "`auto`.** In a method's fields: `search: exact`.",
    "objective": "An objective makes one number of a mixture's scores; lower is better. "
    "**Take `mean`.** In a recipe: `objective: {name: mean, weights: {domain/code: 2, "
    "task/mmlu: 1}}`.",
    "controller": "A controller moves the weights while a proxy trains. No recipe names one: "
    "methods do, and give their own fields on.",
    "export": "A format writes the recommendation in the syntax of the trainer that will consume "
    "it: `cuvee export RECIPE --format megatron`. Options stand in the recipe under "
    "`export.formats`.",
}


def kind_page(title: str, kind: str, definitions: Mapping[str, Any]) -> str:
    """All that is registered under a kind, in Markdown; definitions are those of the schema."""
    lines = [
        f"# {title.capitalize()}",
        "",
        HEADS[kind],
        "",
        "| name | when to take it |",
        "| --- | --- |",
    ]
    entries = catalog(kind)
    taken = [entry for entry in entries if not entry.baseline]
    apart = [entry for entry in entries if entry.baseline]
    lines += [f"| [`{entry.name}`](#{entry.name}) | {entry.guidance} |" for entry in taken]
    if apart:
        lines += [
            "",
            "## Baselines of comparisons",
            "",
            "| name | what it is for |",
            "| --- | --- |",
        ]
        lines += [f"| [`{entry.name}`](#{entry.name}) | {entry.guidance} |" for entry in apart]
    for entry in (*taken, *apart):
        lines += ["", f"## {entry.name} {{#{entry.name}}}", "", *_member(entry, definitions)]
    for other, meant in registry.aliases(kind).items():
        lines += ["", f"`{other}` is another name of [`{meant}`](#{meant})."]
    return "\n".join([*lines, ""])


def _member(entry: CatalogEntry, definitions: Mapping[str, Any]) -> Iterator[str]:
    yield from [entry.summary, "", f"**{entry.guidance}**", "", markdown(entry.text), ""]
    schema = definitions[f"{entry.kind}.{entry.name}"]
    fields = {name: field for name, field in schema["properties"].items() if name != "name"}
    if fields:
        yield from field_table(fields, schema["required"], entry.name)


def markdown(text: str) -> str:
    """A docstring as Markdown: a list begins after an empty line."""
    return re.sub(r"(?m)^(?!\* |\d\. |\s)(.+)\n(?=\* |\d\. )", r"\1\n\n", text)
