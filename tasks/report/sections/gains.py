"""The report's section on for what the confirmed gains hold: new seeds, and new items."""

from collections.abc import Iterable

from cuvee.mixtures.inference.crossed_intervals import ITEMS, SEEDS
from cuvee.tasks.report.blocks import Block, Paragraph, ReportTable
from cuvee.tasks.report.sections.headline import NONE
from cuvee.tasks.study.answers import UNIT, size_text
from cuvee.tasks.study.audits import held_out_gains, held_out_targets
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import Alone, Confirmation, PairedGain, alone_text, covers_text

CAUTIONS = {
    Alone.MOST: "Noise makes the largest of several scores larger where they lie close, and "
    "natural's, relative to itself, most surely: a small gain in the objective is no evidence. "
    "Look whether every single target gains.",
    Alone.OTHER: "Scores of different documents or items differ whatever the mixtures: train and "
    "score these runs anew before anything is claimed of them.",
}


def gain_blocks(study: Study) -> Iterable[Block]:
    """Every confirmed gain with its interval over new seeds, and over new seeds and new items."""
    if not study.confirmations:
        return
    yield Paragraph(
        f"Gains in fresh runs, {UNIT}, with {study.confirmations[-1].level:.0%} intervals and a "
        f"one-sided p. One for {SEEDS} holds where the mixtures are trained again and scored on "
        f"the same documents and items; one for {ITEMS} also on others of the same kinds. Claims "
        f"rest on the latter wherever they can be told."
    )
    rows = [row for found in study.confirmations for row in _rows(study, found)]
    head = ("at", "gain over", "in", "gain", f"for {SEEDS}", f"for {ITEMS}", "pairs", "p")
    yield ReportTable(head, tuple(rows), words=(1, 2))
    every = [g for found in study.confirmations for g in found.objective.values()]
    yield Paragraph(f"The gain in the objective is for {covers_text(every)}{alone_text(every)}.")
    single = [g for found in study.confirmations for gains in found.targets.values() for g in gains]
    if (why := alone_text(single, len(single))) and any(g.covers == ITEMS for g in single):
        yield Paragraph(f"Gains in some single targets are for {SEEDS} alone{why}.")
    found = {why for gain in (*every, *single) for why in gain.alone.values()}
    yield from (Paragraph(said) for why, said in CAUTIONS.items() if why in found)


def _rows(study: Study, found: Confirmation) -> Iterable[tuple[str, ...]]:
    held_out = held_out_gains(found, held_out_targets(study))
    for kind, gains in (("the objective", found.objective), ("held-out targets", held_out)):
        for name, gain in gains.items():
            yield (size_text(study, found), name, kind, f"{gain.gain:+.4f}", *_intervals(gain),
                   str(gain.n), f"{gain.p:.2g}")  # fmt: skip


def _intervals(gain: PairedGain) -> tuple[str, str]:
    own, both = gain.over_seeds or gain.estimate, gain.estimate
    ends = [f"{one.low:+.4f} to {one.high:+.4f}" for one in (own, both)]
    return ends[0], ends[1] if gain.covers == ITEMS else NONE
