"""MosaicML Streaming and LLM Foundry: streams with proportions.

`streams.yaml` is the data part of LLM Foundry's `train_loader`; each entry is the keywords of a
`streaming.Stream`. A proportion is a share of samples. Samples that were packed to one length when
the shards were written hold equal tokens; where they are documents, shares are converted by the
mean document's tokens. `epoch_size` is the run in samples, so that one epoch is the whole run and
short streams are repeated within it. A proportion of zero is left out. Each stream's samples are
rounded down, and those that are missing go to streams drawn by the seed. Stages of packed sequences
are the schedule of LLM Foundry's `curriculum_learning` callback, whose durations are tokens and sum
to `max_duration`; each is an epoch of its own. Validation sets become LLM Foundry's `eval_loader`,
with a label and so a loss for each domain.

Source: streaming/base/stream.py (`apply_weights`), llmfoundry/data/text_data.py (`build_streams`),
utils/builders.py (`build_eval_loaders`), callbacks/curriculum_learning_callback.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from cuvee.mixtures.errors import ExportError
from cuvee.mixtures.registry import register
from cuvee.tasks.export import DOCUMENTS, KIND, SEQUENCES, ExportSpec, SampleShards
from cuvee.tasks.export.delivery import whole_units
from cuvee.tasks.export.literal import yaml_text


@register(KIND)
@dataclass(frozen=True)
class Mosaic(SampleShards):
    """Streams for MosaicML Streaming and LLM Foundry.

    Take it for MosaicML Streaming and LLM Foundry.

    Attributes:
        samples: what a sample of the shards is: "packed" sequences, or "documents".
        split: subfolder of every stream, such as "train"; "" for none.
    """

    name: ClassVar[str] = "mosaic"

    split: str = ""
    staged: ClassVar[bool] = True

    @property
    def needs(self) -> frozenset[str]:
        packed = self.unit == SEQUENCES
        counting = {"sequence", "filled"} if packed else {"documents", "counts"}
        return frozenset({"path", "tokens"} | counting)

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        if len(spec.stages) == 1:
            return spec.in_units(self.unit).delivered()
        drawn = dict.fromkeys(spec.shares, 0.0)
        for shares, count in self._parts(spec):
            wanted = {name: share * count for name, share in shares.items()}
            for name, units in whole_units(shares, count, wanted).items():
                drawn[name] += units
        return spec.sequences.tokens(drawn)

    def _parts(self, spec: ExportSpec) -> list[tuple[Mapping[str, float], int]]:
        """Shares and samples of each stage."""
        if len(spec.stages) == 1:
            units = spec.in_units(self.unit)
            return [(units.shares, units.count)]
        if self.unit == DOCUMENTS:
            raise ExportError(
                "mosaic counts stages in tokens, which documents do not fill evenly: export one "
                "stage at a time with --stage N, or write the shards as packed sequences"
            )
        return [*spec.stage_samples()]

    def files(self, spec: ExportSpec) -> dict[str, str]:
        parts = self._parts(spec)
        first, *later = [self._dataset(spec, shares, count) for shares, count in parts]
        loader: dict[str, Any] = {"train_loader": {"name": "text", "dataset": first}}
        if later:
            tokens = [count * (spec.sequence or 1) for _, count in parts]
            schedule = [
                {"duration": f"{length}tok", "dataset": dataset}
                for length, dataset in zip(tokens[1:], later, strict=True)
            ]
            loader["max_duration"] = f"{sum(tokens)}tok"
            changes = {"duration": f"{tokens[0]}tok", "schedule": schedule}
            loader["callbacks"] = {"curriculum_learning": changes}
        held = [self._evaluation(spec, name) for name in spec.validation]
        loader |= {"eval_loader": held} if held else {}
        return {"streams.yaml": yaml_text(loader)}

    def _dataset(self, spec: ExportSpec, shares: Mapping[str, float], count: int) -> dict[str, Any]:
        streams = {
            name: {**self._place(spec.path(name)), "proportion": share}
            for name, share in shares.items()
        }
        dataset: dict[str, Any] = {"streams": streams, "epoch_size": count}
        dataset |= {"shuffle": True, "shuffle_seed": spec.seed}
        return dataset | ({"max_seq_len": spec.sequence} if spec.sequence else {})

    def _evaluation(self, spec: ExportSpec, name: str) -> dict[str, Any]:
        streams = {f"{name} {i}": self._place(p) for i, p in enumerate(spec.validation[name])}
        dataset: dict[str, Any] = {"streams": streams, "shuffle": False}
        dataset |= {"max_seq_len": spec.sequence} if spec.sequence else {}
        return {"label": name, "name": "text", "dataset": dataset, "drop_last": False}

    def _place(self, path: str) -> dict[str, str]:
        place = {"remote": path} if "://" in path else {"local": path}
        return place | ({"split": self.split} if self.split else {})
