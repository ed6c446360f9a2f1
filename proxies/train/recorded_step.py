"""One step of a pack on a GPU, recorded once and replayed: the host launches one thing, not 300.

A small model's step is some 300 kernels of a few microseconds each, which a host launches slower
than the device runs them (docs/results/trainer.md). What a recording reads and writes stays where
it is: tokens, rate and count of steps are put into tensors of its own before each replay.
"""

import torch
from torch import Tensor

from cuvee.proxies.model.transformer import PackModel
from cuvee.proxies.train.optimizer import AdamW


class RecordedStep:
    """A forward pass, a backward pass and an update without a controller, as a CUDA graph.

    Args:
        model: on a GPU, with at least one step behind it, so that its libraries have their memory.
        optimizer: of its parameters.
        tokens_KBT: sequences of a step, whose shape all steps have. Nothing is trained on them.

    Attributes:
        mean_K: mean loss per model of the last replay.
        norms_K: gradient norm per model of the last replay.
    """

    def __init__(self, model: PackModel, optimizer: AdamW, tokens_KBT: Tensor) -> None:
        self._tokens = tokens_KBT.clone()
        self._rate = torch.zeros((), device=tokens_KBT.device)
        self._count = torch.zeros((), device=tokens_KBT.device)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            model.parameters.clear()
            mean_K, _ = model.loss(self._tokens[..., :-1], self._tokens[..., 1:])
            model.backward(mean_K)
            self.norms_K = optimizer.norms()
            optimizer.update(self._rate, self._count, self.norms_K)
            self.mean_K = mean_K.detach()

    def replay(self, tokens_KBT: Tensor, rate: float, count: int) -> None:
        """Train one step.

        Args:
            tokens_KBT: its sequences.
            rate: learning rate.
            count: steps taken, this one included.
        """
        self._tokens.copy_(tokens_KBT)
        self._rate.fill_(rate)
        self._count.fill_(count)
        self._graph.replay()
