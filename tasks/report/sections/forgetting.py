"""Forgetting: the report's section on what continual pretraining did to old and new domains."""

from collections.abc import Iterable, Sequence

from cuvee.tasks.report.blocks import Block, Paragraph, ReportTable
from cuvee.tasks.report.sections.headline import NONE
from cuvee.tasks.study import forgetting
from cuvee.tasks.study.answers import UNIT
from cuvee.tasks.study.forgetting import ContinualStart, DomainChange
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import interval_text


def forgetting_blocks(study: Study) -> Iterable[Block]:
    """Old domains before and after under every mixture, then the new ones; nothing else has it."""
    found = study.continual
    if found is None:
        return
    every = study.changes
    yield Paragraph(
        f"Every run went on from {found.start.source} (weights {found.start.content[:12]}), with "
        "a fresh optimizer and a warm-up of its own. A change is the score after training minus "
        f"that of the checkpoint on the same held-out text, {UNIT}; positive is forgotten. "
        f"{_source(study)} Old domains were held to at least {found.replay:.0%} of the tokens "
        "together. If the checkpoint was trained on text that is held out here, its scores flatter "
        "it and forgetting is overstated."
    )
    for sentence in forgetting_sentences(found, every):
        yield Paragraph(sentence)
    yield _table(every, (*found.old, forgetting.MEAN), "old domain")
    new = [name for name in study.problem.domains.names if name not in found.old]
    if new:
        yield Paragraph("What the same runs learned of the domains that are new to the checkpoint:")
        yield _table(every, new, "new domain")


def _source(study: Study) -> str:
    confirmation = study.confirmation
    if confirmation is None:
        return "No mixture was trained again, so that every change is predicted."
    return (
        f"Intervals ({confirmation.level:.0%}, Student's t) are over {confirmation.seeds} fresh "
        "seeds; they are not corrected for the number of domains. Changes marked p are predicted."
    )


def forgetting_sentences(found: ContinualStart, every: Sequence[DomainChange]) -> tuple[str, ...]:
    """Whether the recommended mixture kept what was asked for, in sentences."""
    own = forgetting.old_domain_changes(found, every)
    lost = [one for one in own if one.low > 0]
    said = [
        f"Of {len(own)} old domains the recommended mixture made {len(lost)} worse by more than "
        f"the noise{': ' + ', '.join(one.domain for one in lost) if lost else ''}."
    ]
    if found.forget is not None:
        above = forgetting.changes_above_floor(found, every)
        kept = "not kept" if above else "kept"
        if not any(one.seeds for one in own):
            kept = (
                "predicted to be kept"
                if all(one.change <= found.forget for one in own)
                else "predicted to be broken"
            )
        said.append(
            f"The floor, no old domain worse by more than {found.forget:g} {UNIT}, is {kept}"
            f"{': ' + ', '.join(one.text for one in above) if above else ''}."
        )
    return tuple(said)


def _table(every: Sequence[DomainChange], domains: Sequence[str], title: str) -> ReportTable:
    mixtures = tuple(dict.fromkeys(one.mixture for one in every))
    cells = {(one.domain, one.mixture): one for one in every}
    rows = []
    for domain in domains:
        own = [cells.get((domain, mixture)) for mixture in mixtures]
        before = next((one.before for one in own if one), None)
        if before is not None:
            rows.append((domain, f"{before:.3f}", *map(_cell, own)))
    return ReportTable((title, "checkpoint", *mixtures), tuple(rows))


def _cell(one: DomainChange | None) -> str:
    if one is None:
        return NONE
    mark = "" if one.seeds else " p"
    return f"{one.after:.3f}: {interval_text(one.estimate, '+.3f')}{mark}"
