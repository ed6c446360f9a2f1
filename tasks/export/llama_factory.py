"""LLaMA-Factory: data sets with numbers of samples.

`dataset_info.json` describes the sources and `train.yaml` names them, for continued pretraining
(`stage: pt`) in one epoch over all of them joined. `num_samples` takes rows at random without
replacement, and more than there are with it, so that every pass over the documents that the study
knew is an entry of its own, and what is left another. Probabilities (`interleave_probs`) are not
used: they end with the first source that runs out, or draw the others too often. Rows are
documents; they are packed to `cutoff_len` across domains. `dataset_dir` is the folder of these two
files: call `llamafactory-cli train train.yaml` there.

Source: hiyouga/LLaMA-Factory, src/llamafactory/data/parser.py and loader.py at 01d3ac6
(`_load_single_dataset`), data/processor/pretrain.py, extras/constants.py (`FILEEXT2TYPE`).
"""

import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from cuvee.mixtures.registry import register
from cuvee.tasks.export import KIND, ExportSpec
from cuvee.tasks.export.documents import DocumentRows, file_rows, whole_path
from cuvee.tasks.export.literal import yaml_text


@register(KIND)
@dataclass(frozen=True)
class LlamaFactory(DocumentRows):
    """Data sets for LLaMA-Factory.

    Take it for continued pretraining with LLaMA-Factory on plain files or data sets of the Hub.

    Attributes:
        field: the column with the text, or columns by domain; by default those of the study.
    """

    name: ClassVar[str] = "llama_factory"

    def files(self, spec: ExportSpec) -> dict[str, str]:
        entries = {}
        for number, (name, readings) in enumerate(spec.documents.readings().items()):
            label = f"{number}_{re.sub(r'[^A-Za-z0-9_-]', '_', name)}"  # names are parted by commas
            for passed, count in enumerate(readings, start=1):
                entries[f"{label}_{passed}"] = {**self._source(spec, name), "num_samples": count}
        train = {
            "stage": "pt",
            "dataset": ",".join(entries),
            "dataset_dir": ".",
            "mix_strategy": "concat",
            "num_train_epochs": 1.0,
            "val_size": 0.0,
            "seed": spec.seed,
        }
        train |= {"cutoff_len": spec.sequence} if spec.sequence else {}
        described = json.dumps(entries, indent=1, ensure_ascii=False) + "\n"
        return {"dataset_info.json": described, "train.yaml": yaml_text(train)}

    def _source(self, spec: ExportSpec, name: str) -> dict[str, Any]:
        read = file_rows("LLaMA-Factory", spec, name, self.field)
        columns = {"columns": {"prompt": read.field}}
        if "data_files" in read.source:
            return {"file_name": whole_path("LLaMA-Factory", spec, name), **columns}
        named = {"path": "hf_hub_url", "name": "subset", "split": "split", "revision": "revision"}
        return {named[key]: value for key, value in read.source.items()} | columns
