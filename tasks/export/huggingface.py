"""Hugging Face datasets: `interleave_datasets` with probabilities.

`mixture.py` builds the stream. Probabilities are of examples, which are documents, so that shares
of tokens are converted by the mean document's tokens. Every source is repeated as often as it
needs, and cut after its own documents of the run, so that its number is exact and not drawn; the
stream ends when every source has (`all_exhausted_without_replacement`, datasets 4.2 or later).

Source: datasets' `interleave_datasets`, `IterableDataset.repeat`, packaged_modules/text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from cuvee.mixtures.registry import register
from cuvee.tasks.export import DOCUMENTS, KIND, ExportSpec
from cuvee.tasks.export.documents import check_field, document_source
from cuvee.tasks.export.literal import READ, python_assignments, python_module

BODY = (
    """
from datasets import Features, IterableDataset, Value, interleave_datasets, load_dataset

"""
    + READ
    + '''

def build(buffer_size: int = 10_000) -> IterableDataset:
    """The training stream, in documents; `buffer_size` documents are shuffled at a time."""
    parts = []
    for source, field, separator, count in zip(SOURCES, FIELDS, SEPARATORS, COUNTS, strict=True):
        part = _documents(source, field, separator)
        parts.append(part.shuffle(seed=SEED, buffer_size=buffer_size).repeat(None).take(count))
    return interleave_datasets(
        parts,
        probabilities=PROBABILITIES,
        seed=SEED,
        stopping_strategy="all_exhausted_without_replacement",
    )
'''
)


@register(KIND)
@dataclass(frozen=True)
class HuggingFace:
    """A stream of `interleave_datasets`.

    Take it for loaders on Hugging Face `datasets` 4.2 or later.

    Attributes:
        field: the column with the text, or columns by domain; by default those of the study.
    """

    name: ClassVar[str] = "huggingface"

    field: str | Mapping[str, str] = ""
    staged: ClassVar[bool] = False
    unit: ClassVar[str] = DOCUMENTS
    needs: ClassVar[frozenset[str]] = frozenset({"paths", "counts", "documents"})

    def __post_init__(self) -> None:
        check_field("huggingface", self.field)

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        return spec.documents.tokens(spec.documents.rounded())

    def files(self, spec: ExportSpec) -> dict[str, str]:
        counts = spec.documents.rounded()
        total = sum(counts.values())
        read = [document_source(spec, name, self.field) for name in counts]
        constants = {
            "DOMAINS": list(counts),
            "SOURCES": [dict(part.source) for part in read],
            "FIELDS": [part.field for part in read],
            "SEPARATORS": [part.separator for part in read],
            "COUNTS": list(counts.values()),
            "PROBABILITIES": [count / total for count in counts.values()],
            "DOCUMENTS": total,
            "SEED": spec.seed,
        }
        about = (
            f"The mixture of {spec.name}: `build()` gives its documents as a stream.\n\n"
            "Probabilities are shares of documents, counts the documents of each domain."
        )
        return {"mixture.py": python_module(about, python_assignments(constants), BODY)}
