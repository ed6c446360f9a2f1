"""nanotron: data stages with folders and weights in parallel lists.

`data_stages.yaml` is the `data_stages` of a training configuration. Weights are of samples, packed
to one length, so shares of tokens, and are normalized there; short folders are repeated. Stages
start at a training step; the first step is 1.

Source: src/nanotron/config/config.py (`NanosetDatasetsArgs`, `DatasetStageArgs`), data/nanoset.py.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from mixtures.registry import register
from tasks.exports import KIND, SEQUENCES, Blend
from tasks.exports.literal import yaml_text


@register(KIND, "nanotron")
@dataclass(frozen=True)
class Nanotron:
    """Data stages for nanotron; paths are folders of tokenized Nanosets.

    Attributes:
        workers: processes that load data.
    """

    workers: int = 1
    staged: ClassVar[bool] = True
    unit: ClassVar[str] = SEQUENCES
    needs: ClassVar[frozenset[str]] = frozenset({"path"})

    def files(self, blend: Blend) -> dict[str, str]:
        stages = [self._stage(blend, i, step + 1) for i, step in enumerate(blend.steps())]
        return {"data_stages.yaml": yaml_text({"data_stages": stages})}

    def _stage(self, blend: Blend, index: int, step: int) -> dict[str, Any]:
        shares = blend.stage_shares(index)
        return {
            "name": f"stage-{index + 1}",
            "start_training_step": step,
            "data": {
                "dataset": {
                    "dataset_folder": [blend.path(name) for name in shares],
                    "dataset_weights": list(shares.values()),
                },
                "num_loading_workers": self.workers,
                "seed": blend.seed,
            },
        }
