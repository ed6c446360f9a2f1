"""Pictures of a skill graph: as arrows on a circle, and as a table of shades."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from cuvee.mixtures.skill_graph import SkillGraph
from cuvee.tasks.report.plots import style

WIDEST = 4.0  # points, of the strongest edge


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
    targets = [name.removeprefix("domain/") for name in found.columns]
    figure, axes = style.shaded_table(np.array(found.edges), found.rows, targets, ".2f")
    axes.set_xlabel("evaluated skill")
    axes.set_ylabel("training skill")
    return figure
