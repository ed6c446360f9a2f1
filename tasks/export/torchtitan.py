"""torchtitan: an interleaving data loader with weights.

`data_config.py` registers the domains and gives the loader's configuration (torchtitan 0.3). Each
source packs its documents to the sequence length before sources are interleaved, so that weights
are shares of tokens; sources are endless and start anew. Registered names are lower case there.
torchtitan draws at random, on every rank alike, so that shares are off by more than it seems; here
sources are dealt out by weight, so that none is ever off by a sequence. It counts nothing by
source either; here every rank logs what it drew, which `cuvee achieved` reads. Its validator takes
one validation set.
Later versions configure data anew: give the weights of `data_config.py` to packed datasets.

Source: torchtitan/hf_datasets/text_datasets.py, hf_datasets/interleaved.py.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from cuvee.mixtures.errors import ExportError
from cuvee.mixtures.registry import register
from cuvee.tasks.export import KIND, SEQUENCES, ExportSpec
from cuvee.tasks.export.documents import check_field, document_source
from cuvee.tasks.export.literal import DEALER, READ, python_assignments, python_module

EVERY = 1000  # sequences of a rank after which the log says how many of each domain were drawn
BODY = (
    """
import json
import logging
from collections.abc import Iterator
from functools import partial

from datasets import Features, IterableDataset, Value, load_dataset
from torchtitan.hf_datasets import DatasetConfig
from torchtitan.hf_datasets.interleaved import InterleavedDataset
from torchtitan.hf_datasets.text_datasets import (
    DATASETS,
    HFDataSource,
    HuggingFaceTextDataLoader,
    InterleavedHuggingFaceTextDataLoader,
)

"""
    + READ
    + DEALER
    + """
def _deal(self: InterleavedDataset) -> Iterator:
    # takes the place of a random choice
    iterators = [iter(part) for part in self._datasets]
    drawn = [0] * len(iterators)
    while True:
        chosen = _dealt(self._probs, drawn)
        drawn[chosen] += 1
        if sum(drawn) % EVERY == 0:
            counts = json.dumps(dict(zip(WEIGHTS, drawn, strict=True)))
            logging.getLogger().info(f"cuvee drew {counts}")
        yield next(iterators[chosen])


InterleavedDataset.__iter__ = _deal


def _load(_path: str, source: dict, field: str, separator: str | None) -> IterableDataset:
    return _documents(source, field, separator)


def _text(sample: dict) -> str:
    return sample["text"]


for _name, _source in SOURCES.items():
    DATASETS[_name] = DatasetConfig(
        path=_source["path"],
        loader=partial(
            _load, source=_source, field=FIELDS[_name], separator=SEPARATORS[_name]
        ),
        sample_processor=_text,
    )

DATALOADER = InterleavedHuggingFaceTextDataLoader.Config(
    sources=[
        HFDataSource(dataset=name, weight=weight, infinite=True)
        for name, weight in WEIGHTS.items()
    ],
    seed=SEED,
)
VALIDATION = {
    name: HuggingFaceTextDataLoader.Config(dataset=name, infinite=False) for name in HELD_OUT
}
"""
)


@register(KIND)
@dataclass(frozen=True)
class TorchTitan:
    """A data loader of torchtitan.

    Take it for torchtitan 0.3.

    Attributes:
        field: the column with the text, or columns by domain; by default those of the study.
    """

    name: ClassVar[str] = "torchtitan"

    field: str | Mapping[str, str] = ""
    staged: ClassVar[bool] = False
    unit: ClassVar[str] = SEQUENCES
    needs: ClassVar[frozenset[str]] = frozenset({"paths"})

    def __post_init__(self) -> None:
        check_field("torchtitan", self.field)

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        return spec.sequences.delivered() if spec.samples else spec.wanted

    def files(self, spec: ExportSpec) -> dict[str, str]:
        labels = {name: f"{spec.name}/{name}".lower() for name in spec.shares}
        held = [(f"{spec.name}/{name}/validation".lower(), name) for name in spec.validation]
        times = Counter([*labels.values(), *(label for label, _ in held)])
        if doubled := [label for label, number in times.items() if number > 1]:
            raise ExportError(
                "torchtitan knows data sets by lower-case names, and two domains differ in case "
                "alone, or one is called as another's validation set (NAME/validation): "
                f"{', '.join(doubled)} would stand for both; rename one"
            )
        read = {labels[name]: document_source(spec, name, self.field) for name in spec.shares}
        read |= {label: document_source(spec.held_out, name, self.field) for label, name in held}
        constants = {
            "SOURCES": {label: dict(part.source) for label, part in read.items()},
            "FIELDS": {label: part.field for label, part in read.items()},
            "SEPARATORS": {label: part.separator for label, part in read.items()},
            "WEIGHTS": {labels[name]: share for name, share in spec.shares.items()},
            "SEED": spec.seed,
            "EVERY": EVERY,
            "HELD_OUT": [label for label, _ in held],
        }
        about = (
            f"The mixture of {spec.name}: use `DATALOADER` as `dataloader` of a trainer's "
            "configuration, and one of\n`VALIDATION` as that of its validator.\n\n"
            "Weights are shares of packed sequences, that is of tokens."
        )
        return {"data_config.py": python_module(about, python_assignments(constants), BODY)}
