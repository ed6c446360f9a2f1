"""nanotron: data stages with folders and weights in parallel lists.

`data_stages.yaml` is the `data_stages` of a training configuration. Weights are of samples, packed
to one length, so shares of tokens, and are normalized there. One index is dealt out over as many
samples as the folders hold together, shuffled, and read as often as the run needs: its last reading
is a random part, and what it did not deal out is never read. Stages start at a training step, each
with an index of its own; the first step is 1.

Source: src/nanotron/config/config.py (`NanosetDatasetsArgs`, `DatasetStageArgs`), data/nanoset.py.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from cuvee.mixtures.errors import ExportError
from cuvee.mixtures.registry import register
from cuvee.tasks.export import KIND, SEQUENCES, ExportSpec, delivery_terms
from cuvee.tasks.export.delivery import MORE, check_noise, dealt_greedily, sampling_deviation
from cuvee.tasks.export.literal import yaml_text


@register(KIND)
@dataclass(frozen=True)
class Nanotron:
    """Data stages for nanotron; paths are folders of tokenized Nanosets.

    Take it for nanotron, with or without stages.

    Attributes:
        workers: processes of the trainer that load data.
    """

    name: ClassVar[str] = "nanotron"

    workers: int = 1
    staged: ClassVar[bool] = True
    unit: ClassVar[str] = SEQUENCES
    needs: ClassVar[frozenset[str]] = frozenset({"path", "filled"})

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        if not (spec.samples and spec.counted):
            return spec.wanted
        drawn = dict.fromkeys(spec.shares, 0.0)
        deviations = dict.fromkeys(spec.shares, 0.0)
        exist = spec.sequences.exist
        for shares, samples in spec.stage_samples():
            indexed = sum(exist[name] for name in shares)
            for name, count in dealt_greedily(shares, indexed).items():
                drawn[name] += samples * count / indexed
                deviations[name] += (
                    sampling_deviation(shares[name], samples % indexed, indexed) ** 2
                )
                self._check_readings(spec, name, samples / indexed * max(1, count / exist[name]))
        noise = {name: (spec.sequence or 1) * value**0.5 for name, value in deviations.items()}
        check_noise("nanotron", delivery_terms(spec, SEQUENCES), noise)
        return spec.sequences.tokens(drawn)

    def _check_readings(self, spec: ExportSpec, name: str, readings: float) -> None:
        """Each reading of the index takes the same samples again, not others of the folder."""
        cap = spec.caps.get(name, math.inf)
        if readings > max(1.0, cap * MORE):
            raise ExportError(
                f"nanotron would read the same samples of {name} {readings:.2f} times, and "
                f"constraints.epochs allows {cap:g}: it deals out one index and repeats that, and "
                "the run is longer than all folders together. Lower export.tokens, or choose "
                "another format"
            )

    def files(self, spec: ExportSpec) -> dict[str, str]:
        stages = [self._stage(spec, i, step + 1) for i, step in enumerate(spec.steps())]
        return {"data_stages.yaml": yaml_text({"data_stages": stages})}

    def _stage(self, spec: ExportSpec, index: int, step: int) -> dict[str, Any]:
        shares = spec.stage_shares(index)
        return {
            "name": f"stage-{index + 1}",
            "start_training_step": step,
            "data": {
                "dataset": {
                    "dataset_folder": [spec.path(name) for name in shares],
                    "dataset_weights": list(shares.values()),
                },
                "num_loading_workers": self.workers,
                "seed": spec.seed,
            },
        }
