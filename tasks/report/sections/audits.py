"""The report's section on whether scores mean what they say: held-out targets, accuracy, early
ranking."""

from collections.abc import Iterable

from cuvee.mixtures.inference.early_ranking import SURE_RANK, EarlyRanking
from cuvee.mixtures.inference.metric_audit import ABOVE, LEAST, SCORES, MetricAudit
from cuvee.mixtures.units import count_text
from cuvee.tasks.report.blocks import Block, Paragraph, ReportTable
from cuvee.tasks.report.sections.headline import NONE
from cuvee.tasks.study import audits
from cuvee.tasks.study.answers import UNIT, size_text
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import interval_text


def audit_blocks(study: Study) -> Iterable[Block]:
    """The three audits; each is left out where the study has nothing for it."""
    yield from _held_out(study)
    metrics, early = audits.run_audits(study)
    yield from _metrics(metrics)
    if early:
        yield from _early(early)


def _held_out(study: Study) -> Iterable[Block]:
    targets = audits.held_out_targets(study)
    tested = [found for found in study.confirmations if found.targets and targets]
    if tested:
        yield Paragraph(
            f"Held-out targets, {len(targets)}: the objective does not read them, so nothing was "
            f"chosen by them. Gains in fresh runs, {UNIT}, paired by seed; positive is better."
        )
    for found in tested:
        each = {b: {gain.name: gain for gain in found.targets[b]} for b in found.targets}
        means = audits.held_out_gains(found, targets)
        table = [(f"mean of {len(targets)}", list(means.values()))]
        table += [(target, [each[b][target] for b in each]) for target in targets]
        rows = [
            (name, *(interval_text(gain.estimate, "+.3f") for gain in gains), gains[0].covers)
            for name, gains in table
        ]
        head = (f"at {size_text(study, found)}", *(f"gain over {name}" for name in each))
        yield ReportTable((*head, "holds for"), tuple(rows), words=(len(head),))


def _metrics(found: tuple[MetricAudit, ...]) -> Iterable[Block]:
    if not found:
        return
    yield Paragraph(
        "Which score orders accuracy: rank correlation of each score of a task with its accuracy, "
        "over mixtures; 1 is the same order. Both are of the same questions and runs: noise that "
        "they share counts as agreement."
    )
    head = ("task", "accuracy (chance)", "runs above chance", *SCORES, "that is")
    rows = []
    for one in found:
        ranks = [interval_text(r, "+.2f") if (r := one.ranks.get(n)) else NONE for n in SCORES]
        mean = f"{one.accuracy:.3f} ({one.chance:.3f})"
        rows.append((one.task, mean, f"{one.above:.0%}", *ranks, _said(one)))
    yield ReportTable(head, tuple(rows), words=(len(head) - 1,))


def _said(one: MetricAudit) -> str:
    if one.above < ABOVE:
        where = "below chance" if one.below else "not surely above chance"
        return f"accuracy is {where}, nothing can be told"
    if not one.ranks:
        return f"too few mixtures, {one.mixtures} of {LEAST}"
    best = max(one.ranks, key=lambda name: one.ranks[name].low)
    wrong = [name for name, rank in one.ranks.items() if rank.high < 0]
    turned = f"; in the wrong order: {', '.join(wrong)}" if wrong else ""
    told = f"{best} orders it best" if one.ranks[best].low > 0 else "no score surely orders it"
    return told + turned


def _early(found: EarlyRanking) -> Iterable[Block]:
    if not found.ranks:
        why = f"{found.mixtures} mixtures share two seeds, and it takes {LEAST}"
        if not found.targets:
            why = "at no point on their way were all runs scored on one target"
        yield Paragraph(f"How early the order of mixtures stands cannot be told: {why}.")
        return
    yield Paragraph(
        f"Early ranking by {' and '.join(found.targets)}: rank correlation of the order after a "
        "part of the tokens, in one seed, with that of the end, in the other seeds; the last row "
        f"is the end itself. {found.mixtures} mixtures with {found.seeds} seeds each."
    )
    rows = [(count_text(seen), interval_text(rank, "+.2f")) for seen, rank in found.ranks]
    yield ReportTable(("tokens", "rank correlation"), tuple(rows))
    yield Paragraph(
        f"No lower end before the last reaches {SURE_RANK:g}: no shorter proxies are advised."
        if found.enough is None
        else f"`proxy.tokens: {count_text(found.enough)}` would do, where the lower end reaches "
        f"{SURE_RANK:g}, for mixtures as far apart as these, and if runs that end there, with a "
        "decay of their own, rank like this point."
    )
