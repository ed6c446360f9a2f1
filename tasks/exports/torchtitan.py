"""torchtitan: an interleaving data loader with weights.

`data_config.py` registers the domains and gives the loader's configuration (torchtitan 0.3). Each
source packs its documents to the sequence length before sources are interleaved, so that weights
are shares of tokens; sources are endless and start anew. Registered names are lower case there.
Later versions configure data anew: give the weights of `data_config.py` to packed datasets.

Source: torchtitan/hf_datasets/text_datasets.py, hf_datasets/interleaved.py.
"""

from dataclasses import dataclass
from typing import ClassVar

from mixtures.errors import ExportError
from mixtures.registry import register
from tasks.exports import KIND, SEQUENCES, Blend
from tasks.exports.huggingface import source
from tasks.exports.literal import assigned, module

BODY = """
from functools import partial

from datasets import load_dataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.text_datasets import (
    DATASETS,
    HFDataSource,
    InterleavedHuggingFaceTextDataLoader,
)


def _load(_path: str, keywords: dict) -> object:
    return load_dataset(**keywords, split="train", streaming=True)


def _text(sample: dict) -> str:
    return sample[FIELD]


for _name, _source in SOURCES.items():
    DATASETS[_name] = DatasetConfig(
        path=_source["path"], loader=partial(_load, keywords=_source), sample_processor=_text
    )

DATALOADER = InterleavedHuggingFaceTextDataLoader.Config(
    sources=[
        HFDataSource(dataset=name, weight=weight, infinite=True)
        for name, weight in WEIGHTS.items()
    ],
    seed=SEED,
)
"""


@register(KIND, "torchtitan")
@dataclass(frozen=True)
class TorchTitan:
    """A data loader of torchtitan.

    Attributes:
        field: the column with the text.
    """

    field: str = "text"
    staged: ClassVar[bool] = False
    unit: ClassVar[str] = SEQUENCES
    needs: ClassVar[frozenset[str]] = frozenset({"paths"})

    def files(self, blend: Blend) -> dict[str, str]:
        labels = {name: f"{blend.name}/{name}".lower() for name in blend.shares}
        if len(set(labels.values())) < len(labels):
            raise ExportError(
                "torchtitan knows data sets by lower-case names, and two domains differ in case "
                f"alone: {', '.join(sorted(labels))}; rename one"
            )
        constants = {
            "SOURCES": {labels[name]: source(blend.paths[name]) for name in blend.shares},
            "WEIGHTS": {labels[name]: share for name, share in blend.shares.items()},
            "FIELD": self.field,
            "SEED": blend.seed,
        }
        about = (
            f"The mixture of {blend.name}: use `DATALOADER` as `dataloader` of a trainer's "
            "configuration.\n\nWeights are shares of packed sequences, that is of tokens."
        )
        return {"data_config.py": module(about, assigned(constants), BODY)}
