"""The table of blocks: how many sequences of each domain every stretch of a run holds.

It is filled by counts alone, from shares and the steps at which they change. What a block holds
depends on nothing that comes after it, so two runs whose tables begin with the same blocks begin
with the same sequences: that is how common trunks are recognized (`proxies.train.branching`).
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.runs.run_spec import RunSpec

BLOCK = 64  # steps, over which the counts per domain are exact
Counts = NDArray[np.int64]
Segments = list[tuple[int, tuple[float, ...]]]


@dataclass(frozen=True)
class Block:
    """Steps `[start, stop)` that are filled and shuffled as one.

    Attributes:
        counts: sequences of each domain that the run is made of, in its canonical order.
        given: sequences of each domain before this block.
    """

    start: int
    stop: int
    counts: Counts
    given: Counts


class SamplingTable:
    """The blocks of one run, filled as they are asked for.

    Args:
        spec: whose stages count.
        batch: sequences of a step.
        steps: of the run.

    Attributes:
        segments: (first step, shares in the spec's order) pairs.

    Raises:
        RecipeError: a stage is shorter than a step.
    """

    def __init__(self, spec: RunSpec, *, batch: int, steps: int) -> None:
        self.order = list(spec.order)
        self.batch, self.steps = batch, steps
        begins = stage_starts([stage.share for stage in spec.stages], steps)
        self.segments: Segments = [
            (start, stage.weights) for start, stage in zip(begins, spec.stages, strict=True)
        ]
        self._blocks: list[Block] = []

    def change(self, segments: Segments, step: int) -> None:
        """Follow other segments, which differ from the present ones from a step on."""
        self.segments = segments
        self._blocks = [block for block in self._blocks if block.stop <= step]

    def at(self, step: int) -> Block:
        """The block of a step."""
        while not self._blocks or self._blocks[-1].stop <= step:
            self._blocks.append(self._next())
        return self._blocks[bisect.bisect_right(self._blocks, step, key=lambda b: b.start) - 1]

    def every(self) -> list[Block]:
        """All blocks of the run, in order."""
        self.at(self.steps - 1)
        return list(self._blocks)

    def _next(self) -> Block:
        start = self._blocks[-1].stop if self._blocks else 0
        changes = [s for s, _ in self.segments if s > start]
        stop = min([(start // BLOCK + 1) * BLOCK, self.steps, *changes])
        given = np.zeros(len(self.order), dtype=np.int64)
        if self._blocks:
            given = self._blocks[-1].given + self._blocks[-1].counts
        total = (stop - start) * self.batch
        return Block(start, stop, whole_counts(self._quota(stop) - given, total), given)

    def _quota(self, step: int) -> Array:
        """Sequences of each domain due by a step, in canonical order."""
        due = np.zeros(len(self.order))
        bounds = [s for s, _ in self.segments[1:]] + [self.steps]
        for (start, weights), stop in zip(self.segments, bounds, strict=True):
            length = max(0, min(stop, step) - start) * self.batch
            due += np.asarray(weights)[self.order] * length
        return due


def stage_starts(shares: Sequence[float], steps: int) -> list[int]:
    """First step of each stage.

    Raises:
        RecipeError: a stage would not get a step.
    """
    result = [round(math.fsum(shares[:i]) * steps) for i in range(len(shares))]
    for i, (start, stop) in enumerate(zip(result, [*result[1:], steps], strict=True)):
        if stop <= start:
            raise RecipeError(
                f"stage {i + 1} has {shares[i]:.3g} of the tokens, less than one of {steps} steps; "
                "give it a larger share or train on more tokens"
            )
    return result


def whole_counts(due: Array, total: int) -> Counts:
    """Whole numbers that sum to `total`, nearest to what is due; overpaid domains get none."""
    return simplex.whole_counts(simplex.normalized(np.maximum(due, 0.0)), total)
