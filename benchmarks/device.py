"""Does the trainer train, score and go on right on a GPU, and how fast?

Imports `cuvee.proxies` alone.

    python benchmarks/device.py                  on a GPU, at most six minutes
    python benchmarks/device.py --device cpu     the same program at tiny sizes, to see that it runs

Parts, in this order: what a GPU computes held against the CPU (losses, scores, a pack against its
models alone, a resumed training); whether a step makes the host wait; tokens a second of packs of K
models against one model, with the share of the bfloat16 peak that was measured just before, and the
memory that they took beside what was planned; the same of a loop of transformers under
`torch.compile`; where the time of a step goes. A speed is the median over rounds of wall time, the
device waited for at both ends. After each part, and each K, the last line printed is JSON of all
that is known so far, so that a run that is cut short has lost nothing; it cuts itself short when
its time is up, in the middle of a part if need be.

Runs on Python 3.11 and later and torch 2.11 and later; needs numpy, scipy, safetensors and
threadpoolctl beside it.
"""

import argparse
import gc
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.profiler
from synthetic_corpus import SyntheticCorpus

from cuvee.proxies import ladder
from cuvee.proxies.model.likelihood import PackLikelihood
from cuvee.proxies.train import batching, training_state
from cuvee.proxies.train.branching import WHOLE_RUN
from cuvee.proxies.train.trainer import Training

VOCABULARY = 4096
CORPUS = SyntheticCorpus(VOCABULARY, {"one": 200_000, "two": 200_000})
TOKENS = 10**6  # of the planned run: for these, the ladder's batch is 8 sequences
PACKS = {"0.6M": (1, 4, 16, 64, 256), "10M": (1, 4, 16), "100M": (1, 4, 16)}
TINY = {"0.3M": (1, 2)}
ROUNDS, SECONDS, WARM = 3, 1.5, 5  # five: a GPU's step is recorded at the fourth
LIMIT = 360.0  # seconds of the whole program
SIXTEEN = {"cuda": "bfloat16", "cpu": "float32"}


def begun(size: str, models: int, device: str, precision: str, **fields: Any) -> Training:
    """A pack of models that differ in seed and mixture, before its first step."""
    specs = [
        CORPUS.spec(
            {"one": 0.25 + 0.5 * k / models, "two": 0.75 - 0.5 * k / models},
            **{"size": size, "tokens": TOKENS, "precision": precision, "seed": k, **fields},
        )
        for k in range(models)
    ]
    return Training(specs, CORPUS, device=device, references={})


def trained(training: Training, steps: int) -> torch.Tensor:
    """Losses (steps, K) of the next steps, on the CPU, float64."""
    first = training.step
    for _ in range(steps):
        training.advance()
    return training.losses[first : first + steps].cpu().double()


def distance(values: torch.Tensor, truth: torch.Tensor) -> float:
    """The largest difference, as a share of the true value; infinite where one is no number."""
    found = float(((values - truth).abs() / truth.abs().clamp(min=1e-6)).max())
    return found if math.isfinite(found) else math.inf


def correctness(device: str, size: str, steps: int) -> dict[str, float]:
    """How far a device's losses, scores, packs and resumed trainings are from the CPU's."""
    truth, ours = begun(size, 3, "cpu", "float32"), begun(size, 3, device, "float32")
    alone = begun(size, 3, device, "float32")
    alone = Training(alone.specs[1:2], CORPUS, device=device, references={})
    rounded = begun(size, 3, device, "bfloat16")
    found: dict[str, float] = {}
    losses, pack = trained(truth, steps), trained(ours, steps)
    found["loss_float32_against_cpu"] = distance(pack, losses)
    found["loss_pack_against_alone"] = distance(trained(alone, steps), pack[:, 1:2])
    found["loss_bfloat16_against_cpu"] = distance(trained(rounded, steps), losses)
    for mine, other in zip(
        ours.model.parameters.buffers, truth.model.parameters.buffers, strict=True
    ):
        mine.copy_(other)  # the same models, so that scoring alone is compared
    text = torch.from_numpy(CORPUS.valid("one").tokens[: 8 * 200].astype("int64")).view(8, 200)
    lengths = torch.full((8,), 200)
    logs, best, *_ = PackLikelihood(truth.model).token_statistics(text, lengths)
    theirs, same, *_ = PackLikelihood(ours.model).token_statistics(text, lengths)
    found["score_against_cpu"] = distance(theirs.double(), logs.double())
    found["most_probable_differ"] = float((best != same).double().mean())
    found |= resumed(device, size, steps)
    return found


def resumed(device: str, size: str, steps: int) -> dict[str, float]:
    """A training that is saved, lost and resumed against one that goes through."""
    through = begun(size, 2, device, "float32")
    first = trained(through, steps)
    rest = trained(through, steps)
    with tempfile.TemporaryDirectory() as folder:
        before = begun(size, 2, device, "float32")
        again = distance(trained(before, steps), first)
        training_state.save_pack_checkpoint(before, Path(folder))
        after = begun(size, 2, device, "float32")
        training_state.resume(after, Path(folder), WHOLE_RUN)
        found = distance(trained(after, steps), rest)
    return {"loss_twice": again, "loss_resumed_against_through": found}


def waits(device: str, size: str, models: int) -> dict[str, Any]:
    """Whether a step makes the host wait: torch raises at the first operation that does."""
    training = begun(size, models, device, SIXTEEN[device])
    trained(training, WARM)
    if device == "cpu":
        return {"waits": "not asked on a CPU"}
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            training.advance()
        return {"waits": "no step waits"}
    except RuntimeError as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return {"waits": f"{Path(place.filename).name}:{place.lineno}: {error}"[:300]}
    finally:
        torch.cuda.set_sync_debug_mode("default")


def ours(size: str, models: int, device: str) -> tuple[Callable[[], None], int]:
    """One step of a pack, its streams included, and its tokens."""
    training = begun(size, models, device, SIXTEEN[device])

    def step() -> None:
        training.step %= training.plan.steps  # a fast device takes more steps than are planned
        training.advance()

    return step, models * training.plan.batch * training.plan.model_size.context


def theirs(size: str, device: str, *, compiled: bool = True) -> tuple[Callable[[], None], int]:
    """One step of a plain loop: transformers' Llama, fused AdamW, autocast, `torch.compile`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape, batch = ladder.model_size(size), ladder.training_plan(size, TOKENS, VOCABULARY).batch
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=False,
        use_cache=False,
    )
    model = LlamaForCausalLM(config).to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True
    )
    run: Any = torch.compile(model) if compiled else model
    texts = torch.randint(0, VOCABULARY, (16, batch, shape.context))
    texts = texts.pin_memory() if device == "cuda" else texts
    turn = 0

    def step() -> None:
        nonlocal turn
        text = texts[turn % 16].to(device, non_blocking=True)
        turn += 1
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = run(input_ids=text, labels=text).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step, batch * shape.context


def settle(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def speed(step: Callable[[], None], tokens: int, device: str) -> float:
    """Tokens per second: the median over rounds of as many steps as fill some time."""
    for _ in range(WARM):
        step()
    settle(device)
    began = time.perf_counter()
    step()
    settle(device)
    count = max(2, min(200, round(SECONDS / ROUNDS / (time.perf_counter() - began))))
    rates = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(count):
            step()
        settle(device)
        rates.append(count * tokens / (time.perf_counter() - began))
    return statistics.median(rates)


def peak(device: str) -> float:
    """FLOP/s of a large product of random bfloat16 matrices (float32 on a CPU)."""
    side = 8192 if device == "cuda" else 512
    kind = torch.bfloat16 if device == "cuda" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return speed(lambda: torch.mm(a, b), 1, device) * 2 * side**3


def speeds(
    device: str, size: str, packs: tuple[int, ...], best: float, tell: Callable[[dict], None]
) -> dict[str, Any]:
    """Tokens per second by K, as multiples of K = 1, and as a share of the peak; and memory.

    Args:
        device: "cpu" or "cuda".
        size: of the models.
        packs: the K.
        best: FLOP/s of the peak; 0 where it was not measured.
        tell: is given what is known after each K.
    """
    found: dict[str, Any] = {}
    shape = ladder.model_size(size)
    for models in packs:
        name, step = f"{size} K={models}", None
        try:
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            step, tokens = ours(size, models, device)
            rate = speed(step, tokens, device)
        except torch.OutOfMemoryError:
            found[name] = "out of memory"
            continue
        finally:
            step = None  # its memory goes back before the next
            clear(device)
        found[name] = round(rate)
        if best:
            found[f"{name} of peak"] = round(rate * shape.flops(1, VOCABULARY) / best, 4)
        if device == "cuda":
            planned = batching.pack_memory(
                shape, VOCABULARY, models, device=device, precision=SIXTEEN[device]
            )
            found[f"{name} GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            found[f"{name} GiB planned"] = round(planned.total / 2**30, 2)
        tell(found)
    return found


def rival(device: str, size: str) -> dict[str, Any]:
    """Tokens per second of the plain loop."""
    try:
        step, tokens = theirs(size, device, compiled=device == "cuda")
        rate = speed(step, tokens, device)
    except Exception as error:  # whatever a compiler finds: it is the rival's, and is told
        return {f"{size} transformers": f"{type(error).__name__}: {error}"[:200]}
    finally:
        clear(device)
    return {f"{size} transformers": round(rate)}


def clear(device: str) -> None:
    """Give memory back."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()


def profile(device: str, size: str, models: int) -> dict[str, Any]:
    """Where a step's time goes: the device's share of wall time, launches, and heavy kernels."""
    if device == "cpu":
        return {}
    step, _ = ours(size, models, device)
    for _ in range(WARM):
        step()
    settle(device)
    began = time.perf_counter()
    for _ in range(5):
        step()
    hosted = time.perf_counter() - began  # until the last launch: what the host needs
    settle(device)
    wall = (time.perf_counter() - began) / 5
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as seen:
        for _ in range(5):
            step()
        settle(device)
    rows = [row for row in seen.key_averages() if row.self_device_time_total > 0]
    rows.sort(key=lambda row: -row.self_device_time_total)
    kernels = [row for row in rows if str(row.device_type).endswith("CUDA")]
    busy = sum(row.self_device_time_total for row in kernels) / 5e6
    top = {row.key[:60]: round(row.self_device_time_total / 5e3, 3) for row in kernels[:12]}
    host = sorted(seen.key_averages(), key=lambda row: -row.self_cpu_time_total)[:10]
    return {
        "wall_ms": round(1e3 * wall, 2),
        "host_ms": round(1e3 * hosted / 5, 2),
        "device_ms": round(1e3 * busy, 2),
        "launches": round(sum(row.count for row in kernels) / 5),
        "kernels_ms": top,
        "host_calls_ms": {row.key[:40]: round(row.self_cpu_time_total / 5e3, 2) for row in host},
    }


def stop_at(seconds: float, result: dict[str, Any]) -> None:
    """End the program after some seconds, whatever it is doing, with what is known by then."""

    def stop() -> None:
        print(json.dumps({**result, "complete": False, "stopped_after": seconds}), flush=True)
        os._exit(0)  # a compiler or a kernel may be running, which nothing else interrupts

    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--skip", nargs="*", default=[], help="parts that are left out")
    parser.add_argument("--sizes", nargs="*", default=[], help="the only ones that are measured")
    parser.add_argument("--seconds", type=float, default=LIMIT, help="after which it ends itself")
    given = parser.parse_args()
    device, began = given.device, time.perf_counter()
    packs = PACKS if device == "cuda" else TINY
    packs = {size: packs[size] for size in given.sizes or packs}
    small = next(iter(packs))
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"
    torch.set_num_threads(1 if device == "cpu" else torch.get_num_threads())  # as in a worker
    result: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "vocabulary": VOCABULARY,
    }

    def tell(found: dict[str, Any]) -> None:
        result.update(found)
        result["seconds"] = round(time.perf_counter() - began, 1)
        print(json.dumps(result), flush=True)

    def part(title: str, work: Callable[[], dict[str, Any]]) -> None:
        if title.split(maxsplit=1)[0] in given.skip:
            return
        print(f"# {title}", file=sys.stderr)
        result["part"] = title
        try:
            tell(work())
        except Exception as error:  # told, and the next part is measured all the same
            traceback.print_exc()
            tell({f"{title} failed": f"{type(error).__name__}: {error}"[:300]})
        del result["part"]

    stop_at(given.seconds, result)
    part("correctness", lambda: correctness(device, small, 20 if device == "cuda" else 2))
    part("waits", lambda: waits(device, small, max(packs[small][:3])))
    part("peak", lambda: {"peak_flops": peak(device)})
    best = result.get("peak_flops", 0.0)
    for size, counts in packs.items():
        part(f"packs {size}", lambda s=size, c=counts: speeds(device, s, c, best, tell))  # type: ignore[misc]
    for size in packs:
        part(f"rival {size}", lambda s=size: rival(device, s))  # type: ignore[misc]
    for models in [count for count in (1, 64) if count in packs[small]]:
        part(
            f"profile {models}",
            lambda m=models: {f"profile {small} K={m}": profile(device, small, m)},  # type: ignore[misc]
        )
    tell({"complete": True})


if __name__ == "__main__":
    main()
