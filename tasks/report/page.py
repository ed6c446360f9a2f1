"""The report of a study: one self-contained page, and a Markdown twin with its pictures beside it.

Both are rendered from the same sections; the page embeds its pictures, the twin names files in
`plots/`. Nothing here reads a clock, so that one study always gives the same bytes.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

from cuvee.mixtures.errors import StorageError
from cuvee.tasks.escape import escape_markdown, fenced_code
from cuvee.tasks.report.blocks import Picture, Section
from cuvee.tasks.report.plots import study as plots
from cuvee.tasks.report.sections import headline, moving_weights
from cuvee.tasks.report.sections.study import report_sections
from cuvee.tasks.study.study import Study

PAGE, TWIN, PLOTS = "report.html", "report.md", "plots"
TEMPLATES = jinja2.PackageLoader("cuvee.tasks.report", "templates")


def write_report(study: Study, folder: Path | str) -> tuple[Path, Path]:
    """Write the report into a folder, which is made if it is missing.

    Args:
        study: what came of the study.
        folder: gets `report.html`, `report.md`, `plots/*.png` and, of a skill graph, the files
            `moving.FILES`.

    Returns:
        The paths of the page and of its twin.

    Raises:
        StorageError: the folder cannot be written.
    """
    root, parts = Path(folder), report_sections(study)
    pictures = {p.name: plots.draw_picture(p.plot, p.name) for p in _pictures(parts)}
    content = {
        "study": study,
        "tone": headline.headline_tone(study),
        "figures": headline.headline_figures(study),
        "answers": headline.headline_answers(study),
        "warnings": headline.headline_warnings(study),
        "sections": parts,
        "pictures": {name: vector for name, (vector, _) in pictures.items()},
        "folder": PLOTS,
    }
    try:
        (root / PLOTS).mkdir(parents=True, exist_ok=True)
        for name, (_, pixels) in pictures.items():
            (root / PLOTS / f"{name}.png").write_bytes(pixels)
        page, twin = root / PAGE, root / TWIN
        page.write_text(_render("report.html.j2", content), encoding="utf-8")
        twin.write_text(_render("report.md.j2", content), encoding="utf-8")
        for name, text in moving_weights.skill_graph_files(study).items():
            if text is None:
                (root / name).unlink(missing_ok=True)  # of an earlier method
            else:
                (root / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write the report to {root}: {error.strerror or error}; "
            "free some space or choose another folder"
        ) from error
    return page, twin


def _pictures(parts: tuple[Section, ...]) -> list[Picture]:
    return [block for part in parts for block in part.blocks if isinstance(block, Picture)]


def _render(template: str, content: dict[str, object]) -> str:
    environment = jinja2.Environment(
        loader=TEMPLATES,
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "markdown": escape_markdown,
        "fenced": fenced_code,
        "anchor": section_anchor,
        "inline": script_json,
    }
    return environment.get_template(template).render(content)


def script_json(values: Mapping[str, Any]) -> str:
    """Values as JSON that can stand inside a script element, whatever names are in them."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def section_anchor(title: str) -> str:
    """A title as the name of a place in the page."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
