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
from markupsafe import Markup, escape

from cuvee.mixtures.errors import StorageError
from cuvee.tasks.escape import escape_markdown, fenced_code
from cuvee.tasks.report.blocks import Picture, Section
from cuvee.tasks.report.explorer import explorer_blocks
from cuvee.tasks.report.plots.style import draw_picture
from cuvee.tasks.report.sections import headline, larger_sizes, mixtures, moving_weights, runs
from cuvee.tasks.report.sections.attribution import attribution_blocks
from cuvee.tasks.report.sections.audits import audit_blocks
from cuvee.tasks.report.sections.detectors import detector_blocks
from cuvee.tasks.report.sections.forgetting import forgetting_blocks
from cuvee.tasks.report.sections.gains import gain_blocks
from cuvee.tasks.report.sections.scale import scale_blocks
from cuvee.tasks.report.sections.suspicious_items import suspicious_item_blocks
from cuvee.tasks.study.answers import QUESTIONS, STEPS, study_answers, study_grade
from cuvee.tasks.study.study import Study

PAGE, TWIN, PLOTS = "report.html", "report.md", "plots"
TEMPLATES = jinja2.PackageLoader("cuvee.tasks.report", "templates")
SECTIONS = (  # below the headline, in order; one without blocks is left out
    ("Recommended shares", mixtures.share_blocks),
    ("What was asked for", mixtures.demand_blocks),
    ("{} and confirmed scores", mixtures.score_blocks),
    ("What each domain is worth", attribution_blocks),
    ("For what the gains hold", gain_blocks),
    ("Does the score mean what it says?", audit_blocks),
    ("Benchmarks in the training text", suspicious_item_blocks),
    ("Leaks that likelihoods tell", detector_blocks),
    ("Forgetting", forgetting_blocks),
    ("Larger sizes", larger_sizes.larger_size_blocks),
    ("Prediction card", larger_sizes.prediction_card_blocks),
    ("From small to full scale", scale_blocks),
    ("Explore", explorer_blocks),
    ("What the trial measured", moving_weights.trial_blocks),
    ("Weights while training", moving_weights.trajectory_blocks),
    ("What helps what", moving_weights.skill_graph_blocks),
    ("How well the laws predict", runs.law_blocks),
    ("What one aim costs another", mixtures.pareto_blocks),
    ("Noise floor", runs.noise_blocks),
    ("Tasks: accuracy, chance and untrained", runs.task_blocks),
    ("Training", runs.loss_curve_blocks),
    ("Epochs and constraints at full scale", mixtures.epoch_blocks),
    ("Corpus", runs.corpus_blocks),
    ("Text that domains share", runs.shared_text_blocks),
    ("Failures", runs.failure_blocks),
    ("Recipe, versions and evidence", runs.evidence_blocks),
)


def report_sections(study: Study) -> tuple[Section, ...]:
    """Everything below the headline, as plain values: neither rendering can say what the other
    does not."""
    said = headline.predicted_or_measured(study)
    made = (Section(title.format(said), tuple(blocks(study))) for title, blocks in SECTIONS)
    return tuple(section for section in made if section.blocks)


def write_report(study: Study, folder: Path | str) -> tuple[Path, Path]:
    """Write the report into a folder, which is made if it is missing.

    Args:
        study: what came of the study.
        folder: gets `report.html`, `report.md`, `plots/*.png` and, of a skill graph, the files
            `SKILL_GRAPH_FILES`.

    Returns:
        The paths of the page and of its twin.

    Raises:
        StorageError: the folder cannot be written.
    """
    root, sections = Path(folder), report_sections(study)
    blocks = (block for section in sections for block in section.blocks)
    pictures = {b.name: draw_picture(b.plot, b.name) for b in blocks if isinstance(b, Picture)}
    content = {
        "study": study,
        "tone": headline.headline_tone(study),
        "grade": study_grade(study),
        "answers": [(QUESTIONS[name], said) for name, said in study_answers(study).items()],
        "next_steps": study.next_steps[:STEPS],
        "warnings": headline.headline_warnings(study),
        "sections": sections,
        "pictures": {name: vector for name, (vector, _) in pictures.items()},
        "folder": PLOTS,
    }
    files: dict[str, str | bytes | None] = {
        **{f"{PLOTS}/{name}.png": pixels for name, (_, pixels) in pictures.items()},
        PAGE: _render("report.html.j2", content),
        TWIN: _render("report.md.j2", content),
        **moving_weights.skill_graph_files(study),
    }
    try:
        (root / PLOTS).mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            if data is None:
                (root / name).unlink(missing_ok=True)  # of an earlier method
            else:
                (root / name).write_bytes(data.encode() if isinstance(data, str) else data)
    except OSError as error:
        raise StorageError(
            f"cannot write the report to {root}: {error.strerror or error}; "
            "free some space or choose another folder"
        ) from error
    return root / PAGE, root / TWIN


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
        "unbroken": unbroken_intervals,
    }
    return environment.get_template(template).render(content)


def script_json(values: Mapping[str, Any]) -> str:
    """Values as JSON that can stand inside a script element, whatever names are in them."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def unbroken_intervals(cell: str) -> Markup:
    """A cell that is broken after a slash or between a value and its interval, if it must be."""
    whole = re.sub(r"\([^()]*\)", r'<span class="whole">\g<0></span>', str(escape(cell)))
    whole = re.sub(r"(?<=[^<])/(?=\w)", "/<wbr>", whole)
    return Markup(whole)  # noqa: S704 (escaped above)


def section_anchor(title: str) -> str:
    """A title as the name of a place in the page."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
