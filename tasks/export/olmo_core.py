"""OLMo-core: a list of sources with target ratios of tokens.

`sources.yaml` is a `SourceMixtureList`, `dataset.yaml` a `SourceMixtureDatasetConfig` around it.
Ratios are shares of tokens, above zero, with the sum 1; a source that would run short is refused
there unless `max_repetition_ratio` allows its repeats, so that this says how often each repeats.
The mixture is drawn once for the whole run: there are no stages. Every file gives whole sequences;
what is missing is dealt out evenly over all files first, whatever the ratios, so that many small
files shift the shares, as would a run that is no whole number of batches. `validation.yaml` holds
`paths` and `metadata` of a `NumpyPaddedFSLDatasetConfig`, whose labels give its `LMEvaluator` a
loss for each domain.

Source: olmo_core/data/source_mixture.py, data/numpy_dataset.py, eval/lm_evaluator.py.
"""

import glob
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from cuvee.mixtures.registry import register
from cuvee.tasks.export import KIND, TOKENS, ExportSpec
from cuvee.tasks.export.literal import yaml_text

SLACK = 1.01  # whole sequences of every path, and the last batch, need a little more


@register(KIND)
@dataclass(frozen=True)
class OlmoCore:
    """Sources for OLMo-core; paths are `.npy` files or globs of them.

    Take it for OLMo-core, on tokenized files.
    """

    name: ClassVar[str] = "olmo_core"
    staged: ClassVar[bool] = False
    unit: ClassVar[str] = TOKENS
    needs: ClassVar[frozenset[str]] = frozenset({"paths", "counts", "filled"})

    def delivered(self, spec: ExportSpec) -> dict[str, float]:
        if not (spec.sequence and spec.batch):
            return spec.wanted
        files = _files(spec)
        _apportion(files, _requested(spec) // spec.sequence)
        drawn = dict.fromkeys(spec.shares, 0.0)
        for file in files:
            drawn[file.name] += file.planned
        return spec.sequences.tokens(drawn)

    def files(self, spec: ExportSpec) -> dict[str, str]:
        sized = spec.sequence and spec.batch
        longer = _requested(spec) / spec.tokens if sized else 1.0
        sources = [
            {
                "source_name": name,
                "target_ratio": share,
                "paths": list(spec.paths[name]),
                "max_repetition_ratio": _repeats(spec.epochs[name] * longer),
            }
            for name, share in spec.shares.items()
        ]
        files = {"sources.yaml": yaml_text({"sources": sources})}
        if sized:
            whole = {
                "source_list": {"sources": sources},
                "requested_tokens": _requested(spec),
                "global_batch_size": spec.batch_tokens,
                "seed": spec.seed,
            }
            files["dataset.yaml"] = yaml_text(whole)
        held = [(name, p) for name, paths in spec.validation.items() for p in _expanded(paths)]
        if held:
            labels = [{"label": name} for name, _ in held]
            paths = [path for _, path in held]
            files["validation.yaml"] = yaml_text({"paths": paths, "metadata": labels})
        return files


def _requested(spec: ExportSpec) -> int:
    """Tokens of the run in whole batches, which OLMo-core would round up to."""
    return spec.batch_tokens * spec.whole_steps


@dataclass
class _File:
    """A reading of a file: its domain, sequences planned and most, and what rounding lost."""

    name: str
    planned: int
    most: int
    lost: float


def _files(spec: ExportSpec) -> list[_File]:
    """What OLMo-core plans to take of each reading of each file; files of a domain are taken alike.

    The order and the roundings are those of `get_paths_and_tokens_for_source`.
    """
    length, exist = spec.sequence or 1, {d.name: d.tokens for d in spec.domains}
    found = []
    for name, share in spec.shares.items():
        number = sum(len(_expanded((path,))) for path in spec.paths[name])
        size, left = exist[name] // number, int(_requested(spec) * share) / exist[name]
        while left > 0:
            tokens = math.ceil(size * min(1.0, left))
            planned = min(tokens // length, size // length)
            lost = tokens % length / length if planned < size // length else 0.0
            found += [_File(name, planned, size // length, lost) for _ in range(number)]
            left -= min(1.0, left)
    return found


def _apportion(files: list[_File], sequences: int) -> None:
    """Deal out the sequences that rounding left over: evenly first, then by what was lost."""
    room = [file for file in files if file.planned < file.most]
    each = max(0, sequences - sum(file.planned for file in files)) // max(1, len(room))
    for file in room:
        file.planned += min(each, file.most - file.planned)
    missing = max(0, sequences - sum(file.planned for file in files))
    room = [file for file in room if file.planned < file.most]
    for file in sorted(room, key=lambda file: -file.lost)[:missing]:
        file.planned += 1


def _expanded(paths: Iterable[str]) -> list[str]:
    """Paths, a pattern as the files here that fit it, if there are any."""
    found = {p: sorted(glob.glob(p, recursive=True)) if glob.has_magic(p) else [] for p in paths}
    return [file for path, files in found.items() for file in files or [path]]


def _repeats(epochs: float) -> float:
    return max(1.0, math.ceil(epochs * SLACK * 1000) / 1000) if epochs > 1 / SLACK else 1.0
