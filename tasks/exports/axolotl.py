"""Axolotl: a list of data sets, each whole or a slice.

`datasets.yaml` is the `datasets` part of a configuration for one epoch. Axolotl 0.19 has no
weights: its data sets are joined and shuffled. So a share becomes documents: those of a whole
number of passes, each an entry, and a slice `train[:N]` for what is left. (Later versions have a
`weight`, a random part of a data set; older ones ignore it without a word.) A slice takes the first
documents: shuffle the files if their order means something.

Source: src/axolotl/utils/schemas/datasets.py (`SFTDataset`), utils/data/shared.py.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from mixtures.registry import register
from tasks.exports import DOCUMENTS, KIND, Blend
from tasks.exports.huggingface import source
from tasks.exports.literal import yaml_text


@register(KIND, "axolotl")
@dataclass(frozen=True)
class Axolotl:
    """Data sets for Axolotl.

    Attributes:
        type: of the data sets; "completion" trains on plain text.
        field: the column with the text.
    """

    type: str = "completion"
    field: str = "text"
    staged: ClassVar[bool] = False
    unit: ClassVar[str] = DOCUMENTS
    needs: ClassVar[frozenset[str]] = frozenset({"path", "counts", "documents"})

    def files(self, blend: Blend) -> dict[str, str]:
        documents = {domain.name: domain.documents for domain in blend.domains}
        entries: list[dict[str, Any]] = []
        for name, epochs in blend.epochs.items():
            whole = math.floor(epochs)
            rest = round((epochs - whole) * documents[name])
            entries += [self._entry(blend.path(name), "train")] * whole
            if rest:
                entries.append(self._entry(blend.path(name), f"train[:{rest}]"))
        content = {
            "datasets": entries,
            "num_epochs": 1,
            "shuffle_merged_datasets": True,
            "seed": blend.seed,
        }
        return {"datasets.yaml": yaml_text(content)}

    def _entry(self, path: str, split: str) -> dict[str, Any]:
        kind = source([path])
        entry: dict[str, Any] = {"path": path, "type": self.type, "split": split}
        if self.type == "completion":
            entry["field"] = self.field
        return entry | ({"ds_type": kind["path"]} if "data_files" in kind else {})
