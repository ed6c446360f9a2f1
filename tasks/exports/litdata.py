"""LitData: `CombinedStreamingDataset` with weights.

`mixture.py` builds it. Weights are of samples: packed sequences hold equal tokens; where samples
are documents, shares are converted by the mean document's tokens. With weights the combined set
ends when any of its parts does (`iterate_over_all` must be off), so a domain that is to repeat is
listed as often as it repeats, its weight divided among the copies.

Source: litdata/streaming/combined.py.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from mixtures.registry import register
from tasks.exports import DOCUMENTS, KIND, SEQUENCES, Blend, choice
from tasks.exports.literal import assigned, module

PACKED = "packed"
ROOM = 1.02  # parts are drawn at random: one that is needed whole must not end by chance before

BODY = '''
from litdata import CombinedStreamingDataset, StreamingDataset


def build(**options: object) -> CombinedStreamingDataset:
    """The training stream; `options` go to every `StreamingDataset`."""
    return CombinedStreamingDataset(
        [
            StreamingDataset(path, shuffle=True, seed=SEED + i, **options)
            for i, path in enumerate(PATHS)
        ],
        seed=SEED,
        weights=WEIGHTS,
        iterate_over_all=False,
    )
'''


@register(KIND, "litdata")
@dataclass(frozen=True)
class LitData:
    """A combined stream of LitData.

    Attributes:
        samples: what a sample is: "packed" sequences, or "documents".
    """

    samples: str = PACKED
    staged: ClassVar[bool] = False

    def __post_init__(self) -> None:
        choice("litdata", "samples", self.samples, (PACKED, DOCUMENTS))

    @property
    def unit(self) -> str:
        return SEQUENCES if self.samples == PACKED else DOCUMENTS

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"path", "counts"} | ({"documents"} if self.unit == DOCUMENTS else set()))

    def files(self, blend: Blend) -> dict[str, str]:
        shares = blend.shares
        if self.samples == DOCUMENTS:
            shares = blend.document_shares(shares)
        paths, weights, domains = [], [], []
        for name, share in shares.items():
            copies = max(1, math.ceil(blend.epochs[name] * ROOM))
            paths += [blend.path(name)] * copies
            weights += [share / copies] * copies
            domains += [name] * copies
        constants = {"DOMAINS": domains, "PATHS": paths, "WEIGHTS": weights, "SEED": blend.seed}
        about = (
            f"The mixture of {blend.name}: `build()` gives it as a LitData stream.\n\n"
            f"Weights are shares of {self.unit}; a domain that repeats is listed more than once."
        )
        return {"mixture.py": module(about, assigned(constants), BODY)}
