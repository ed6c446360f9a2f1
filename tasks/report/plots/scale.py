"""The picture of the scale section: objective over sizes, one line per mixture."""

import numpy as np
from matplotlib.figure import Figure

from cuvee.tasks.report.plots.study import INK, STYLE, WIDTH
from cuvee.tasks.study.study import Study


def scales_figure(study: Study) -> Figure:
    """Objective against parameters; named mixtures stand out, others are thin."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.add_subplot()
    found = study.recommendation.scale
    for curve in found.curves if found else ():
        line = np.array([(p.parameters, p.objective) for p in curve.points], dtype=np.float64)
        color, marker = STYLE.get(curve.name, (INK, "."))
        known = curve.name in STYLE
        axes.plot(
            line[:, 0], line[:, 1], f"{marker}-", color=color, label=curve.name if known else None,
            linewidth=1.6 if known else 0.6, alpha=1.0 if known else 0.4, zorder=3 if known else 2,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("parameters, embeddings included")
    axes.set_ylabel("objective, bits per byte\nlower is better")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    return figure
