"""The report's section on leaks that likelihoods tell: items as published against other orders."""

from collections.abc import Iterable

import numpy as np
from scipy import stats

from cuvee.evaluation.membership import LEAK
from cuvee.mixtures.inference.diagnostics import holm
from cuvee.tasks.report.blocks import Block, Paragraph, ReportTable
from cuvee.tasks.report.sections.headline import NONE
from cuvee.tasks.study.study import Study

SURE = 0.05  # of the probability, over all tasks and detectors together


def order_excesses(study: Study) -> dict[str, tuple[float, float, float, float]]:
    """By how much detectors prefer the published order of choices, by "task/piqa/leak_min_k".

    Returns:
        Mean over runs and items, its standard error over items, number of items; and the
        probability of a mean so high without a leak, Holm's over all. Runs share their items: the
        error of their mean is at most the mean of their errors, which is taken.
    """
    every: dict[str, list[tuple[float, float, int]]] = {}
    for run in study.runs:
        for name in filter(lambda name: LEAK in name, run.details):
            score = run.details[name]
            every.setdefault(name, []).append((score.value, score.stderr, score.n))
    means = {name: np.mean(values, axis=0).tolist() for name, values in every.items()}
    p = holm([float(stats.norm.sf(m / e)) if e > 0 else 1.0 for m, e, _ in means.values()])
    return {name: (*told, one) for (name, told), one in zip(means.items(), p, strict=True)}


def detector_blocks(study: Study) -> Iterable[Block]:
    """By how much proxies prefer the published order of choices, where the recipe asks."""
    told, untrained, rows = order_excesses(study), study.untrained or {}, []
    if not told:
        return
    yield Paragraph(
        "By how much each detector of membership says more of an item in its published order of "
        "choices than in other orders, in its own units; mean of all proxies, with one standard "
        "error over items. 0 is expected of items that were not seen, unless their order means "
        "something (numbers that rise, 'all of the above' at the end)."
    )
    for name, (mean, error, items, p) in told.items():
        before = f"{untrained[name]:+.3f}" if name in untrained else NONE
        cells = (f"{items:.0f}", before, f"{mean:+.3f} ± {error:.3f}", f"{p:.3f}")
        rows.append((*name.split(LEAK), *cells))
    columns = ("task", "detector", "items", "untrained", "proxies", "p (Holm)")
    yield ReportTable(columns, tuple(rows), words=(1,), fold=12)
    sure = sorted({name.split(LEAK)[0] for name, (*_, p) in told.items() if p < SURE})
    yield Paragraph(
        f"The published order of {', '.join(sure)} is preferred beyond chance: either these items "
        "are in the training text, choices included, or their order means something."
        if sure
        else "No detector tells the published order from others (least p "
        f"{min(p for *_, p in told.values()):.2f}). That excludes leaks of many copies with their "
        "choices, and no others: small proxies do not recognize what they saw a few times."
    )
