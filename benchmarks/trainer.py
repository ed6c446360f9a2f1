"""Tokens per second of the proxy trainer against a plain transformers loop.

    python benchmarks/trainer.py                   one core, sizes 0.6M and 2M; about 5 minutes
    python benchmarks/trainer.py --vocabularies    one core, 0.6M at 4k to 256k tokens; 5 minutes

Each figure is the median over rounds; in a round every contestant has a process of its own, in
turn, on one thread. Speed is counted in seconds of processor time (user and system) on a CPU, so
that neighbors on a shared machine count less (a GPU: `device.py`). The last line is JSON.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from synthetic_corpus import SyntheticCorpus

from cuvee.proxies import ladder
from cuvee.proxies.model.grouped_matmul import grouped_matmul
from cuvee.proxies.train.device import WORKER_ENVIRONMENT, keep_memory
from cuvee.proxies.train.trainer import Training

VOCABULARY, BATCH = 4096, 8
SIZES = ("0.6M", "2M")
PRECISIONS = ("float32", "bfloat16")
ALLOCATORS = ("as it comes", "tuned")
TOKENS = 10**6  # of the planned run: for these, the ladder's batch is `BATCH` sequences
VOCABULARIES = (4096, 32_768, 131_072, 262_144)
WARM = 4  # steps before the clock starts


def ours(size: str, precision: str, vocabulary: int = VOCABULARY) -> Callable[[], None]:
    """One step of our trainer, stream included."""
    corpus = SyntheticCorpus(vocabulary, {"one": 100_000, "two": 100_000})
    spec = corpus.spec({"one": 0.5, "two": 0.5}, size=size, tokens=TOKENS, precision=precision)
    keep_memory()
    training = Training([spec], corpus, device="cpu", references={})
    assert training.plan.batch == BATCH
    return training.advance


def theirs(size: str, precision: str) -> Callable[[], None]:
    """One step of a plain loop: transformers' Llama, torch's AdamW, autocast for bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    rung = ladder.model_size(size)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=rung.width,
        intermediate_size=rung.mlp,
        num_hidden_layers=rung.layers,
        num_attention_heads=rung.heads,
        num_key_value_heads=rung.heads,
        max_position_embeddings=rung.context,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1)
    text = torch.randint(0, VOCABULARY, (BATCH, rung.context))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            loss = model(input_ids=text, labels=text).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def speed(step: Callable[[], None], tokens: int, steps: int) -> float:
    """Tokens per second of processor time."""
    for _ in range(WARM):
        step()
    began = time.process_time()
    for _ in range(steps):
        step()
    return steps * tokens / (time.process_time() - began)


def peak(dtype: torch.dtype) -> float:
    """FLOP/s of a product of 1024 x 1024 matrices by the kernel that the trainer uses."""
    a, b = (torch.randn(1, 1024, 1024).to(dtype) for _ in range(2))
    grouped_matmul(a, b)
    began = time.process_time()
    for _ in range(20):
        grouped_matmul(a, b)
    return 20 * 2 * 1024**3 / (time.process_time() - began)


def child(who: str, size: str, steps: int) -> None:
    """One contestant at one size, both precisions; prints JSON."""
    torch.set_num_threads(1)
    make = ours if who == "ours" else theirs
    tokens = BATCH * ladder.model_size(size).context
    print(json.dumps({p: speed(make(size, p), tokens, steps) for p in PRECISIONS}))


def contest(rounds: int, steps: int) -> dict[tuple[str, str, str, str], float]:
    """Median speed by (who, size, precision, allocator)."""
    seen: dict[tuple[str, str, str, str], list[float]] = {}
    for _ in range(rounds):
        for size in SIZES:
            for allocator in ALLOCATORS:
                for who in ("transformers", "ours"):
                    command = [sys.executable, __file__, "--child", who, size, str(steps)]
                    tuned = WORKER_ENVIRONMENT if allocator == "tuned" else {"OMP_NUM_THREADS": "1"}
                    environment = {**os.environ, **tuned}
                    done = subprocess.run(
                        command, env=environment, capture_output=True, text=True, check=True
                    )
                    for precision, value in json.loads(done.stdout.splitlines()[-1]).items():
                        seen.setdefault((who, size, precision, allocator), []).append(value)
    return {key: statistics.median(values) for key, values in seen.items()}


def on_cpu(rounds: int, steps: int) -> dict[str, float]:
    """The contest on one core, printed as a table."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # children inherit it
    peaks = {p: peak(getattr(torch, p)) for p in PRECISIONS}
    medians = contest(rounds, steps)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one core")
    print(f"vocabulary {VOCABULARY}, batch {BATCH} x 256, {steps} steps, median of {rounds}")
    print("peaks: " + ", ".join(f"{p} {v / 1e9:.0f} GFLOP/s" for p, v in peaks.items()))
    print(f"{'size':6}{'precision':11}{'allocator':13}{'transformers':>14}{'ours':>10}{'ratio':>8}")
    result: dict[str, float] = {}
    for size in SIZES:
        for precision in PRECISIONS:
            for allocator in ALLOCATORS:
                plain = medians["transformers", size, precision, allocator]
                own = medians["ours", size, precision, allocator]
                speeds = f"{plain:14,.0f}{own:10,.0f}{own / plain:8.2f}"
                print(f"{size:6}{precision:11}{allocator:13}{speeds}")
                result[f"{size} {precision} {allocator}: transformers"] = round(plain)
                result[f"{size} {precision} {allocator}: ours"] = round(own)
        best = {
            (who, a): max(medians[who, size, p, a] for p in PRECISIONS)
            for who in ("transformers", "ours")
            for a in ALLOCATORS
        }
        result[f"ratio_{size}"] = best["ours", "as it comes"] / best["transformers", "as it comes"]
        result[f"ratio_tuned_{size}"] = best["ours", "tuned"] / best["transformers", "tuned"]
        result[f"ratio_float32_{size}"] = (
            medians["ours", size, "float32", "as it comes"]
            / medians["transformers", size, "float32", "as it comes"]
        )
        flops = ladder.model_size(size).flops(1, VOCABULARY)
        for p in PRECISIONS:
            share = medians["ours", size, p, "tuned"] * flops / peaks[p]
            result[f"gemm_fraction_{p}_{size}"] = share
        result[f"gemm_fraction_{size}"] = result[f"gemm_fraction_bfloat16_{size}"]
    return {key: round(value, 3) for key, value in result.items()}


def peak_memory() -> float:
    """Most memory that this process had so far, MB; its parent's is not counted."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def wide_child(vocabulary: int, precision: str) -> None:
    """Speed and memory of the trainer at a vocabulary; prints JSON."""
    torch.set_num_threads(1)
    before = peak_memory()
    step = ours("0.6M", precision, vocabulary)
    rate = speed(step, BATCH * ladder.model_size("0.6M").context, 4)
    print(json.dumps({"rate": rate, "memory": peak_memory() - before}))


def on_vocabularies(rounds: int) -> dict[str, float]:
    """Tokens per second of processor time, and memory of the trainer, by vocabulary."""
    result: dict[str, float] = {}
    print(f"torch {torch.__version__}, 0.6M, batch {BATCH} x 256, 4 steps, median of {rounds}")
    print(f"{'vocabulary':>10} {'precision':11}{'tokens/s':>10}{'MB':>8}{'MB of state':>13}")
    for precision in PRECISIONS:
        for vocabulary in VOCABULARIES:
            command = [sys.executable, __file__, "--wide", str(vocabulary), precision]
            seen = [
                json.loads(
                    subprocess.run(command, capture_output=True, text=True, check=True).stdout
                )
                for _ in range(rounds)
            ]
            rate = statistics.median(one["rate"] for one in seen)
            memory = max(one["memory"] for one in seen)
            state = 16 * ladder.model_size("0.6M").parameters(vocabulary) / 1e6
            print(f"{vocabulary:10,} {precision:11}{rate:10,.0f}{memory:8.0f}{state:13.0f}")
            result[f"{vocabulary} {precision} tokens_s"] = round(rate)
            result[f"{vocabulary} {precision} memory_mb"] = round(memory)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--vocabularies", action="store_true")
    parser.add_argument("--wide", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.wide:
        wide_child(int(given.wide[0]), given.wide[1])
        return
    if given.vocabularies:
        print(json.dumps(on_vocabularies(given.rounds)))
        return
    if given.child:
        child(given.child[0], given.child[1], int(given.child[2]))
        return
    print(json.dumps(on_cpu(given.rounds, given.steps)))


if __name__ == "__main__":
    main()
