"""The report's section on leaks that likelihoods tell: items as published against other orders."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from cuvee.evaluation.membership import LEAK
from cuvee.mixtures.inference.diagnostics import holm
from cuvee.tasks.report.blocks import Block, Paragraph, ReportTable
from cuvee.tasks.report.sections.headline import NONE
from cuvee.tasks.study.study import Study

SURE = 0.05  # of the probability, over all tasks and detectors together


@dataclass(frozen=True)
class ToldExcess:
    """What a detector tells of a task: by how much it prefers the published order of choices.

    Attributes:
        name: "task/piqa/leak_min_k".
        mean: over runs and items; 0 is expected of items that were not seen.
        error: its standard error over items, which all runs share.
        items: that have choices and fit into the context.
        p: of a mean so high without a leak, Holm's over all tasks and detectors.
    """

    name: str
    mean: float
    error: float
    items: int
    p: float


def told_excesses(study: Study) -> tuple[ToldExcess, ...]:
    """Every task and detector that the runs were audited by, in their order."""
    every: dict[str, list[tuple[float, float, int]]] = {}
    for run in study.runs:
        for name, score in run.details.items():
            if LEAK in name:
                every.setdefault(name, []).append((score.value, score.stderr, score.n))
    # Runs share their items: the error of their mean is at most the mean of their errors.
    means = {name: np.mean(values, axis=0).tolist() for name, values in every.items()}
    p = holm([float(stats.norm.sf(m / e)) if e > 0 else 1.0 for m, e, _ in means.values()])
    return tuple(
        ToldExcess(name, mean, error, round(items), one)
        for (name, (mean, error, items)), one in zip(means.items(), p, strict=True)
    )


def detector_blocks(study: Study) -> Iterable[Block]:
    """By how much proxies prefer the published order of choices, where the recipe asks."""
    told = told_excesses(study)
    if not told:
        return
    yield Paragraph(
        "By how much each detector of membership says more of an item in its published order of "
        "choices than in other orders, in its own units; mean of all proxies, with one standard "
        "error over items. 0 is expected of items that were not seen, unless their order means "
        "something (numbers that rise, 'all of the above' at the end)."
    )
    untrained = study.untrained or {}
    rows = []
    for one in told:
        before = f"{untrained[one.name]:+.3f}" if one.name in untrained else NONE
        task, detector = one.name.split(LEAK)
        mean = f"{one.mean:+.3f} ± {one.error:.3f}"
        rows.append((task, detector, str(one.items), before, mean, f"{one.p:.3f}"))
    columns = ("task", "detector", "items", "untrained", "proxies", "p (Holm)")
    yield ReportTable(columns, tuple(rows), words=(1,), fold=12)
    yield Paragraph(_verdict(told))


def _verdict(told: Sequence[ToldExcess]) -> str:
    sure = sorted({one.name.split(LEAK)[0] for one in told if one.p < SURE})
    if sure:
        return (
            f"The published order of {', '.join(sure)} is preferred beyond chance: either these "
            "items are in the training text, choices included, or their order means something."
        )
    return (
        f"No detector tells the published order from others (least p {min(t.p for t in told):.2f})."
        " That excludes leaks of many copies with their choices, and no others: small proxies "
        "do not recognize an item that they saw once or a few times."
    )
