"""LitData: `CombinedStreamingDataset` with weights.

`mixture.py` builds it. Weights are of samples: packed sequences hold equal tokens; where samples
are documents, shares are converted by the mean document's tokens. With weights the combined set
ends when any of its parts does (`iterate_over_all` must be off), so a domain that is to repeat is
listed as often as it repeats, its weight divided among the copies. LitData draws at random, in
every worker alike, so that shares would be off and a part that is needed whole would end by chance
before the run: here the domains are dealt out, so that none is ever off by a sample.

Source: litdata/streaming/combined.py.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from cuvee.mixtures.registry import register
from cuvee.tasks.export import DOCUMENTS, KIND, SEQUENCES, ExportSpec, SampleShards
from cuvee.tasks.export.literal import DEALER, python_assignments, python_module
from cuvee.tasks.export.specification import Units

BODY = (
    """
from litdata import CombinedStreamingDataset, StreamingDataset

"""
    + DEALER
    + '''

class _Copies:
    """Takes the place of the generator that draws a part: domains are dealt, copies in turn."""

    def __init__(self, yielded: list) -> None:
        self.yielded = yielded  # samples by part, which LitData counts and keeps in checkpoints

    def choices(self, indexes: list, weights: list, k: int = 1) -> list:
        shares, drawn = {}, {}
        for index, weight in zip(indexes, weights):
            domain = DOMAINS[index]
            shares[domain] = shares.get(domain, 0.0) + weight
            drawn[domain] = drawn.get(domain, 0) + self.yielded[index]
        chosen = list(shares)[_dealt(list(shares.values()), list(drawn.values()))]
        copies = [index for index in indexes if DOMAINS[index] == chosen]
        return [min(copies, key=lambda index: self.yielded[index])]


class DealtStreamingDataset(CombinedStreamingDataset):
    """A combined set whose parts are dealt out by weight, not drawn."""

    def __iter__(self):
        iterator = super().__iter__()
        if not hasattr(iterator, "_rng"):
            raise RuntimeError("this LitData draws in a way that this file does not know; try 0.2")
        iterator._rng = _Copies(iterator._num_samples_yielded)
        return iterator


def build(**options: object) -> DealtStreamingDataset:
    """The training stream; `options` go to every `StreamingDataset`."""
    return DealtStreamingDataset(
        [
            StreamingDataset(path, shuffle=True, seed=SEED + i, **options)
            for i, path in enumerate(PATHS)
        ],
        seed=SEED,
        weights=WEIGHTS,
        iterate_over_all=False,
    )
'''
)


@register(KIND)
@dataclass(frozen=True)
class LitData(SampleShards):
    """A combined stream of LitData.

    Take it for LitData, such as LitGPT's data sets.

    Attributes:
        samples: what a sample is: "packed" sequences, or "documents".
    """

    name: ClassVar[str] = "litdata"
    staged: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[str]:
        special = {"documents"} if self.unit == DOCUMENTS else {"filled"}
        return frozenset({"path", "counts"} | special)

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        unknown = self.unit == SEQUENCES and not spec.samples
        return spec.wanted if unknown else spec.in_units(self.unit).delivered()

    def _copies(self, units: Units) -> dict[str, int]:
        """How often each domain is listed, so that none of its copies ends before the run."""
        counts = units.wanted if self.unit == SEQUENCES else units.rounded()
        return {n: max(1, math.ceil(math.ceil(c) / units.exist[n])) for n, c in counts.items()}

    def files(self, spec: ExportSpec) -> dict[str, str]:
        units = spec.in_units(self.unit)
        repeats = self._copies(units)
        paths, weights, domains = [], [], []
        for name, share in units.shares.items():
            copies = repeats[name]
            paths += [spec.path(name)] * copies
            weights += [share / copies] * copies
            domains += [name] * copies
        constants = {"DOMAINS": domains, "PATHS": paths, "WEIGHTS": weights, "SEED": spec.seed}
        about = (
            f"The mixture of {spec.name}: `build()` gives it as a LitData stream.\n\n"
            f"Weights are shares of {self.unit}; a domain that repeats is listed more than once."
        )
        return {"mixture.py": python_module(about, python_assignments(constants), BODY)}
