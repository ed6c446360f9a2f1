"""The sequences of a pack's step, as a tensor where the pack trains.

On a CPU the streams are read step by step. A GPU holds the tokens of all domains, once for all
models, and is told only where the windows begin: reading them on the host takes longer than the
step itself from some 16 small models on (docs/results/trainer.md). A corpus too large for that is
read on the host there too.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cuvee.proxies.data.stream import Stream

RESIDENT_BYTES = 4 << 30  # of tokens that a GPU holds (assumption: little beside what models take)


class PackSequences:
    """The sequences of K streams over one corpus.

    Args:
        streams: of the pack's models; they have their domains in common.
        device: "cpu" or "cuda".
        resident: whether the tokens lie on the device; None: on a GPU, where they are few enough.
    """

    def __init__(
        self, streams: Sequence[Stream], device: str, *, resident: bool | None = None
    ) -> None:
        self.streams, self.device = streams, device
        own = [
            part for stream in streams for part in zip(stream.names, stream.windows, strict=True)
        ]
        tokens = list({name: windows.tokens for name, windows in own}.values())
        begins = np.cumsum([0, *(part.size for part in tokens)])
        first = dict(zip(dict(own), begins.tolist(), strict=False))
        self._first = [np.array([first[name] for name in stream.names]) for stream in streams]
        self._tokens: Tensor | None = None
        if resident is None:
            size = 4 * sum(part.size for part in tokens)
            resident = device != "cpu" and size <= RESIDENT_BYTES
        if resident:
            joint = np.concatenate([np.asarray(part, dtype=np.int32) for part in tokens])
            self._tokens = torch.from_numpy(joint).to(device)
            self._span = torch.arange(streams[0].context + 1, device=device)

    def batch(self, step: int) -> tuple[Tensor, NDArray[np.int64]]:
        """Sequences (K, B, context + 1) of a step, and the domain (K, B) of each."""
        if self._tokens is None:
            drawn, domains = zip(*(stream.batch(step) for stream in self.streams), strict=True)
            return self._sent(np.stack(drawn)), np.stack(domains)
        starts: list[NDArray[np.int64]] = []
        places_KB: list[NDArray[np.int64]] = []
        for stream, first in zip(self.streams, self._first, strict=True):
            begin, places = stream.windows_at(step)
            starts.append(begin + first[places])
            places_KB.append(np.asarray(stream.order, dtype=np.int64)[places])
        index_KB1 = self._sent(np.stack(starts))[..., None]
        return self._tokens[index_KB1 + self._span].long(), np.stack(places_KB)

    def _sent(self, values: NDArray[np.int64]) -> Tensor:
        """Values on the device, without waiting for it."""
        tensor = torch.from_numpy(values)
        return (
            tensor
            if self.device == "cpu"
            else tensor.pin_memory().to(self.device, non_blocking=True)
        )
