"""Budget splits: how FLOPs may be spread over the steps of a ladder, and what that bought.

`REGRET` is measured by `benchmarks/scale.py --parts splits`, which prints it anew; it is regret on
worlds, and tells splits apart rather than what a study will reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cuvee.mixtures.errors import RecipeError

LEAST = 6  # runs of a step that is used at all: below that it tells neither shape nor order
CONDITIONS = "bits per byte lost at full scale by a ladder of worlds, mean and standard error"
MOVES = {"little": 0.3, "far": 1.0}  # how far the best mixture of a world moves with scale


@dataclass(frozen=True)
class BudgetSplit:
    """A way to spread a budget.

    Attributes:
        name: as it is shown.
        smallest: share of the FLOPs for the first step; the others share the rest alike.
    """

    name: str
    smallest: float

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise RecipeError(f"a split's first share lies in (0, 1]; got {self.smallest}")


SPLITS = (
    BudgetSplit("all at the smallest size", 1.0),
    BudgetSplit("80 % at the smallest", 0.8),
    BudgetSplit("half at the smallest", 0.5),
    BudgetSplit("a quarter at the smallest", 0.25),
)
REGRET = {
    "all at the smallest size": {"little": (0.0611, 0.0071), "far": (0.1322, 0.0311)},
    "80 % at the smallest": {"little": (0.0957, 0.0203), "far": (0.2691, 0.1119)},
    "half at the smallest": {"little": (0.1099, 0.0292), "far": (0.3358, 0.1085)},
    "a quarter at the smallest": {"little": (0.0742, 0.0098), "far": (0.2794, 0.1084)},
}


def step_counts(split: BudgetSplit, budget: float, each: Sequence[float]) -> tuple[int, ...]:
    """Runs per step.

    A step that could not pay for `LEAST` runs gets none, and what it would have cost goes to the
    first; no step gets more runs than the one before.

    Args:
        split: the shares.
        budget: FLOPs in all.
        each: FLOPs of one run on each step, the smallest first.
    """
    rest = (1.0 - split.smallest) / max(1, len(each) - 1)
    shares = [split.smallest, *([rest] * (len(each) - 1))]
    runs = [int(budget * share / cost + 1e-9) for share, cost in zip(shares, each, strict=True)]
    for i in range(1, len(runs)):
        runs[i] = min(runs[i], runs[i - 1]) if runs[i] >= LEAST else 0
    left = budget - sum(n * cost for n, cost in zip(runs[1:], each[1:], strict=True))
    runs[0] = max(runs[0], int(left / each[0] + 1e-9))
    return tuple(runs)
