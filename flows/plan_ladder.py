"""The plan of a ladder: what each rung trains and costs, and what other splits of it would buy."""

from collections.abc import Iterable

from rich.table import Table

from cuvee.mixtures.multiscale import budget_splits
from cuvee.mixtures.multiscale.steps import LadderStep
from cuvee.mixtures.scale_evidence import PLAIN, SINGLE
from cuvee.proxies import ladder
from cuvee.tasks.study.finished import FinishedStudy

HEADINGS = ("tokens per run", "steps", "mixtures", "runs", "FLOPs", "share")


def rung_costs(
    rungs: tuple[LadderStep, ...], vocabulary: int, extra: int, *, schedule: str, rate: float
) -> tuple[float, ...]:
    """FLOPs of every rung.

    Args:
        rungs: the smallest first.
        vocabulary: tokens of the tokenizer.
        extra: runs of the first rung beside its mixtures: repeats of the anchors.
        schedule: learning-rate schedule.
        rate: multiplier on the learning rate.

    Raises:
        CuveeError: a size that is not on the ladder, or too few tokens for it.
    """
    plans = [
        ladder.training_plan(r.size, r.tokens, vocabulary, schedule=schedule, rate=rate)
        for r in rungs
    ]
    return tuple(
        plan.flops * (rung.runs + (extra if i == 0 else 0))
        for i, (plan, rung) in enumerate(zip(plans, rungs, strict=True))
    )


def rung_table(
    rungs: tuple[LadderStep, ...], vocabulary: int, extra: int, *, schedule: str, rate: float
) -> Table:
    """What every rung trains; arguments as `rung_costs`."""
    found = Table(title=f"Ladder: {len(rungs)} rungs")
    found.add_column("size", no_wrap=True)
    for heading in HEADINGS:
        found.add_column(heading, justify="right", no_wrap=True)
    spent = rung_costs(rungs, vocabulary, extra, schedule=schedule, rate=rate)
    for i, rung in enumerate(rungs):
        plan = ladder.training_plan(
            rung.size, rung.tokens, vocabulary, schedule=schedule, rate=rate
        )
        runs = rung.runs + (extra if i == 0 else 0)
        found.add_row(
            rung.size, f"{plan.tokens:,}", str(plan.steps), str(rung.runs), str(runs),
            f"{spent[i]:.2e}", f"{spent[i] / sum(spent):.0%}",
        )  # fmt: skip
    return found


def split_proposals(rungs: tuple[LadderStep, ...], spent: tuple[float, ...], extra: int) -> Table:
    """Splits of the same FLOPs over the same rungs, and the regret that each left on worlds.

    Args:
        rungs: the smallest first.
        spent: FLOPs of each.
        extra: runs of the first rung beside its mixtures.
    """
    runs = [rung.runs + (extra if i == 0 else 0) for i, rung in enumerate(rungs)]
    each = [flops / n for flops, n in zip(spent, runs, strict=True)]
    found = Table(title=f"Splits of {sum(spent):.2e} FLOPs (regret: {budget_splits.CONDITIONS})")
    found.add_column("split", no_wrap=True)
    moves = tuple(f"best mixture moves {name}" for name in budget_splits.MOVES)
    for heading in ("runs per rung", *moves):
        found.add_column(heading, justify="right", no_wrap=True)
    for split in budget_splits.SPLITS:
        counts = budget_splits.step_counts(split, sum(spent), each)
        left = budget_splits.REGRET[split.name]
        shown = (f"{left[name][0]:.3f} +- {left[name][1]:.3f}" for name in budget_splits.MOVES)
        found.add_row(split.name, " / ".join(map(str, counts)), *shown)
    return found


def hindsight_table(cards: Iterable[FinishedStudy]) -> Table | None:
    """What the largest rung of earlier ladders was worth: what the smaller ones would have picked.

    The regret of an earlier study is that of the mixture which its smaller rungs held for the best
    of those trained on its largest: by ranking at one size, and by the best of its laws of scale.
    """
    found = Table(title="Earlier ladders: regret at their largest size, had it not been trained")
    found.add_column("study", no_wrap=True)
    for heading in ("largest size", "mixtures", "by ranking", "by the best law of scale"):
        found.add_column(heading, justify="right", no_wrap=True)
    for card in cards:
        scale = card.answer.scale
        tried = [t for t in scale.trials if t.held_out and not t.refused] if scale else []
        ranked = [trial for trial in tried if trial.law == SINGLE]
        laws = [trial for trial in tried if trial.law not in (SINGLE, PLAIN)]
        if scale is None or not ranked:
            continue
        law = max(laws, key=lambda trial: trial.decision_accuracy, default=None)
        found.add_row(
            card.name, f"{scale.largest_parameters / 1e6:.3g}M", str(len(ranked[0].held_out)),
            f"{ranked[0].regret:.4f}", f"{law.regret:.4f} ({law.law})" if law else "none fitted",
        )  # fmt: skip
    return found if found.row_count else None
