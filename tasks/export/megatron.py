"""Megatron-LM and NeMo: blends of weights and prefixes.

`blend.txt` is read by `--data-args-path`: weights and prefixes in turn, divided by blanks; weights
are normalized there, and one of zero is refused. `nemo.yaml` holds the same list for NeMo's
`paths`. A blend counts samples, packed to one length, so that shares of samples are shares of
tokens; a short prefix is repeated as often as is needed. Every sample goes to the prefix that lags
most. Stages are phases: training ends at each of `--phase-transition-iterations` and is started
again with the next blend. All of every prefix is for training (`--split 100,0,0`): the usual splits
would leave less of it, which then repeats more often.

Validation sets make `blend.json` of `blend.txt`, for `--per-split-data-args-path`: Megatron-LM then
gives a loss for each of them, in their order (`validation-0`, ...; newer ones name them by
`--validation-set-names`), over all of it; NeMo joins them to one loss.

Source: megatron/training/utils/common_utils.py (`get_blend_and_blend_per_split`),
megatron/training/arguments.py, config/training_config.py (`ValidationConfig`),
core/datasets/utils.py (`get_blend_from_list`), blended_megatron_dataset_builder.py, helpers.cpp
(`build_blending_indices`).
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from cuvee.mixtures.errors import ExportError
from cuvee.mixtures.registry import register
from cuvee.tasks.export import KIND, SEQUENCES, ExportSpec
from cuvee.tasks.export.delivery import SIMULATED, WAYS_OUT, dealt_greedily
from cuvee.tasks.export.literal import yaml_text

SPLIT = "100,0,0"
SURPLUS = 1.005  # samples that Megatron indexes of a prefix, over those it plans to draw


@register(KIND)
@dataclass(frozen=True)
class Megatron:
    """Blends for Megatron-LM and NeMo; prefixes are paths without `.bin` and `.idx`.

    Take it for Megatron-LM and NeMo, with or without stages.
    """

    name: ClassVar[str] = "megatron"
    staged: ClassVar[bool] = True
    unit: ClassVar[str] = SEQUENCES
    needs: ClassVar[frozenset[str]] = frozenset({"path"})

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        if not spec.samples:
            return spec.wanted
        drawn = dict.fromkeys(spec.shares, 0.0)
        for shares, samples in _phases_drawn(spec):
            _check_margin(shares, samples)
            for name, count in dealt_greedily(shares, samples).items():
                drawn[name] += count
        return spec.sequences.tokens(drawn)

    def files(self, spec: ExportSpec) -> dict[str, str]:
        files, held = {}, self.validation(spec)
        for i in range(len(spec.stages)):
            end = f"-{i + 1}" if len(spec.stages) > 1 else ""
            pairs = self.pairs(spec, spec.stage_shares(i))
            blend = f"blend{end}.{'json' if held else 'txt'}"
            files[blend] = _splits(pairs, held) if held else _text(pairs)
            files[f"nemo{end}.yaml"] = _nemo(pairs, held)
            files[f"arguments{end}.txt"] = _arguments(spec, blend, held)
        return files

    def pairs(self, spec: ExportSpec, shares: Mapping[str, float]) -> list[str]:
        """Weights and prefixes in turn."""
        return [
            word
            for name, share in shares.items()
            for word in (repr(share), _prefix(name, spec.path(name)))
        ]

    def validation(self, spec: ExportSpec) -> list[str]:
        """Prefixes of validation sets."""
        return [_prefix(name, path) for name, paths in spec.validation.items() for path in paths]


def _prefix(name: str, path: str) -> str:
    prefix = path.removesuffix(".bin").removesuffix(".idx")
    if not prefix or len(prefix.split()) != 1 or prefix != prefix.strip():
        raise ExportError(
            f"the path of {name}, {prefix!r}, holds a blank, at which Megatron-LM would "
            "divide it: move or link the data to a path without blanks"
        )
    return prefix


def _text(pairs: list[str]) -> str:
    lines = [" ".join(pairs[i : i + 2]) for i in range(0, len(pairs), 2)]
    return "\n".join(lines) + "\n"


def _splits(pairs: list[str], held: list[str]) -> str:
    return json.dumps({"train": pairs, "valid": held, "test": None}, indent=1) + "\n"


def _nemo(pairs: list[str], held: list[str]) -> str:
    if held:
        splits = {"train": pairs, "validation": held, "test": held}
        return yaml_text({"dataset": {"paths": splits}})
    return yaml_text({"dataset": {"paths": pairs, "split": SPLIT}})


def _arguments(spec: ExportSpec, file: str, held: list[str]) -> str:
    words = [f"--data-args-path {file}", f"--split {SPLIT}"]
    if held:
        apart = ["--multiple-validation-sets"] if len(held) > 1 else []
        words = [f"--per-split-data-args-path {file}", *apart, "--full-validation"]
    words.append(f"--seed {spec.seed}")
    if spec.sequence:
        words.append(f"--seq-length {spec.sequence}")
    if spec.samples and len(spec.stages) == 1:
        words.append(f"--train-samples {run_samples(spec)}")
    if len(spec.stages) > 1:
        words += _phases(spec)
    return "\n".join(words) + "\n"


def _phases(spec: ExportSpec) -> list[str]:
    """Phases are counted in iterations of one global batch size."""
    ends = spec.steps()[1:]
    samples = sum(number for _, number in spec.stage_samples())
    return [
        f"--global-batch-size {spec.batch}",
        f"--train-samples {samples}",  # without which Megatron-LM ends before its first phase
        f"--phase-transition-iterations {','.join(map(str, ends))}",
    ]


def run_samples(spec: ExportSpec) -> int:
    """Samples of the run: whole batches where their size is known: Megatron ends with one."""
    return (spec.batch or 1) * spec.whole_steps


def _phases_drawn(spec: ExportSpec) -> list[tuple[dict[str, float], int]]:
    """Shares and samples of each phase."""
    return spec.stage_samples() if len(spec.stages) > 1 else [(spec.shares, run_samples(spec))]


def _check_margin(shares: Mapping[str, float], samples: int) -> None:
    """Megatron rounds every prefix up, and stops where their sum then oversamples one."""
    planned = {name: math.ceil(share * samples) for name, share in shares.items()}
    total = sum(planned.values())
    drawn = dealt_greedily(shares, total)
    for name, most in planned.items():
        if drawn[name] + (total > SIMULATED) > math.ceil(most * SURPLUS):
            raise ExportError(
                f"Megatron-LM would stop: it rounds {len(shares)} domains up to {total:,} samples, "
                f"where {samples:,} are the run, and then has too few of {name} indexed. {WAYS_OUT}"
            )
