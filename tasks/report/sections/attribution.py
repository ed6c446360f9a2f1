"""What each domain is worth: the report's section on runs that leave domains out."""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
from matplotlib.figure import Figure

from cuvee.mixtures.domain_worth import KINDS, LeaveOut, ShapleyWorth, Worth
from cuvee.mixtures.recommendation import LEVEL
from cuvee.mixtures.simplex import ZERO
from cuvee.mixtures.skill_graph import SkillGraph
from cuvee.tasks.report.blocks import Block, Paragraph, Picture, ReportTable
from cuvee.tasks.report.plots.skill_graph import skill_graph_figure
from cuvee.tasks.report.plots.style import shaded_table
from cuvee.tasks.report.sections.headline import NONE
from cuvee.tasks.study.answers import UNIT
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import interval_text


def attribution_blocks(study: Study) -> Iterable[Block]:
    """Worths, pairs, and the law's Shapley values; nothing where no run leaves a domain out."""
    found = study.recommendation.attribution
    if found is None:
        return
    yield Paragraph(
        "The worth of a domain is the loss when its share of the mixture goes to the others in "
        f"proportion, {UNIT}; positive is worth having. It holds beside the other domains: of two "
        f"copies of one text, neither is worth anything. Intervals are of {LEVEL:.0%}."
    )
    for one in found.measured:
        yield from _measured_blocks(one, found.columns)
        told = zip(study.problem.domains.names, found.mixture, strict=True)
        if lost := [name for name, share in told if share > ZERO and name not in one.domains]:
            lost_text = f"Not told {one.said}, for want of runs under these seeds: "
            yield Paragraph(f"{lost_text}{', '.join(lost)}.")
    if found.shapley is not None:
        yield from _shapley_blocks(_from_untrained(study, found.shapley), found.measured[0])
    rows = tuple((what, interval_text(rank, ".2f")) for what, rank in found.agreements)
    if rows:
        yield Paragraph(
            "Each agreement's interval is its own, by leaving one domain out of the comparison at "
            "a time; below 5 domains it is not known."
        )
        yield ReportTable(("do they agree", "rank correlation over domains"), rows)


def _measured_blocks(one: LeaveOut, columns: Sequence[str]) -> Iterable[Block]:
    names = [name.removeprefix("domain/") for name in columns]
    lines = [_sentence(d, row, names) for d, row in zip(one.domains, one.worths, strict=True)]
    means = np.array([[worth.mean for worth in row] for row in one.worths])
    kind = "scratch" if one.share == 1 else "decay"
    caption = f"Worth of each domain (down) for each target (across), left out {one.said}, {UNIT}"
    picture = partial(_heat_map, means, one.domains, names)
    yield Picture(f"worth-{kind}", caption, " ".join(lines), picture)
    shown = np.array([[w.mean if w.sign > 0 else 0.0 for w in row[1:]] for row in one.worths])
    if shown.any():
        graph = SkillGraph(one.domains, tuple(columns[1:]), tuple(map(tuple, shown.tolist())))
        caption = "What helps what beyond the noise: wider is worth more"
        picture = partial(skill_graph_figure, graph)
        yield Picture(f"transfer-{kind}", caption, " ".join(lines), picture)
    yield Paragraph(f"Left out {one.said}, under {one.seeds} seeds. {' '.join(lines)}")
    yield Paragraph(
        "Intervals hold for all domains and targets of this table together (Dunnett) and cover new "
        "seeds; p, where an interval leaves zero out, is corrected for the same after Holm."
    )
    rows = [(d, *map(_tested, row)) for d, row in zip(one.domains, one.worths, strict=True)]
    least = ("smallest that is shown with 80 %", *(f"{x:.4f}" for x in one.detectable))
    yield ReportTable(("domain", *names), (*rows, least))
    kinds = [(", ".join(p), _tested(row[0]), *(KINDS[w.sign] for w in row)) for p, row in one.pairs]
    if kinds:
        yield Paragraph("Those of pairs hold for all pairs and targets together (Bonferroni).")
        columns = ("left out together", "more than both, objective", *names)
        yield ReportTable(columns, tuple(kinds), words=tuple(range(2, len(columns))))


def _sentence(domain: str, row: Sequence[Worth], names: Sequence[str]) -> str:
    """What a domain is worth to the objective, and whom it helps and hurts most."""
    said = {1: "is worth having", 0: "shows no effect", -1: "costs more than it gives"}
    parts = [f"{domain} {said[row[0].sign]} ({_cell(row[0])} of the objective)"]
    order = sorted(range(1, len(row)), key=lambda i: row[i].mean)
    if row[order[-1]].sign > 0:
        parts.append(f"helps {names[order[-1]]} most ({row[order[-1]].mean:+.4f})")
    if row[order[0]].sign < 0:
        parts.append(f"takes most from {names[order[0]]} ({row[order[0]].mean:+.4f})")
    return "; ".join(parts) + "."


def _shapley_blocks(shapley: ShapleyWorth, one: LeaveOut) -> Iterable[Block]:
    yield Paragraph(
        "Shapley values of the law: each domain's worth averaged over all orders of adding "
        f"domains, from {shapley.empty[0]:.3f} {UNIT} of the objective with none. "
        f"{shapley.outside:.0%} of the coalitions lie beyond the mixtures tried: there the law "
        f"extrapolates.{f' {shapley.orders} orders were sampled.' if shapley.orders else ''} "
        "Their intervals are each value's own, over the law's draws or refits."
    )
    measured = {d: row[0] for d, row in zip(one.domains, one.worths, strict=True)}
    ours = sorted(zip(shapley.domains, shapley.worths, strict=True), key=lambda d: -d[1][0].mean)
    rows = [(d, _cell(r[0]), _cell(measured[d]) if d in measured else NONE) for d, r in ours]
    yield ReportTable(("domain", "Shapley, objective", f"left out {one.said}"), tuple(rows))


def _from_untrained(study: Study, shapley: ShapleyWorth) -> ShapleyWorth:
    """The values from the untrained model's scores, where they are known."""
    scores = study.untrained or {}
    if not all(target in scores for target in study.problem.targets):
        return shapley
    row = np.array([scores[target] for target in study.problem.targets])
    posed = study.problem.objective.scalarize(study.problem.targets, study.reference)
    return shapley.from_empty((float(posed.relaxed(row)), *row.tolist()))


def _heat_map(means: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Figure:
    return shaded_table(means, rows, columns, "+.3f", signed=True)[0]


def _tested(worth: Worth) -> str:
    """A worth with its interval and, where it is shown, its corrected probability."""
    return f"{_cell(worth)}, p {worth.p:.2g}" if worth.sign else _cell(worth)


_cell = partial(interval_text, form="+.4f")
