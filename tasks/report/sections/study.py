"""The content of the report, section by section, as plain values.

The page and its Markdown twin are two renderings of these values, so that neither can say what the
other does not.
"""

from collections.abc import Iterable
from functools import partial

from cuvee.mixtures.recommendation import LEVEL
from cuvee.mixtures.runs import Failed
from cuvee.tasks.report.blocks import Block, Code, Paragraph, Picture, ReportTable, Section
from cuvee.tasks.report.explorer import explorer_blocks
from cuvee.tasks.report.plots import study as plots
from cuvee.tasks.report.sections import moving_weights
from cuvee.tasks.report.sections.confirmed import (
    larger_size_blocks,
    prediction_card_blocks,
    score_blocks,
)
from cuvee.tasks.report.sections.forgetting import forgetting_blocks
from cuvee.tasks.report.sections.headline import NONE, UNIT, predicted_or_measured
from cuvee.tasks.report.sections.pareto import pareto_blocks
from cuvee.tasks.report.sections.scale import scale_blocks
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import RECOMMENDED


def report_sections(study: Study) -> tuple[Section, ...]:
    """Everything below the headline, in order."""
    made = (
        Section("Recommended shares", tuple(_shares(study))),
        Section(f"{predicted_or_measured(study)} and confirmed scores", tuple(score_blocks(study))),
        Section("Forgetting", tuple(forgetting_blocks(study))),
        Section("Larger sizes", tuple(larger_size_blocks(study))),
        Section("Prediction card", tuple(prediction_card_blocks(study))),
        Section("From small to full scale", tuple(scale_blocks(study))),
        Section("Explore", tuple(explorer_blocks(study))),
        Section("What the trial measured", tuple(moving_weights.trial_blocks(study))),
        Section("Weights while training", tuple(moving_weights.trajectory_blocks(study))),
        Section("What helps what", tuple(moving_weights.skill_graph_blocks(study))),
        Section("How well the laws predict", tuple(_laws(study))),
        Section("What one aim costs another", tuple(pareto_blocks(study))),
        Section("Noise floor", tuple(_noise(study))),
        Section("Tasks: accuracy, chance and untrained", tuple(_tasks(study))),
        Section("Training", tuple(_training(study))),
        Section("Epochs and constraints at full scale", tuple(_epochs(study))),
        Section("Corpus", tuple(_corpus(study))),
        Section("Failures", tuple(_failures(study))),
        Section("Recipe, versions and evidence", tuple(_exact(study))),
    )
    return tuple(section for section in made if section.blocks)


def _shares(study: Study) -> Iterable[Block]:
    ours = study.recommendation
    others = [c for c in ours.candidates if c.name != RECOMMENDED]
    told = (
        "is that of the mean over the seeds of the runs that it was read from"
        if study.measured
        else "says how far it moves when the law is fitted again to resampled evidence"
    )
    yield Paragraph(f"Shares of training tokens. The interval of a share {told} ({LEVEL:.0%}).")
    yield Picture(
        "shares", "Recommended shares against the baselines", partial(plots.shares_figure, study)
    )
    rows: list[tuple[str, ...]] = []
    for i, name in enumerate(ours.domains):
        low, high = ours.intervals[i]
        shown = [_percent(c.weights[i]) for c in others]
        rows.append(
            (name, _percent(ours.weights[i]), f"{_percent(low)} to {_percent(high)}", *shown)
        )
    yield ReportTable(("domain", RECOMMENDED, "interval", *(c.name for c in others)), tuple(rows))
    if len(ours.stages) > 1:
        yield Paragraph("The shares above are averages over these stages of the run.")
        stages = tuple(f"stage {i + 1}: {_percent(s.share)}" for i, s in enumerate(ours.stages))
        rows = [
            (name, *(_percent(s.weights[i]) for s in ours.stages))
            for i, name in enumerate(ours.domains)
        ]
        yield ReportTable(("domain", *stages), tuple(rows))


def _laws(study: Study) -> Iterable[Block]:
    laws = study.recommendation.laws
    if not laws:
        return
    yield Paragraph(
        "Every figure is of held-out runs, by cross-validation. Decision accuracy is the share of "
        "pairs of runs that the law put in the right order; coverage is the share of observations "
        f"inside its {LEVEL:.0%} intervals."
    )
    rows = tuple(
        (
            law.law + (" (chosen)" if law.chosen else ""),
            f"{law.spearman:.3f}",
            f"{law.decision_accuracy:.1%}",
            f"{law.error:.4f}",
            f"{law.coverage:.1%}",
        )
        for law in laws
    )
    columns = ("law", "rank correlation", "decision accuracy", f"mean error, {UNIT}", "coverage")
    yield ReportTable(columns, rows)
    caption = "Objective of held-out runs, observed against predicted"
    yield Picture("held-out", caption, partial(plots.held_out_figure, study))
    if any(law.learning_curve for law in laws):
        caption = "Held-out rank correlation as runs are added: does more evidence still help?"
        yield Picture("learning-curve", caption, partial(plots.learning_curve_figure, study))
    each = [law for law in laws if law.spearman_targets]  # a law of scales is judged as a whole
    targets = tuple(
        (target, *(f"{law.spearman_targets[m]:.2f}" for law in each))
        for m, target in enumerate(study.recommendation.targets)
        if all(m < len(law.spearman_targets) for law in each)
    )
    yield Paragraph("Held-out rank correlation per target:")
    yield ReportTable(("target", *(law.law for law in each)), targets)


def _noise(study: Study) -> Iterable[Block]:
    noise = study.recommendation.noise
    if not noise:
        return
    yield Paragraph(
        "Standard deviations: over seeds of one mixture, and over the mixtures of the design. A "
        f"target whose ratio lies below {study.least_signal:g} is flagged: its differences are "
        "mostly noise."
    )
    rows = tuple(
        (
            item.target,
            f"{item.seeds:.4f}",
            f"{item.mixtures:.4f}",
            f"{item.ratio:.1f}",
            str(item.degrees),
            "mostly noise" if item.ratio < study.least_signal else "",
        )
        for item in noise
    )
    columns = ("target", "seeds", "mixtures", "signal to noise", "degrees of freedom", "flag")
    yield ReportTable(columns, rows, words=(5,))


def _tasks(study: Study) -> Iterable[Block]:
    runs = list(study.runs)
    names = list(dict.fromkeys(name for run in runs for name in run.details))
    if not names:
        return
    yield Paragraph(
        "Shown, not optimized. At proxy scale accuracy often stays at chance; the mixture is "
        "chosen by the bits per byte of the right answer instead."
    )
    untrained = study.untrained or {}
    fresh = study.confirmation.runs if study.confirmation else ()
    rows = []
    for name in names:
        seen = [run.details[name].value for run in runs if name in run.details]
        best = [
            run.result.details[name].value
            for run in fresh
            if run.mixture == RECOMMENDED and name in run.result.details
        ]
        rows.append(
            (
                name,
                _number(study.chance.get(name)),
                _number(untrained.get(name)),
                f"{min(seen):.3f} to {max(seen):.3f}",
                _number(sum(best) / len(best) if best else None),
            )
        )
    begun = "checkpoint" if study.continual else "untrained"
    columns = ("detail", "chance", begun, "all proxies", "recommended, confirmed")
    yield ReportTable(columns, tuple(rows))
    scores = [(t, untrained[t]) for t in study.problem.targets if t in untrained]
    if scores:
        listed = ", ".join(f"{target} {value:.3f}" for target, value in scores)
        yield Paragraph(f"{begun.capitalize()} proxy, {UNIT}: {listed}")


def _training(study: Study) -> Iterable[Block]:
    if any(run.curve for run in study.runs):
        yield Picture(
            "curves", "Training loss of every run", partial(plots.loss_curves_figure, study)
        )


def _epochs(study: Study) -> Iterable[Block]:
    ours = study.recommendation
    full = study.problem.full_tokens
    scale = f"At the full scale of {full:,} tokens." if full else "The full scale is not known."
    yield Paragraph(f"{scale} Constraints that bind: {'; '.join(ours.active) or 'none'}.")
    known = {domain.name: domain.tokens for domain in study.problem.domains}
    if study.available is not None:
        known = dict(study.available)
    if not ours.epochs:
        yield Paragraph(
            "Epochs at full scale are unknown: they need the tokens that exist of each domain and "
            "those of the full-scale run."
        )
    if known:
        rows = tuple(
            (name, f"{known[name]:,}", f"{ours.epochs[i]:.2f}" if ours.epochs else NONE)
            for i, name in enumerate(ours.domains)
        )
        yield ReportTable(("domain", "tokens that exist", "epochs"), rows)


def _corpus(study: Study) -> Iterable[Block]:
    parts = study.corpus
    if not parts:
        return
    benchmarks = sorted({name for part in parts.values() for name in part.contaminated})
    yield Paragraph(
        "Training text after duplicates were removed, and documents that share a 13-gram with a "
        "benchmark (counted per benchmark)."
    )
    rows = tuple(
        (
            name,
            f"{part.documents:,}",
            f"{part.bytes:,}",
            f"{part.tokens:,}",
            f"{part.duplicates:,}",
            f"{part.skipped:,}",
            *(f"{part.contaminated.get(b, 0):,}" for b in benchmarks),
        )
        for name, part in parts.items()
    )
    against = (f"removed: {name}" for name in benchmarks)
    yield ReportTable(
        ("domain", "documents", "bytes", "tokens", "duplicates", "skipped", *against), rows
    )


def _failures(study: Study) -> Iterable[Block]:
    yield Paragraph(f"{len(study.failed)} of {study.proxies} proxies failed.")
    if study.failed:
        rows = tuple(_failure(run) for run in study.failed)
        yield ReportTable(("run", "seed", "reason"), rows, words=(2,))


def _failure(run: Failed) -> tuple[str, ...]:
    return run.spec.fingerprint[:12], str(run.spec.seed), run.reason


def _exact(study: Study) -> Iterable[Block]:
    ours = study.recommendation
    yield Paragraph(
        f"Recommendation {study.fingerprint}. Method {ours.method or 'unnamed'}. "
        f"Seed {study.seed}. Started {study.started or 'at an unknown time'}."
    )
    yield Code(study.recipe_text, "yaml")
    yield ReportTable(("package", "version"), tuple(sorted(study.versions.items())))
    yield Paragraph(f"It rests on {len(ours.evidence)} runs, by fingerprint:")
    yield Code("\n".join(ours.evidence))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"
