"""Megatron-Bridge: a blend of Hugging Face sources with epoch counts.

`dataset.yaml` is the `dataset` (a `DirectHFSFTDatasetConfig` with several sources) and the length
of a `ConfigContainer`: rows are documents, and a weight is how often a source is read: 2.5 is every
row twice and half of them, drawn without replacement, again. So a share becomes passes over the
documents that the study knew, and the run is one pass over the blend. Rows of a source go through
your recipe's `preprocessing` (chat, or prompt and completion); validation is off, since a blend has
no split of its own. To pretrain on token files take `megatron`: there Megatron-Bridge reads blends
as Megatron-LM does.

Source: NVIDIA-NeMo/Megatron-Bridge pull request 5438, src/megatron/bridge/data/sources/hf.py at
5412c23 (`blend_sft_rows`), data/builders/direct_hf_sft.py.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from cuvee.mixtures.registry import register
from cuvee.tasks.export import KIND, ExportSpec
from cuvee.tasks.export.documents import DocumentRows, rows_source
from cuvee.tasks.export.literal import yaml_text

DATASET = "megatron.bridge.data.builders.direct_hf_sft.DirectHFSFTDatasetConfig"
SOURCE = "megatron.bridge.data.sources.hf.HFDatasetSourceConfig"


@register(KIND)
@dataclass(frozen=True)
class MegatronBridge(DocumentRows):
    """Sources with epoch counts for Megatron-Bridge.

    Take it for fine-tuning with Megatron-Bridge on rows of data sets or files.

    Attributes:
        field: the column with the text, or columns by domain; by default those of the study.
    """

    name: ClassVar[str] = "megatron_bridge"

    def files(self, spec: ExportSpec) -> dict[str, str]:
        weights = spec.documents.epochs()
        dataset: dict[str, Any] = {
            "_target_": DATASET,
            "source": [self._source(spec, name) for name in weights],
            "source_weights": list(weights.values()),
            "blend_seed": spec.seed,
            "do_validation": False,
            "do_test": False,
        }
        dataset |= {"seq_length": spec.sequence} if spec.sequence else {}
        train = {"train_samples": sum(spec.documents.rounded().values())}
        return {"dataset.yaml": yaml_text({"dataset": dataset, "train": train})}

    def _source(self, spec: ExportSpec, name: str) -> dict[str, Any]:
        read = dict(rows_source("Megatron-Bridge", spec, name, self.field).source)
        entry = {"_target_": SOURCE, "path_or_dataset": read.pop("path")}
        entry["split"] = read.pop("split", "train")
        entry |= {"subset": read.pop("name")} if "name" in read else {}
        return entry | ({"load_kwargs": read} if read else {})
