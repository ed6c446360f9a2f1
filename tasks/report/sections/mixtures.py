"""The report's sections on mixtures: shares, scores, epochs, and what one aim costs another."""

from collections.abc import Iterable
from functools import partial

from cuvee.mixtures.objectives import FLOOR, GAIN
from cuvee.mixtures.recommendation import LEVEL
from cuvee.mixtures.units import error_text
from cuvee.tasks.report.blocks import Block, Paragraph, Picture, ReportTable
from cuvee.tasks.report.plots import mixtures as plots
from cuvee.tasks.report.sections import findings
from cuvee.tasks.report.sections.headline import NONE, predicted_or_measured
from cuvee.tasks.study.answers import UNIT
from cuvee.tasks.study.study import Study, same_mixture
from cuvee.tasks.validation.paired import (
    BASELINES,
    RECOMMENDED,
    Confirmation,
    covers_text,
    interval_text,
)

LARGEST = 3  # domains that the table of a front names for each mixture
FOLD = 8  # rows of that table that are shown at first
SMALL = 0.0005  # shares below it would be shown as 0.0 %


def share_blocks(study: Study) -> Iterable[Block]:
    """The recommended shares with their intervals, beside the baselines; and stage by stage."""
    ours = study.recommendation
    others = [c for c in ours.candidates if c.name != RECOMMENDED]
    told = (
        "is that of the mean over the seeds of the runs that it was read from"
        if study.measured
        else "says how far it moves when the law is fitted again to resampled evidence"
    )
    yield Paragraph(f"Shares of training tokens. The interval of a share {told} ({LEVEL:.0%}).")
    yield Picture(
        "shares",
        "Recommended shares against the baselines",
        findings.shares_finding(study),
        partial(plots.shares_figure, ours),
    )
    parts = enumerate(zip(ours.domains, ours.weights, ours.intervals, strict=True))
    rows = tuple(
        (name, f"{w:.1%}", f"{low:.1%} to {high:.1%}", *(f"{c.weights[i]:.1%}" for c in others))
        for i, (name, w, (low, high)) in parts
    )
    yield ReportTable(("domain", RECOMMENDED, "interval", *(c.name for c in others)), rows)
    if len(ours.stages) > 1:
        yield Paragraph("The shares above are averages over these stages of the run.")
        head = (f"stage {i}: {s.share:.1%}" for i, s in enumerate(ours.stages, start=1))
        rows = tuple(
            (name, *(f"{s.weights[i]:.1%}" for s in ours.stages))
            for i, name in enumerate(ours.domains)
        )
        yield ReportTable(("domain", *head), rows)


def demand_blocks(study: Study) -> Iterable[Block]:
    """Floors and gains that were asked for, and what is predicted and confirmed of each; the length
    of the step; nothing where nothing was asked for."""
    ours, fresh = study.recommendation, study.confirmation
    if ours.step:
        yield Paragraph(f"The smallest step: {ours.step.said}.")
    if not ours.demands:
        return
    start = ours.step.start if ours.step else "natural"
    yield Paragraph(
        f"Floors and gains in {UNIT}; a positive gain is better. Intervals ({LEVEL:.0%}), and the "
        "share of refits in which each is kept, are of the law fitted again to resampled evidence. "
        "What binds has nothing to spare; half of the refits break it, unless more was asked for."
    )
    compared, shares = ours.candidates[1:], study.problem.reference
    held = next((c.name for c in compared if same_mixture(c.weights, shares)), "natural")
    rows = []
    for one in ours.demands:
        over = {GAIN: start, FLOOR: held}.get(one.kind)
        known = fresh.targets.get(over) if fresh and over and one.name in ours.targets else None
        gain = known[ours.targets.index(one.name)].estimate if known else None
        sure = NONE if one.certainty is None else f"{one.certainty:.0%}"
        last = (f"{interval_text(gain, '+.4f')} over {over}" if gain else NONE,) if fresh else ()
        rows.append((one.name, one.asked, one.predicted, one.verdict, sure, *last))
    head = ("target", "asked", "predicted", "verdict", "refits that keep it")
    last = ("confirmed gain",) if fresh else ()
    yield ReportTable((*head, *last), tuple(rows), words=(1, 3))


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
            f"by seed, with {confirmation.level:.0%} intervals for "
            f"{covers_text(confirmation.objective.values())}. "
            "Intervals of single targets are not corrected for their number."
        )
    yield Paragraph(f"The objective is {_objective(study)}.")
    where = "the trial's mean" if study.measured else "the prediction"
    yield Picture(
        "objective",
        f"Objective of each mixture: dot and bar are {where}, ticks are confirmed seeds",
        findings.objectives_finding(study),
        partial(plots.objectives_figure, study),
    )
    if confirmation is not None:
        picture = partial(plots.gains_figure, confirmation, ours.targets)
        caption = "Confirmed gain of the recommended mixture, paired by seed"
        yield Picture("gains", caption, findings.gains_finding(confirmation), picture)
    if ours.optimism:
        yield Paragraph(f"{ours.optimism.said}.")
    yield _objective_table(study)
    yield _target_table(study)


def _objective(study: Study) -> str:
    posed = study.problem.objective.scalarize(study.problem.targets, study.reference)
    if len(posed.rows) > 1 or posed.offsets.any():
        return repr(study.problem.objective)
    terms = zip(posed.rows[0], study.problem.targets, strict=True)
    mean = " + ".join(f"{weight:.3g} {target}" for weight, target in terms if weight)
    return f"{mean}, under the floors above" if len(posed.floors) else mean


def _objective_table(study: Study) -> ReportTable:
    predicted = {c.name: interval_text(c.objective) for c in study.recommendation.candidates}
    fresh = study.confirmation.mixtures if study.confirmation else ()
    rows = tuple(
        (name, predicted.get(name, NONE), *seed_cells(study.confirmation, name))
        for name in dict.fromkeys((*predicted, *fresh))
    )
    said = f"{predicted_or_measured(study).lower()} objective"
    if corrected := study.recommendation.optimism:
        said += f", by {corrected.chooser}"  # gains are another law's, and need not be differences
    if study.confirmation is None:
        return ReportTable(("mixture", said), tuple(row[:2] for row in rows))
    return ReportTable(("mixture", said, "confirmed mean", "confirmed, by seed"), rows)


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
            mean = confirmation.mean(RECOMMENDED, name)
            row.append(NONE if mean is None else f"{mean:.3f}")
            for b in compared:
                pair = confirmation.targets[b][m - 1] if name else confirmation.objective[b]
                verdict = pair.judgment.replace(" by more than the noise", "")
                row += [interval_text(pair.estimate, "+.3f"), verdict]
        rows.append(tuple(row))
    words = tuple(4 + 2 * i for i in range(len(compared)))
    return ReportTable(tuple(head), tuple(rows), words)


def seed_cells(found: Confirmation | None, mixture: str) -> tuple[str, str]:
    """A mixture's confirmed objective: its mean, and each seed."""
    seeds = found.values(mixture) if found else {}
    if found is None or not seeds:
        return NONE, NONE
    each = ", ".join(f"{value:.4f}" for _, value in sorted(seeds.items()))
    return f"{found.mean(mixture):.4f}", each


def epoch_blocks(study: Study) -> Iterable[Block]:
    """How often each domain would repeat at full scale, and the constraints that bind."""
    ours = study.recommendation
    full = study.problem.full_tokens
    scale = f"At the full scale of {full:,} tokens." if full else "The full scale is not known."
    yield Paragraph(f"{scale} Constraints that bind: {'; '.join(ours.active) or 'none'}.")
    if not ours.epochs:
        yield Paragraph(
            "Epochs at full scale are unknown: they need the tokens that exist of each domain and "
            "those of the full-scale run."
        )
    known = study.tokens
    if known:
        domains = study.problem.domains
        rows = tuple(
            (
                d.name,
                f"{known[d.name]:,}{error_text(d.tokens_error)}",
                f"{ours.epochs[i]:.2f}" if ours.epochs else NONE,
                *([_natural(natural, error), f"{d.stored:,}"] if domains.sampled else ()),
            )
            for i, (d, natural, error) in enumerate(
                zip(domains, domains.natural, domains.natural_errors, strict=True)
            )
        )
        last = ["natural share", "tokens on disk"] * domains.sampled
        yield ReportTable(("domain", "tokens that exist", "epochs", *last), rows)
        if domains.sampled:
            yield Paragraph(
                "Of sampled domains the tokens on disk are what proxies draw from; all that exist "
                "count for natural shares, caps and epochs. ± is one standard error of what is "
                "estimated from the sample."
            )


def _natural(share: float, error: float) -> str:
    return f"{share:.1%} ± {error:.1%}" if error else f"{share:.1%}"


def pareto_blocks(study: Study) -> Iterable[Block]:
    """The Pareto front as a picture and a table; nothing where a recommendation has none."""
    found = study.recommendation.front
    if found is None:
        return
    unit = "nats of KL(w || natural)" if found.distance else UNIT
    aims = f"{found.first} ({UNIT}) and {found.second} ({unit})"
    if len(found.points) < 2:
        yield Paragraph(f"One mixture is predicted to be best in both {aims}: they do not compete.")
        return
    yield Paragraph(
        f"A Pareto front: {len(found.points)} feasible mixtures of which none is predicted to be "
        f"beaten in both {aims}. Lower is better in both. The law is the chosen one, fitted anew "
        "to these scores alone; points have no intervals, so that small steps between them may be "
        "nothing. The recommended mixture may lie off the front: it serves the whole objective, "
        "and its search may put a price on leaving the natural mixture."
    )
    caption = f"Front between {found.first} and {found.second}, with the mixtures compared"
    yield Picture(
        "front", caption, findings.front_finding(found), partial(plots.pareto_figure, found)
    )
    named = [(point.name, point) for point in found.marks]
    named += [(f"front {i}", point) for i, point in enumerate(found.points, start=1)]
    rows = tuple(
        (
            name,
            f"{point.first:.4f}",
            f"{point.second:.4f}",
            _largest_shares(study.recommendation.domains, point.weights),
        )
        for name, point in named
    )
    columns = ("mixture", found.first, found.second, "largest shares")
    yield ReportTable(columns, rows, words=(3,), fold=FOLD)


def _largest_shares(names: tuple[str, ...], weights: tuple[float, ...]) -> str:
    order = sorted(range(len(names)), key=lambda i: -weights[i])[:LARGEST]
    return ", ".join(f"{names[i]} {weights[i]:.1%}" for i in order if weights[i] >= SMALL)
