"""Starting checkpoints: a run that goes on from a given Hugging Face model of the proxy family.

Continual pretraining: the run begins at the checkpoint's weights instead of random ones, with a
fresh optimizer and the schedule's own warm-up (re-warming; Ibrahim et al. 2024, arXiv 2403.08763).
Its share of old text is a constraint like any other. Only safetensors are read, never a pickle. A
checkpoint is known by the hash of its weights, and kept under that hash for the workers.
"""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cuvee.mixtures.errors import DataError
from cuvee.proxies import ladder
from cuvee.proxies.data.objects import within
from cuvee.proxies.model.transformer import PackModel, parameter_layout
from cuvee.proxies.model_size import CONFIG, ModelSize, config_refusals, config_values
from cuvee.proxies.train import checkpoint

FILE = "model.safetensors"


def adopt_start_checkpoint(source: Path, folder: str | Path, size: str, vocabulary: int) -> str:
    """Keep a checkpoint for runs that start from it; returns the hash that names it in a spec.

    Args:
        source: a folder with config.json and model.safetensors, as `export_huggingface` writes.
        folder: where starting checkpoints are kept.
        size: of the runs.
        vocabulary: tokens of the corpus's tokenizer.

    Raises:
        DataError: no such checkpoint, or one of another shape; says in what.
        StorageError: the folder cannot be written.
    """
    values = read_start_checkpoint(source, size, vocabulary)
    total = hashlib.sha256()
    for name in sorted(values):
        total.update(f"{name} {tuple(values[name].shape)} ".encode())
        total.update(values[name].contiguous().numpy().tobytes())
    content = total.hexdigest()
    checkpoint.save_checkpoint(
        within(folder, content), 0, {"identity": [content], "values": values}
    )
    return content


def read_start_checkpoint(source: Path, size: str, vocabulary: int) -> dict[str, Tensor]:
    """The parameters of a checkpoint by our names and in our layout, float32.

    Raises:
        DataError: as `adopt_start_checkpoint`.
    """
    missing = [name for name in ("config.json", FILE) if not (source / name).is_file()]
    if missing:
        raise DataError(
            f"no checkpoint in {source}: it needs config.json and {FILE} (other formats are not "
            f"read); {' and '.join(missing)} is missing"
        )
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        found = load_file(source / FILE)
    except RecursionError:
        raise DataError(f"the checkpoint in {source} cannot be read: nested too deeply") from None
    except (OSError, ValueError, SafetensorError) as error:
        why = " ".join(str(error).split())
        raise DataError(f"the checkpoint in {source} cannot be read: {why}") from error
    if not isinstance(config, dict):
        raise DataError(
            f"config.json of the checkpoint in {source} is no mapping; found "
            f"{type(config).__name__}"
        )
    _check(config, source, size, vocabulary)
    shape = ladder.model_size(size)
    for name, value in found.items():
        wanted = 1 if name.endswith("norm.weight") else 2
        if value.dim() != wanted:
            raise DataError(
                f"tensor {name!r} of the checkpoint in {source} has {value.dim()} dimensions, "
                f"wanted {wanted}"
            )
    try:
        values = _ours({name: value.float() for name, value in found.items()}, shape)
    except KeyError as error:
        raise DataError(f"the checkpoint in {source} lacks the tensor {error}") from error
    except RuntimeError as error:  # projections that cannot be joined
        raise DataError(f"the checkpoint in {source} does not fit together: {error}") from error
    for name, dims in parameter_layout(shape, vocabulary):
        if tuple(values[name].shape) != dims or not bool(torch.isfinite(values[name]).all()):
            raise DataError(
                f"tensor {name!r} of the checkpoint in {source} has shape "
                f"{tuple(values[name].shape)}, wanted {dims} of finite numbers"
            )
    return values


def fill_from_start(model: PackModel, k: int, folder: str | Path, content: str) -> None:
    """Give one model of a pack the values of a kept checkpoint.

    Raises:
        DataError: it is not there.
    """
    kept = checkpoint.load_checkpoint(within(folder, content), [content]) if folder else None
    if kept is None:
        raise DataError(
            f"the starting checkpoint {content[:12]} is not among those kept "
            f"{f'in {folder}' if folder else '(no folder was given)'}; adopt it again"
        )
    with torch.no_grad():
        for name, value in kept["values"].items():
            model.parameters.named[name][k].copy_(value)


def _check(config: Mapping[str, Any], source: Path, size: str, vocabulary: int) -> None:
    shape, given = ladder.model_size(size), config_values(config)
    wanted = {"vocab_size": vocabulary}
    wanted |= {theirs: getattr(shape, ours) for theirs, ours in CONFIG.items() if ours != "context"}
    wrong = list(config_refusals(config))
    wrong += [
        f"{key} is {reprlib.repr(given.get(key))}, wanted {value!r}"
        for key, value in wanted.items()
        if given.get(key) != value
    ]
    if wrong:
        raise DataError(
            f"the checkpoint in {source} is not of size {size!r} with a vocabulary of "
            f"{vocabulary:,}: {'; '.join(wrong)}. Choose the size that it has, such as "
            f"proxy.size: {source}/config.json, or another checkpoint"
        )


def _ours(found: Mapping[str, Tensor], shape: ModelSize) -> dict[str, Tensor]:
    """The inverse of `checkpoint.huggingface_weights`."""
    values = {
        "embedding": found["model.embed_tokens.weight"],
        "norm": found["model.norm.weight"],
    }
    if not shape.tied:
        values["head"] = found["lm_head.weight"].t()
    for i in range(shape.layers):
        layer = f"model.layers.{i}"
        attention = [found[f"{layer}.self_attn.{part}_proj.weight"] for part in ("q", "k", "v")]
        gates = [found[f"{layer}.mlp.{part}_proj.weight"] for part in ("gate", "up")]
        values |= {
            f"{i}.attention_norm": found[f"{layer}.input_layernorm.weight"],
            f"{i}.qkv": torch.cat(attention).t(),
            f"{i}.out": found[f"{layer}.self_attn.o_proj.weight"].t(),
            f"{i}.mlp_norm": found[f"{layer}.post_attention_layernorm.weight"],
            f"{i}.gate_up": torch.cat(gates).t(),
            f"{i}.down": found[f"{layer}.mlp.down_proj.weight"].t(),
        }
    return {name: value.contiguous().clone() for name, value in values.items()}
