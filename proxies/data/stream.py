"""The stream of training sequences of one proxy: a mixture in exact counts.

Sampling domains at random makes the realised shares noisy (a share of 2 % of 1600 sequences is off
by a sixth, one standard deviation), and that noise would be charged to the mixture. So every block
of steps holds a whole number of sequences of each domain, by largest remainder on what is owed so
far: after any block each domain is within one sequence of its share of the run.

What a step yields is a function of spec and step alone, so a stream is its own bookmark. A
domain's windows come in an order that depends on the seed of the data and on the domain's *content*
(its name in runs of version 1): neither mixture, nor number, name or order of the domains changes
it. Two runs with equal seeds see the same
windows of a domain in the same order, and at about the same points of a block: they are paired.

Windows overlap by one token, so that each token but the first is predicted once per epoch.
Documents are not masked from each other inside a window (the end-of-text token parts them).
"""

import bisect
import hashlib
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cuvee.mixtures import simplex
from cuvee.mixtures.errors import DataError
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies.data.sampling_table import BLOCK, Block, Counts, SamplingTable, Segments
from cuvee.proxies.data.shards import TokenArray

__all__ = ["BLOCK", "Stream", "Windows"]


class Stream:
    """The sequences of one run.

    Args:
        spec: whose stages, seed and repetition count.
        tokens: each domain's training tokens, documents concatenated.
        context: tokens of a sequence.
        batch: sequences of a step.
        steps: of the run.

    Raises:
        DataError: a domain with a share above zero has fewer tokens than one window.
        RecipeError: a stage is shorter than a step.
    """

    def __init__(
        self,
        spec: RunSpec,
        tokens: Mapping[str, TokenArray],
        *,
        context: int,
        batch: int,
        steps: int,
    ) -> None:
        self.domains, self.order = spec.domains, list(spec.order)
        self.names = tuple(spec.domains[i] for i in self.order)
        self.keys = tuple(spec.keys[i] for i in self.order)
        self.context, self.batch_size, self.steps = context, batch, steps
        self.seed = spec.order_seed % (1 << 63)  # generators take no negative seeds
        self.windows = [
            Windows(
                spec.keys[i],
                tokens[spec.domains[i]],
                context,
                seed=self.seed,
                repetition=spec.usable(i),
            )
            for i in self.order
        ]
        for stage in spec.stages:
            self._check(stage.weights)
        self.table = SamplingTable(spec, batch=batch, steps=steps)
        self._filled: tuple[Block, Counts, Counts] | None = None  # the last block

    @property
    def segments(self) -> Segments:
        """The weights, in the spec's order, and the steps they start at."""
        return self.table.segments

    def batch(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sequences (B, context + 1) of a step and the domain (B,) of each, in the spec's order."""
        starts, places = self.windows_at(step)
        rows = [
            self.windows[place].tokens[start : start + self.context + 1]
            for start, place in zip(starts.tolist(), places.tolist(), strict=True)
        ]
        return np.stack(rows).astype(np.int64), np.asarray(self.order, dtype=np.int64)[places]

    def windows_at(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the windows of a step begin in their domain (B,), and its place in `names` (B,)."""
        block = self.table.at(step)
        if self._filled is None or self._filled[0] is not block:
            domains, draws = shuffled(block, self.keys, self.seed)
            starts = np.empty_like(draws)
            for place in np.flatnonzero(block.counts).tolist():
                here = domains == place
                starts[here] = self.windows[place].starts(draws[here])
            self._filled = (block, starts, domains)
        _, starts, domains = self._filled
        first = (step - block.start) * self.batch_size
        return starts[first : first + self.batch_size], domains[first : first + self.batch_size]

    def reweight(self, step: int, weights: ArrayLike) -> None:
        """Use other weights, in the spec's order, from a step on; later stages are dropped.

        Raises:
            ValueError: the step is not the start of a block, so its sequences are settled.
        """
        values = tuple(float(w) for w in simplex.check_mixture(weights, self.domains))
        marked = any(start == step for start, _ in self.segments)
        if (step % BLOCK and not marked) or not 0 <= step < self.steps:
            raise ValueError(
                f"weights change at multiples of {BLOCK} steps or where `mark` said so; "
                f"got step {step}"
            )
        self._check(values)
        self.table.change([s for s in self.segments if s[0] < step] + [(step, values)], step)

    def mark(self, step: int) -> None:
        """Begin a block at a step that is not filled yet, so that weights can change there."""
        if step < self.steps and all(start != step for start, _ in self.segments):
            after = bisect.bisect_right([start for start, _ in self.segments], step)
            extra = (step, self.segments[after - 1][1])
            self.table.change([*self.segments[:after], extra, *self.segments[after:]], step)

    def weights(self, step: int) -> tuple[float, ...]:
        """The weights that hold at a step, in the spec's order."""
        return self.segments[bisect.bisect_right([s for s, _ in self.segments], step) - 1][1]

    def state(self) -> Segments:
        """All that the stream does not owe to its spec: the weights and the steps they start at."""
        return list(self.segments)

    def restore(self, state: Sequence[tuple[int, Sequence[float]]]) -> None:
        """Go on as the stream that gave this state."""
        self.table.change([(int(start), tuple(map(float, w))) for start, w in state], 0)

    def drawn(self) -> tuple[int, ...]:
        """Tokens of each domain over the whole run, in the spec's order."""
        found = [0] * len(self.domains)
        for i, sequences in zip(self.order, self._sequences, strict=True):
            found[i] = int(sequences) * self.context
        return tuple(found)

    def epochs(self) -> tuple[float, ...]:
        """Passes over each domain's usable windows in the whole run, in the spec's order."""
        found = [0.0] * len(self.domains)
        for i, sequences, windows in zip(self.order, self._sequences, self.windows, strict=True):
            found[i] = float(sequences) / windows.usable if sequences else 0.0
        return tuple(found)

    @property
    def _sequences(self) -> Counts:
        last = self.table.at(self.steps - 1)
        return last.given + last.counts

    def _check(self, weights: Sequence[float]) -> None:
        windows = dict(zip(self.order, self.windows, strict=True))
        for i, (name, weight) in enumerate(zip(self.domains, weights, strict=True)):
            if weight > 0 and i not in windows:
                raise ValueError(f"the run is not made of domain {name!r}, which gets a share here")
            if weight > 0 and not windows[i].usable:
                raise DataError(
                    f"domain {name!r} has {windows[i].tokens.size:,} training tokens, less than "
                    f"one window of {self.context + 1}; add text, use a size with a shorter "
                    "context, or give it no share"
                )


class Windows:
    """One domain's windows, in an order that is its own.

    Attributes:
        key: what the order is drawn from, beside the seed.
        usable: windows that a run may use: all, or with `repetition` r < 1 the first ceil(r n) of a
            permutation that does not depend on the seed.
    """

    def __init__(
        self,
        key: str,
        tokens: TokenArray,
        context: int,
        *,
        seed: int,
        repetition: float = 1.0,
    ) -> None:
        self.key, self.tokens, self.context, self.seed = key, tokens, context, seed
        self._epoch: tuple[int, NDArray[np.uint32]] | None = None  # the last one, in order
        self.count = max(0, (tokens.size - 1) // context)
        self.usable = math.ceil(repetition * self.count)

    def starts(self, draws: NDArray[np.int64]) -> NDArray[np.int64]:
        """First tokens (n,) of the domain's draws with these numbers (n,), counted over the run."""
        epochs, places = np.divmod(draws, self.usable)
        starts = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            if self._epoch is None or self._epoch[0] != epoch:
                self._epoch = (epoch, self._ordered(epoch))
            here = epochs == epoch
            starts[here] = self._epoch[1][places[here]]
        return starts * self.context

    def _ordered(self, epoch: int) -> NDArray[np.uint32]:
        rng = np.random.default_rng((self.seed, key_seed(self.key), epoch))
        indices = rng.permutation(self.usable)
        if self.usable < self.count:
            chosen = np.random.default_rng(key_seed(self.key)).permutation(self.count)
            indices = chosen[indices]
        return indices.astype(np.uint32)


def key_seed(key: str) -> int:
    """A domain's content, or its name, as a seed."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


def shuffled(block: Block, keys: Sequence[str], seed: int) -> tuple[Counts, Counts]:
    """Domain and number of draw for each sequence of a block: shuffled, but evenly spread.

    The j-th of n sequences of a domain stands at (j + u) / n with u uniform: every stretch of the
    block is close to the mixture, and runs that differ in their mixture stay paired.
    """
    domains = np.repeat(np.arange(len(keys)), block.counts)
    draws = np.concatenate(
        [g + np.arange(c) for g, c in zip(block.given, block.counts, strict=True)]
    )
    places = np.concatenate(
        [
            (np.arange(c) + np.random.default_rng((seed, key_seed(key), block.start)).random(c)) / c
            for key, c in zip(keys, block.counts, strict=True)
            if c
        ]
    )
    order = np.argsort(places, kind="stable")
    return domains[order], draws[order]
