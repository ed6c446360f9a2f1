"""The report's sections on runs: laws, noise, tasks, losses, corpus, failures, evidence."""

import json
from collections.abc import Iterable
from functools import partial

import numpy as np

from cuvee.evaluation.membership import LEAK
from cuvee.mixtures.inference.dataset import tells_noise
from cuvee.mixtures.inference.seed_parts import PARTS, seed_parts
from cuvee.mixtures.recommendation import LEVEL
from cuvee.mixtures.runs.run_results import score_table
from cuvee.proxies import ladder
from cuvee.tasks.report.blocks import Block, Code, Paragraph, Picture, ReportTable
from cuvee.tasks.report.plots import runs as plots
from cuvee.tasks.report.sections import findings
from cuvee.tasks.report.sections.headline import NONE
from cuvee.tasks.study.answers import UNIT
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import RECOMMENDED

SHADED = 24  # domains in the picture of what they share, those that share most
FOLD = 12  # pairs of domains that the table shows at first


def law_blocks(study: Study) -> Iterable[Block]:
    """How well each law predicted runs that it had not seen."""
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
    yield Picture(
        "held-out", caption, findings.laws_finding(laws), partial(plots.held_out_figure, study)
    )
    if any(law.learning_curve for law in laws):
        caption = "Held-out rank correlation as runs are added: does more evidence still help?"
        yield Picture(
            "learning-curve",
            caption,
            findings.learning_curve_finding(laws),
            partial(plots.learning_curve_figure, study),
        )
    each = [law for law in laws if law.spearman_targets]  # a law of scales is judged as a whole
    targets = tuple(
        (target, *(f"{law.spearman_targets[m]:.2f}" for law in each))
        for m, target in enumerate(study.recommendation.targets)
        if all(m < len(law.spearman_targets) for law in each)
    )
    yield Paragraph("Held-out rank correlation per target:")
    yield ReportTable(("target", *(law.law for law in each)), targets)


def noise_blocks(study: Study) -> Iterable[Block]:
    """The spread over seeds against that over mixtures, target by target."""
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
    yield from seed_blocks(study)


def seed_blocks(study: Study) -> Iterable[Block]:
    """Which part of the noise is whose, where seeds were crossed."""
    posed = study.problem
    runs = tuple(run for run in study.runs if tells_noise(posed, run.spec))
    if not runs:
        return
    _, Y, _ = score_table(runs, posed.targets)
    values = np.column_stack([Y, [study.objective(run) for run in runs]])
    parts = seed_parts([run.spec for run in runs], values)
    if parts:
        yield Paragraph(
            "Of repeats whose initialization and data order differ apart, standard deviations with "
            f"{LEVEL:.0%} intervals. In the objective {parts.advice(-1)}."
        )
        cells = np.stack([parts.sd, parts.low, parts.high]).transpose(2, 1, 0)
        said = (tuple("{:.4f} ({:.4f} to {:.4f})".format(*cell) for cell in row) for row in cells)
        names = (*posed.targets, "objective")
        table = tuple((name, *row) for name, row in zip(names, said, strict=True))
        yield ReportTable(("target", *PARTS), table)


def task_blocks(study: Study) -> Iterable[Block]:
    """Accuracy of tasks beside chance and the untrained proxy; nothing is chosen by it."""
    runs = list(study.runs)
    names = list(dict.fromkeys(n for run in runs for n in run.details if LEAK not in n))
    if not names:
        return
    yield Paragraph(
        "Shown, not optimized. At proxy scale accuracy often stays at chance; the mixture is "
        "chosen by the bits per byte of the right answer instead."
    )
    untrained = study.untrained or {}
    fresh = study.confirmation.runs if study.confirmation else ()
    best = [run.result.details for run in fresh if run.mixture == RECOMMENDED]
    rows = []
    for name in names:
        seen = [run.details[name].value for run in runs if name in run.details]
        own = [details[name].value for details in best if name in details]
        known = (study.chance.get(name), untrained.get(name), sum(own) / len(own) if own else None)
        chance, before, after = (NONE if value is None else f"{value:.3f}" for value in known)
        rows.append((name, chance, before, f"{min(seen):.3f} to {max(seen):.3f}", after))
    begun = "checkpoint" if study.continual else "untrained"
    columns = ("detail", "chance", begun, "all proxies", "recommended, confirmed")
    yield ReportTable(columns, tuple(rows))
    scores = [(t, untrained[t]) for t in study.problem.targets if t in untrained]
    if scores:
        listed = ", ".join(f"{target} {value:.3f}" for target, value in scores)
        yield Paragraph(f"{begun.capitalize()} proxy, {UNIT}: {listed}")


def loss_curve_blocks(study: Study) -> Iterable[Block]:
    """Training loss of every run."""
    if any(run.curve for run in study.runs):
        yield Picture(
            "curves",
            "Training loss of every run",
            findings.loss_curves_finding(study),
            partial(plots.loss_curves_figure, study),
        )


def corpus_blocks(study: Study) -> Iterable[Block]:
    """What became of each domain's text on its way to training."""
    parts = study.corpus
    if not parts:
        return
    benchmarks = sorted({name for part in parts.values() for name in part.contaminated})
    yield Paragraph(
        "Training text after duplicates were removed, and documents that share a 13-gram with a "
        "benchmark (counted per benchmark)."
    )
    filtered = ["filtered"] if any(part.filtered for part in parts.values()) else []
    rows = tuple(
        (
            name,
            f"{part.documents:,}",
            f"{part.bytes:,}",
            f"{part.tokens:,}",
            f"{part.duplicates:,}",
            f"{part.skipped:,}",
            *([f"{part.filtered:,}"] if filtered else ()),
            *(f"{part.contaminated.get(b, 0):,}" for b in benchmarks),
        )
        for name, part in parts.items()
    )
    against = (f"removed: {name}" for name in benchmarks)
    yield ReportTable(
        ("domain", "documents", "bytes", "tokens", "duplicates", "skipped", *filtered, *against),
        rows,
    )
    found = (ladder.find_size(size) for size in {run.spec.size for run in study.history})
    shapes = sorted(filter(None, found), key=lambda shape: shape.body)
    if study.vocabulary and shapes:
        yield Paragraph(
            "Parameters: " + "; ".join(one.describe(study.vocabulary) for one in shapes) + "."
        )
    for trainer in sorted({run.spec.trainer for run in study.history} - {""}):
        told = json.loads(trainer)
        yield Paragraph(
            f"Runs were trained by {told['name']} (version {told['version'][:40]}), a program of "
            "its own, and not by the built-in trainer: sizes are what it was told."
        )


def shared_text_blocks(study: Study) -> Iterable[Block]:
    """What text pairs of domains share, before it was left to one of them; nothing if none does."""
    pairs = sorted(
        (
            (near / part.distinct, exact / part.distinct, near, name, other)
            for name, part in study.corpus.items()
            for other, (exact, near) in part.shared.items()
            if near
        ),
        key=lambda pair: (-pair[0], *pair[3:]),
    )
    if not pairs:
        return
    yield Paragraph(
        "Documents of a domain that another one holds too, in percent of its different texts, as "
        "they were read. Each is trained on in one domain only, so that a share given to the other "
        "does not buy it twice. Nearly means that most runs of five words are the same; it is "
        "looked for where the recipe says corpus.deduplicate: near."
    )
    names = list(dict.fromkeys(name for pair in pairs for name in pair[3:]))[:SHADED]
    names = [name for name in study.corpus if name in names]
    shares = np.zeros((len(names), len(names)))
    for near, _, _, name, other in pairs:
        if name in names and other in names:
            shares[names.index(name), names.index(other)] = near
    yield Picture(
        "shared-text",
        "Share of each domain's documents (row) that another one (column) holds too",
        findings.shared_text_finding(*pairs[0]),
        partial(plots.shared_text_figure, names, shares),
    )
    rows = tuple(
        (name, other, f"{documents:,}", f"{exact:.1%}", f"{near:.1%}")
        for near, exact, documents, name, other in pairs
    )
    columns = ("domain", "also in", "documents", "word for word", "or nearly")
    yield ReportTable(columns, rows, words=(1,), fold=FOLD)


def failure_blocks(study: Study) -> Iterable[Block]:
    """Runs that gave no result, with the reason."""
    yield Paragraph(f"{len(study.failed)} of {study.proxies} proxies failed.")
    if study.failed:
        rows = tuple(
            (run.spec.fingerprint[:12], str(run.spec.seed), run.reason) for run in study.failed
        )
        yield ReportTable(("run", "seed", "reason"), rows, words=(2,))


def evidence_blocks(study: Study) -> Iterable[Block]:
    """Recipe, versions and the runs that the recommendation rests on."""
    ours = study.recommendation
    yield Paragraph(
        f"Recommendation {study.fingerprint}. Method {ours.method or 'unnamed'}. "
        f"Seed {study.seed}. Started {study.started or 'at an unknown time'}."
    )
    yield Code(study.recipe_text, "yaml")
    yield ReportTable(("package", "version"), tuple(sorted(study.versions.items())))
    yield Paragraph(f"It rests on {len(ours.evidence)} runs, by fingerprint:")
    yield Code("\n".join(ours.evidence))
