"""NeMo Automodel: a blend of weights and prefixes of Megatron's token files.

`dataset.yaml` is the `dataset` of a pretraining recipe, a `MegatronPretraining`: the list that
Megatron-LM takes, weights first, with the run in samples. Blends are dealt out and repeated as
there. All of every prefix is for training; validation sets make one loss (a list of each split), so
that a loss by domain needs one run of its evaluation each.

Source: NVIDIA-NeMo/Automodel, nemo_automodel/components/datasets/llm/megatron_dataset.py at 0ab1c40
(`MegatronPretraining`), datasets/llm/megatron/builder.py.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from cuvee.mixtures.registry import register
from cuvee.tasks.export import KIND, ExportSpec
from cuvee.tasks.export.literal import yaml_text
from cuvee.tasks.export.megatron import SPLIT, Megatron, run_samples

DATASET = "nemo_automodel.components.datasets.llm.megatron_dataset.MegatronPretraining"


@register(KIND)
@dataclass(frozen=True)
class Automodel:
    """A blend for NeMo Automodel; prefixes are paths without `.bin` and `.idx`.

    Take it for pretraining with NeMo Automodel on Megatron's token files.
    """

    name: ClassVar[str] = "automodel"
    staged: ClassVar[bool] = False
    unit: ClassVar[str] = Megatron.unit
    needs: ClassVar[frozenset[str]] = Megatron.needs

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        return Megatron().delivered(spec)

    def files(self, spec: ExportSpec) -> dict[str, str]:
        blend, held = Megatron(), Megatron().validation(spec)
        pairs = blend.pairs(spec, spec.shares)
        given: dict[str, Any] = {"paths": pairs, "split": SPLIT, "splits_to_build": "train"}
        if held:
            given = {"paths": {"train": pairs, "validation": held, "test": held}}
        given |= {"_target_": DATASET, "seed": spec.seed}
        sizes = {
            "seq_length": spec.sequence,
            "global_batch_size": spec.batch,
            "num_train_samples": run_samples(spec) if spec.samples else None,
        }
        given |= {name: size for name, size in sizes.items() if size}
        return {"dataset.yaml": yaml_text({"dataset": given})}
