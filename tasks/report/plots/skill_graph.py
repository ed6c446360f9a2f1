"""Pictures of a skill graph: as arrows on a circle, and as a table of shades."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from cuvee.mixtures.skill_graph import SkillGraph
from cuvee.tasks.report.plots import style

WIDEST = 4.0  # points, of the strongest edge
CELLS = 12  # columns of a table up to which its cells hold their number


def skill_graph_figure(found: SkillGraph) -> Figure:
    """Skills on a circle; an arrow from what is trained to what it helps, by its strength."""
    figure = style.empty_figure(style.WIDTH * 0.86)
    axes = figure.add_subplot()
    names = found.nodes
    angles = np.pi / 2 - 2 * np.pi * np.arange(len(names)) / max(1, len(names))
    places = dict(zip(names, np.stack([np.cos(angles), np.sin(angles)], axis=1), strict=True))
    strong = found.strong
    top = max((edge for *_, edge in strong), default=1.0)
    for source, target, edge in sorted(strong, key=lambda item: item[2]):
        part = edge / top
        axes.add_patch(
            FancyArrowPatch(
                tuple(places[source]),
                tuple(places[target]),
                connectionstyle="arc3,rad=0.12",
                arrowstyle="-|>",
                mutation_scale=7 + 5 * part,
                shrinkA=11,
                shrinkB=11,
                linewidth=WIDEST * part,
                color=style.BLUE,
                alpha=0.25 + 0.65 * part,
            )
        )
    for name, (x, y) in places.items():
        marker, color = ("o", style.GREEN) if name in found.rows else ("s", style.RED)
        axes.plot([x], [y], marker, color=color, markersize=9)
        side = "left" if x > 0.1 else "right" if x < -0.1 else "center"
        height = 1.13 if side == "center" else 1.0
        label = style.short_name(name)
        axes.text(1.1 * x, height * 1.06 * y, label, ha=side, va="center", fontsize=9)
    axes.set_xlim(-1.9, 1.9)
    axes.set_ylim(-1.35, 1.35)
    axes.set_aspect("equal")
    axes.axis("off")
    return figure


def skill_table_figure(found: SkillGraph) -> Figure:
    """Every edge: training skills down, evaluated skills across, darker is stronger."""
    edges = np.array(found.edges)
    figure = style.empty_figure(0.32 * len(found.rows) + 1.5)
    axes = figure.add_subplot()
    low, high = float(min(0.0, edges.min())), float(max(edges.max(), 1e-12))
    axes.imshow(edges, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    targets = [name.removeprefix("domain/")[: style.LONGEST] for name in found.columns]
    axes.set_xticks(range(len(targets)), targets, rotation=30)
    for text in axes.get_xticklabels():
        text.set_horizontalalignment("right")
    axes.set_yticks(range(len(found.rows)), [name[: style.LONGEST] for name in found.rows])
    for i, row in enumerate(edges if len(found.columns) <= CELLS else ()):
        for j, edge in enumerate(row):
            color = "#ffffff" if edge > low + 0.55 * (high - low) else "#000000"
            axes.text(j, i, f"{edge:.2f}", ha="center", va="center", color=color, fontsize=8)
    axes.set_xlabel("evaluated skill")
    axes.set_ylabel("training skill")
    return figure
