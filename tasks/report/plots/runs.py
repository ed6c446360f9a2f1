"""Pictures of runs: held-out predictions, losses and weights over tokens, objectives over sizes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cuvee.mixtures.runs.run_results import RunResult
from cuvee.mixtures.scale_evidence import ScaleEvidence
from cuvee.tasks.report.plots import style
from cuvee.tasks.study.study import Study, same_mixture


def held_out_figure(study: Study) -> Figure:
    """Observed against predicted objective of runs that each law had not seen."""
    laws = study.recommendation.laws
    columns = min(2, len(laws))
    rows = -(-len(laws) // columns)
    figure = style.empty_figure(2.75 * rows + 0.2)
    points = style.points_of([pair for law in laws for pair in law.held_out])
    ends = (points.min(), points.max()) if points.size else (0.0, 1.0)
    for i, law in enumerate(laws):
        axes = style.without_frame(figure.add_subplot(rows, columns, i + 1))
        seen = style.points_of(law.held_out)
        axes.plot(ends, ends, color=style.INK, linewidth=0.7, alpha=0.6)
        axes.plot(*seen.T, "o", color=style.BLUE, markersize=4, alpha=0.75)
        chosen = ", chosen" if law.chosen else ""
        axes.set_title(f"{law.law}{chosen}\nrank correlation {law.spearman:.2f}")
        axes.set_xlabel("observed")
        axes.set_ylabel("predicted" if i % columns == 0 else "")
        axes.locator_params(nbins=4)
    return figure


def learning_curve_figure(study: Study) -> Figure:
    """Held-out rank correlation against the number of runs that the law was fitted to."""
    figure, axes = style.plain_axes(2.6)
    for law in study.recommendation.laws:
        if law.learning_curve:
            line = style.points_of(law.learning_curve)
            axes.plot(*line.T, "o-", color=style.BLUE, label=law.law)
    axes.axhline(0, color=style.INK, linewidth=0.5, alpha=0.5)
    axes.set_ylim(top=1.02)
    return style.finish_axes(figure, axes, "runs fitted", "held-out rank correlation")


def loss_curves_figure(study: Study) -> Figure:
    """Training loss of every run; the baselines, the best and the recommended one stand out."""
    figure, axes = style.plain_axes(3.4)
    extra = [run.result for run in study.confirmation.runs] if study.confirmation else []
    runs = [run for run in (*study.runs, *extra) if run.curve]
    named = [(mixture_name(study, run), run) for run in runs]
    for name, run in sorted(named, key=lambda pair: pair[0] != ""):
        line = style.points_of(run.curve)
        width, alpha = (1.1, 0.9) if name else (0.6, 0.25)
        color, _ = style.mixture_style(name)
        axes.plot(line[:, 0] / 1e6, line[:, 1], color=color, linewidth=width, alpha=alpha)
    for name in dict.fromkeys(name for name, _ in named):
        color, _ = style.mixture_style(name)
        axes.plot([], [], color=color, alpha=0.9 if name else 0.4, label=name or "other mixtures")
    if runs:
        last = np.concatenate(
            [[loss for _, loss in run.curve[len(run.curve) // 8 :]] for run in runs]
        )
        axes.set_ylim(last.min() - 0.1, last.max() + 0.1)  # the first drop would hide the rest
    return style.finish_axes(figure, axes, "tokens seen, millions", "training loss, nats per token")


def mixture_name(study: Study, run: RunResult) -> str:
    """The name of a run's mixture: recommended, natural, uniform, best observed, or empty."""
    for candidate in study.recommendation.candidates:
        if candidate.name in style.MIXTURE_STYLES and same_mixture(
            run.spec.weights, candidate.weights
        ):
            return candidate.name
    return ""


def trajectory_figure(
    domains: Sequence[str], trajectory: Sequence[tuple[int, tuple[float, ...]]]
) -> Figure:
    """Share of each domain over the tokens of a run whose weights move."""
    figure, axes = style.plain_axes(3.4)
    tokens = np.array([seen for seen, _ in trajectory]) / 1e6
    shares = np.array([row for _, row in trajectory]) * 100
    for i, name in enumerate(domains):
        line = style.LINES[i // len(style.COLORS) % len(style.LINES)]
        color = style.COLORS[i % len(style.COLORS)]
        axes.step(
            tokens, shares[:, i], line, where="post", color=color, label=name[: style.LONGEST]
        )
    axes.set_ylim(bottom=0)
    return style.finish_axes(
        figure, axes, "tokens seen, millions", "weight, %", ncols=3, fontsize=8
    )


def scales_figure(found: ScaleEvidence) -> Figure:
    """Objective against parameters; named mixtures stand out, others are thin."""
    figure = style.empty_figure(3.4)
    axes = figure.add_subplot()
    for curve in found.curves:
        line = style.points_of([(p.parameters, p.objective) for p in curve.points])
        color, marker = style.mixture_style(curve.name, ".")
        known = curve.name in style.MIXTURE_STYLES
        width, alpha, order = (1.6, 1.0, 3) if known else (0.6, 0.4, 2)
        axes.plot(
            *line.T, f"{marker}-", color=color, label=curve.name if known else None,
            linewidth=width, alpha=alpha, zorder=order,
        )  # fmt: skip
    sizes = sorted({p.parameters for curve in found.curves for p in curve.points})
    style.log_places(axes, {size: f"{size:.2g}" for size in sizes})
    axes.set_xlabel("parameters, embeddings included")
    axes.set_ylabel("objective, bits per byte\nlower is better")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    return figure


def shared_text_figure(names: Sequence[str], shares: NDArray[np.float64]) -> Figure:
    """Share of the documents of each domain (down) that another one (across) holds too."""
    figure, axes = style.shaded_table(shares, names, names, ".0%")
    axes.set_xlabel("is also in")
    axes.set_ylabel("text of")
    return figure
