"""Hugging Face datasets: `interleave_datasets` with probabilities.

`mixture.py` builds the stream. Probabilities are of examples, which are documents, so that shares
of tokens are converted by the mean document's tokens. Every source is repeated without end and the
whole is cut after the documents of the run: a strategy that stops at the first or the last
exhausted source would change how often sources repeat.

Source: datasets' `interleave_datasets`, `IterableDataset.repeat`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mixtures.registry import register
from tasks.exports import DOCUMENTS, KIND, Blend
from tasks.exports.literal import assigned, module

BUILDERS = {"jsonl": "json", "json": "json", "parquet": "parquet", "txt": "text", "csv": "csv"}
PACKINGS = ("gz", "zst", "bz2", "xz")

BODY = '''
from datasets import IterableDataset, interleave_datasets, load_dataset


def build(buffer_size: int = 10_000) -> IterableDataset:
    """The training stream, in documents; `buffer_size` documents are shuffled at a time."""
    parts = []
    for source in SOURCES:
        part = load_dataset(**source, split="train", streaming=True).select_columns([FIELD])
        parts.append(part.shuffle(seed=SEED, buffer_size=buffer_size).repeat(None))
    mixed = interleave_datasets(
        parts, probabilities=PROBABILITIES, seed=SEED, stopping_strategy="first_exhausted"
    )
    return mixed.take(DOCUMENTS)
'''


@register(KIND, "huggingface")
@dataclass(frozen=True)
class HuggingFace:
    """A stream of `interleave_datasets`.

    Attributes:
        field: the column with the text.
    """

    field: str = "text"
    staged: ClassVar[bool] = False
    unit: ClassVar[str] = DOCUMENTS
    needs: ClassVar[frozenset[str]] = frozenset({"paths", "counts", "documents"})

    def files(self, blend: Blend) -> dict[str, str]:
        shares = blend.document_shares(blend.shares)
        constants = {
            "DOMAINS": list(shares),
            "SOURCES": [source(blend.paths[name]) for name in shares],
            "PROBABILITIES": list(shares.values()),
            "DOCUMENTS": round(blend.documents),
            "FIELD": self.field,
            "SEED": blend.seed,
        }
        about = (
            f"The mixture of {blend.name}: `build()` gives its documents as a stream.\n\n"
            "Probabilities are shares of documents."
        )
        return {"mixture.py": module(about, assigned(constants), BODY)}


def source(paths: Sequence[str]) -> dict[str, object]:
    """The keywords of `load_dataset` for files of one kind, or for a name or folder."""
    builder = {_builder(path) for path in paths}
    if len(builder) == 1 and (kind := builder.pop()):
        return {"path": kind, "data_files": list(paths)}
    return {"path": paths[0]} if len(paths) == 1 else {"path": paths[0], "data_files": list(paths)}


def _builder(path: str) -> str:
    parts = path.rsplit("/", 1)[-1].lower().split(".")
    if len(parts) > 2 and parts[-1] in PACKINGS:
        parts = parts[:-1]
    return BUILDERS.get(parts[-1], "") if len(parts) > 1 else ""
