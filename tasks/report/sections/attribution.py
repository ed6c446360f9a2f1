"""What each domain is worth: the report's section on runs that leave domains out."""

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np

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
            yield Paragraph(f"Not told, for want of runs under these seeds: {', '.join(lost)}.")
    if found.shapley is not None:
        yield from _shapley_blocks(found.shapley, found.measured[0])
    rows = tuple((what, interval_text(rank, ".2f")) for what, rank in found.agreements)
    if rows:
        yield Paragraph(
            "Each agreement's interval is its own, by leaving one domain out of the comparison at "
            "a time; below 5 domains it is not known."
        )
        yield ReportTable(("do they agree", "rank correlation over domains"), rows)


def _measured_blocks(one: LeaveOut, columns: Sequence[str]) -> Iterable[Block]:
    names = [name.removeprefix("domain/") for name in columns]
    means = np.array([[worth.mean for worth in row] for row in one.worths])
    kind = "scratch" if one.share == 1 else "decay"
    caption = (
        f"Worth of each domain (across) for each target (down), left out {one.said}, {UNIT}; blue: "
        f"worth having, red: costs more than it gives, the deepest {np.abs(means).max():.3f}"
    )
    said = f"{sum(w.sign != 0 for row in one.worths for w in row)} of {means.size} lie beyond noise"
    table = partial(shaded_table, means.T, names, one.domains, "+.3f", signed=True)
    yield Picture(f"worth-{kind}", caption, said, lambda: table()[0])
    shown = tuple(tuple(w.mean if w.sign > 0 else 0.0 for w in row[1:]) for row in one.worths)
    graph = SkillGraph(one.domains, tuple(columns[1:]), shown)
    if graph.strong:
        caption = "What helps what else beyond the noise: wider is worth more"
        most = max(graph.strong, key=lambda edge: edge[2])
        said = f"{len(graph.strong)} arrows, the strongest from {most[0]} to {most[1]}"
        yield Picture(f"transfer-{kind}", caption, said, partial(skill_graph_figure, graph))
    yield Paragraph(
        f"Left out {one.said}, under {one.seeds} seeds. Intervals hold for all domains and targets "
        "of this table together (Dunnett) and cover new seeds; p, where an interval leaves zero "
        "out, is corrected for the same after Holm."
    )
    lines = [(d, _sentence(d, r, names)) for d, r in zip(one.domains, one.worths, strict=True)]
    yield ReportTable(("domain", "in words"), tuple(lines), words=(1,))
    rows = [(d, *map(_tested, row)) for d, row in zip(one.domains, one.worths, strict=True)]
    least = ("smallest that is shown with 80 %", *(f"{x:.4f}" for x in one.detectable))
    yield ReportTable(("domain", *names), (*rows, least))
    kinds = [(", ".join(p), _tested(row[0]), *(KINDS[w.sign] for w in row)) for p, row in one.pairs]
    if kinds:
        yield Paragraph("Those of pairs hold for all pairs and targets together (Bonferroni).")
        columns = ("left out together", "more than both, objective", *names)
        yield ReportTable(columns, tuple(kinds), words=tuple(range(2, len(columns))))


def _sentence(domain: str, row: Sequence[Worth], names: Sequence[str]) -> str:
    """What a domain is worth to the objective, and whom beside itself it helps and hurts most."""
    said = {1: "worth having", 0: "no effect shown", -1: "costs more than it gives"}
    parts = [f"{said[row[0].sign]} ({_cell(row[0])} of the objective)"]
    others = [(w.mean, n, w.sign) for w, n in zip(row[1:], names[1:], strict=True) if n != domain]
    for mean, name, sign in sorted(others)[::-1][:1]:
        parts += [f"helps {name} most ({mean:+.4f})"] if sign > 0 else []
    for mean, name, sign in sorted(others)[:1]:
        parts += [f"takes most from {name} ({mean:+.4f})"] if sign < 0 else []
    return "; ".join(parts) + "."


def _shapley_blocks(shapley: ShapleyWorth, one: LeaveOut) -> Iterable[Block]:
    yield Paragraph(
        "Shapley values of the law: each domain's worth averaged over all orders of adding "
        f"domains, from {shapley.empty[0]:.3f} {UNIT} of the objective with none, on which their "
        "signs depend, but neither order nor differences. "
        f"{shapley.outside:.0%} of the coalitions lie beyond the mixtures tried: there the law "
        f"extrapolates.{f' {shapley.orders} orders were sampled.' if shapley.orders else ''} "
        "Their intervals are each value's own, over the law's draws or refits."
    )
    measured = {d: row[0] for d, row in zip(one.domains, one.worths, strict=True)}
    ours = sorted(zip(shapley.domains, shapley.worths, strict=True), key=lambda d: -d[1][0].mean)
    rows = [(d, _cell(r[0]), _cell(measured[d]) if d in measured else NONE) for d, r in ours]
    yield ReportTable(("domain", "Shapley, objective", f"left out {one.said}"), tuple(rows))


def _tested(worth: Worth) -> str:
    """A worth with its interval and, where it is shown, its corrected probability."""
    p = f"p {worth.p:.2g}" if worth.p >= 1e-4 else "p < 0.0001"
    return f"{_cell(worth)}, {p}" if worth.sign else _cell(worth)


_cell = partial(interval_text, form="+.4f")
