"""Checkpoints of a pack, and export of one proxy to Hugging Face's Llama format.

A checkpoint is one file: the sha256 of what follows, then a torch archive of tensors and plain
values. It is written beside its place and moved there, so a file under its final name is whole; at
most `KEPT` are kept. One that cannot be read is passed over for the one before it. Its folder is a
local path, or a URL under a remote store, which every node reaches.
"""

import contextlib
import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from cuvee.mixtures.errors import StorageError
from cuvee.proxies.data.objects import ObjectFolder, is_remote, within
from cuvee.proxies.model.transformer import PackModel

KEPT = 2
DIGEST = 32  # bytes of a sha256

log = logging.getLogger(__name__)


def save_checkpoint(folder: str | Path, step: int, state: Mapping[str, Any]) -> str | Path:
    """Write a checkpoint atomically and drop the older ones.

    Raises:
        StorageError: the folder cannot be written or the disk is full.
    """
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    payload = buffer.getbuffer()
    name = f"step-{step:09d}.pt"
    if is_remote(folder):
        place = ObjectFolder(str(folder))
        place.replace(name, hashlib.sha256(payload).digest() + payload)
        for old in _found(folder)[KEPT:]:
            place.remove(old)
        return within(folder, name)
    folder = Path(folder)
    path = folder / name
    draft = folder / f".{path.name}.{os.getpid()}.draft"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            file.write(hashlib.sha256(payload).digest())
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        for old in _found(folder)[KEPT:]:
            (folder / old).unlink(missing_ok=True)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise StorageError(
            f"cannot write the checkpoint {path}: {error.strerror or error}; free some space or "
            "choose another folder"
        ) from error
    return path


def load_checkpoint(folder: str | Path, identity: Sequence[str]) -> dict[str, Any] | None:
    """The latest checkpoint that is whole and belongs to this pack; None when there is none.

    Args:
        folder: of one pack.
        identity: the fingerprints of its runs, in order.
    """
    for name in _found(folder):
        state, path = _read(folder, name), within(folder, name)
        if state is None:
            log.warning("checkpoint %s is damaged; going on from the one before it", path)
        elif list(state["identity"]) != list(identity):
            log.warning("checkpoint %s belongs to another pack; it is not used", path)
        else:
            return state
    return None


def _found(folder: str | Path) -> list[str]:
    """Names of checkpoints, latest first."""
    if is_remote(folder):
        names = [n for n in ObjectFolder(str(folder)).names("") if fnmatch(n, "step-*.pt")]
    else:
        names = [path.name for path in Path(folder).glob("step-*.pt")]
    return sorted(names, reverse=True)


def _read(folder: str | Path, name: str) -> dict[str, Any] | None:
    if is_remote(folder):
        data = ObjectFolder(str(folder)).read(name) or b""
    else:
        try:
            data = (Path(folder) / name).read_bytes()
        except OSError:
            return None
    if hashlib.sha256(memoryview(data)[DIGEST:]).digest() != data[:DIGEST]:
        return None
    try:
        state = torch.load(io.BytesIO(data[DIGEST:]), map_location="cpu", weights_only=True)
    except Exception:  # torch raises of many kinds where an archive is not its own
        return None
    return state if isinstance(state, dict) and "identity" in state else None


def export_huggingface(
    model: PackModel, k: int, folder: Path, *, tokenizer: Path | None = None, eot: int = 0
) -> Path:
    """Write one model of a pack as a Hugging Face Llama: config, safetensors and tokenizer.

    Args:
        model: the pack.
        k: position on the model axis.
        folder: to write to; made if it is missing.
        tokenizer: tokenizer.json to go with it.
        eot: id of the end-of-text token.

    Returns:
        The folder, ready for `transformers.LlamaForCausalLM.from_pretrained`.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(
            huggingface_weights(model, k), folder / "model.safetensors", metadata={"format": "pt"}
        )
        _write(folder / "config.json", huggingface_config(model, eot))
        _write(folder / "generation_config.json", {"bos_token_id": eot, "eos_token_id": eot})
        if tokenizer is not None:
            shutil.copyfile(tokenizer, folder / "tokenizer.json")
            text = _special(tokenizer, eot)
            _write(
                folder / "tokenizer_config.json",
                {
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "bos_token": text,
                    "eos_token": text,
                    "pad_token": text,
                    "clean_up_tokenization_spaces": False,
                    "model_max_length": model.size.context,
                },
            )
    except OSError as error:
        raise StorageError(f"cannot export to {folder}: {error.strerror or error}") from error
    return folder


def huggingface_weights(model: PackModel, k: int) -> dict[str, Tensor]:
    """One model's parameters under Hugging Face's names, (out, in), float32 on the CPU."""
    p = {
        name: value.detach()[k].to("cpu", torch.float32)
        for name, value in model.parameters.named.items()
    }
    result = {
        "model.embed_tokens.weight": p["embedding"],
        "model.norm.weight": p["norm"],
    }
    if "head" in p:
        result["lm_head.weight"] = p["head"].t()
    joint = [model.size.width, model.size.keys_width, model.size.keys_width]
    for i in range(model.size.layers):
        layer = f"model.layers.{i}"
        q, key, value = torch.split(p[f"{i}.qkv"].t(), joint)
        gate, up = p[f"{i}.gate_up"].t().chunk(2)
        result |= {
            f"{layer}.input_layernorm.weight": p[f"{i}.attention_norm"],
            f"{layer}.self_attn.q_proj.weight": q,
            f"{layer}.self_attn.k_proj.weight": key,
            f"{layer}.self_attn.v_proj.weight": value,
            f"{layer}.self_attn.o_proj.weight": p[f"{i}.out"].t(),
            f"{layer}.post_attention_layernorm.weight": p[f"{i}.mlp_norm"],
            f"{layer}.mlp.gate_proj.weight": gate,
            f"{layer}.mlp.up_proj.weight": up,
            f"{layer}.mlp.down_proj.weight": p[f"{i}.down"].t(),
        }
    return {name: value.contiguous().clone() for name, value in result.items()}


def huggingface_config(model: PackModel, eot: int) -> dict[str, Any]:
    """config.json of the proxy."""
    size = model.size
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": model.vocabulary,
        "hidden_size": size.width,
        "intermediate_size": size.mlp,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": size.context,
        "rms_norm_eps": size.epsilon,
        "rope_theta": size.rope,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": size.tied,
        "bos_token_id": eot,
        "eos_token_id": eot,
        "pad_token_id": eot,
        "torch_dtype": "float32",
    }


def _special(tokenizer: Path, eot: int) -> str:
    """Text of the end-of-text token."""
    return Tokenizer.from_file(str(tokenizer)).id_to_token(eot) or "<|endoftext|>"


def _write(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
