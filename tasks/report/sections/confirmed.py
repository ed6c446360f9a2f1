"""What was confirmed: the report's sections on fresh runs, at the study's own size and larger."""

import json
from collections.abc import Iterable
from functools import partial

from cuvee.tasks.report.blocks import Block, Code, Paragraph, Picture, ReportTable
from cuvee.tasks.report.plots import study as plots
from cuvee.tasks.report.sections.headline import NONE, UNIT, interval_text, predicted_or_measured
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.calibration import PredictionOutcome
from cuvee.tasks.validation.paired import BASELINES, RECOMMENDED, Confirmation


def score_blocks(study: Study) -> Iterable[Block]:
    """What the law (or the trial) says of every mixture, and what fresh runs of that size say."""
    ours, confirmation = study.recommendation, study.confirmation
    unit = f"Scores are {UNIT}; lower is better, and a positive gain is better."
    if confirmation is None:
        yield Paragraph(
            f"{unit} No mixture was trained again, so everything here is "
            f"{predicted_or_measured(study).lower()}."
        )
    else:
        yield Paragraph(
            f"{unit} Confirmed scores come from {confirmation.seeds} fresh seeds; gains are paired "
            f"by seed, with {confirmation.level:.0%} intervals from the t distribution. "
            "Intervals of single targets are not corrected for their number."
        )
    yield Paragraph(f"The objective is {_objective(study)}.")
    where = "the trial's mean" if study.measured else "the prediction"
    yield Picture(
        "objective",
        f"Objective of each mixture: dot and bar are {where}, ticks are confirmed seeds",
        partial(plots.objectives_figure, study),
    )
    if confirmation is not None:
        picture = partial(plots.gains_figure, confirmation, ours.targets)
        yield Picture("gains", "Confirmed gain of the recommended mixture, paired by seed", picture)
    yield _objective_table(study)
    yield _target_table(study)


def _objective(study: Study) -> str:
    row = study.problem.objective.linear(study.problem.targets)
    if row is None:
        return repr(study.problem.objective)
    terms = zip(row, study.problem.targets, strict=True)
    return " + ".join(f"{weight:.3g} {target}" for weight, target in terms if weight)


def _objective_table(study: Study) -> ReportTable:
    rows = []
    for candidate in study.recommendation.candidates:
        seen = _seeds(study.confirmation, candidate.name)
        rows.append((candidate.name, interval_text(candidate.objective), *seen))
    known = {candidate.name for candidate in study.recommendation.candidates}
    extra = study.confirmation.mixtures if study.confirmation else ()
    rows += [(name, NONE, *_seeds(study.confirmation, name)) for name in extra if name not in known]
    columns = (
        "mixture",
        f"{predicted_or_measured(study).lower()} objective",
        "confirmed mean",
        "confirmed, by seed",
    )
    return ReportTable(columns, tuple(rows))


def _target_table(study: Study) -> ReportTable:
    confirmation, ours = study.confirmation, study.recommendation.candidate(RECOMMENDED)
    compared = [b for b in BASELINES if confirmation and b in confirmation.targets]
    head = [
        "target",
        predicted_or_measured(study).lower(),
        *(["confirmed"] if confirmation else []),
    ]
    head += [text for b in compared for text in (f"gain over {b}", "verdict")]
    rows = []
    names = (None, *study.recommendation.targets)
    for m, (name, predicted) in enumerate(zip(names, (ours.objective, *ours.targets), strict=True)):
        row = [name or "objective", interval_text(predicted)]
        if confirmation:
            seeds = confirmation.values(RECOMMENDED, name).values()
            row.append(f"{sum(seeds) / len(seeds):.3f}" if seeds else NONE)
            for b in compared:
                pair = confirmation.targets[b][m - 1] if name else confirmation.objective[b]
                verdict = pair.judgment.replace(" by more than the noise", "")
                row += [f"{pair.gain:+.3f} ({pair.low:+.3f} to {pair.high:+.3f})", verdict]
        rows.append(tuple(row))
    return ReportTable(
        tuple(head), tuple(rows), words=tuple(4 + 2 * i for i in range(len(compared)))
    )


def _seeds(found: Confirmation | None, mixture: str) -> tuple[str, str]:
    """A mixture's objective: its mean, and each seed."""
    seeds = found.values(mixture) if found else {}
    each = ", ".join(f"{value:.4f}" for _, value in sorted(seeds.items()))
    mean = f"{sum(seeds.values()) / len(seeds):.4f}" if seeds else NONE
    return mean, each or NONE


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
    for sentence in (*study.larger, *(f"Nothing can be said at {lost}" for lost in found.lost)):
        yield Paragraph(sentence)
    yield Picture(
        "larger",
        "Gain of the recommended mixture over size",
        partial(plots.larger_sizes_figure, study),
    )
    rows = tuple(
        (
            f"{claim.size}, {claim.tokens:,}",
            claim.baseline,
            f"{claim.gain.gain:+.4f} ({claim.gain.low:+.4f} to {claim.gain.high:+.4f})",
            str(claim.gain.n),
            f"{claim.gain.p:.3g}",
            f"{claim.corrected:.3g}",
            claim.words,
        )
        for claim in found.claims
    )
    columns = ("size, tokens", "over", f"gain, {UNIT}", "pairs", "p", "corrected p", "claim")
    yield ReportTable(columns, rows, words=(1, 6))
    yield _objectives(found.steps)
    if found.trends:
        yield Paragraph(
            "How the gain changes when training takes ten times the FLOPs, from one slope per "
            "seed. Beyond the largest size trained this is no prediction."
        )
        changes = tuple(
            (
                t.baseline,
                f"{t.change.gain:+.4f} ({t.change.low:+.4f} to {t.change.high:+.4f})",
                str(t.sizes),
                t.words,
            )
            for t in found.trends
        )
        yield ReportTable(
            ("over", f"change of the gain, {UNIT}", "sizes", "trend"), changes, words=(3,)
        )


def _objectives(steps: tuple[Confirmation, ...]) -> ReportTable:
    names = dict.fromkeys(name for step in steps for name in step.mixtures)
    rows = tuple((name, *(_together(step, name) for step in steps)) for name in names)
    head = (f"objective at {step.size}, {step.tokens:,}: mean (seeds)" for step in steps)
    return ReportTable(("mixture", *head), rows)


def _together(step: Confirmation, name: str) -> str:
    mean, each = _seeds(step, name)
    return f"{mean} ({each})"


def prediction_card_blocks(study: Study) -> Iterable[Block]:
    """What was predicted before the larger sizes were trained, and what came of it."""
    found = study.card
    if found is None:
        return
    written = found.card
    late = sum(one.promise.before > 0 for one in found.kept)
    when = (
        f"when runs of {late} of its {len(found.kept)} gains had been trained already"
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
            f"{one.observed.gain:.3f} ({one.observed.low:.3f} to {one.observed.high:.3f})",
            f"{one.error:+.3f}" if one.promise.predicted else NONE,
            outcome_text(one),
        )
        for one in found.kept
    )
    columns = ("size, tokens", "gain over", "predicted", "observed", "error", "prediction")
    yield ReportTable(columns, rows, words=(1, 5))
    sources = dict.fromkeys(one.promise.source for one in found.kept if one.promise.predicted)
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
