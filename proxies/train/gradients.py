"""Gradients of many texts at once: the pack axis as a probe.

A controller that compares gradients of K domains with those of M targets would need K + M backward
passes. Here one model is copied to K + M places of a pack, each place gets one text, and one
backward pass gives all gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cuvee.proxies.data.stream import Windows, key_seed
from cuvee.proxies.model.transformer import PackModel

WINDOWS = 2  # sequences of a domain or target in a probe


@dataclass(frozen=True)
class Compared:
    """What a probe tells of K domains and M targets.

    Attributes:
        products: inner products of their gradients (K, M).
        norms: lengths of the domains' gradients (K,).
        losses: of the targets' sequences (M,), nats per token.
    """

    products: tuple[tuple[float, ...], ...] = ()
    norms: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()


NOTHING = Compared()


class Probe:
    """Room for the gradients of K domains and M targets under one model at a time.

    Args:
        model: whose shape, precision and device the probe has.
        size: K + M.
    """

    def __init__(self, model: PackModel, size: int) -> None:
        precision = "bfloat16" if model.compute == torch.bfloat16 else "float32"
        self.pack = PackModel(
            model.size, model.vocabulary, [0] * size, device=model.device, precision=precision
        )

    def compare(self, model: PackModel, k: int, domains: Tensor, targets: Tensor) -> Compared:
        """Gradients of domains against those of targets, under one model.

        Args:
            model: the pack in training.
            k: which of its models.
            domains: sequences of each domain (K, B, T + 1).
            targets: sequences of each target (M, B, T + 1).
        """
        with torch.no_grad():
            for mine, theirs in zip(
                self.pack.parameters.buffers, model.parameters.buffers, strict=True
            ):
                mine.copy_(theirs[k].expand_as(mine))
        tokens = torch.cat([domains, targets]).to(model.device)
        self.pack.parameters.clear()
        mean, _ = self.pack.loss(tokens[..., :-1], tokens[..., 1:])
        self.pack.backward(mean)
        size = len(domains)
        parts = [part.float() for part in self.pack.parameters.gradients]  # joined, they are copied
        inner = sum((part[:size] @ part[size:].t() for part in parts), torch.zeros(()))
        squares = sum((part[:size].square().sum(1) for part in parts), torch.zeros(()))
        return Compared(
            tuple(tuple(row) for row in inner.tolist()),
            tuple(squares.sqrt().tolist()),
            tuple(mean[size:].tolist()),
        )


def draw_windows(windows: Sequence[Windows], *, seed: int, step: int) -> Tensor:
    """Training sequences of each domain for a probe, (K, WINDOWS, context + 1).

    They depend on seed, step and the domain's key alone, and not on what the stream has drawn.
    """
    rows = []
    for domain in windows:
        rng = np.random.default_rng((seed, key_seed(domain.key), step, 1))
        starts = rng.integers(max(1, domain.count), size=WINDOWS) * domain.context
        rows.append(np.stack([domain.tokens[s : s + domain.context + 1] for s in starts]))
    return torch.from_numpy(np.stack(rows).astype(np.int64))
