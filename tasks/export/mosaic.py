"""MosaicML Streaming and LLM Foundry: streams with proportions.

`streams.yaml` is the data part of LLM Foundry's `train_loader`; each entry is the keywords of a
`streaming.Stream`. A proportion is a share of samples. Samples that were packed to one length when
the shards were written hold equal tokens; where they are documents, shares are converted by the
mean document's tokens. `epoch_size` is the run in samples, so that one epoch is the whole run and
short streams are repeated within it. A proportion of zero is left out. Each stream's samples are
rounded down, and those that are missing go to streams drawn by the seed. Validation sets become
LLM Foundry's `eval_loader`, with a label and so a loss for each domain.

Source: streaming/base/stream.py (`apply_weights`), llmfoundry/data/text_data.py (`build_streams`),
utils/builders.py (`build_eval_loaders`).
"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from cuvee.mixtures.registry import register
from cuvee.tasks.export import KIND, SAMPLES, SEQUENCES, ExportSpec, check_choice
from cuvee.tasks.export.literal import yaml_text


@register(KIND)
@dataclass(frozen=True)
class Mosaic:
    """Streams for MosaicML Streaming and LLM Foundry.

    Take it for MosaicML Streaming and LLM Foundry.

    Attributes:
        samples: what a sample of the shards is: "packed" sequences, or "documents".
        split: subfolder of every stream, such as "train"; "" for none.
    """

    name: ClassVar[str] = "mosaic"

    samples: Annotated[str, Literal[tuple(SAMPLES)]] = "packed"
    split: str = ""
    staged: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_choice("mosaic", "samples", self.samples, SAMPLES)

    @property
    def unit(self) -> str:
        return SAMPLES[self.samples]

    @property
    def needs(self) -> frozenset[str]:
        packed = self.unit == SEQUENCES
        counting = {"sequence", "filled"} if packed else {"documents", "counts"}
        return frozenset({"path", "tokens"} | counting)

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        return spec.in_units(self.unit).delivered()

    def files(self, spec: ExportSpec) -> dict[str, str]:
        units = spec.in_units(self.unit)
        streams = {
            name: {**self._place(spec.path(name)), "proportion": share}
            for name, share in units.shares.items()
        }
        dataset: dict[str, Any] = {"streams": streams, "epoch_size": units.count}
        dataset |= {"shuffle": True, "shuffle_seed": spec.seed}
        if spec.sequence:
            dataset["max_seq_len"] = spec.sequence
        loader: dict[str, Any] = {"train_loader": {"name": "text", "dataset": dataset}}
        held = [self._evaluation(spec, name) for name in spec.validation]
        loader |= {"eval_loader": held} if held else {}
        return {"streams.yaml": yaml_text(loader)}

    def _evaluation(self, spec: ExportSpec, name: str) -> dict[str, Any]:
        streams = {f"{name} {i}": self._place(p) for i, p in enumerate(spec.validation[name])}
        dataset: dict[str, Any] = {"streams": streams, "shuffle": False}
        dataset |= {"max_seq_len": spec.sequence} if spec.sequence else {}
        return {"label": name, "name": "text", "dataset": dataset, "drop_last": False}

    def _place(self, path: str) -> dict[str, str]:
        place = {"remote": path} if "://" in path else {"local": path}
        return place | ({"split": self.split} if self.split else {})
