"""MaxText: a mixture of Grain with weights.

`mixture.json` is its `grain_train_mixture_config_path`, `maxtext.yml` what goes with it on the
command line or into a configuration. Sources are ArrayRecord files, mixed before they are cut and
packed, so that a weight is of documents. Weights in `grain_train_files` itself would be rounded to
four digits; these are not. A source ends after `num_epoch` passes, and the mixture with the first
that ends, so that all may be read as often as the one that repeats most, and once more.

Source: AI-Hypercomputer/maxtext, src/maxtext/input_pipeline/grain_data_processing.py
(`get_datasets`, `pretrain_preprocessing_pipeline`), configs/types.py (`GrainDataset`).
"""

import json
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from cuvee.mixtures.registry import register
from cuvee.tasks.export import DOCUMENTS, KIND, ExportSpec
from cuvee.tasks.export.literal import yaml_text


@register(KIND)
@dataclass(frozen=True)
class MaxText:
    """A weighted mixture for MaxText; paths are ArrayRecord files or patterns of them.

    Take it for MaxText with Grain on ArrayRecord files.
    """

    name: ClassVar[str] = "maxtext"
    staged: ClassVar[bool] = False
    unit: ClassVar[str] = DOCUMENTS
    needs: ClassVar[frozenset[str]] = frozenset({"path", "counts", "documents"})

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        return spec.documents.delivered()

    def files(self, spec: ExportSpec) -> dict[str, str]:
        shares = spec.documents.shares
        mixture = {n: {"path": spec.path(n), "weight": share} for n, share in shares.items()}
        given: dict[str, Any] = {
            "dataset_type": "grain",
            "grain_file_type": "arrayrecord",
            "grain_train_mixture_config_path": "mixture.json",
            "num_epoch": math.ceil(max(spec.documents.epochs().values())) + 1,
            "data_shuffle_seed": spec.seed,
        }
        sizes = {"max_target_length": spec.sequence}
        if spec.sequence and spec.batch:
            sizes["steps"] = spec.whole_steps
        given |= {name: size for name, size in sizes.items() if size}
        text = json.dumps(mixture, indent=1, ensure_ascii=False) + "\n"
        return {"mixture.json": text, "maxtext.yml": yaml_text(given)}
