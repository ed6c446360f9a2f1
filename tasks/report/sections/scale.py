"""From small to full scale: the report's section on sizes, their back-test and what it allows."""

from collections.abc import Iterable
from functools import partial

import numpy as np

from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference import benchmark_map
from cuvee.mixtures.scale_evidence import PLAIN, LawTrial, ScaleEvidence
from cuvee.tasks.report.blocks import Block, Paragraph, Picture, ReportTable
from cuvee.tasks.report.plots.runs import scales_figure
from cuvee.tasks.report.sections.findings import scales_finding
from cuvee.tasks.report.sections.headline import NONE
from cuvee.tasks.study.answers import UNIT
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import RECOMMENDED, interval_text

ACCURACY = "/accuracy"


def scale_blocks(study: Study) -> Iterable[Block]:
    """Curves over sizes, the back-test of the laws, what they forecast; nothing without sizes."""
    found = study.recommendation.scale
    if found is None:
        return
    yield Paragraph(found.statement)
    if found.certainty:
        yield Paragraph(found.certainty)
    yield Paragraph(f"By the back-test, {found.verdict}.")
    if not found.beats:
        yield Paragraph(
            "So the order of mixtures is assumed to be that of models of "
            f"{found.predicted_parameters:,} parameters at {found.predicted_tokens:,} tokens, and "
            "every predicted score outside of this section is of such a model."
        )
    if found.curves:
        caption = "Objective of each mixture that was trained at several sizes"
        yield Picture("scales", caption, scales_finding(found), partial(scales_figure, found))
        yield _curves(found)
    yield from _trials(found)
    yield from _forecasts(found)
    yield from _accuracy(study)


def _curves(found: ScaleEvidence) -> ReportTable:
    scales = sorted({(p.parameters, p.tokens) for c in found.curves for p in c.points})
    rows = []
    for curve in found.curves:
        known = {(p.parameters, p.tokens): f"{p.objective:.4f}" for p in curve.points}
        rows.append((curve.name, *(known.get(at, NONE) for at in scales)))
    head = tuple(f"{_short(n)}, {_short(d)} tokens" for n, d in scales)
    return ReportTable(("mixture", *head), tuple(rows))


def _trials(found: ScaleEvidence) -> Iterable[Block]:
    if not found.trials:
        return
    yield Paragraph(
        "Every law was fitted to all sizes but the largest and predicted that one. Decision "
        "accuracy is the share of pairs of mixtures in the right order; its gain is over the "
        "better of two rankings at one size: by a law of mixtures (single_scale), and by the "
        f"mixtures' own scores at the next smaller size ({PLAIN}). Intervals are over resampled "
        "mixtures (90%). Regret is of the mixture that it held for the best, at that size."
    )
    units = (f"{name}, {UNIT}" for name in ("regret", "mean error"))
    columns = ("law", "decision accuracy", "gain", "rank correlation", *units)
    tested = [t for t in found.trials if not t.refused]
    if tested:
        yield ReportTable(columns, tuple(_trial(t, t.law == found.chosen) for t in tested))
    refused = [t for t in found.trials if t.refused]
    if refused:
        rows = tuple((t.law, t.refused) for t in refused)
        yield ReportTable(("law", "why it was not tested"), rows, words=(1,))


def _trial(trial: LawTrial, chosen: bool) -> tuple[str, ...]:
    return (
        trial.law + (" (used)" if chosen else ""),
        f"{trial.decision_accuracy:.1%}",
        f"{trial.gain:+.1%} ({trial.low:+.1%} to {trial.high:+.1%})",
        f"{trial.spearman:.3f}",
        f"{trial.regret:.4f}",
        f"{trial.error:.4f}",
    )


def _forecasts(found: ScaleEvidence) -> Iterable[Block]:
    if not found.forecasts:
        return
    sizes, tokens = found.factors
    yield Paragraph(
        f"What each law, fitted to every size, forecasts of the objective ({UNIT}) at full scale, "
        f"{sizes:,.3g} times the largest model and {tokens:,.3g} times its tokens. Intervals hold "
        "what each law's back-tests on the sizes below show of its errors at a distance."
        + (f" The average weighs {_shares(found)}, by these back-tests." if found.weights else "")
    )
    names = tuple(dict.fromkeys(f.mixture for f in found.forecasts))
    rows = []
    for law in dict.fromkeys(f.law for f in found.forecasts):
        own = {f.mixture: f for f in found.forecasts if f.law == law}
        cells = (own.get(name) for name in names)
        rows.append((law, *(interval_text(f) if f else NONE for f in cells)))
    yield ReportTable(("law", *names), tuple(rows))


def _shares(found: ScaleEvidence) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in found.weights)


def _accuracy(study: Study) -> Iterable[Block]:
    """Accuracy of tasks from their bits per byte, where the runs support such a map."""
    rows, refused = [], []
    predicted = study.recommendation.candidate(RECOMMENDED).targets
    for m, target in enumerate(study.recommendation.targets):
        name = target + ACCURACY
        runs = [r for r in study.runs if name in r.details and target in r.scores]
        if not runs or name not in study.chance:
            continue
        bits = np.array([run.scores[target].value for run in runs])
        value = np.array([run.details[name].value for run in runs])
        error = np.array([r.details[name].stderr for r in runs])
        try:
            found = benchmark_map.fit_map(bits, value, error, study.chance[name])
            mean, sd = found.predict(np.array([predicted[m].mean]))
            rows.append((target, f"{predicted[m].mean:.3f}", f"{mean[0]:.3f} +- {sd[0]:.3f}"))
        except EvidenceError as reason:
            refused.append((target, str(reason)))
    if not rows and not refused:
        return
    yield Paragraph(
        "Accuracy as a sigmoid of bits per byte, fitted to all runs of the study, and only where "
        "enough of them are above chance."
    )
    if rows:
        yield ReportTable(
            ("task", f"predicted {UNIT}", "accuracy, with its deviation"), tuple(rows)
        )
    if refused:
        yield ReportTable(("task", "why accuracy is not forecast"), tuple(refused), words=(1,))


def _short(count: int) -> str:
    for size, suffix in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g}{suffix}"
    return str(count)
