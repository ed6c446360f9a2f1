"""Small checkpoints of random weights for tests: one of each family, with its own tokenizer."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

FAMILIES = ("llama", "gpt2", "gpt_neox", "olmo", "olmo2", "qwen2", "qwen3")
SHAPE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 48, "initializer_range": 0.3,
    "head_dim": 8,
}  # fmt: skip
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 48, "initializer_range": 0.3}


def write_tokenizer(
    folder: Path, texts: Iterable[str], *, vocabulary: int = 320, begins: bool = False
) -> Path:
    """A byte-level BPE; one that `begins` puts a token of its own before every text, as Llama's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<|endoftext|>", "<s>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if begins:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", bos_token="<s>" if begins else None
    )
    fast.save_pretrained(folder)
    return folder


def write_checkpoint(folder: Path, family: str, *, seed: int = 0, **changes: Any) -> Path:
    """A model of a family and 320 tokens, small, with answers that differ clearly."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    shape = GPT2 if family == "gpt2" else SHAPE
    if family == "gpt_neox":
        shape = {k: v for k, v in SHAPE.items() if k not in ("head_dim", "num_key_value_heads")}
    config = AutoConfig.for_model(
        family, **{"vocab_size": 320, "eos_token_id": 0, "bos_token_id": None, "pad_token_id": None,
                   **shape, **changes}
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder
