"""Trains one run of a study with transformers and accelerate, by Cuvée's trainer contract.

    python transformers_trainer.py run.json
    torchrun --standalone --nproc-per-node 2 transformers_trainer.py run.json

It needs torch, transformers, accelerate and numpy, and nothing of Cuvée's. What `settings` of
run.json may say: `architecture` and `config` of the model ("llama", and fields of its config),
`micro_batch` (sequences of a process at once), `save_every` (steps between two states), `score`
(false leaves the scores to Cuvée).
"""

import json
import math
import os
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast


class Mixture:
    """The sequences of a run: exact counts of each domain in each stage, in a shuffled order."""

    def __init__(self, run):
        self.length, seed = run["schedule"]["sequence_length"], run["data_seed"]
        batch, steps = run["schedule"]["batch"], run["schedule"]["steps"]
        self.names, self.texts, self.seed = list(run["domains"]), [], seed
        for domain in run["domains"].values():
            split = domain["train"]
            ids = np.memmap(split["path"], run["token_type"], "r")[: split["tokens"]]
            self.texts.append(ids[: len(ids) // self.length * self.length].reshape(-1, self.length))
        rng, parts, ends = np.random.default_rng(seed), [], [0]
        for stage in run["stages"]:
            ends.append(ends[-1] + stage["tokens"])
            sequences = batch * steps * ends[-1] // run["tokens"] - sum(map(len, parts))
            quota = np.array([stage["shares"][name] for name in self.names]) * sequences
            counts = np.floor(quota).astype(int)
            short = sequences - counts.sum()
            counts[np.argsort(counts - quota, kind="stable")[:short]] += 1
            parts.append(rng.permutation(np.repeat(np.arange(len(counts)), counts)))
        self.domains = np.concatenate(parts)  # of each sequence
        self.draws = np.zeros(len(self.domains), dtype=int)  # how often its domain came before
        for d in range(len(self.names)):
            self.draws[self.domains == d] = np.arange((self.domains == d).sum())

    def sequences(self, places):
        """The sequences at some places of the run, (places, length)."""
        return torch.from_numpy(np.stack([self._sequence(i) for i in places]).astype(np.int64))

    def _sequence(self, i):
        domain, text = self.domains[i], self.texts[self.domains[i]]
        epoch, place = divmod(self.draws[i], len(text))
        order = np.random.default_rng([self.seed, domain, epoch]).permutation(len(text))
        return text[order[place]]

    def drawn(self):
        counts = np.bincount(self.domains, minlength=len(self.names)) * self.length
        return dict(zip(self.names, counts.tolist(), strict=True))


def check_fits(run, mixture, ranks):
    """End with a sentence where a process would have nothing to train on."""
    batch = run["schedule"]["batch"]
    if ranks > batch:
        sys.exit(f"{ranks} processes for {batch} sequences a step: start at most {batch}")
    for d, (name, text) in enumerate(zip(mixture.names, mixture.texts, strict=True)):
        if len(text) == 0 and (mixture.domains == d).any():
            sys.exit(f"domain {name} is shorter than one sequence of {mixture.length} tokens")


def make_model(run):
    size, settings = run["model"], run["settings"]
    fields = {
        "hidden_size": size["width"],
        "intermediate_size": size["mlp"],
        "num_hidden_layers": size["layers"],
        "num_attention_heads": size["heads"],
        "num_key_value_heads": size["kv_heads"],
        "max_position_embeddings": run["schedule"]["sequence_length"],
        "tie_word_embeddings": size["tied"],
        "rms_norm_eps": size["epsilon"],
        "rope_theta": size["rope"],
        "bos_token_id": run["end_of_text"],
        "eos_token_id": run["end_of_text"],
        **settings.get("config", {}),
        "vocab_size": run["vocabulary"],
    }
    config = AutoConfig.for_model(settings.get("architecture", "llama"), **fields)
    return AutoModelForCausalLM.from_config(config)


def rate(plan, step):
    """The learning rate of a step, as a share of the peak."""
    if step < plan["warmup"]:
        return (step + 1) / plan["warmup"]
    left = plan["steps"] - step
    if plan["kind"] == "cosine":
        done = (step - plan["warmup"]) / max(1, plan["steps"] - plan["warmup"])
        return 0.1 + 0.45 * (1 + math.cos(math.pi * done))
    if plan["kind"] == "constant" or left > plan["decay"]:
        return 1.0
    return 1 - math.sqrt(1 - left / (plan["decay"] + 1))


def train(run, accelerator):
    plan, settings = run["schedule"], run["settings"]
    mixture, model = Mixture(run), make_model(run)
    check_fits(run, mixture, accelerator.num_processes)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=plan["rate"], betas=(0.9, 0.95), weight_decay=0.1
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    schedule = LambdaLR(optimizer, lambda step: rate(plan, step))
    accelerator.register_for_checkpointing(schedule)
    steps, seen, step = plan["steps"], [], resume(run, accelerator)
    told = step
    count, ranks, rank = plan["batch"], accelerator.num_processes, accelerator.process_index
    model.train()
    while step < steps:
        own = np.arange(step * count, (step + 1) * count)[rank::ranks]
        pieces = np.array_split(own, max(1, math.ceil(len(own) / settings.get("micro_batch", 8))))
        for k, piece in enumerate(pieces):
            last = k + 1 == len(pieces)
            with nullcontext() if last else accelerator.no_sync(model):
                ids = mixture.sequences(piece).to(accelerator.device)
                with accelerator.autocast():
                    loss = model(input_ids=ids, labels=ids).loss
                weight = len(piece) * ranks / count  # gradients are averaged over processes
                accelerator.backward(loss * weight)
                seen.append(loss.detach() * weight / ranks)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        step += 1
        if step == steps or step % max(1, steps // 50) == 0:
            mean = accelerator.reduce(torch.stack(seen).sum(), "sum").item() / (step - told)
            tell(run, accelerator, step, mean)
            told, seen = step, []
        if step < steps and step % settings.get("save_every", 200) == 0:
            save(run, accelerator, step)
    return model, mixture


def tell(run, accelerator, step, loss):
    """A line of progress; a loss that is no number ends the run, which then has no result."""
    if not math.isfinite(loss):
        sys.exit(f"diverged at step {step}: the loss is {loss}")
    if accelerator.is_main_process:
        tokens = min(run["tokens"], step * run["tokens"] // run["schedule"]["steps"])
        with open(run["write"]["progress"], "a") as file:
            file.write(json.dumps({"tokens": tokens, "loss": loss}) + "\n")


def save(run, accelerator, step):
    """Keep all that is needed to go on; what is named in `latest` is whole."""
    folder = Path(run["write"]["state"])
    accelerator.save_state(str(folder / f"step-{step}"))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write(folder / "latest", str(step))
        for old in folder.glob("step-*"):
            if old.name != f"step-{step}":
                shutil.rmtree(old, ignore_errors=True)


def resume(run, accelerator):
    """Load the last state, if there is one; the step to go on with."""
    folder = Path(run["resume_from"])
    if not (folder / "latest").exists():
        return 0
    step = int((folder / "latest").read_text())
    accelerator.load_state(str(folder / f"step-{step}"))
    return step


@torch.no_grad()
def bits_per_byte(run, model, split, device):
    """Of held-out text, each document after an end of text: value, standard error, documents."""
    length, end = run["schedule"]["sequence_length"], run["end_of_text"]
    ids = np.fromfile(split["path"], run["token_type"], split["tokens"]).astype(np.int64)
    index = np.load(split["index"])
    ends = index["offsets"][1:][index["offsets"][1:] <= len(ids)]
    windows = []  # (document, ids)
    for k, (begin, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        text = np.concatenate([[end], ids[begin : stop - 1]])
        windows += [(k, text[i : i + length]) for i in range(0, max(1, len(text) - 1), length - 1)]
    bits = np.zeros(len(ends))
    for first in range(0, len(windows), 16):
        some = windows[first : first + 16]
        block = torch.full((len(some), length), end)
        for row, (_, text) in zip(block, some, strict=True):
            row[: len(text)] = torch.from_numpy(text)
        logits = model(input_ids=block.to(device)).logits[:, :-1].float()
        chance = torch.log_softmax(logits, -1).gather(-1, block[:, 1:, None].to(device))[..., 0]
        for (k, text), line in zip(some, chance, strict=True):
            bits[k] -= line[: len(text) - 1].sum().item() / math.log(2)
    sizes = index["bytes"][: len(ends)].astype(float)
    value, n = bits.sum() / sizes.sum(), len(ends)
    error = np.sqrt(((bits - value * sizes) ** 2).sum() * n / max(1, n - 1)) / sizes.sum()
    return {"value": float(value), "stderr": float(error), "n": n}


def write(path, text):
    """A file that is there whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    os.replace(draft, path)


def leave(run, model, mixture, device):
    """The model with its tokenizer, and its scores on held-out text.

    Benchmarks (`task/...`) are left to Cuvée, which then scores the checkpoint on all targets.
    """
    folder = Path(run["write"]["checkpoint"])
    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=run["tokenizer"])
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(run["end_of_text"])
    tokenizer.save_pretrained(folder)
    result = {"fingerprint": run["fingerprint"], "tokens": mixture.drawn()}
    mine = all(name.startswith("domain/") for name in run["targets"])
    if mine and run["settings"].get("score", True):
        model.eval()
        result["scores"] = {
            name: bits_per_byte(run, model, run["domains"][name[7:]]["valid"], device)
            for name in run["targets"]
        }
    write(Path(run["write"]["result"]), json.dumps(result))


def main(path):
    run = json.loads(Path(path).read_text())
    cuda = torch.cuda.is_available()
    half = cuda and run["schedule"]["precision"] == "bfloat16"
    accelerator = Accelerator(cpu=not cuda, mixed_precision="bf16" if half else "no")
    set_seed(run["seed"])
    model, mixture = train(run, accelerator)
    if accelerator.is_main_process:
        leave(run, accelerator.unwrap_model(model), mixture, accelerator.device)
    accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[-1])
