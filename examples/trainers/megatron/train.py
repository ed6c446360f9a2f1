"""Trains one run of a study with Megatron-LM, by Cuvée's trainer contract.

    python train.py 8 run.json

8 is the number of processes (`"{gpus}"` in a recipe's command). It needs Megatron-LM (its checkout
in PYTHONPATH, where `cuvee` is called; `pretrain_gpt.py` is taken from there), torch, transformers
and Cuvée's core in one environment. Token files are read where they lie: an index is written beside
a link to each. The blend and its phases are Cuvée's own `megatron` export of the run; training ends
with each phase and is started again. The model is a Llama of the size's shape, on data-parallel
processes alone; its last checkpoint is written for transformers, and Cuvée scores it. Megatron-LM
has one seed for weights and order: the run's. What `settings` of run.json may say: `micro_batch`
(sequences of a process at once) and `save_every` (steps between two states).

Source: Megatron-LM at 001b00c: megatron/training/arguments.py, training.py (`training_log`,
`get_train_valid_test_num_samples`), core/datasets/indexed_dataset.py, transformer/attention.py.
"""

import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, PreTrainedTokenizerFast

from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.tasks.export import ExportSpec, build_format, render_export
from cuvee.tasks.trainer.contract import read_run

HEADER = b"MMIDIDX\x00\x00"
TYPES = {"uint16": 8, "uint32": 4}  # Megatron-LM's codes; ids below 2**31 are its int32
STEP = re.compile(r"consumed samples:\s+(\d+) \|.*\| lm loss: ([^ |]+)")


def write_index(domain, prefix, kind):
    """A file of ids as Megatron-LM reads it, without those that the run may not draw."""
    split, ends = domain.train, np.load(domain.train.index)["offsets"][1:]
    ends = np.minimum(ends[: np.searchsorted(ends, split.tokens) + 1], split.tokens)
    lengths = np.diff(ends, prepend=0)
    lengths = lengths[lengths > 0]
    begins = np.cumsum(lengths) - lengths
    with open(f"{prefix}.idx", "wb") as file:
        file.write(HEADER + struct.pack("<QB", 1, TYPES[kind]))
        file.write(struct.pack("<QQ", len(lengths), len(lengths) + 1))
        file.write(lengths.astype(np.int32).tobytes())
        file.write((begins * np.dtype(kind).itemsize).astype(np.int64).tobytes())
        file.write(np.arange(len(lengths) + 1, dtype=np.int64).tobytes())
    Path(f"{prefix}.bin").unlink(missing_ok=True)
    Path(f"{prefix}.bin").symlink_to(split.path)
    return len(lengths)


def blend_files(run, folder):
    """Blends and arguments of each phase, by Cuvée's exporter."""
    folder.mkdir(parents=True, exist_ok=True)
    domains, paths, plan = [], {}, run.schedule
    for number, (name, domain) in enumerate(run.domains.items()):
        prefix = folder / str(number)
        documents = write_index(domain, prefix, run.token_type)
        tokens = domain.train.tokens
        domains.append(Domain(name, tokens, tokens, name, documents))
        paths[name] = (str(prefix),)
    stages = tuple(
        Stage(tuple(stage.shares[d.name] for d in domains), stage.tokens / run.tokens)
        for stage in run.stages
    )
    spec = ExportSpec(
        run.fingerprint[:12], DomainSet(tuple(domains)), stages,
        plan.steps * plan.batch * plan.sequence_length, paths,
        seed=run.seed, sequence=plan.sequence_length, batch=plan.batch,
    )  # fmt: skip
    files = render_export(build_format("megatron"), spec)
    for name, text in files.items():
        (folder / name).write_text(text)
    return files, spec.steps()


def model_arguments(run):
    size, plan = run.model, run.schedule
    keys = getattr(size, "kv_heads", None) or size.heads
    words = [
        f"--num-layers {size.layers} --hidden-size {size.width} --ffn-hidden-size {size.mlp}",
        f"--num-attention-heads {size.heads} --max-position-embeddings {plan.sequence_length}",
        f"--position-embedding-type rope --rotary-base {int(getattr(size, 'rope', 10_000))}",
        f"--normalization RMSNorm --norm-epsilon {getattr(size, 'epsilon', 1e-5)}",
        "--swiglu --disable-bias-linear --attention-dropout 0 --hidden-dropout 0",
        "--make-vocab-size-divisible-by 1",
    ]
    if keys != size.heads:
        words.append(f"--group-query-attention --num-query-groups {keys}")
    if not getattr(size, "tied", False):
        words.append("--untie-embeddings-and-output-weights")
    return words


def training_arguments(run, ranks):
    """Everything is counted in samples, as the blends are."""
    plan, settings = run.schedule, run.settings
    decays = {
        "wsd": "--lr-decay-style WSD --lr-wsd-decay-style minus_sqrt --min-lr 0 "
        f"--lr-wsd-decay-samples {plan.decay * plan.batch}",
        "cosine": f"--lr-decay-style cosine --min-lr {plan.rate / 10}",
        "constant": "--lr-decay-style constant",
    }
    micro = int(np.gcd(plan.batch // ranks, settings.get("micro_batch", 8)))
    return [
        f"--lr {plan.rate} {decays[plan.kind]} --lr-warmup-samples {plan.warmup * plan.batch}",
        f"--global-batch-size {plan.batch} --micro-batch-size {micro}",
        "--weight-decay 0.1 --adam-beta1 0.9 --adam-beta2 0.95 --clip-grad 1.0",
        "--bf16" if plan.precision == "bfloat16" else "",
        f"--log-interval {max(1, plan.steps // 50)} --eval-iters 0 --eval-interval {plan.steps}",
        f"--save-interval {settings.get('save_every', 200)} --ckpt-format torch",
    ]


def steps_done(steps):
    try:
        return int((steps / "latest_checkpointed_iteration.txt").read_text())
    except (OSError, ValueError):
        return 0


def train(run, ranks):
    state, total = Path(run.write.state), run.schedule.steps
    if run.schedule.batch % ranks:
        sys.exit(f"{run.schedule.batch} sequences a step cannot be divided among {ranks} processes")
    files, begins = blend_files(run, state / "data")
    steps, words = state / "steps", [*model_arguments(run), *training_arguments(run, ranks)]
    while (done := steps_done(steps)) < total:
        phase = sum(begin <= done for begin in begins)
        given = files["arguments.txt" if len(begins) == 1 else f"arguments-{phase}.txt"]
        arguments = " ".join([*given.split(), *words]).split()
        arguments += ["--save", str(steps), "--load", str(steps)]
        arguments += ["--tokenizer-type", "HuggingFaceTokenizer"]
        follow(run, [*arguments, "--tokenizer-model", run.write.checkpoint], ranks, state / "data")
        if steps_done(steps) <= done:
            sys.exit(f"Megatron-LM ended well at step {done} of {total} and kept nothing new")


def follow(run, arguments, ranks, folder):
    """One start of Megatron-LM; its log goes on to ours, and its losses to progress.jsonl."""
    found = importlib.util.find_spec("megatron.training")
    if found is None or found.origin is None:
        sys.exit("megatron.training is not there: put the checkout of Megatron-LM in PYTHONPATH")
    program = Path(found.origin).parents[2] / "pretrain_gpt.py"
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *launch, str(program), *arguments]
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, cwd=folder, text=True, errors="replace", **told) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if step := STEP.search(line):
                tokens = int(step[1]) * run.schedule.sequence_length
                with open(run.write.progress, "a") as file:
                    file.write(json.dumps({"tokens": tokens, "loss": float(step[2])}) + "\n")
    if process.returncode:
        sys.exit(process.returncode)


def llama_weights(model, layers, heads, keys):
    """Megatron-LM's weights under the names of transformers.

    Norms lie in the matrix after them where Transformer Engine computes both. Queries, keys and
    values are one matrix: for each group of queries these, then its key and its value.
    """

    def first(*names):
        return next(model[name] for name in names if name in model)

    weights = {
        "model.embed_tokens.weight": model["embedding.word_embeddings.weight"],
        "model.norm.weight": model["decoder.final_layernorm.weight"],
    }
    if "output_layer.weight" in model:
        weights["lm_head.weight"] = model["output_layer.weight"]
    for i in range(layers):
        old, new = f"decoder.layers.{i}.", f"model.layers.{i}."
        joint = model[f"{old}self_attention.linear_qkv.weight"]
        width = joint.shape[-1]
        groups = joint.view(keys, heads // keys + 2, -1, width)
        gate, up = model[f"{old}mlp.linear_fc1.weight"].chunk(2)
        before = f"{old}self_attention.linear_qkv.layer_norm_weight"
        between = f"{old}mlp.linear_fc1.layer_norm_weight"
        weights |= {
            f"{new}self_attn.q_proj.weight": groups[:, :-2].reshape(-1, width),
            f"{new}self_attn.k_proj.weight": groups[:, -2].reshape(-1, width),
            f"{new}self_attn.v_proj.weight": groups[:, -1].reshape(-1, width),
            f"{new}self_attn.o_proj.weight": model[f"{old}self_attention.linear_proj.weight"],
            f"{new}mlp.gate_proj.weight": gate,
            f"{new}mlp.up_proj.weight": up,
            f"{new}mlp.down_proj.weight": model[f"{old}mlp.linear_fc2.weight"],
            f"{new}input_layernorm.weight": first(before, f"{old}input_layernorm.weight"),
            f"{new}post_attention_layernorm.weight": first(
                between, f"{old}pre_mlp_layernorm.weight"
            ),
        }
    return {name: value.float().clone().contiguous() for name, value in weights.items()}


def describe_model(run):
    """config.json and the tokenizer, which Megatron-LM reads."""
    size, folder = run.model, run.write.checkpoint
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        hidden_size=size.width,
        intermediate_size=size.mlp,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=getattr(size, "kv_heads", None) or size.heads,
        vocab_size=run.vocabulary,
        max_position_embeddings=run.schedule.sequence_length,
        rope_theta=float(getattr(size, "rope", 10_000)),
        rms_norm_eps=getattr(size, "epsilon", 1e-5),
        tie_word_embeddings=getattr(size, "tied", False),
        bos_token_id=run.end_of_text,
        eos_token_id=run.end_of_text,
    ).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=run.tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(run.end_of_text)
    tokenizer.save_pretrained(folder)


def leave(run):
    """The last checkpoint for transformers; result.json last, and in one piece."""
    steps = Path(run.write.state) / "steps"
    file = steps / f"iter_{steps_done(steps):07d}" / "mp_rank_00" / "model_optim_rng.pt"
    kept = torch.load(file, map_location="cpu", weights_only=False)  # our own, of this run
    size = run.model
    weights = llama_weights(
        kept["model"], size.layers, size.heads, getattr(size, "kv_heads", None) or size.heads
    )
    place = str(Path(run.write.checkpoint) / "model.safetensors")
    save_file(weights, place, metadata={"format": "pt"})
    draft = Path(f"{run.write.result}.draft")
    draft.write_text(json.dumps({"fingerprint": run.fingerprint}))
    os.replace(draft, run.write.result)


def main(ranks, path):
    run = read_run(Path(path))
    describe_model(run)
    train(run, int(ranks))
    leave(run)


if __name__ == "__main__":
    main(*sys.argv[-2:])
