"""The plan of a ladder: FLOPs by rung, and what else they could buy."""

from types import SimpleNamespace

import pytest

from cuvee.flows import plan_ladder
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.multiscale import budget_splits
from cuvee.mixtures.multiscale.steps import LadderStep
from cuvee.mixtures.scale_evidence import LawTrial, ScaleEvidence
from cuvee.proxies import ladder

RUNGS = (
    LadderStep("0.3M", 400_000, 32),
    LadderStep("1M", 700_000, 10),
    LadderStep("4M", 1_000_000, 8),
)
HOW = {"schedule": "wsd", "rate": 1.0}


def cells(table, column):
    return list(table.columns[column].cells)


def test_rungs_are_shown_with_their_own_costs():
    """Catches every rung priced as the study's proxy, and repeats of the anchors forgotten."""
    spent = plan_ladder.rung_costs(RUNGS, 4096, 6, **HOW)
    assert spent[0] == pytest.approx(38 * ladder.training_plan("0.3M", 400_000, 4096).flops)
    assert spent[2] == pytest.approx(8 * ladder.training_plan("4M", 1_000_000, 4096).flops)
    table = plan_ladder.rung_table(RUNGS, 4096, 6, **HOW)
    assert cells(table, 0) == ["0.3M", "1M", "4M"] and cells(table, 4) == ["38", "10", "8"]
    shares = [int(cell.rstrip("%")) for cell in cells(table, 6)]
    assert 99 <= sum(shares) <= 101 and shares[2] > shares[0]


def test_too_few_tokens_for_a_rung_are_refused_in_the_plan():
    with pytest.raises(RecipeError, match="give at least"):
        plan_ladder.rung_costs((*RUNGS, LadderStep("4M", 5_000, 8)), 4096, 6, **HOW)


def test_proposals_spend_the_same_flops():
    """Catches proposals of another budget: each row must cost what the recipe costs, at most."""
    spent = plan_ladder.rung_costs(RUNGS, 4096, 6, **HOW)
    table = plan_ladder.split_proposals(RUNGS, spent, 6)
    assert cells(table, 0) == [split.name for split in budget_splits.SPLITS]
    each = [spent[0] / 38, spent[1] / 10, spent[2] / 8]
    for row in cells(table, 1):
        runs = [int(n) for n in row.split(" / ")]
        cost = sum(n * c for n, c in zip(runs, each, strict=True))
        assert 0.97 * sum(spent) <= cost <= sum(spent) * (1 + 1e-9)


def test_earlier_ladders_say_what_their_largest_rung_was_worth():
    """Ranking would have picked the second best, 0.2 worse: catches regret of the wrong pick, a
    law that was refused, and a study without a ladder shown as one.
    """
    ranked = LawTrial("single_scale", 0.1, held_out=((2.2, 1.0), (2.0, 1.1), (2.5, 1.4)))
    law = LawTrial(
        "joint", 0.1, decision_accuracy=0.9, held_out=((2.2, 2.3), (2.0, 2.1), (2.5, 2.6))
    )
    refused = LawTrial("nested", refused="too few sizes")
    scale = ScaleEvidence(10, 10, 4_000_000, 10, 10, 10, "joint", True, "", (ranked, law, refused))
    answer = SimpleNamespace(scale=scale)
    cards = [SimpleNamespace(name="before", answer=answer)]
    cards.append(SimpleNamespace(name="flat", answer=SimpleNamespace(scale=None)))
    table = plan_ladder.hindsight_table(cards)
    row = [cells(table, i)[0] for i in range(5)]
    assert row == ["before", "4M", "3", "0.2000", "0.0000 (joint)"] and table.row_count == 1
    assert plan_ladder.hindsight_table(cards[1:]) is None
