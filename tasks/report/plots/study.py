"""The report's pictures, drawn with matplotlib's figures alone: no window, no global state.

Each function returns a `Figure`; `svg` and `png` turn it into bytes that depend on the study only.
All ink that is not a color of the palette is drawn in `INK`, which `svg` replaces by the page's own
text color, so that one picture serves light and dark pages.

Palette: Okabe and Ito 2008, "Color Universal Design"; every color goes with a marker of its own, so
that no picture depends on color.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cuvee.mixtures.recommendation import Estimate
from cuvee.mixtures.runs import RunResult
from cuvee.tasks.study.study import Study, same_mixture
from cuvee.tasks.validation.paired import BASELINES, RECOMMENDED, Confirmation

INK = "#1b1e23"
BEST = "best observed"
STYLE = {
    RECOMMENDED: ("#0072b2", "o"),
    "natural": ("#d55e00", "s"),
    "uniform": ("#009e73", "D"),
    BEST: ("#cc79a7", "^"),
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
    """A picture as inline SVG and as PNG.

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


def shares_figure(study: Study) -> Figure:
    """Share of tokens per domain: recommended with its interval, beside the baselines."""
    ours = study.recommendation
    figure, axes = _rows([_short(name) for name in ours.domains], extra=1.1)
    y = np.arange(len(ours.domains))
    low, high = np.array(ours.intervals).T * 100
    color, marker = STYLE[RECOMMENDED]
    axes.hlines(y, low, high, color=color, linewidth=2.2)
    axes.plot(ours.weights * 100, y, marker, color=color, label=RECOMMENDED, zorder=3)
    for candidate in ours.candidates:
        if candidate.name != RECOMMENDED:
            color, marker = _style(candidate.name)
            x = np.array(candidate.weights) * 100
            axes.plot(x, y, marker, mfc="none", color=color, label=candidate.name, alpha=0.9)
    axes.set_xlim(left=0)
    axes.set_xlabel("share of training tokens, % (bar: 90% interval)")
    _legend(figure, axes)
    return figure


def gains_figure(confirmation: Confirmation, targets: Sequence[str]) -> Figure:
    """Confirmed gain over each baseline, for the objective and every target."""
    figure, axes = _rows(["objective", *(_short(t) for t in targets)], extra=1.1)
    for shift, name in zip((-0.14, 0.14), BASELINES, strict=True):
        if name not in confirmation.objective:
            continue
        pairs = (confirmation.objective[name], *confirmation.targets.get(name, ()))
        y = np.arange(len(pairs)) + shift
        color, marker = _style(name)
        ends = [p.low for p in pairs], [p.high for p in pairs]
        axes.hlines(y, *ends, color=color, linewidth=1.6)
        label = f"over {name}"
        axes.plot([p.gain for p in pairs], y, marker, color=color, markersize=5, label=label)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.axhline(0.5, color=INK, linewidth=0.5, alpha=0.5)
    axes.set_xlabel(
        f"gain, bits per byte (bar: {confirmation.level:.0%} interval); right is better"
    )
    _legend(figure, axes)
    return figure


def larger_sizes_figure(study: Study) -> Figure:
    """Gain over each baseline against training FLOPs, the study's own size first."""
    figure, axes = _figure(3.2)
    steps = study.confirmations
    names = dict.fromkeys(name for step in steps for name in step.objective)
    for i, name in enumerate(names):
        here = [step for step in steps if name in step.objective]
        x = np.array([step.flops for step in here]) * 1.03**i  # bars side by side
        pairs = [step.objective[name] for step in here]
        color, marker = _style(name)
        axes.vlines(x, [p.low for p in pairs], [p.high for p in pairs], color=color, linewidth=1.6)
        label = f"over {name}"
        axes.plot(x, [p.gain for p in pairs], marker + "-", color=color, linewidth=0.8, label=label)
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xscale("log")
    axes.set_xlabel("training FLOPs of one proxy")
    level = steps[0].level if steps else 0.0
    axes.set_ylabel(f"gain, bits per byte\n(bar: {level:.0%} interval); higher is better")
    _legend(figure, axes)
    return figure


def objectives_figure(study: Study) -> Figure:
    """Objective of every mixture: predicted with its interval, and each confirmed seed."""
    candidates = study.recommendation.candidates
    figure, axes = _rows([c.name for c in candidates], extra=0.9)
    for y, candidate in enumerate(candidates):
        color, marker = _style(candidate.name)
        _interval(axes, candidate.objective, y, color=color, marker=marker)
        if study.confirmation:
            seeds = list(study.confirmation.values(candidate.name).values())
            axes.plot(seeds, [y + 0.25] * len(seeds), "|", color=color, markersize=9, mew=1.6)
    axes.set_ylim(len(candidates) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel("objective, bits per byte; left is better")
    return figure


def held_out_figure(study: Study) -> Figure:
    """Observed against predicted objective of runs that each law had not seen."""
    laws = study.recommendation.laws
    columns = min(2, len(laws))
    rows = -(-len(laws) // columns)
    figure = Figure(figsize=(WIDTH, 2.75 * rows + 0.2), layout="constrained")
    points = np.array([pair for law in laws for pair in law.held_out]).reshape(-1, 2)
    ends = (points.min(), points.max()) if points.size else (0.0, 1.0)
    for i, law in enumerate(laws):
        axes = figure.add_subplot(rows, columns, i + 1)
        _plain(axes)
        seen = np.array(law.held_out).reshape(-1, 2)
        axes.plot(ends, ends, color=INK, linewidth=0.7, alpha=0.6)
        axes.plot(seen[:, 0], seen[:, 1], "o", color="#0072b2", markersize=4, alpha=0.75)
        chosen = ", chosen" if law.chosen else ""
        axes.set_title(f"{law.law}{chosen}\nrank correlation {law.spearman:.2f}")
        axes.set_xlabel("observed")
        axes.set_ylabel("predicted" if i % columns == 0 else "")
        axes.locator_params(nbins=4)
    return figure


def pareto_figure(study: Study) -> Figure:
    """What the first two aims cost each other: the front, and where the candidates lie."""
    figure, axes = _figure(3.3)
    found = study.recommendation.front
    if found is not None:
        line = np.array([(point.first, point.second) for point in found.points]).reshape(-1, 2)
        axes.plot(line[:, 0], line[:, 1], ".-", color=INK, linewidth=0.9, alpha=0.6, label="front")
        for mark in found.marks:
            color, marker = _style(mark.name)
            axes.plot([mark.first], [mark.second], marker, color=color, label=mark.name)
        axes.set_xlabel(f"{_short(found.first)}, bits per byte; left is better")
        unit = "nats" if found.distance else "bits per byte"
        axes.set_ylabel(f"{_short(found.second)}, {unit}\nlower is better")
    axes.locator_params(nbins=6)
    _legend(figure, axes)
    return figure


def learning_curve_figure(study: Study) -> Figure:
    """Held-out rank correlation against the number of runs that the law was fitted to."""
    figure, axes = _figure(2.6)
    for law in study.recommendation.laws:
        if law.learning_curve:
            rows, rho = np.array(law.learning_curve, dtype=float).T
            axes.plot(rows, rho, "o-", color="#0072b2", label=law.law)
    axes.axhline(0, color=INK, linewidth=0.5, alpha=0.5)
    axes.set_ylim(top=1.02)
    axes.set_xlabel("runs fitted")
    axes.set_ylabel("held-out rank correlation")
    _legend(figure, axes)
    return figure


def loss_curves_figure(study: Study) -> Figure:
    """Training loss of every run; the baselines, the best and the recommended one stand out."""
    figure, axes = _figure(3.4)
    extra = [run.result for run in study.confirmation.runs] if study.confirmation else []
    runs = [run for run in (*study.runs, *extra) if run.curve]
    named = [(mixture_name(study, run), run) for run in runs]
    for name, run in sorted(named, key=lambda pair: pair[0] != ""):
        tokens, loss = np.array(run.curve, dtype=float).T
        width, alpha = (1.1, 0.9) if name else (0.6, 0.25)
        axes.plot(tokens / 1e6, loss, color=_style(name)[0], linewidth=width, alpha=alpha)
    for name in dict.fromkeys(name for name, _ in named):
        label = name or "other mixtures"
        axes.plot([], [], color=_style(name)[0], alpha=0.9 if name else 0.4, label=label)
    if runs:
        last = np.concatenate(
            [[loss for _, loss in run.curve[len(run.curve) // 8 :]] for run in runs]
        )
        axes.set_ylim(last.min() - 0.1, last.max() + 0.1)  # the first drop would hide the rest
    axes.set_xlabel("tokens seen, millions")
    axes.set_ylabel("training loss, nats per token")
    _legend(figure, axes)
    return figure


def mixture_name(study: Study, run: RunResult) -> str:
    """The name of a run's mixture: recommended, natural, uniform, best observed, or empty."""
    for candidate in study.recommendation.candidates:
        if candidate.name in STYLE and same_mixture(run.spec.weights, candidate.weights):
            return candidate.name
    return ""


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    _plain(axes)
    return figure, axes


def _rows(labels: Sequence[str], *, extra: float) -> tuple[Figure, Axes]:
    figure, axes = _figure(ROW * len(labels) + extra)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.set_axisbelow(True)


def _interval(axes: Axes, estimate: Estimate, y: float, *, color: str, marker: str) -> None:
    axes.hlines(y, estimate.low, estimate.high, color=color, linewidth=2.2)
    axes.plot([estimate.mean], [y], marker, color=color)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside upper left", ncols=2, columnspacing=1.2)


def _style(name: str) -> tuple[str, str]:
    return STYLE.get(name, (INK, "v"))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else name[: LONGEST - 3] + "..."
