"""OLMo-core: a list of sources with target ratios of tokens.

`sources.yaml` is a `SourceMixtureList`, `dataset.yaml` a `SourceMixtureDatasetConfig` around it.
Ratios are shares of tokens, above zero, with the sum 1; a source that would run short is refused
there unless `max_repetition_ratio` allows its repeats, so that this says how often each repeats.
The mixture is drawn once for the whole run: there are no stages.

Source: olmo_core/data/source_mixture.py.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from mixtures.registry import register
from tasks.exports import KIND, TOKENS, Blend
from tasks.exports.literal import yaml_text

SLACK = 1.01  # whole sequences of every path, and the last batch, need a little more


@register(KIND, "olmo_core")
@dataclass(frozen=True)
class OlmoCore:
    """Sources for OLMo-core; paths are `.npy` files or globs of them."""

    staged: ClassVar[bool] = False
    unit: ClassVar[str] = TOKENS
    needs: ClassVar[frozenset[str]] = frozenset({"paths", "counts"})

    def files(self, blend: Blend) -> dict[str, str]:
        sources = [
            {
                "source_name": name,
                "target_ratio": share,
                "paths": list(blend.paths[name]),
                "max_repetition_ratio": _repeats(blend.epochs[name]),
            }
            for name, share in blend.shares.items()
        ]
        files = {"sources.yaml": yaml_text({"sources": sources})}
        if blend.sequence and blend.batch:
            whole = {
                "source_list": {"sources": sources},
                "requested_tokens": blend.tokens,
                "global_batch_size": blend.batch * blend.sequence,
                "seed": blend.seed,
            }
            files["dataset.yaml"] = yaml_text(whole)
        return files


def _repeats(epochs: float) -> float:
    return max(1.0, math.ceil(epochs * SLACK * 1000) / 1000) if epochs > 1 / SLACK else 1.0
