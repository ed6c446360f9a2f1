"""Writes the pages of docs/reference/ from the code; `make docs` and `make docs-build` call it.

Nothing that it writes is committed, so that the reference cannot be stale.
"""

import shutil
from pathlib import Path

from command_reference import command_page, files_page
from kind_reference import kind_page
from recipe_reference import recipe_page
from trainer_reference import contract_page

import cuvee
from cuvee.flows.recipe.json_schema import recipe_schema
from cuvee.tasks import export

FOLDER = Path(__file__).parent / "reference"
KINDS = {
    "methods": "method",
    "laws": "law",
    "scaling": "scaling",
    "designs": "design",
    "searches": "search",
    "objectives": "objective",
    "controllers": "controller",
    "exporters": export.KIND,
}
PYTHON = """\
# Python API

What `import cuvee` offers. It imports nothing until it is used, and fitting needs neither torch nor
Prefect nor Ray. Laws, methods and the like of your own: [add a law](../how-to/add-a-law.md).
"""


def python_page() -> str:
    """What the package offers by name, for mkdocstrings to fill in: functions, classes, errors."""
    offered = {name: getattr(cuvee, name) for name in cuvee.__all__}
    classes = {name for name, one in offered.items() if isinstance(one, type)}
    errors = {name for name in classes if issubclass(offered[name], Exception)}
    lines = [PYTHON]
    for title, names in (
        ("Functions", {*offered} - classes),
        ("What they give", classes - errors),
        ("Errors", errors),
    ):
        lines += [f"## {title}\n", *(f"::: cuvee.{name}\n" for name in sorted(names))]
    return "\n".join(lines)


OTHERS = {
    "commands": ("The command line", command_page),
    "recipe": ("The recipe", recipe_page),
    "python": ("Python API", python_page),
    "trainer_contract": ("The trainer contract", contract_page),
    "files": ("Files on disk", files_page),
}


def pages() -> dict[str, str]:
    """File name -> Markdown."""
    made = {f"{name}.md": page() for name, (_, page) in OTHERS.items()}
    definitions = recipe_schema()["$defs"]
    made |= {f"{title}.md": kind_page(title, kind, definitions) for title, kind in KINDS.items()}
    links = {name: title for name, (title, _) in OTHERS.items()}
    links |= {title: title.capitalize() for title in KINDS}
    listed = [f"* [{title}]({name}.md)" for name, title in links.items()]
    made["index.md"] = "\n".join(
        ["# Reference", "", "Made from the code of this version.", "", *listed, ""]
    )
    return made


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
