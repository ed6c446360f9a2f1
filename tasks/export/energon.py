"""Megatron-Energon: a metadataset of repetitions.

`metadataset.yaml` is a `MetadatasetV2` whose `blend_epochized` says how often each prepared data
set is read, also in parts of one: an epoch of the blend is the run, in which every sample comes
exactly that often, which weights of `blend`, drawn at random, do not promise. Samples are packed
sequences of one length, or documents. With `get_train_dataset(..., repeat=False)` it ends with the
run.

Source: NVIDIA/Megatron-Energon, src/megatron/energon/metadataset/metadataset_v2.py
(`MetadatasetBlendEpochized`, `BlendRepetitionsMixin`: whole or fractional), loader.py.
"""

from dataclasses import dataclass
from typing import ClassVar

from cuvee.mixtures.registry import register
from cuvee.tasks.export import DOCUMENTS, KIND, ExportSpec, SampleShards
from cuvee.tasks.export.documents import whole_path
from cuvee.tasks.export.literal import yaml_text


@register(KIND)
@dataclass(frozen=True)
class Energon(SampleShards):
    """Repetitions for Megatron-Energon; paths are prepared data sets.

    Take it for trainers that read by Megatron-Energon.

    Attributes:
        samples: what a sample of the data sets is: "packed" sequences, or "documents".
    """

    name: ClassVar[str] = "energon"
    staged: ClassVar[bool] = False

    @property
    def needs(self) -> frozenset[str]:
        special = {"documents"} if self.unit == DOCUMENTS else {"sequence", "filled"}
        return frozenset({"path", "counts"} | special)

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        units = spec.in_units(self.unit)
        return units.tokens(units.rounded())

    def files(self, spec: ExportSpec) -> dict[str, str]:
        repeats = spec.in_units(self.unit).epochs()
        blend = [
            {"repetitions": n, "path": whole_path("Energon", spec, name)}
            for name, n in repeats.items()
        ]
        content = {
            "__module__": "megatron.energon",
            "__class__": "MetadatasetV2",
            "splits": {"train": {"blend_epochized": blend}},
        }
        return {"metadataset.yaml": yaml_text(content)}
