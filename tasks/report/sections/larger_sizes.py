"""The report's sections on larger sizes: whether the claim held, and what was predicted of it."""

import json
from collections.abc import Iterable
from functools import partial

from cuvee.tasks.report.blocks import Block, Code, Paragraph, Picture, ReportTable
from cuvee.tasks.report.plots.mixtures import larger_sizes_figure
from cuvee.tasks.report.sections.findings import larger_sizes_finding
from cuvee.tasks.report.sections.headline import NONE
from cuvee.tasks.report.sections.mixtures import seed_cells
from cuvee.tasks.study.answers import UNIT
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.calibration import PredictionOutcome
from cuvee.tasks.validation.paired import interval_text


def larger_size_blocks(study: Study) -> Iterable[Block]:
    """Whether the claim held at each larger size, and how the gains change with size."""
    found = study.transfer
    if found is None:
        return
    seeds = max(step.seeds for step in found.steps)
    yield Paragraph(
        f"Every mixture was trained at each size with {seeds} fresh seeds, and gains are paired by "
        f"seed; intervals cover {found.steps[0].level:.0%}. A claim has held when its one-sided "
        f"test, corrected after Holm for all claims of this table, lies at or below "
        f"{found.claims[0].alpha:.2g}. The best observed mixture, and the average of a schedule, "
        "stand beside the claims and are corrected among themselves."
    )
    yield Picture(
        "larger",
        "Gain of the recommended mixture over size",
        larger_sizes_finding(study),
        partial(larger_sizes_figure, study),
    )
    rows = tuple(
        (
            f"{claim.size}, {claim.tokens:,}",
            claim.baseline,
            interval_text(claim.gain.estimate, "+.4f"),
            str(claim.gain.n),
            f"{claim.gain.p:.3g}",
            f"{claim.corrected:.3g}",
            claim.judgment,
        )
        for claim in found.claims
    )
    columns = ("size, tokens", "over", f"gain, {UNIT}", "pairs", "p", "corrected p", "claim")
    yield ReportTable(columns, rows, words=(1, 6))
    names = dict.fromkeys(name for step in found.steps for name in step.mixtures)
    head = (f"objective at {step.size}, {step.tokens:,}: mean (seeds)" for step in found.steps)
    cells = {name: [seed_cells(step, name) for step in found.steps] for name in names}
    objectives = tuple(
        (name, *(f"{mean} ({each})" for mean, each in cells[name])) for name in names
    )
    yield ReportTable(("mixture", *head), objectives)
    if found.trends:
        yield Paragraph(
            "How the gain changes when training takes ten times the FLOPs, from one slope per "
            "seed. Beyond the largest size trained this is no prediction."
        )
        changes = tuple(
            (
                t.baseline,
                interval_text(t.change.estimate, "+.4f"),
                str(t.sizes),
                t.judgment,
            )
            for t in found.trends
        )
        yield ReportTable(
            ("over", f"change of the gain, {UNIT}", "sizes", "trend"), changes, words=(3,)
        )


def prediction_card_blocks(study: Study) -> Iterable[Block]:
    """What was predicted before the larger sizes were trained, and what came of it."""
    found = study.card
    if found is None:
        return
    written = found.card
    late = sum(one.promise.before > 0 for one in found.outcomes)
    when = (
        f"when runs of {late} of its {len(found.outcomes)} gains had been trained already"
        if late
        else "before any of its runs was trained"
    )
    yield Paragraph(
        f"Written {written.written}, {when}, as version {written.version} of this "
        f"recommendation's card; sha256 {written.sha256}. {written.claim}"
    )
    for sentence in found.wrong:
        yield Paragraph(f"Changed: {sentence}.")
    rows = tuple(
        (
            f"{one.promise.size}, {one.promise.tokens:,}",
            one.promise.baseline,
            interval_text(one.promise.predicted) if one.promise.predicted else NONE,
            interval_text(one.observed.estimate),
            f"{one.error:+.3f}" if one.promise.predicted else NONE,
            outcome_text(one),
        )
        for one in found.outcomes
    )
    columns = ("size, tokens", "gain over", "predicted", "observed", "error", "prediction")
    yield ReportTable(columns, rows, words=(1, 5))
    sources = dict.fromkeys(one.promise.source for one in found.outcomes if one.promise.predicted)
    yield Paragraph(
        f"The predicted intervals cover {written.level:.0%} and come from: {'; '.join(sources)}. "
        "An observed gain is itself a mean over few seeds, so that even a perfect prediction would "
        "be missed now and then beyond that."
    )
    over = found.calibration
    if over:
        yield Paragraph(
            f"Over {over.cards} {'card' if over.cards == 1 else 'cards'} of this store with "
            f"{over.predictions} predictions: {over.inside:.0%} of the observed gains lie inside "
            f"their interval, {over.sign:.0%} have the predicted sign, the mean absolute error is "
            f"{over.error:.4f} {UNIT} and the mean of observed minus predicted {over.bias:+.4f}."
        )
    yield Code(json.dumps(written.record, indent=1, sort_keys=True), "json")


def outcome_text(one: PredictionOutcome) -> str:
    """What became of a promise, in words."""
    if one.promise.predicted is None:
        return "no prediction"
    if one.promise.before:
        return f"no prediction: {one.promise.before} of its runs had been trained"
    place = "inside" if one.inside else "outside"
    return f"{place} the interval, sign {'right' if one.sign else 'wrong'}"
