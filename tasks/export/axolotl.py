"""Axolotl: a list of data sets, each a slice.

`datasets.yaml` is the `datasets` part of a configuration for one epoch. Axolotl 0.19 has no
weights: its data sets are joined and shuffled. So a share becomes documents: an entry
`train[:N]` for each pass over those that the study knew, and one for what is left. (Later versions
have a `weight`, a random part of a data set; older ones ignore it without a word.) A slice takes
the first documents: shuffle the files if their order means something. Nothing is set aside for
evaluation; validation sets become `test_datasets`, which it joins to one loss. Axolotl cannot be
told that a text file is one document: it would take its lines.

Source: src/axolotl/utils/schemas/datasets.py (`SFTDataset`), utils/data/shared.py.
"""

import dataclasses
import glob
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from cuvee.mixtures.registry import register
from cuvee.tasks.export import KIND, ExportSpec
from cuvee.tasks.export.documents import DocumentRows, rows_source
from cuvee.tasks.export.literal import yaml_text


@register(KIND)
@dataclass(frozen=True)
class Axolotl(DocumentRows):
    """Data sets for Axolotl.

    Take it for Axolotl 0.19 on sources of one file kind that is not plain text.

    Attributes:
        type: of the data sets; "completion" trains on plain text.
        field: the column with the text, or columns by domain; by default those of the study.
    """

    name: ClassVar[str] = "axolotl"

    type: str = "completion"

    def files(self, spec: ExportSpec) -> dict[str, str]:
        documents, entries = spec.documents, []
        for name, readings in documents.readings().items():
            entries += [self._entry(spec, name, f"train[:{number}]") for number in readings]
        content = {
            "datasets": entries,
            "num_epochs": 1,
            "shuffle_merged_datasets": True,
            "val_set_size": 0.0,
            "seed": spec.seed,
        }
        held = [
            self._entry(dataclasses.replace(spec.held_out, paths={name: (path,)}), name, "train")
            for name, paths in spec.validation.items()
            for path in paths
        ]
        content |= {"test_datasets": held} if held else {}
        return {"datasets.yaml": yaml_text(content)}

    def _entry(self, spec: ExportSpec, name: str, split: str) -> dict[str, Any]:
        read, path = rows_source("Axolotl", spec, name, self.field), spec.path(name)
        named = {key: read.source[key] for key in ("name", "revision") if key in read.source}
        part = split.replace("train", read.source.get("split", "train"), 1)
        entry: dict[str, Any] = {"path": path, **named, "type": self.type, "split": part}
        if self.type == "completion":
            entry["field"] = read.field
        if "data_files" not in read.source:
            return entry
        entry["ds_type"] = read.source["path"]
        patterns = list(read.source["data_files"])
        if patterns != [glob.escape(path)]:  # is read only beside a folder that is there
            entry["path"] = re.split(r"[*?[]", patterns[0])[0].rpartition("/")[0] or "."
            entry["data_files"] = patterns
        return entry
