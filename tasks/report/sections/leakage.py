"""Leakage: the report's section on benchmark items in training text, and on gains without them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from cuvee.tasks.report.blocks import Block, Paragraph, ReportTable
from cuvee.tasks.study.leakage import HALF, LEAST, LONG, ItemMatch
from cuvee.tasks.study.study import Study
from cuvee.tasks.validation.paired import interval_text

WORST = 10  # items that are listed at first, or though none is suspicious
COLUMNS = 6  # domains that have a column, those with the most suspicious items
OBJECTIVE = "objective"  # name of a gain in it
RUN, TEXT = 24, 80  # words of a run and characters of an item that are shown


def leakage_blocks(study: Study) -> Iterable[Block]:
    """What of the benchmarks is trained on, by task and domain; nothing where nobody looked."""
    if study.matches is None:
        return
    suspects = sum(bool(one.suspicious) for one in study.matches)
    yield Paragraph(
        "The longest run of words that every benchmark item (its question with an answer) shares "
        "with the training text, marks and capital letters aside. An item is suspicious with a run "
        f"of {LONG} words, or with one of {HALF:.0%} of its own words and {LEAST} at least. Text "
        "that shares 13 words with a benchmark's file was removed before; what is left is as often "
        f"a quotation or a saying as a leak: read the runs. Suspicious: {suspects:,} of "
        f"{len(study.matches):,} items."
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
        yield _clean_gains(study)


def _task_table(matches: Sequence[ItemMatch]) -> ReportTable:
    """Shares of the items of each task that are suspicious, and where."""
    found = Counter(name for one in matches for name in one.suspicious)
    domains = [name for name, _ in found.most_common(COLUMNS)]
    rows = []
    for task in dict.fromkeys(one.task for one in matches):
        own = [one for one in matches if one.task == task]
        counts = [
            sum(len(one.run) >= LONG for one in own),
            sum(len(one.run) >= max(HALF * one.words, LEAST) for one in own),
            *(sum(name in one.suspicious for one in own) for name in domains),
        ]
        typical = median(len(one.run) for one in own)
        shares = (f"{count / len(own):.1%}" for count in counts)
        rows.append((task, str(len(own)), f"{typical:g}", *shares))
    kinds = (f"{LONG} words", f"{HALF:.0%} of it", *(f"in {name}" for name in domains))
    return ReportTable(("task", "items", "median run", *kinds), tuple(rows))


def _clean_gains(study: Study) -> Block:
    """What confirmed gains are without the suspicious items."""
    before, after = study.confirmation, study.clean
    if before is None or after is None:
        return Paragraph(
            "What the gains are without them cannot be told: runs keep no scores by item, or "
            "hardly an item of a task is left."
        )
    names = {OBJECTIVE, *(one.task for one in study.matches or () if one.suspicious)}
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
    return ReportTable(("gain in", "with all items", "without the suspicious", "change"), rows)
