"""Mixtera: static mixtures over a property of the samples, with schedules.

`mixture.py` builds it. A mixture counts instances (documents) in chunks of `chunk_size`: each key
gets a whole number, the rest by largest remainder, and the shares must sum to 1. Shares of tokens
are converted by the mean document's tokens. Domains are told apart by the value of a property of
the samples: its name, or what `export.paths` gives for it. Schedules start at steps. Data are read
once: where a domain runs out, the stream ends, so that one that is to repeat is refused.

Source: eth-easl/mixtera, mixtera/core/query/mixture.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cuvee.mixtures.errors import ExportError
from cuvee.mixtures.registry import register
from cuvee.tasks.export import DOCUMENTS, KIND, ExportSpec, delivery_terms
from cuvee.tasks.export.delivery import MORE
from cuvee.tasks.export.literal import python_assignments, python_module

CHUNKS = range(1 << 10, (1 << 16) + 1, 1 << 9)

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


@register(KIND)
@dataclass(frozen=True)
class Mixtera:
    """A mixture of Mixtera.

    Take it for Mixtera, where no domain repeats.

    Attributes:
        property: of the samples, by whose value domains are told apart.
        chunk_size: instances in a chunk; by default the fewest of `CHUNKS` that meet the shares.
    """

    name: ClassVar[str] = "mixtera"

    property: str = "domain"
    chunk_size: int | None = None
    staged: ClassVar[bool] = True
    unit: ClassVar[str] = DOCUMENTS
    needs: ClassVar[frozenset[str]] = frozenset({"documents"})

    def __post_init__(self) -> None:
        if self.chunk_size is not None and self.chunk_size < 1:
            raise ExportError(f"mixtera.chunk_size is at least 1; got {self.chunk_size}")

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        drawn = self._drawn(spec, self._chunk(spec))
        slack = delivery_terms(spec, DOCUMENTS).slack
        for domain in spec.domains if spec.counted else ():
            most = MORE * domain.tokens + slack.get(domain.name, 0.0)
            if drawn.get(domain.name, 0.0) > most and spec.tokens:
                raise ExportError(
                    f"Mixtera reads data once and ends where a domain runs out, and {domain.name} "
                    f"is to be read {drawn[domain.name] / domain.tokens:.2f} times: bound its "
                    "epochs to 1, lower export.tokens, or choose another format"
                )
        return drawn

    def _drawn(self, spec: ExportSpec, chunk: int) -> dict[str, float]:
        """Tokens by domain, each chunk's documents in whole numbers."""
        begins = [spec.batch_tokens * step for step in spec.steps()]
        drawn = dict.fromkeys(spec.shares, 0.0)
        for i, end in enumerate([*begins[1:], spec.tokens or 1]):
            shares = spec.document_shares(spec.stage_shares(i))
            part = spec.documents.tokens(_apportioned(shares, chunk))
            total = sum(part.values())
            for name, tokens in part.items():
                drawn[name] += (end - begins[i]) * tokens / total
        return drawn

    def _chunk(self, spec: ExportSpec) -> int:
        if self.chunk_size is not None:
            return self.chunk_size
        met = delivery_terms(spec, DOCUMENTS)
        for chunk in CHUNKS:
            try:
                drawn = self._drawn(spec, chunk)
            except ExportError:
                continue  # a domain gets none of so few
            if all(abs(drawn[n] - want) <= met.allowed(n) for n, want in met.wanted.items()):
                return chunk
        shares = spec.document_shares(spec.shares)
        name = min(shares, key=lambda n: shares[n])
        raise ExportError(
            f"no chunk of up to {CHUNKS[-1]} documents gives {name} its share of them, "
            f"{shares[name]:.3g}, within a hundredth: set export.formats.mixtera.chunk_size above "
            f"{int(50 / shares[name])}, or bound its share from below or to zero"
        )

    def files(self, spec: ExportSpec) -> dict[str, str]:
        stages = [(step, self._stage(spec, i)) for i, step in enumerate(spec.steps())]
        constants: dict[str, Any] = {
            "STAGES": stages,
            "PROPERTY": self.property,
            "CHUNK_SIZE": self._chunk(spec),
        }
        about = (
            f"The mixture of {spec.name}: `build()` gives it for Mixtera.\n\n"
            "Stages are (first step, mixture) pairs, a mixture (values of the property, share of "
            "documents) pairs."
        )
        return {"mixture.py": python_module(about, python_assignments(constants), BODY)}

    def _stage(self, spec: ExportSpec, index: int) -> list[tuple[list[str], float]]:
        shares = spec.document_shares(spec.stage_shares(index))
        return [(list(spec.paths.get(name) or (name,)), w) for name, w in shares.items()]


def _apportioned(shares: Mapping[str, float], chunk: int) -> dict[str, int]:
    """Documents of each domain in a chunk: whole ones, the rest by largest remainder."""
    counts = {name: int(chunk * share) for name, share in shares.items()}
    rest = sorted(shares, key=lambda name: counts[name] - chunk * shares[name])
    for name in rest[: chunk - sum(counts.values())]:
        counts[name] += 1
    for name, count in counts.items():
        if not count:
            raise ExportError(
                f"{name} has {shares[name]:.3g} of the documents, less than one in a chunk of "
                f"{chunk}: raise export.formats.mixtera.chunk_size above {int(1 / shares[name])}"
            )
    return counts
