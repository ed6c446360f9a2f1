"""The report's section on leaks that likelihoods tell: items as published against other orders."""

from collections.abc import Iterable

import numpy as np
from scipy import stats

from cuvee.evaluation.membership import LEAK
from cuvee.mixtures.inference.diagnostics import holm
from cuvee.tasks.report.blocks import Block, Paragraph, ReportTable
from cuvee.tasks.report.sections.headline import NONE
from cuvee.tasks.study.study import Study

SURE = 0.05  # of the probability, over all tasks and tested detectors together
TESTED = ("loss", "zlib")  # whose excess was 0 over items that were not seen: docs/results/leaks.md


def order_excesses(study: Study) -> dict[str, tuple[float, float, float, float | None]]:
    """By how much detectors prefer the published order of choices, by "task/piqa/leak_min_k".

    Returns:
        Mean over runs and items, its standard error over items, number of items; and of `TESTED`
        the probability of a mean so high without a leak, Holm's over all, else None. Runs share
        their items: the error of their mean is at most the mean of their errors, which is taken.
    """
    every: dict[str, list[tuple[float, float, int]]] = {}
    for run in study.runs:
        for name in filter(lambda name: LEAK in name, run.details):
            score = run.details[name]
            every.setdefault(name, []).append((score.value, score.stderr, score.n))
    means = {name: np.mean(values, axis=0).tolist() for name, values in every.items()}
    tested = [name for name in means if name.split(LEAK)[1] in TESTED]
    p = holm(
        [
            float(stats.norm.sf(m / e)) if e > 0 else 1.0
            for m, e, _ in (means[name] for name in tested)
        ]
    )
    known = dict(zip(tested, p, strict=True))
    return {name: (*told, known.get(name)) for name, told in means.items()}


def detector_blocks(study: Study) -> Iterable[Block]:
    """By how much proxies prefer the published order of choices, where the recipe asks."""
    told, untrained, rows = order_excesses(study), study.untrained or {}, []
    if not told:
        return
    yield Paragraph(
        "By how much each detector of membership says more of an item in its published order of "
        "choices than in other orders, in its own units; mean of all proxies, with one standard "
        "error over items. 0 is expected of items that were not seen, unless their order means "
        "something (numbers that rise, 'all of the above' at the end). Only of "
        f"{' and '.join(TESTED)} was 0 seen: others have no probability, and prove nothing."
    )
    for name, (mean, error, items, p) in told.items():
        before = f"{untrained[name]:+.3f}" if name in untrained else NONE
        cells = (f"{items:.0f}", before, f"{mean:+.3f} ± {error:.3f}")
        rows.append((*name.split(LEAK), *cells, NONE if p is None else f"{p:.3f}"))
    columns = ("task", "detector", "items", "untrained", "proxies", "p (Holm)")
    yield ReportTable(columns, tuple(rows), words=(1,), fold=12)
    known = {name: p for name, (*_, p) in told.items() if p is not None}
    if sure := [" by ".join(name.split(LEAK)) for name, p in known.items() if p < SURE]:
        yield Paragraph(
            f"The published order is preferred beyond chance, of {', '.join(sure)}: either these "
            "items are in the training text, choices included, or their order means something."
        )
    elif known:
        yield Paragraph(
            "The published order is not told from others "
            f"(least p {min(known.values()):.2f}). That excludes leaks of many copies with their "
            "choices, and no others: small proxies do not recognize what they saw a few times."
        )
