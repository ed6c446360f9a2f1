"""Budget guards: a sweep that would cost more than allowed is not begun, or not gone on with.

FLOPs are counted for what this sweep launches; wall time, and money as priced wall time, from its
start. A pack that is under way when a ceiling is reached is finished and kept.
"""

import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from cuvee.flows.recipe.parts import BudgetPart
from cuvee.mixtures.errors import BudgetError
from cuvee.mixtures.runs.run_results import Outcome, RunResult
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies import ladder


class Budget:
    """What one sweep may spend, and what it has.

    Args:
        part: the ceilings; None allows everything.
        flops: of one run.
        clock: seconds that only go forward.

    Attributes:
        reached: the ceiling that stopped the sweep, in words; empty while there is none.
    """

    def __init__(
        self,
        part: BudgetPart | None,
        flops: Callable[[RunSpec], float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._part, self._flops, self._clock = part or BudgetPart(), flops, clock
        self._began, self._spent = clock(), 0.0
        self.reached = ""

    def check(self, specs: Sequence[RunSpec]) -> None:
        """Look, before anything is launched, whether runs fit into the ceiling on FLOPs.

        Raises:
            BudgetError: they do not.
        """
        most, needed = self._part.flops, sum(map(self._flops, specs))
        if most is not None and needed > most:
            raise BudgetError(
                f"the design's {len(specs)} untrained runs take {needed:.2e} FLOPs, more than "
                f"budget.flops of {most:.2e}: nothing was trained. Lower method.runs or "
                "proxy.tokens, or raise the budget"
            )

    def admits(self, specs: Sequence[RunSpec]) -> bool:
        """Whether runs may be launched; counts them as spent if so. Once not, never again."""
        if not self.reached:
            cost = sum(map(self._flops, specs))
            self.reached = self._over(cost)
            self._spent += 0.0 if self.reached else cost
        return not self.reached

    def _over(self, cost: float) -> str:
        part, seconds = self._part, self._clock() - self._began
        if part.flops is not None and self._spent + cost > part.flops:
            return f"the budget of {part.flops:.2e} FLOPs (budget.flops) is spent"
        if part.minutes is not None and seconds > 60 * part.minutes:
            return f"the budget of {part.minutes:g} minutes (budget.minutes) is spent"
        if part.money and seconds > 3600 * part.money.most / part.money.per_hour:
            return (
                f"the budget of {part.money.most:g} at {part.money.per_hour:g} an hour "
                "(budget.money) is spent"
            )
        return ""


def training_flops(vocabulary: int) -> Callable[[RunSpec], float]:
    """FLOPs of training a spec on a corpus with a vocabulary of this size."""

    def cost(spec: RunSpec) -> float:
        return float(ladder.training_plan(spec.size, spec.tokens, vocabulary, rate=spec.rate).flops)

    return cost


def forecast(part: BudgetPart | None, flops: float, seconds: float | None) -> list[str]:
    """What a plan says of its budget.

    Args:
        part: the ceilings.
        flops: of everything that would be trained.
        seconds: of it, estimated; None where nothing is known.
    """
    lines = []
    if part and part.flops is not None:
        word = "within" if flops <= part.flops else "ABOVE"
        lines.append(f"Budget: {flops:.2e} FLOPs are {word} budget.flops of {part.flops:.2e}")
    if part and part.seconds is not None and seconds is not None:
        word = "within" if seconds <= part.seconds else "ABOVE"
        minutes = f"{seconds / 60:.1f} minutes of training on two cores"
        lines.append(f"Budget: {minutes} are {word} the {part.seconds / 60:.1f} allowed")
    return lines


def tokens_per_second(outcomes: Iterable[Outcome]) -> float:
    """Median training speed, tokens per second per core (a pack's divided among its models)."""
    rates = [
        run.spec.tokens / run.seconds
        for run in outcomes
        if isinstance(run, RunResult) and run.seconds > 0
    ]
    return float(np.median(rates)) if rates else 0.0
