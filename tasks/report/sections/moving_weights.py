"""What a method that moves weights shows: its trial, its weights over the run, its skill graph."""

from collections.abc import Iterable, Mapping
from functools import partial

from cuvee.mixtures.recommendation import LEVEL
from cuvee.mixtures.skill_graph import SHOWN
from cuvee.tasks.report.blocks import Block, Paragraph, Picture, ReportTable
from cuvee.tasks.report.plots.mixtures import trial_figure
from cuvee.tasks.report.plots.runs import trajectory_figure
from cuvee.tasks.report.plots.skill_graph import skill_graph_figure, skill_table_figure
from cuvee.tasks.report.plots.style import draw_picture
from cuvee.tasks.report.sections import findings
from cuvee.tasks.study.answers import UNIT
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import Judgement

SKILL_GRAPH_FILES = ("skills.json", "skills.dot", "skills.svg")  # beside the report


def trial_blocks(study: Study) -> Iterable[Block]:
    """Gains that the method's own trial measured against every other mixture."""
    gains = study.recommendation.gains
    if not (study.measured and gains):
        return
    yield Paragraph(
        "Runs of the answer and of the mixtures beside it at the study's own size, under the same "
        f"seeds: paired gains in the objective, {UNIT}, positive is better, with {LEVEL:.0%} "
        "intervals."
    )
    caption = "Gain of the recommended mixture that its trial measured, paired by seed"
    yield Picture("trial", caption, findings.trial_finding(gains), partial(trial_figure, gains))
    rows = tuple(
        (name, f"{e.mean:+.4f}", f"{e.low:+.4f} to {e.high:+.4f}", Judgement.of(e.low, e.high))
        for name, e in gains
    )
    yield ReportTable(("over", f"gain, {UNIT}", "interval", "verdict"), rows, words=(3,))


def trajectory_blocks(study: Study) -> Iterable[Block]:
    """The weights of the first controlled run while it trained."""
    ours = study.recommendation
    if len(ours.trajectory) < 2:
        return
    yield Paragraph(
        "Weights of the first controlled run while it trained; the record has them of every run, "
        "as curves named trajectory."
    )
    picture = partial(trajectory_figure, ours.domains, ours.trajectory)
    finding = findings.trajectory_finding(ours.domains, ours.trajectory)
    yield Picture(
        "weights", "Weights of the first controlled run over its tokens", finding, picture
    )


def skill_graph_blocks(study: Study) -> Iterable[Block]:
    """The skill graph: as a picture, as a table, and the order of the skills."""
    graph = study.recommendation.skills
    if graph is None:
        return
    yield Paragraph(
        "An edge is the part of a target's loss that training on a domain saves, against the "
        f"domain that helps it least. Drawn are edges of at least {SHOWN:.0%} of the strongest "
        "between different skills; a square is a target that is no domain. Skills from the one "
        f"that helps others most: {', '.join(graph.ordering)}."
    )
    finding = findings.skill_graph_finding(graph)
    yield Picture(
        "skills",
        "Skill graph: wider is stronger",
        finding,
        partial(skill_graph_figure, graph),
    )
    yield Picture(
        "skill-table", "Skill graph as a table", finding, partial(skill_table_figure, graph)
    )
    rows = tuple(
        (name, *(f"{edge:.3f}" for edge in row))
        for name, row in zip(graph.rows, graph.edges, strict=True)
    )
    yield ReportTable(("training skill", *(c.removeprefix("domain/") for c in graph.columns)), rows)


def skill_graph_files(study: Study) -> Mapping[str, str | None]:
    """Content of each of `FILES`; None for one that a study does not have."""
    graph = study.recommendation.skills
    if graph is None:
        return dict.fromkeys(SKILL_GRAPH_FILES)
    drawing, _ = draw_picture(partial(skill_graph_figure, graph), "skills")
    return dict(zip(SKILL_GRAPH_FILES, (graph.text(), graph.dot(), drawing), strict=True))
