"""What controllers learn of a training: losses of one model, held-out windows, trajectories."""

import itertools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from cuvee.mixtures.errors import DataError, RecipeError
from cuvee.proxies.model.loss import token_losses
from cuvee.proxies.model.transformer import PackModel

WINDOWS = 4  # held-out sequences of a target, at every update that asks for them
MOST_POINTS = 256  # of a run's trajectory


class HeldOutCorpus(Protocol):
    """What control asks of a corpus beside its training text."""

    def valid(self, name: str) -> Any: ...


def held_out_windows(
    corpus: HeldOutCorpus, targets: Sequence[str], context: int, windows: int = WINDOWS
) -> Tensor:
    """Held-out windows of each target, (M, windows, context + 1).

    A split with fewer windows gives the ones it has, again and again.

    Raises:
        RecipeError: a target is not a domain's held-out text, so it is not measured in training.
        DataError: a split is shorter than one window.
    """
    rows = []
    for target in targets:
        kind, _, name = target.partition("/")
        if kind != "domain":
            raise RecipeError(
                f"a controller can follow held-out text ('domain/...') while it trains; {target!r} "
                "is scored only afterwards"
            )
        tokens = corpus.valid(name).tokens
        count = (len(tokens) - 1) // context
        if count < 1:
            raise DataError(
                f"the held-out text of {name!r} has {len(tokens)} tokens, less than one window of "
                f"{context + 1}; raise corpus.heldout_bytes"
            )
        starts = [(count - 1 - i % count) * context for i in range(windows)]
        rows.append(np.stack([np.asarray(tokens[s : s + context + 1]) for s in starts]))
    return torch.from_numpy(np.stack(rows).astype(np.int64))


@torch.no_grad()
def model_losses(
    model: PackModel, k: int, tokens_BT: Tensor, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Loss of one model of a pack on each token but the first of sequences, (B, T - 1), nats.

    Args:
        model: the pack.
        k: which of its models.
        tokens_BT: sequences.
        dtype: of the logits. Small differences of losses, as between held-out losses of one run,
            need float32; what is compared with a run's own losses is computed as they are.
    """
    tokens_1BT, member = tokens_BT.to(model.device)[None], slice(k, k + 1)
    hidden_1ND = model.hidden(tokens_1BT[..., :-1], members=member).to(dtype)
    head_1DV = model.head[member].to(dtype)
    targets_1BT = tokens_1BT[..., 1:]
    found = token_losses(hidden_1ND, head_1DV, targets_1BT.reshape(1, -1))
    return found.view(targets_1BT.shape)[0]


def mean_losses(totals: Sequence[float], counts: Sequence[int]) -> tuple[float | None, ...]:
    """Totals by domain over counts; None for a domain without any."""
    return tuple(t / n if n else None for t, n in zip(totals, counts, strict=True))


def thin_trajectory(
    moved: Sequence[tuple[int, Sequence[float]]], steps: int
) -> list[tuple[int, tuple[float, ...]]]:
    """A trajectory in at most `MOST_POINTS` stretches, each with its mean weights over steps.

    So the mean over the run of what is left is that of the whole trajectory.
    """
    if len(moved) <= MOST_POINTS:
        return [(step, tuple(w)) for step, w in moved]
    starts = np.array([step for step, _ in moved])
    every = np.repeat(
        np.array([w for _, w in moved]), np.diff([*starts, steps]), axis=0
    )  # (steps, K)
    edges = np.unique(np.linspace(0, steps, MOST_POINTS + 1).round().astype(int))
    return [
        (int(a), tuple(map(float, every[a:b].mean(axis=0)))) for a, b in itertools.pairwise(edges)
    ]
