"""Trains one run of a study with OLMo-core, by Cuvée's trainer contract.

    torchrun --standalone --nproc-per-node 8 train.py run.json

It needs ai2-olmo-core 3.0 (olmo_core/train, data/source_mixture.py, nn/hf) and Cuvée's core in one
environment. The data are Cuvée's own `olmo_core` export of the run, which OLMo-core reads: a
`SourceMixtureDatasetConfig`; it has no stages, so that a run of several is refused. The model is an
OLMo 2 (norms after each layer, on queries and keys) of the size's width, depth, heads and MLP,
since OLMo-core writes no other dense one for transformers. `wsd` decays linearly there. Cuvée
scores the checkpoint. What `settings` of run.json may say: `micro_batch` (sequences of a process at
once) and `save_every` (steps between two states).
"""

import json
import math
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed.checkpoint.state_dict as states
from olmo_core.config import DType
from olmo_core.data import NumpyDataLoaderConfig, NumpyFSLDatasetConfig, TokenizerConfig
from olmo_core.data.source_mixture import SourceMixtureDatasetConfig
from olmo_core.data.types import NumpyDatasetDType
from olmo_core.distributed.parallel import DataParallelType
from olmo_core.distributed.utils import barrier, get_rank, get_world_size
from olmo_core.nn.feed_forward import FeedForwardConfig
from olmo_core.nn.hf.config import get_hf_config
from olmo_core.nn.hf.convert import convert_state_to_hf
from olmo_core.nn.transformer import TransformerBlockType, TransformerConfig
from olmo_core.optim import AdamWConfig
from olmo_core.optim.scheduler import WSD, ConstantWithWarmup, CosWithWarmup
from olmo_core.train import (
    Duration,
    TrainerConfig,
    prepare_training_environment,
    teardown_training_environment,
)
from olmo_core.train.callbacks import Callback, CheckpointerCallback
from olmo_core.train.common import TRAIN_CE_LOSS_METRIC
from olmo_core.train.train_module.transformer import (
    TransformerDataParallelConfig,
    TransformerTrainModuleConfig,
)
from olmo_core.utils import get_default_device, seed_all
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.tasks.export import ExportSpec, build_format, render_export
from cuvee.tasks.trainer.contract import read_run


def export_spec(run, folder):
    """The run as exporters take it; its text in files that hold what the run may draw, no more."""
    domains, paths = [], {}
    for number, (name, domain) in enumerate(run.domains.items()):
        text, index = domain.train, np.load(domain.train.index)
        ends = index["offsets"][1:] <= text.tokens
        domains.append(
            Domain(name, text.tokens, int(index["bytes"][ends].sum()) or 1, name, ends.sum() or 1)
        )
        paths[name] = (str(folder / f"{number}.npy"),)
        if get_rank() == 0:
            place_tokens(Path(text.path), Path(paths[name][0]), text.tokens, run.token_type)
    barrier()
    shares = [tuple(stage.shares[d.name] for d in domains) for stage in run.stages]
    stages = tuple(
        Stage(s, stage.tokens / run.tokens) for s, stage in zip(shares, run.stages, strict=True)
    )
    plan = run.schedule
    return ExportSpec(
        run.fingerprint[:12], DomainSet(tuple(domains)), stages,
        plan.steps * plan.batch * plan.sequence_length, paths,
        seed=run.data_seed, sequence=plan.sequence_length, batch=plan.batch,
    )  # fmt: skip


def place_tokens(source, place, count, kind):
    """A link to a file of ids, or its beginning where the run may draw no more."""
    place.unlink(missing_ok=True)
    if source.stat().st_size == count * np.dtype(kind).itemsize:
        place.symlink_to(source)
    else:
        np.memmap(source, kind, "r", shape=(count,)).tofile(place)


def make_data(run, folder, group):
    if get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    barrier()
    files = render_export(build_format("olmo_core"), export_spec(run, folder))
    if get_rank() == 0:
        (folder / "dataset.yaml").write_text(files["dataset.yaml"])
    barrier()
    end = run.end_of_text
    dataset = NumpyFSLDatasetConfig.from_src_mix(
        SourceMixtureDatasetConfig.from_yaml(str(folder / "dataset.yaml")),
        tokenizer=TokenizerConfig(vocab_size=run.vocabulary, eos_token_id=end, pad_token_id=end),
        sequence_length=run.schedule.sequence_length,
        dtype=NumpyDatasetDType(run.token_type),
        work_dir=str(folder),
    ).build()
    size = run.schedule.batch * run.schedule.sequence_length
    return NumpyDataLoaderConfig(
        global_batch_size=size, seed=run.data_seed, work_dir=str(folder)
    ).build(dataset, dp_process_group=group)


def make_model(run):
    size = run.model
    return TransformerConfig.llama_like(
        d_model=size.width,
        vocab_size=run.vocabulary,
        n_layers=size.layers,
        n_heads=size.heads,
        n_kv_heads=getattr(size, "kv_heads", None),
        feed_forward=FeedForwardConfig(hidden_size=size.mlp, bias=False),
        block_name=TransformerBlockType.reordered_norm,
        qk_norm=True,
        layer_norm_eps=getattr(size, "epsilon", 1e-6),
        rope_theta=int(getattr(size, "rope", 10_000)),
        tie_word_embeddings=getattr(size, "tied", False),
    ).build(init_device="meta")


def make_module(run, model):
    plan, cuda = run.schedule, get_default_device().type == "cuda"
    schedulers = {
        "wsd": lambda: WSD(warmup=plan.warmup, decay=plan.decay, decay_fraction=None),
        "cosine": lambda: CosWithWarmup(warmup=plan.warmup),
        "constant": lambda: ConstantWithWarmup(warmup=plan.warmup),
    }
    several = TransformerDataParallelConfig(name=DataParallelType.ddp)
    half = cuda and plan.precision == "bfloat16"
    if plan.batch % get_world_size():
        sys.exit(
            f"{plan.batch} sequences a step cannot be divided among {get_world_size()} processes"
        )
    micro = math.gcd(plan.batch // get_world_size(), run.settings.get("micro_batch", 8))
    return TransformerTrainModuleConfig(
        rank_microbatch_size=micro * plan.sequence_length,
        max_sequence_length=plan.sequence_length,
        optim=AdamWConfig(lr=plan.rate, betas=(0.9, 0.95), weight_decay=0.1),
        scheduler=schedulers[plan.kind](),
        max_grad_norm=1.0,
        dp_config=several if get_world_size() > 1 else None,
        autocast_precision=DType.bfloat16 if half else None,
    ).build(model)


@dataclass
class ProgressLines(Callback):
    """Appends to progress.jsonl; a loss that is no number ends the run, which has no result."""

    path: str = ""
    step_tokens: int = 0

    def log_metrics(self, step, metrics):
        loss = metrics.get(TRAIN_CE_LOSS_METRIC)
        if loss is None or get_rank() != 0:
            return
        if loss != loss or loss in (float("inf"), -float("inf")):
            raise SystemExit(f"diverged at step {step}: the loss is {loss}")
        with open(self.path, "a") as file:
            line = {"tokens": step * self.step_tokens, "loss": float(loss)}
            file.write(json.dumps(line) + "\n")


def leave(run, module):
    """The model for transformers, with its tokenizer; result.json last, and in one piece."""
    options = states.StateDictOptions(full_state_dict=True, cpu_offload=True)
    state = states.get_model_state_dict(module.model, options=options)  # every process takes part
    if get_rank() == 0:
        config = get_hf_config(module.model)
        config.max_position_embeddings = run.schedule.sequence_length
        config.eos_token_id = run.end_of_text
        model = AutoModelForCausalLM.from_config(config)
        converted = convert_state_to_hf(config, state)
        model.load_state_dict({name: value.contiguous() for name, value in converted.items()})
        model.save_pretrained(run.write.checkpoint)
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=run.tokenizer)
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(run.end_of_text)
        tokenizer.save_pretrained(run.write.checkpoint)
        draft = Path(f"{run.write.result}.draft")
        draft.write_text(json.dumps({"fingerprint": run.fingerprint}))
        os.replace(draft, run.write.result)
    barrier()


def main(path):
    run = read_run(Path(path))
    if len(run.stages) > 1:
        sys.exit("OLMo-core's mixtures have no stages, and this run has some: take another trainer")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    prepare_training_environment(seed=run.seed, backend=backend)
    state, plan = Path(run.write.state), run.schedule
    seed_all(run.seed)
    module = make_module(run, make_model(run))
    loader = make_data(run, state / "data", module.dp_process_group)
    every = min(run.settings.get("save_every", 200), plan.steps)
    tokens = plan.batch * plan.sequence_length
    trainer = TrainerConfig(
        save_folder=str(state / "steps"),
        save_overwrite=True,
        max_duration=Duration.steps(plan.steps),
        metrics_collect_interval=max(1, plan.steps // 50),
        async_bookkeeping=False,  # which waits for itself where gloo is all there is
        callbacks={
            "checkpointer": CheckpointerCallback(
                save_interval=every, max_checkpoints=2, save_async=False
            ),
            "progress": ProgressLines(path=run.write.progress, step_tokens=tokens),
        },
    ).build(module, loader)
    trainer.fit()
    if trainer.global_step < plan.steps:
        sys.exit(f"ended at step {trainer.global_step} of {plan.steps}")
    leave(run, module)
    shutil.rmtree(state / "data", ignore_errors=True)
    teardown_training_environment()


if __name__ == "__main__":
    main(sys.argv[-1])
