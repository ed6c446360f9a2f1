"""Leakage: the report's section on benchmark items in training text, and on gains without them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from cuvee.mixtures.objectives import OBJECTIVE
from cuvee.tasks.report.blocks import Block, Paragraph, ReportTable
from cuvee.tasks.study.study import Study
from cuvee.tasks.study.suspicious_items import LONG, ItemMatch, suspicious_keys, unscored
from cuvee.tasks.validation.paired import Confirmation, interval_text

WORST = 10  # items that are listed at first, or though none is suspicious
COLUMNS = 6  # domains that have a column, those with the most suspicious items
RUN, TEXT = 24, 80  # words of a run and characters of an item that are shown


def suspicious_item_blocks(study: Study) -> Iterable[Block]:
    """What of the benchmarks is trained on, by task and domain; nothing where nobody looked."""
    if study.matches is None:
        return
    suspects = sum(bool(one.suspicious) for one in study.matches)
    yield Paragraph(
        "The longest run of words that every benchmark item (its question with the right answer) "
        "shares with the training text, marks and capital letters aside; a character of Chinese or "
        f"Japanese is a word. An item is suspicious with a run of {LONG} words. Text that shares "
        "13 words with a benchmark's file was removed before; what is left is as often a quotation "
        f"or a saying as a leak: read the runs. Suspicious: {suspects:,} of {len(study.matches):,} "
        "items."
    )
    yield _task_table(study.matches)
    worst = sorted(study.matches, key=lambda one: (not one.suspicious, -len(one.run)))
    rows = tuple(
        (one.text[:TEXT], one.task, str(one.words), str(len(one.run)), " ".join(one.run[:RUN]),
         one.domain, f"{one.document:,}", f"{one.count:,}")
        for one in worst[: suspects or WORST]
    )  # fmt: skip
    columns = ("item", "task", "words", "run", "its words", "domain", "document", "places")
    yield ReportTable(columns, rows, words=(1, 4, 5), fold=WORST)
    if suspects and study.confirmation:
        yield from _clean_gains(study, study.confirmation)


def _task_table(matches: Sequence[ItemMatch]) -> ReportTable:
    """Shares of the items of each task that are suspicious, and where."""
    found = Counter(name for one in matches for name in one.suspicious)
    domains = [name for name, _ in found.most_common(COLUMNS)]
    rows = []
    for task in dict.fromkeys(one.task for one in matches):
        own = [one for one in matches if one.task == task]
        counts = [
            sum(bool(one.suspicious) for one in own),
            *(sum(name in one.suspicious for one in own) for name in domains),
        ]
        typical = median(len(one.run) for one in own)
        shares = (f"{count / len(own):.1%}" for count in counts)
        rows.append((task, str(len(own)), f"{typical:g}", *shares))
    kinds = (f"{LONG} words", *(f"in {name}" for name in domains))
    return ReportTable(("task", "items", "median run", *kinds), tuple(rows))


def _clean_gains(study: Study, before: Confirmation) -> Iterable[Block]:
    """What confirmed gains are without the suspicious items."""
    suspicious, after = suspicious_keys(study.matches or ()), study.clean
    lost = unscored((run.result for run in before.runs), suspicious)
    if lost:
        read = ", ".join(task for task in lost if task in study.problem.objective.targets)
        also = f" The objective reads {read}, so that no other gain is told either." if read else ""
        yield Paragraph(
            f"Of {', '.join(lost)} no gain can be told without the suspicious items: runs keep no "
            f"scores by item, or hardly an item is left.{also}"
        )
    if after is None:
        return
    names = {OBJECTIVE, *suspicious} - set(lost)
    pairs = (
        (baseline, one, other)
        for baseline in after.objective
        for one, other in zip(
            (before.objective[baseline], *before.targets[baseline]),
            (after.objective[baseline], *after.targets[baseline]),
            strict=True,
        )
        if one.name in names
    )
    rows = tuple(
        (f"{one.name} against {baseline}", interval_text(one.estimate, "+.4f"),
         interval_text(other.estimate, "+.4f"), f"{other.gain - one.gain:+.4f}")
        for baseline, one, other in pairs
    )  # fmt: skip
    yield ReportTable(("gain in", "with all items", "without the suspicious", "change"), rows)
