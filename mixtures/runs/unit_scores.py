"""A score by its sampling units, documents or items, from which intervals over new ones follow."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import EvidenceError

Keys = NDArray[np.uint64]
DIGEST = 8  # bytes of a key: of 1e6 units, two share one with probability 3e-8


@dataclass(frozen=True, eq=False)
class UnitScores:
    """A score by sampling unit (document, or item of a task): a ratio of two sums.

    Attributes:
        keys: (I,) uint64, identity of each unit: equal in every run that was scored on the same
            text. Of an item: a hash of what is asked; of a document: of what is scored of it.
        totals: (I,) bits of each unit, or its value of a metric, such as accuracy 0 or 1.
        sizes: (I,) UTF-8 bytes of each, or ones.
    """

    keys: Keys
    totals: Array
    sizes: Array

    def __post_init__(self) -> None:
        shapes = {part.shape for part in (self.keys, self.totals, self.sizes)}
        if len(shapes) > 1 or self.keys.ndim != 1:
            raise EvidenceError(f"units have a key, a total and a size each; got shapes {shapes}")
        if len(np.unique(self.keys)) < len(self.keys):
            raise EvidenceError("two sampling units of a score have one key")
        if not (np.isfinite(self.totals).all() and np.isfinite(self.sizes).all()):
            raise EvidenceError("the totals and the sizes of sampling units must be finite")

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def value(self) -> float:
        """The score: of bits and bytes, bits per byte; with sizes of one, a mean."""
        return float(self.totals.sum() / self.sizes.sum())

    def without(self, keys: Keys) -> "UnitScores":
        """The score over the units that are not among these."""
        kept = ~np.isin(self.keys, keys)
        return UnitScores(self.keys[kept], self.totals[kept], self.sizes[kept])


def unit_keys(contents: Iterable[bytes]) -> Keys:
    """The keys (I,) of units by their content; the second of equal content gets another key."""
    seen: dict[bytes, int] = {}
    keys = []
    for content in contents:
        seen[content] = count = seen.get(content, -1) + 1
        digest = hashlib.blake2b(content, digest_size=DIGEST, salt=count.to_bytes(8, "little"))
        keys.append(int.from_bytes(digest.digest(), "little"))
    return np.array(keys, np.uint64)
