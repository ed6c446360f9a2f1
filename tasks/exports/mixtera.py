"""Mixtera: static mixtures over a property of the samples, with schedules.

`mixture.py` builds it. A mixture counts instances (documents) in chunks of `chunk_size`: each key
gets a whole number, the rest by largest remainder, and the shares must sum to 1. Shares of tokens
are converted by the mean document's tokens. Domains are told apart by the value of a property of
the samples: its name, or what `export.paths` gives for it. Schedules start at steps.

Source: eth-easl/mixtera, mixtera/core/query/mixture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mixtures.errors import ExportError
from mixtures.registry import register
from tasks.exports import DOCUMENTS, KIND, Blend
from tasks.exports.literal import assigned, module

BODY = '''
from mixtera.core.query.mixture import (
    MixtureKey,
    MixtureSchedule,
    ScheduleEntry,
    StaticMixture,
)


def static(shares: list) -> StaticMixture:
    """One stage."""
    keys = {MixtureKey({PROPERTY: values}): share for values, share in shares}
    return StaticMixture(CHUNK_SIZE, keys)


def build() -> StaticMixture | MixtureSchedule:
    """The mixture, or the schedule of mixtures."""
    if len(STAGES) == 1:
        return static(STAGES[0][1])
    return MixtureSchedule(
        CHUNK_SIZE, [ScheduleEntry(step, static(shares)) for step, shares in STAGES]
    )
'''


@register(KIND, "mixtera")
@dataclass(frozen=True)
class Mixtera:
    """A mixture of Mixtera.

    Attributes:
        property: of the samples, by whose value domains are told apart.
        chunk_size: instances in a chunk.
    """

    property: str = "domain"
    chunk_size: int = 1024
    staged: ClassVar[bool] = True
    unit: ClassVar[str] = DOCUMENTS
    needs: ClassVar[frozenset[str]] = frozenset({"documents"})

    def files(self, blend: Blend) -> dict[str, str]:
        stages = [(step, self._stage(blend, i)) for i, step in enumerate(blend.steps())]
        constants: dict[str, Any] = {
            "STAGES": stages,
            "PROPERTY": self.property,
            "CHUNK_SIZE": self.chunk_size,
        }
        about = (
            f"The mixture of {blend.name}: `build()` gives it for Mixtera.\n\n"
            "Stages are (first step, mixture) pairs, a mixture (values of the property, share of "
            "documents) pairs."
        )
        return {"mixture.py": module(about, assigned(constants), BODY)}

    def _stage(self, blend: Blend, index: int) -> list[tuple[list[str], float]]:
        shares = blend.document_shares(blend.stage_shares(index))
        self._check(shares)
        return [(list(blend.paths.get(name) or (name,)), w) for name, w in shares.items()]

    def _check(self, shares: Mapping[str, float]) -> None:
        for name, share in shares.items():
            if share * self.chunk_size < 1:
                raise ExportError(
                    f"{name} has {share:.3g} of the documents, less than one in a chunk of "
                    f"{self.chunk_size}: raise export.formats.mixtera.chunk_size above "
                    f"{int(1 / share)}"
                )
