"""Pictures of methods that move weights: trial, weights over a run, skill graph.

They are drawn as `tasks.plots` says: figures alone, its palette, a marker for each color.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from cuvee.mixtures.recommendation import LEVEL, Estimate
from cuvee.mixtures.skill_graph import SkillGraph
from cuvee.tasks.report.plots.study import INK, LONGEST, ROW, STYLE, WIDTH

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
LINES = ("-", "--", ":", "-.")  # with the colors, 28 lines that differ
WIDEST = 4.0  # points, of the strongest edge
CELLS = 12  # columns of a table up to which its cells hold their number


def trial_figure(gains: Sequence[tuple[str, Estimate]]) -> Figure:
    """Gain over each mixture of the trial with its interval."""
    figure = Figure(figsize=(WIDTH, ROW * len(gains) + 0.9), layout="constrained")
    axes = figure.add_subplot()
    for y, (name, gain) in enumerate(gains):
        color, marker = STYLE.get(name, (INK, "v"))
        axes.hlines(y, gain.low, gain.high, color=color, linewidth=2.2)
        axes.plot([gain.mean], [y], marker, color=color)
    axes.set_yticks(range(len(gains)), [f"over {name}" for name, _ in gains])
    axes.set_ylim(len(gains) - 0.5, -0.5)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlabel(f"gain, bits per byte (bar: {LEVEL:.0%} interval); right is better")
    _plain(axes)
    return figure


def trajectory_figure(
    domains: Sequence[str], trajectory: Sequence[tuple[int, tuple[float, ...]]]
) -> Figure:
    """Share of each domain over the tokens of a run."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.add_subplot()
    tokens = np.array([seen for seen, _ in trajectory]) / 1e6
    shares = np.array([row for _, row in trajectory]) * 100
    for i, name in enumerate(domains):
        style = LINES[i // len(COLORS) % len(LINES)]
        color = COLORS[i % len(COLORS)]
        axes.step(tokens, shares[:, i], style, where="post", color=color, label=name[:LONGEST])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens seen, millions")
    axes.set_ylabel("weight, %")
    _plain(axes)
    figure.legend(loc="outside upper left", ncols=3, fontsize=8, columnspacing=1.2)
    return figure


def skill_graph_figure(found: SkillGraph) -> Figure:
    """Skills on a circle; an arrow from what is trained to what it helps, by its strength."""
    figure = Figure(figsize=(WIDTH, WIDTH * 0.86), layout="constrained")
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
                color="#0072b2",
                alpha=0.25 + 0.65 * part,
            )
        )
    for name, (x, y) in places.items():
        marker = "o" if name in found.rows else "s"
        axes.plot([x], [y], marker, color="#d55e00" if marker == "s" else "#009e73", markersize=9)
        side = "left" if x > 0.1 else "right" if x < -0.1 else "center"
        height = 1.13 if side == "center" else 1.0
        label = name if len(name) <= LONGEST else name[: LONGEST - 3] + "..."
        axes.text(1.1 * x, height * 1.06 * y, label, ha=side, va="center", fontsize=9)
    axes.set_xlim(-1.9, 1.9)
    axes.set_ylim(-1.35, 1.35)
    axes.set_aspect("equal")
    axes.axis("off")
    return figure


def skill_table_figure(found: SkillGraph) -> Figure:
    """Every edge: training skills down, evaluated skills across, darker is stronger."""
    edges = np.array(found.edges)
    figure = Figure(figsize=(WIDTH, 0.32 * len(found.rows) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    low, high = float(min(0.0, edges.min())), float(max(edges.max(), 1e-12))
    axes.imshow(edges, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(found.columns)), [_target(c) for c in found.columns], rotation=30)
    for text in axes.get_xticklabels():
        text.set_horizontalalignment("right")
    axes.set_yticks(range(len(found.rows)), [name[:LONGEST] for name in found.rows])
    for i, row in enumerate(edges if len(found.columns) <= CELLS else ()):
        for j, edge in enumerate(row):
            color = "#ffffff" if edge > low + 0.55 * (high - low) else "#000000"
            axes.text(j, i, f"{edge:.2f}", ha="center", va="center", color=color, fontsize=8)
    axes.set_xlabel("evaluated skill")
    axes.set_ylabel("training skill")
    return figure


def _target(name: str) -> str:
    return name.removeprefix("domain/")[:LONGEST]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
