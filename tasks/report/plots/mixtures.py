"""Pictures of mixtures: their shares, objectives, gains with intervals, and their Pareto front."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from cuvee.mixtures.recommendation import LEVEL, Estimate, Front, Recommendation
from cuvee.tasks.report.plots import style
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import BASELINES, RECOMMENDED, Confirmation

RIGHT = "gain, bits per byte (bar: {:.0%} interval); right is better"


def shares_figure(ours: Recommendation) -> Figure:
    """Share of tokens per domain: recommended with its interval, beside the baselines."""
    figure, axes = style.row_axes([style.short_name(name) for name in ours.domains], extra=1.1)
    y = np.arange(len(ours.domains))
    ends = zip(ours.weights, ours.intervals, strict=True)
    percent = [Estimate(w * 100, low * 100, high * 100) for w, (low, high) in ends]
    style.interval_dots(axes, RECOMMENDED, percent, y, label=RECOMMENDED, zorder=3)
    for candidate in ours.candidates:
        if candidate.name != RECOMMENDED:
            color, marker = style.mixture_style(candidate.name)
            x = np.array(candidate.weights) * 100
            axes.plot(x, y, marker, mfc="none", color=color, label=candidate.name, alpha=0.9)
    axes.set_xlim(left=0)
    return style.finish_axes(figure, axes, "share of training tokens, % (bar: 90% interval)")


def gains_figure(confirmation: Confirmation, targets: Sequence[str]) -> Figure:
    """Confirmed gain over each baseline, for the objective and every target."""
    figure, axes = style.row_axes(["objective", *(style.short_name(t) for t in targets)], extra=1.1)
    for shift, name in zip((-0.14, 0.14), BASELINES, strict=True):
        if name not in confirmation.objective:
            continue
        pairs = (confirmation.objective[name], *confirmation.targets.get(name, ()))
        estimates, y = [p.estimate for p in pairs], np.arange(len(pairs)) + shift
        style.interval_dots(axes, name, estimates, y, line=1.6, markersize=5, label=f"over {name}")
    axes.axvline(0, color=style.INK, linewidth=0.8)
    axes.axhline(0.5, color=style.INK, linewidth=0.5, alpha=0.5)
    return style.finish_axes(figure, axes, RIGHT.format(confirmation.level))


def trial_figure(gains: Sequence[tuple[str, Estimate]]) -> Figure:
    """Gain over each mixture of the method's own trial with its interval."""
    figure, axes = style.row_axes([f"over {name}" for name, _ in gains], extra=0.9, ticks=True)
    for y, (name, gain) in enumerate(gains):
        style.interval_dots(axes, name, [gain], [y])
    axes.axvline(0, color=style.INK, linewidth=0.8)
    return style.finish_axes(figure, axes, RIGHT.format(LEVEL))


def larger_sizes_figure(study: Study) -> Figure:
    """Gain over each baseline against training FLOPs, the study's own size first."""
    figure, axes = style.plain_axes(3.2)
    steps = study.confirmations
    names = dict.fromkeys(name for step in steps for name in step.objective)
    for i, name in enumerate(names):
        here = [step for step in steps if name in step.objective]
        x = np.array([step.flops for step in here]) * 1.03**i  # bars side by side
        line = {"linestyle": "-", "linewidth": 0.8, "label": f"over {name}"}
        gains = [step.objective[name].estimate for step in here]
        style.interval_dots(axes, name, gains, x, line=1.6, upright=True, **line)
    axes.axhline(0, color=style.INK, linewidth=0.8)
    sizes = {step.flops: f"{step.size}\n{step.flops:.1e}" for step in steps}
    style.log_places(axes, sizes)
    level = steps[0].level if steps else 0.0
    y = f"gain, bits per byte\n(bar: {level:.0%} interval); higher is better"
    return style.finish_axes(figure, axes, "training FLOPs of one proxy", y)


def objectives_figure(study: Study) -> Figure:
    """Objective of every mixture: predicted with its interval, and each confirmed seed."""
    candidates = study.recommendation.candidates
    figure, axes = style.row_axes([c.name for c in candidates], extra=0.9)
    for y, candidate in enumerate(candidates):
        style.interval_dots(axes, candidate.name, [candidate.objective], [y])
        if study.confirmation:
            seeds = list(study.confirmation.values(candidate.name).values())
            color, _ = style.mixture_style(candidate.name)
            axes.plot(seeds, [y + 0.25] * len(seeds), "|", color=color, markersize=9, mew=1.6)
    axes.set_ylim(len(candidates) - 0.5, -0.5)
    axes.locator_params(axis="x", nbins=6)
    return style.finish_axes(figure, axes, "objective, bits per byte; left is better")


def pareto_figure(found: Front) -> Figure:
    """What the first two aims cost each other: the front, and where the candidates lie."""
    figure, axes = style.plain_axes(3.3)
    line = style.points_of([(point.first, point.second) for point in found.points])
    axes.plot(*line.T, ".-", color=style.INK, linewidth=0.9, alpha=0.6, label="front")
    for mark in found.marks:
        color, marker = style.mixture_style(mark.name)
        axes.plot([mark.first], [mark.second], marker, color=color, label=mark.name)
    axes.locator_params(nbins=6)
    unit = "nats" if found.distance else "bits per byte"
    x = f"{style.short_name(found.first)}, bits per byte; left is better"
    y = f"{style.short_name(found.second)}, {unit}\nlower is better"
    return style.finish_axes(figure, axes, x, y)
