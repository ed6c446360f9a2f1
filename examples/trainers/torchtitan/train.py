"""Trains one run of a study with torchtitan, by Cuvée's trainer contract.

    torchrun --standalone --nproc-per-node 8 train.py run.json

It needs torchtitan 0.3 (torchtitan/trainer.py, config/configs.py, models/llama3) and transformers,
and nothing of Cuvée's. The model is a Llama of the size's shape; documents attend to themselves
alone, as torchtitan has it. Sequences are dealt out in exact counts by stage, each domain packed
alone. The last checkpoint is written in Hugging Face's format, and Cuvée scores it. What `settings`
of run.json may say: `micro_batch` (sequences of a process at once) and `save_every` (steps between
two states).
"""

import json
import math
import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.dataloader import BaseDataLoader
from torchtitan.components.loss import IGNORE_INDEX, CrossEntropyLoss
from torchtitan.components.metrics import MetricsProcessor
from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw
from torchtitan.config import ParallelismConfig, TrainingConfig
from torchtitan.config.configs import DebugConfig
from torchtitan.distributed.pipeline_parallel import pipeline_llm
from torchtitan.models.common import ComplexRoPE, Embedding, Linear, RMSNorm
from torchtitan.models.llama3 import (
    _EMBEDDING_INIT,
    _EMBEDDING_SKIP_INIT,
    _NORM_INIT,
    Llama3Model,
    Llama3StateDictAdapter,
    _build_llama3_layers,
    _output_linear_init,
    parallelize_llama,
)
from torchtitan.protocols.model_spec import ModelSpec
from torchtitan.tools.logging import init_logger
from torchtitan.trainer import Trainer
from transformers import LlamaConfig, PreTrainedTokenizerFast

ROPE, EPSILON = 10_000.0, 1e-5  # where run.json does not say


class Mixture:
    """The sequences of a run: exact counts of each domain in each stage, in a shuffled order."""

    def __init__(self, run):
        self.length, self.seed = run["schedule"]["sequence_length"], run["data_seed"]
        batch, steps = run["schedule"]["batch"], run["schedule"]["steps"]
        self.texts, names = [], list(run["domains"])
        for domain in run["domains"].values():
            split = domain["train"]
            ids = np.memmap(split["path"], run["token_type"], "r")[: split["tokens"]]
            self.texts.append(ids[: len(ids) // self.length * self.length].reshape(-1, self.length))
        rng, parts, end = np.random.default_rng(self.seed), [], 0
        for stage in run["stages"]:
            end += stage["tokens"]
            count = batch * steps * end // run["tokens"] - sum(map(len, parts))
            quota = np.array([stage["shares"][name] for name in names]) * count
            counts = np.floor(quota).astype(int)
            short = count - counts.sum()
            counts[np.argsort(counts - quota, kind="stable")[:short]] += 1
            parts.append(rng.permutation(np.repeat(np.arange(len(counts)), counts)))
        self.domains = np.concatenate(parts)  # of each sequence
        self.draws = np.zeros(len(self.domains), dtype=int)  # how often its domain came before
        for d, (name, text) in enumerate(zip(names, self.texts, strict=True)):
            here = self.domains == d
            if here.any() and not len(text):
                sys.exit(f"domain {name} is shorter than one sequence of {self.length} tokens")
            self.draws[here] = np.arange(here.sum())
        drawn = np.bincount(self.domains, minlength=len(names)) * self.length
        self.tokens = dict(zip(names, drawn.tolist(), strict=True))

    def sequence(self, i):
        domain, text = self.domains[i], self.texts[self.domains[i]]
        epoch, place = divmod(self.draws[i], len(text))
        order = np.random.default_rng([self.seed, domain, epoch]).permutation(len(text))
        return text[order[place]]


class RunLoader(BaseDataLoader):
    """Gives torchtitan the sequences of run.json; goes on after the last one of a checkpoint."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        run: str = ""

    def __init__(self, config, *, dp_world_size, dp_rank, local_batch_size, **_):
        run = json.loads(Path(config.run).read_text())
        self.mixture, self.end = Mixture(run), run["end_of_text"]
        self.rank, self.ranks, self.batch = dp_rank, dp_world_size, local_batch_size
        self.seen = 0  # sequences, of all processes

    def __iter__(self):
        while self.seen < len(self.mixture.domains):
            block = range(self.seen, self.seen + self.batch * self.ranks)
            rows = [self.mixture.sequence(i) for i in block[self.rank :: self.ranks]]
            ids = torch.from_numpy(np.stack(rows).astype(np.int64))
            self.seen = block.stop
            yield {"input": ids, "positions": positions(ids, self.end)}, following(ids)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


def following(ids):
    """The target of each id; the last one of a sequence has none."""
    return torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], IGNORE_INDEX)], 1)


def positions(ids, end):
    """Places of ids in their documents, each of which ends with an end of text."""
    places = torch.arange(ids.shape[1]).expand_as(ids)
    begins = torch.zeros_like(ids)
    begins[:, 1:] = torch.where(ids[:, :-1] == end, places[:, 1:], 0)
    return places - begins.cummax(1).values


class ProgressLines(MetricsProcessor):
    """torchtitan's metrics, and a line of progress.jsonl each time."""

    @dataclass(kw_only=True, slots=True)
    class Config(MetricsProcessor.Config):
        progress: str = ""
        step_tokens: int = 0

    def log(self, step, global_avg_loss, global_max_loss, grad_norm, extra_metrics=None):
        super().log(step, global_avg_loss, global_max_loss, grad_norm, extra_metrics)
        if torch.distributed.get_rank() == 0:
            line = {"tokens": step * self.config.step_tokens, "loss": float(global_avg_loss)}
            with open(self.config.progress, "a") as file:
                file.write(json.dumps(line) + "\n")


def model_config(run):
    size, width, ids = run["model"], run["model"]["width"], run["vocabulary"]
    heads, length = size["heads"], run["schedule"]["sequence_length"]
    tied, epsilon = size.get("tied", False), size.get("epsilon", EPSILON)
    norm = RMSNorm.Config(normalized_shape=width, eps=epsilon, param_init=_NORM_INIT)
    begins = _EMBEDDING_SKIP_INIT if tied else _EMBEDDING_INIT
    layers = _build_llama3_layers(
        n_layers=size["layers"],
        dim=width,
        n_heads=heads,
        n_kv_heads=size.get("kv_heads") or heads,
        hidden_dim=size["mlp"],
        rope=ComplexRoPE.Config(
            dim=width // heads, max_seq_len=length, theta=size.get("rope", ROPE)
        ),
        attn_backend="flex",
    )
    for layer in layers:
        layer.attention_norm, layer.ffn_norm = replace(norm), replace(norm)
    return Llama3Model.Config(
        dim=width,
        vocab_size=ids,
        enable_weight_tying=tied,
        tok_embeddings=Embedding.Config(num_embeddings=ids, embedding_dim=width, param_init=begins),
        norm=norm,
        lm_head=Linear.Config(
            in_features=width, out_features=ids, param_init=_output_linear_init(width)
        ),
        layers=layers,
    )


def schedule(plan):
    """`wsd` falls as 1 - sqrt over its last steps; `cosine` to a tenth."""
    decays = {
        "wsd": {"decay_ratio": plan["decay"] / plan["steps"], "decay_type": "sqrt"},
        "cosine": {"decay_type": "cosine", "min_lr_factor": 0.1},
        "constant": {"decay_ratio": 0.0},
    }
    return LRSchedulersContainer.Config(warmup_steps=plan["warmup"], **decays[plan["kind"]])


def trainer_config(path, run, ranks):
    plan, settings, write = run["schedule"], run["settings"], run["write"]
    if plan["batch"] % ranks:
        sys.exit(f"{plan['batch']} sequences a step cannot be divided among {ranks} processes")
    micro = math.gcd(plan["batch"] // ranks, settings.get("micro_batch", 8))
    return Trainer.Config(
        model_spec=ModelSpec(
            name="llama3",
            flavor=run["model"]["name"],
            model=model_config(run),
            parallelize_fn=parallelize_llama,
            pipelining_fn=pipeline_llm,
            post_optimizer_build_fn=None,
            state_dict_adapter=Llama3StateDictAdapter,
        ),
        hf_assets_path=write["checkpoint"],
        dump_folder=write["state"],
        loss=CrossEntropyLoss.Config(global_vocab_size=run["vocabulary"]),
        optimizer=default_adamw(lr=plan["rate"]),
        lr_scheduler=schedule(plan),
        training=TrainingConfig(
            local_batch_size=micro,
            global_batch_size=plan["batch"],
            seq_len=plan["sequence_length"],
            steps=plan["steps"],
            mixed_precision_param=plan["precision"],
        ),
        parallelism=ParallelismConfig(spmd_backend="partial_dtensor"),  # as torch 2.13 has it
        dataloader=RunLoader.Config(run=str(path)),
        metrics=ProgressLines.Config(
            log_freq=max(1, plan["steps"] // 50),
            progress=write["progress"],
            step_tokens=plan["batch"] * plan["sequence_length"],
        ),
        checkpoint=CheckpointManager.Config(
            enable=True,
            folder="steps",
            interval=settings.get("save_every", 200),
            keep_latest_k=2,
            last_save_in_hf=True,
        ),
        debug=DebugConfig(seed=run["seed"]),
    )


def describe_model(run):
    """config.json and tokenizer, which torchtitan reads before and does not write."""
    folder, size = run["write"]["checkpoint"], run["model"]
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        hidden_size=size["width"],
        intermediate_size=size["mlp"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size.get("kv_heads") or size["heads"],
        vocab_size=run["vocabulary"],
        max_position_embeddings=run["schedule"]["sequence_length"],
        rope_theta=size.get("rope", ROPE),
        rms_norm_eps=size.get("epsilon", EPSILON),
        tie_word_embeddings=size.get("tied", False),
        bos_token_id=run["end_of_text"],
        eos_token_id=run["end_of_text"],
    ).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=run["tokenizer"])
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(run["end_of_text"])
    tokenizer.save_pretrained(folder)


def leave(run):
    """The last step's weights beside config and tokenizer; result.json last, and in one piece."""
    last = Path(run["write"]["state"]) / "steps" / f"step-{run['schedule']['steps']}"
    for file in last.glob("*.safetensors*"):
        shutil.copy(file, run["write"]["checkpoint"])
    result = {"fingerprint": run["fingerprint"], "tokens": Mixture(run).tokens}
    draft = Path(run["write"]["result"] + ".draft")
    draft.write_text(json.dumps(result))
    os.replace(draft, run["write"]["result"])


def main(path):
    run, rank = json.loads(Path(path).read_text()), int(os.environ["RANK"])
    describe_model(run)  # by every process: none waits for another, and all write the same
    init_logger()
    last = Path(run["write"]["state"]) / "steps" / f"step-{run['schedule']['steps']}"
    if not list(last.glob("*.safetensors")):  # else an earlier attempt ended after this
        trainer = trainer_config(path, run, int(os.environ["WORLD_SIZE"])).build()
        trainer.train()
        trainer.close()
        torch.distributed.destroy_process_group()
    if rank == 0:
        leave(run)


if __name__ == "__main__":
    main(sys.argv[-1])
