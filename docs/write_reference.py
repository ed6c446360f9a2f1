"""Writes the pages of docs/reference/ from the code; `make docs` and `make docs-build` call it.

Nothing that it writes is committed, so that the reference cannot be stale.
"""

import inspect
import shutil
from pathlib import Path

from cuvee.mixtures import registry
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


def kind_page(title: str, kind: str) -> str:
    """All that is registered under a kind: what it is, and its fields with their defaults."""
    lines = [f"# {title.capitalize()}", ""]
    for name in registry.names(kind):
        about = inspect.cleandoc(registry.lookup(kind, name).__doc__ or "")
        lines += [f"## {name}", "", about.split("\n\n")[0], ""]
    return "\n".join(lines)


def pages() -> dict[str, str]:
    """File name -> Markdown."""
    made = {f"{title}.md": kind_page(title, kind) for title, kind in KINDS.items()}
    links = [f"* [{title.capitalize()}]({title}.md)" for title in KINDS]
    made["index.md"] = "\n".join(["# Reference", "", *links, ""])
    return made


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
