"""AdamW over a pack (Loshchilov and Hutter 2019, arXiv 1711.05101), and the mean of its last steps.

All matrices of a pack lie in one buffer and all gains in another, so a step is two fused calls (one
per model and buffer on a CPU), whatever the depth.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from cuvee.proxies.model.transformer import Parameters

BETAS = (0.9, 0.95)
EPSILON = 1e-8
DECAY = 0.1
CLIP = 1.0  # of the global gradient norm of each model


class AdamW:
    """AdamW for K models.

    Args:
        parameters: whose buffers are updated in place.
    """

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.first = [torch.zeros_like(b) for b in parameters.buffers]
        self.second = [torch.zeros_like(b) for b in parameters.buffers]
        self.steps = 0

    def norms(self) -> Tensor:
        """Global gradient norm of each model, (K,). A model's own bits, whoever is beside it."""
        if self.parameters.matrices.device.type == "cpu":
            rows = [
                torch.linalg.vector_norm(
                    torch.stack([torch.linalg.vector_norm(g[k]) for g in self.parameters.gradients])
                )
                for k in range(len(self.parameters.matrices))
            ]
            return torch.stack(rows)
        parts = [torch.linalg.vector_norm(g, dim=1) for g in self.parameters.gradients]
        joint: Tensor = torch.linalg.vector_norm(torch.stack(parts), dim=0)
        return joint

    def step(self, rate: float, norms_K: Tensor, active: Sequence[int] | None = None) -> None:
        """One update.

        Args:
            rate: learning rate.
            norms_K: what `norms` gave for these gradients.
            active: models to update; all when None.
        """
        self.steps += 1
        count = torch.full((), float(self.steps), device=norms_K.device)  # no copy from the host
        self.update(rate, count, norms_K, active)

    def update(
        self,
        rate: float | Tensor,
        count: Tensor,
        norms_K: Tensor,
        active: Sequence[int] | None = None,
    ) -> None:
        """The same, told how many steps were taken, this one included; both may be tensors."""
        factor_K = (CLIP / norms_K.clamp(min=CLIP)).to(self.parameters.matrices.dtype)
        rows: Sequence[int | slice] = [slice(None)]
        if self.parameters.matrices.device.type == "cpu":
            rows = range(len(factor_K)) if active is None else active
        for group, gradient in enumerate(self.parameters.gradients):
            for row in rows:
                gradient[row].mul_(factor_K[row, None] if isinstance(row, slice) else factor_K[row])
                self._fused(group, row, rate, count)

    def _fused(self, group: int, row: int | slice, rate: float | Tensor, count: Tensor) -> None:
        torch._fused_adamw_(
            [self.parameters.buffers[group][row]],
            [self.parameters.gradients[group][row]],
            [self.first[group][row]],
            [self.second[group][row]],
            [],
            [count],
            lr=rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=DECAY if group == 0 else 0.0,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )


class Average:
    """The uniform mean of a pack's parameters over the last steps of a run.

    In place of a decayed learning rate: Izmailov et al. 2018 (arXiv 1803.05407, algorithm 1); for
    language models, Kaddour 2022 (arXiv 2209.14981) and Haegele et al. 2024 (arXiv 2405.18392,
    section 4). Departure: every step enters, not every so many.

    Args:
        parameters: whose buffers are averaged.
        start: first step (counted from 0) whose result enters; None: nothing is averaged.
    """

    def __init__(self, parameters: Parameters, start: int | None) -> None:
        self.parameters, self.start, self.count = parameters, start, 0
        self.means = [] if start is None else [torch.zeros_like(b) for b in parameters.buffers]

    def add(self, step: int) -> None:
        """Take in what a step left."""
        if self.start is None or step < self.start:
            return
        self.count += 1
        for mean, value in zip(self.means, self.parameters.buffers, strict=True):
            mean.lerp_(value, 1.0 / self.count)

    def apply(self) -> None:
        """Put the means in the parameters' place."""
        if self.count:
            for mean, value in zip(self.means, self.parameters.buffers, strict=True):
                value.copy_(mean)
