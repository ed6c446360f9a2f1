"""Which runs can train together, how many at once on a device, and what they take of it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.proxies import ladder

MOST_CPU = 1  # measured: batching a pack's products gains nothing on a core (docs/results)
# A first guess, where packs cannot be tried: measured on one H200 at 0.6M, 10M and 100M
# (docs/results/trainer.md), between them assumed; and what a GPU has to spare for a pack, assumed.
MOST_CUDA = {
    "0.3M": 64, "0.6M": 64, "1M": 32, "2M": 32, "4M": 16, "10M": 16, "30M": 4, "100M": 2
}  # fmt: skip
GUESSED_BYTES = 16 << 30
WORTH = 0.95  # of the best speed: the smallest pack that reaches it is taken
BUSY = 0.5  # of a GPU, what a pack asks for by its speed at most: while one loads or scores,
# another trains. Assumption: two that take turns are as fast as one.
LOGITS_BYTES = {"cpu": 4 << 20, "cuda": 256 << 20}  # of a chunk, as in model/loss.py
LOGITS_TOKENS, WHOLE_ATTENTION = 128, 512  # the same, and of model/layers.py; on a CPU alone
HEAD_BYTES = 12  # of an entry of the head: two gradients in float32 and what products hold of it


@dataclass(frozen=True)
class PackMemory:
    """Bytes that a pack takes while it trains.

    Attributes:
        state: values, gradients and moments, and means of the last weights where they are kept.
        activations: what a step keeps for its backward pass.
        logits: a chunk of them, and gradients of the heads that are not yet added.
        total: all of it, as the process takes it.
    """

    state: int
    activations: int
    logits: int
    total: int


def pack_memory(
    size: ladder.ModelSize,
    vocabulary: int,
    models: int = 1,
    *,
    batch: int = ladder.LEAST_BATCH,
    device: str = "cpu",
    precision: str = "float32",
    averaged: bool = False,
) -> PackMemory:
    """What a pack takes of a device while it trains, or at most an eighth more (measured).

    Args:
        size: shape of its models.
        vocabulary: tokens of the tokenizer.
        models: of the pack.
        batch: sequences of a step, of each model.
        device: "cpu" or "cuda...".
        precision: of its products.
        averaged: whether the means of the last weights are kept.
    """
    on_cpu, number = not device.startswith("cuda"), 2 if precision == "bfloat16" else 4
    whole = on_cpu and size.context <= WHOLE_ATTENTION
    # A token's, of a block: the norms' in float32; inputs of products, queries, keys and values;
    # joint, active and product of the MLP; attention. One more is under way in the backward pass.
    block = 8 * size.width + number * (6 * size.width + 4 * size.mlp)
    block += number * (size.heads * size.context if whole else 3 * size.width)
    copies = number * size.body if number == 2 else 0
    tokens, row = batch * size.context, vocabulary * number
    chunk = min(models * row * tokens, LOGITS_BYTES["cuda"])
    if on_cpu:
        chunk = row * max(LOGITS_TOKENS, min(tokens, LOGITS_BYTES["cpu"] // row))
    state = (20 if averaged else 16) * models * size.parameters(vocabulary)
    activations = models * ((size.layers + 1) * block * tokens + copies)
    logits = chunk + HEAD_BYTES * models * vocabulary * size.width
    kept = state if on_cpu else 0  # what initial values took and the heap keeps (measured)
    return PackMemory(state, activations, logits, state + activations + logits + kept)


@dataclass(frozen=True)
class PackTrial:
    """Tokens per second that all models of a pack trained, and bytes of a GPU that they took."""

    models: int
    rate: float
    memory: int = 0


@dataclass(frozen=True)
class PackRequest:
    """What a worker gets: bytes of its node, a share of a GPU, and the nodes, unless any does."""

    memory: int = 0
    gpus: float = 0.0
    nodes: tuple[str, ...] = ()


def best_models(trials: Sequence[PackTrial]) -> int:
    """The models of the smallest pack that is about as fast as the fastest that was tried."""
    best = max(trial.rate for trial in trials)
    return min(trial.models for trial in trials if trial.rate >= WORTH * best)


def gpu_share(models: int, memory: float, trials: Sequence[PackTrial], guess: int) -> float:
    """The share of a GPU that a pack needs: that of its memory, or what it takes of its speed.

    Without trials, speed is taken to grow evenly up to a guess at the models that fill a GPU.
    """
    tried = trials or (PackTrial(guess, 1.0),)
    speeds = np.interp(models, [0, *(t.models for t in tried)], [0, *(t.rate for t in tried)])
    speed = float(speeds) / max(t.rate for t in tried)
    return min(1.0, math.ceil(100 * max(memory, BUSY * speed)) / 100)


def pack_key(spec: RunSpec) -> tuple[str, int, str, str, float, float, tuple[str, ...]]:
    """What the models of one pack have in common: they take the same steps at the same rates."""
    return (
        spec.size,
        spec.tokens,
        spec.schedule,
        spec.precision,
        spec.rate,
        spec.average,
        tuple(sorted(spec.domains)),
    )


def pack_limit(
    size: str,
    device: str,
    vocabulary: int = ladder.VOCABULARY,
    memory: float = GUESSED_BYTES,
) -> int:
    """A guess at how many models a device of so much memory trains best at once; 1 on a CPU."""
    if not device.startswith("cuda"):
        return MOST_CPU
    shape = ladder.model_size(size)
    alike = (most for name, most in MOST_CUDA.items() if shape.body <= ladder.LADDER[name].body)
    one, two = (
        pack_memory(shape, vocabulary, k, device=device, precision="bfloat16").total for k in (1, 2)
    )
    return max(1, min(next(alike, 1), 1 + int((memory - one) // (two - one))))


def group_into_packs(
    specs: Iterable[RunSpec],
    device: str = "cpu",
    limit: int | Mapping[str, int] | None = None,
    *,
    vocabulary: int = ladder.VOCABULARY,
) -> list[list[RunSpec]]:
    """Specs in packs, each of runs that can train together; order is kept within and between.

    Args:
        specs: what to train.
        device: "cpu" or "cuda...".
        limit: models of a pack, or these by size; a guess for device and vocabulary when None.
        vocabulary: tokens of the tokenizer.

    Raises:
        RecipeError: the limit is below 1.
    """
    if isinstance(limit, int) and limit < 1:
        raise RecipeError(f"a pack holds at least 1 model; got a limit of {limit}")
    groups: dict[tuple[object, ...], list[RunSpec]] = {}
    for spec in specs:
        groups.setdefault(pack_key(spec), []).append(spec)
    result = []
    for members in groups.values():
        own = limit.get(members[0].size) if isinstance(limit, Mapping) else limit
        size = own or pack_limit(members[0].size, device, vocabulary)
        result += [members[i : i + size] for i in range(0, len(members), size)]
    return result


def require_one_pack(specs: Sequence[RunSpec]) -> None:
    """Check that specs form a pack.

    Raises:
        RecipeError: there are none, or two differ in what a pack shares.
    """
    if not specs:
        raise RecipeError("a pack needs at least one run")
    for spec in specs[1:]:
        if pack_key(spec) != pack_key(specs[0]):
            raise RecipeError(
                "runs of one pack share size, tokens, schedule, precision, rate, average and "
                f"domains; got {pack_key(specs[0])[:6]} and {pack_key(spec)[:6]}: "
                "group them with batching.group_into_packs"
            )
