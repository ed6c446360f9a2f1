"""A corpus in memory that never changes: the trainer's fake, for tests and benchmarks.

Each domain is a chain over its own permutation of the vocabulary: with probability 1/2 the next
token follows from the last one, else it is drawn from a Zipf distribution. So a proxy learns
something within twenty steps, and domains differ.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.domains import Domain
from cuvee.mixtures.runs.run_spec import RunSpec, Stage
from cuvee.proxies.data.shards import token_type


@dataclass(frozen=True)
class Split:
    """One split of a domain."""

    tokens: NDArray[np.integer]


@dataclass(frozen=True)
class SyntheticCorpus:
    """What `train` asks of a corpus.

    Attributes:
        vocabulary: number of token ids.
        sizes: tokens of each domain by name.
    """

    vocabulary: int
    sizes: Mapping[str, int]

    @property
    def domains(self) -> tuple[Domain, ...]:
        return tuple(
            Domain(name, size, size, identity=f"synthetic-{name}-{size}-{self.vocabulary}")
            for name, size in self.sizes.items()
        )

    def train(self, name: str) -> Split:
        """The training tokens of a domain."""
        return Split(chain(name, self.sizes[name], self.vocabulary))

    def check(self) -> None:
        """Nothing: it is computed, not read."""

    def valid(self, name: str) -> Split:
        """Held-out tokens of a domain, a tenth as many, of the same chain."""
        size = self.sizes[name]
        return Split(chain(name, 2 * size, self.vocabulary)[size : size + size // 10])

    def spec(self, weights: Mapping[str, float], **fields: object) -> RunSpec:
        """A run on this corpus: one stage, size 0.3M, twenty steps unless told otherwise."""
        values: dict[str, object] = {
            "domains": tuple(d.name for d in self.domains),
            "identities": tuple(d.identity for d in self.domains),
            "stages": (Stage(tuple(weights.get(d.name, 0.0) for d in self.domains)),),
            "size": "0.3M",
            "tokens": 20 * 8 * 256,
            "seed": 0,
        }
        return RunSpec(**(values | fields))  # type: ignore[arg-type]


def chain(name: str, size: int, vocabulary: int) -> NDArray[np.integer]:
    """Tokens (size,) of a domain; a function of the arguments alone."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    rng = np.random.default_rng([seed, vocabulary])
    follow = rng.permutation(vocabulary)
    ranks = 1.0 / np.arange(1, vocabulary + 1)
    fresh = rng.permutation(vocabulary)[
        np.searchsorted(np.cumsum(ranks / ranks.sum()), rng.random(size)).clip(max=vocabulary - 1)
    ]
    copied = rng.random(size) < 0.5
    tokens = fresh.tolist()
    for i in range(1, size):
        if copied[i]:
            tokens[i] = int(follow[tokens[i - 1]])
    return np.array(tokens, dtype=token_type(vocabulary))
