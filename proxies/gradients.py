"""Gradients of many texts at once: the pack axis as a probe.

A controller that compares gradients of K domains with those of M targets would need K + M backward
passes. Here one model is copied to K + M places of a pack, each place gets one text, and one
backward pass gives all gradients.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from proxies.mixer import Windows, key
from proxies.model import Model

WINDOWS = 2  # sequences of a domain or target in a probe


class Probe:
    """Room for the gradients of K domains and M targets under one model at a time.

    Args:
        model: whose shape, precision and device the probe has.
        size: K + M.
    """

    def __init__(self, model: Model, size: int) -> None:
        precision = "bfloat16" if model.compute == torch.bfloat16 else "float32"
        self.pack = Model(
            model.rung, model.vocabulary, [0] * size, device=model.device, precision=precision
        )

    def products(
        self, model: Model, k: int, domains: Tensor, targets: Tensor
    ) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
        """Inner products (K, M) of gradients, and the lengths (K,) of the domains' gradients.

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
        every = torch.cat(self.pack.parameters.gradients, dim=1).float()
        ours, theirs = every[: len(domains)], every[len(domains) :]
        inner, lengths = (ours @ theirs.t()).tolist(), ours.norm(dim=1).tolist()
        return tuple(tuple(row) for row in inner), tuple(lengths)


def drawn(windows: Sequence[Windows], *, seed: int, step: int) -> Tensor:
    """Training sequences of each domain for a probe, (K, WINDOWS, context + 1).

    They depend on seed, step and the domain's name alone, and not on what the stream has drawn.
    """
    rows = []
    for domain in windows:
        rng = np.random.default_rng((seed, key(domain.name), step, 1))
        starts = rng.integers(max(1, domain.count), size=WINDOWS) * domain.context
        rows.append(np.stack([domain.tokens[s : s + domain.context + 1] for s in starts]))
    return torch.from_numpy(np.stack(rows).astype(np.int64))
