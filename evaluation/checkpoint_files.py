"""What lies in a folder of a Hugging Face checkpoint, and why it cannot be scored; loads nothing.

Weights are read from safetensors alone: to unpickle a `.bin` or `.pt` file runs whatever its writer
put into it. Every refusal says how to make a checkpoint that can be read.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cuvee.mixtures.errors import CorruptError, DataError

CONFIG, INDEX, WEIGHTS = "config.json", "model.safetensors.index.json", "model.safetensors"
KERNELS = ("attn_implementation", "experts_implementation")  # of a configuration
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.distcp")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "tekken.json")
TOKENIZER_FILES = (
    *TOKENIZERS, "merges.txt", "vocab.txt", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
READ = "from transformers import AutoModelForCausalLM as M; "
CONVERT = (
    f"safetensors are written by `python -c \"{READ}M.from_pretrained('FOLDER')"
    ".save_pretrained('NEW')\"`, on a machine where you trust the file, and copy the tokenizer too"
)
MERGE = (
    "merge it into its base model first: `PeftModel.from_pretrained(base, FOLDER)"
    ".merge_and_unload().save_pretrained(NEW)` of peft, and score NEW"
)


def checkpoint_weights(folder: Path) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint, whole as far as its folder says.

    Raises:
        DataError: no checkpoint of a model is there, or not in this form; says what to do.
        CorruptError: a file that is not what its name says.
    """
    if not folder.is_dir():
        what = "a file" if folder.exists() else "not there"
        raise DataError(f"{folder} is {what}: name the folder of a Hugging Face checkpoint")
    if (folder / "adapter_config.json").exists():
        base = _json(folder / "adapter_config.json").get("base_model_name_or_path")
        raise DataError(
            f"{folder} holds an adapter of PEFT (its base is {base!r}) and no model: {MERGE}"
        )
    if not (folder / CONFIG).is_file():
        raise DataError(
            f"{folder} holds no {CONFIG}, so that it is no Hugging Face checkpoint; it holds: "
            f"{', '.join(sorted(p.name for p in folder.iterdir())[:8]) or 'nothing'}"
        )
    _check_config(folder)
    if (folder / WEIGHTS).is_file():  # before an index, as transformers takes them
        return (folder / WEIGHTS,)
    if (folder / INDEX).is_file():
        shards = _json(folder / INDEX).get("weight_map")
        if not isinstance(shards, dict) or not all(
            isinstance(name, str) and Path(name).name == name for name in shards.values()
        ):
            raise CorruptError(f"{folder / INDEX} maps no weights to files beside it")
        names = sorted(set(shards.values()))
        lacking = [name for name in names if not (folder / name).is_file()]
        if lacking:
            raise DataError(
                f"{folder} lacks {len(lacking)} of its {len(names)} files of weights: "
                f"{', '.join(lacking[:3])}; copy them too"
            )
        return tuple(folder / name for name in names)
    pickles = sorted({path.name for pattern in PICKLES for path in folder.glob(pattern)})
    if pickles:
        raise DataError(
            f"{folder} holds its weights as {', '.join(pickles[:3])}, which only unpickling reads, "
            f"and that runs code of whoever wrote it: {CONVERT}"
        )
    raise DataError(f"{folder} holds no weights: neither {WEIGHTS} nor {INDEX} is there")


def _check_config(folder: Path) -> None:
    """See that a configuration names no code, and no other files than those that are read.

    Raises:
        DataError: it does.
    """
    config = _json(folder / CONFIG)
    parts: list[Any] = [config]
    while parts:
        part = parts.pop()
        for name, value in part.items() if isinstance(part, dict) else enumerate(part):
            if str(name).removesuffix("_internal").lstrip("_") in KERNELS and "/" in str(value):
                raise DataError(
                    f"{folder / CONFIG} names a kernel to be downloaded, which is code ({name}: "
                    f"{value!r}): take the line out"
                )
            parts += [value] if isinstance(value, (dict, list)) else []
    if config.get("transformers_weights") is not None:
        raise DataError(
            f"{folder / CONFIG} names other weights (transformers_weights) than {WEIGHTS} and "
            f"{INDEX}: give the file one of these names, and take the line out"
        )


def checkpoint_digest(folder: Path, digest: Callable[[Path], str]) -> str:
    """What a checkpoint is, wherever it lies: hash of its configuration, weights and tokenizer.

    Args:
        folder: of it.
        digest: sha256 of a file, perhaps one that remembers.

    Raises:
        DataError, CorruptError: as `checkpoint_weights`.
    """
    weights = checkpoint_weights(folder)
    files = [folder / CONFIG, *weights, *tokenizer_files(folder)]
    parts = "".join(f"{path.name} {digest(path)}\n" for path in files)
    return hashlib.sha256(parts.encode()).hexdigest()


def tokenizer_files(folder: Path) -> tuple[Path, ...]:
    """What a tokenizer is made of, in a folder."""
    return tuple(folder / name for name in TOKENIZER_FILES if (folder / name).is_file())


def check_tokenizer_files(folder: Path) -> None:
    """See that a tokenizer lies in a folder.

    Raises:
        DataError: none does.
    """
    if not any((folder / name).is_file() for name in TOKENIZERS):
        raise DataError(
            f"{folder} holds no tokenizer (none of {', '.join(TOKENIZERS)}), without which no text "
            "can be scored: copy it there, or name the folder of one with --tokenizer"
        )


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptError(f"{path} cannot be read ({error}): copy it again") from None
    if not isinstance(found, dict):
        raise CorruptError(f"{path} is no mapping: copy it again")
    return found
