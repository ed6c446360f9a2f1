"""The look of the report's pictures: one palette, one kind of axes, and how a figure becomes bytes.

Figures are matplotlib's own, without a window or global state. All ink that is not a color of the
palette is drawn in `INK`, which `figure_svg` replaces by the page's own text color, so that one
picture serves light and dark pages.

Palette: Okabe and Ito 2008, "Color Universal Design"; every color goes with a marker or a line of
its own, so that no picture depends on color.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from cuvee.mixtures.recommendation import Estimate
from cuvee.tasks.validation.paired import BEST, RECOMMENDED

INK = "#1b1e23"
BLUE, RED, GREEN, PINK = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
COLORS = (BLUE, RED, GREEN, PINK, "#e69f00", "#56b4e9", "#999999")
LINES = ("-", "--", ":", "-.")  # with the colors, 28 lines that differ
MIXTURE_STYLES = {
    RECOMMENDED: (BLUE, "o"),
    "natural": (RED, "s"),
    "uniform": (GREEN, "D"),
    BEST: (PINK, "^"),
}
WIDTH = 5.6  # inches: one of two columns on a wide page, still legible on a telephone
ROW = 0.30  # inches for each row of a dot plot
LONGEST = 24  # characters of a name on an axis; tables have it in full
SETTINGS: Any = {  # names of rcParams are a literal type that no dict of ours has
    "font.size": 10,
    "text.parse_math": False,  # a name may hold dollar signs
    "svg.fonttype": "none",
    "svg.hashsalt": "cuvee",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.7,
    "axes.titlesize": 10,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def draw_picture(plot: Callable[[], Figure], name: str) -> tuple[str, bytes]:
    """A picture as inline SVG and as PNG; the bytes depend on the study only.

    Args:
        plot: makes the figure; it is called with the settings of the report.
        name: unique in its page; it keeps the identifiers of pictures apart.
    """
    with matplotlib.rc_context(SETTINGS):
        figure = plot()
        return figure_svg(figure, name), figure_png(figure)


def figure_svg(figure: Figure, name: str) -> str:
    """A figure as an SVG element whose ink is `currentColor`."""
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    return re.sub(r'(url\(|href=")#', rf"\g<1>#{name}-", text)


def figure_png(figure: Figure) -> bytes:
    """A figure as PNG on white, 144 dots per inch."""
    FigureCanvasAgg(figure)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=144, facecolor="white", metadata={"Software": None})
    return out.getvalue()


def empty_figure(height: float) -> Figure:
    """A figure of the page's width, inches high."""
    return Figure(figsize=(WIDTH, height), layout="constrained")


def plain_axes(height: float) -> tuple[Figure, Axes]:
    """A figure with one pair of axes."""
    figure = empty_figure(height)
    return figure, without_frame(figure.add_subplot())


def without_frame(axes: Axes) -> Axes:
    """Axes without a frame, on a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def row_axes(labels: Sequence[str], *, extra: float, ticks: bool = False) -> tuple[Figure, Axes]:
    """Axes with a named row for each label, the first on top; `extra` inches beside the rows."""
    figure, axes = plain_axes(ROW * len(labels) + extra)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - (0.5 if ticks else 0.4), -0.5 if ticks else -0.6)
    if not ticks:
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    return figure, axes


def interval_dots(
    axes: Axes,
    name: str,
    estimates: Sequence[Estimate],
    at: Any,
    *,
    line: float = 2.2,
    upright: bool = False,
    **dots: Any,
) -> None:
    """Estimates as dots with bars, at places along the other axis, in the style of a mixture."""
    color, marker = mixture_style(name)
    means = [estimate.mean for estimate in estimates]
    ends = [estimate.low for estimate in estimates], [estimate.high for estimate in estimates]
    (axes.vlines if upright else axes.hlines)(at, *ends, color=color, linewidth=line)
    x, y = (at, means) if upright else (means, at)
    axes.plot(x, y, **{"marker": marker, "linestyle": "None", "color": color, **dots})


def shaded_table(
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    form: str,
    *,
    most: int = 12,
    signed: bool = False,
) -> tuple[Figure, Axes]:
    """Values as shades of blue, darker is more; with their numbers up to `most` columns. Signed
    ones are blue above zero and red below."""
    figure = empty_figure(0.32 * len(rows) + 1.5)
    axes = figure.add_subplot()
    low, high = float(min(0.0, values.min())), float(max(values.max(), 1e-12))
    if signed:
        low = -(high := max(high, -low))
    axes.imshow(values, cmap="RdBu" if signed else "Blues", vmin=low, vmax=high, aspect="auto")
    axes.set_xticks(range(len(columns)), [name[:LONGEST] for name in columns], rotation=30)
    for text in axes.get_xticklabels():
        text.set_horizontalalignment("right")
    axes.set_yticks(range(len(rows)), [name[:LONGEST] for name in rows])
    for i, row in enumerate(values if len(columns) <= most else ()):
        for j, value in enumerate(row):
            deep = abs(value) > 0.6 * high if signed else value > low + 0.55 * (high - low)
            color = "#ffffff" if deep else "#000000"
            shown = format(value, form)
            axes.text(j, i, shown, ha="center", va="center", color=color, fontsize=8)
    return figure, axes


def log_places(axes: Axes, places: Mapping[float, str]) -> None:
    """A logarithmic axis whose ticks are the places that were measured; powers of ten would be
    mathematics, which is not set where a name may hold dollar signs."""
    axes.set_xscale("log")
    axes.set_xticks(list(places), list(places.values()))
    axes.xaxis.set_minor_locator(NullLocator())


def finish_axes(figure: Figure, axes: Axes, x: str, y: str = "", **legend: Any) -> Figure:
    """A figure with what its axes show and, where a line has a name, what its colors mean."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        legend = {"ncols": 2, "columnspacing": 1.2, **legend}
        figure.legend(handles, labels, loc="outside upper left", **legend)
    return figure


def mixture_style(name: str, other: str = "v") -> tuple[str, str]:
    """Color and marker of a mixture; `other` marks one without a style of its own."""
    return MIXTURE_STYLES.get(name, (INK, other))


def short_name(name: str) -> str:
    """A name as an axis can hold it."""
    return name if len(name) <= LONGEST else name[: LONGEST - 3] + "..."


def points_of(pairs: Sequence[tuple[float, float]]) -> Any:
    """Pairs as an array (n, 2), which may have no row."""
    return np.array(pairs, dtype=np.float64).reshape(-1, 2)
