"""Megatron-LM and NeMo: blends of weights and prefixes.

`blend.txt` is read by `--data-args-path`: weights and prefixes in turn, divided by blanks; weights
are normalized there, and one of zero is refused. `nemo.yaml` holds the same list for NeMo's
`paths`. A blend counts samples, packed to one length, so that shares of samples are shares of
tokens; a short prefix is repeated as often as is needed. Every sample goes to the prefix that lags
most. Stages are phases: training ends at each of `--phase-transition-iterations` and is started
again with the next blend. All of every prefix is for training (`--split 100,0,0`): the usual splits
would leave less of it, which then repeats more often. Give data for validation of its own.

Source: megatron/training/arguments.py, core/datasets/utils.py (`get_blend_from_list`),
blended_megatron_dataset_builder.py, helpers.cpp (`build_blending_indices`).
"""

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
        if len(spec.stages) == 1:
            pairs = self._pairs(spec, spec.shares)
            return {
                "blend.txt": _text(pairs),
                "nemo.yaml": _nemo(pairs),
                "arguments.txt": _arguments(spec, "blend.txt"),
            }
        files = {}
        for i in range(len(spec.stages)):
            pairs = self._pairs(spec, spec.stage_shares(i))
            files[f"blend-{i + 1}.txt"] = _text(pairs)
            files[f"nemo-{i + 1}.yaml"] = _nemo(pairs)
            files[f"arguments-{i + 1}.txt"] = _arguments(spec, f"blend-{i + 1}.txt")
        return files

    def _pairs(self, spec: ExportSpec, shares: Mapping[str, float]) -> list[str]:
        pairs: list[str] = []
        for name, share in shares.items():
            prefix = spec.path(name)
            for ending in (".bin", ".idx"):
                prefix = prefix.removesuffix(ending)
            if not prefix or len(prefix.split()) != 1 or prefix != prefix.strip():
                raise ExportError(
                    f"the path of {name}, {prefix!r}, holds a blank, at which Megatron-LM would "
                    "divide it: move or link the data to a path without blanks"
                )
            pairs += [repr(share), prefix]
        return pairs


def _text(pairs: list[str]) -> str:
    lines = [" ".join(pairs[i : i + 2]) for i in range(0, len(pairs), 2)]
    return "\n".join(lines) + "\n"


def _nemo(pairs: list[str]) -> str:
    return yaml_text({"dataset": {"paths": pairs, "split": SPLIT}})


def _arguments(spec: ExportSpec, file: str) -> str:
    words = [f"--data-args-path {file}", f"--split {SPLIT}", f"--seed {spec.seed}"]
    if spec.sequence:
        words.append(f"--seq-length {spec.sequence}")
    if spec.samples and len(spec.stages) == 1:
        words.append(f"--train-samples {_run_samples(spec)}")
    if len(spec.stages) > 1:
        words += _phases(spec)
    return "\n".join(words) + "\n"


def _phases(spec: ExportSpec) -> list[str]:
    """Phases are counted in iterations of one global batch size."""
    ends = spec.steps()[1:]
    iterations = spec.tokens // ((spec.batch or 1) * (spec.sequence or 1))
    return [
        f"--global-batch-size {spec.batch}",
        f"--train-iters {iterations}",
        f"--phase-transition-iterations {','.join(map(str, ends))}",
    ]


def _run_samples(spec: ExportSpec) -> int:
    """Samples of the run: whole batches where their size is known: Megatron ends with one."""
    return (spec.batch or 1) * spec.whole_steps


def _phases_drawn(spec: ExportSpec) -> list[tuple[dict[str, float], int]]:
    """Shares and samples of each phase."""
    return spec.stage_samples() if len(spec.stages) > 1 else [(spec.shares, _run_samples(spec))]


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
