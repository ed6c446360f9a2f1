"""Levanter and Marin: components and train weights, with stages.

`data.yaml` is the `data` part of a training configuration. Weights are of packed sequences, so
shares of tokens. A mixture is dealt out in blocks: of every `mixture_block_size` sequences each
component gets a whole number, rounded down, the largest the rest. The block is chosen here so that
no share is off by more than a twentieth, and a stage starts at a multiple of it. A short component
starts anew (`stop_strategy: restart`).

Source: marin-community/marin, lib/levanter: data/mixture.py, docs/guides/Training-Data-Guide.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mixtures.errors import ExportError
from mixtures.registry import register
from tasks.exports import KIND, SEQUENCES, Blend
from tasks.exports.literal import yaml_text

BLOCKS = tuple(1 << k for k in range(11, 16))  # the default; Levanter takes less than 2**16
OFF = 0.05


@register(KIND, "levanter")
@dataclass(frozen=True)
class Levanter:
    """The data part of a Levanter configuration.

    Attributes:
        tokenizer: of the run, or "" to leave it to the configuration around.
        cache_dir: where Levanter keeps tokenized data, or "" likewise.
    """

    tokenizer: str = ""
    cache_dir: str = ""
    staged: ClassVar[bool] = True
    unit: ClassVar[str] = SEQUENCES
    needs: ClassVar[frozenset[str]] = frozenset({"paths"})

    def files(self, blend: Blend) -> dict[str, str]:
        shares = [blend.stage_shares(i) for i in range(len(blend.stages))]
        block = _block(shares)
        weights: Any = shares[0]
        if len(shares) > 1:
            starts = blend.sequences(block)
            weights = [[start, stage] for start, stage in zip(starts, shares, strict=True)]
        data: dict[str, Any] = {
            "components": {name: _component(blend.paths[name]) for name in blend.shares},
            "train_weights": weights,
            "stop_strategy": "restart",
            "mixture_block_size": block,
        }
        if self.tokenizer:
            data["tokenizer"] = self.tokenizer
        if self.cache_dir:
            data["cache_dir"] = self.cache_dir
        return {"data.yaml": yaml_text({"data": data})}


def _component(paths: tuple[str, ...]) -> dict[str, Any]:
    if len(paths) == 1 and paths[0].startswith("hf://"):
        return {"source": {"type": "hf", "id": paths[0].removeprefix("hf://")}}
    return {"source": {"type": "url", "train_urls": list(paths)}}


def _block(shares: list[dict[str, float]]) -> int:
    """The smallest block that realizes every share; the largest, if each gets a sequence at all."""
    for block in BLOCKS:
        if all(_off(stage, block) <= OFF for stage in shares):
            return block
    for stage in shares:
        for name, share in stage.items():
            if share * BLOCKS[-1] < 1:
                raise ExportError(
                    f"{name} has a share of {share:.3g}, less than one sequence of Levanter's "
                    f"largest block ({BLOCKS[-1]}), which would drop it without a word: bound its "
                    "share from below, or to zero, in the recipe's constraints"
                )
    return BLOCKS[-1]


def _off(shares: Mapping[str, float], block: int) -> float:
    """How far the worst share is off when a block is dealt out, relative to it."""
    return max(1 - int(share * block) / (share * block) for share in shares.values())
