"""What a pack answers: log-probabilities of token sequences, for all of its models at once.

Everything in this room is made of rows: a few tokens of context and a few tokens to score. Rows
from every benchmark and every held-out text go through `totals` together, so that equal sequences
are computed once and batches hold rows of nearly one length.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

TOKENS_PER_CALL = 4096  # per model; larger calls gain nothing on a CPU and fall out of its cache


class Likelihood(Protocol):
    """A pack of K language models, as this room sees it.

    Attributes:
        models: K.
        context: longest input, in tokens.
    """

    models: int
    context: int

    def score(
        self, tokens: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of every next token.

        Args:
            tokens: (B, T) int64, padded on the right; T <= context + 1.
            lengths: (B,) tokens in each row.

        Returns:
            log p(token[t+1] | tokens[..t]) in nats, (K, B, T-1) float32, 0 at padding; and whether
            token[t+1] was the most probable, (K, B, T-1) bool.
        """
        ...


@dataclass(frozen=True)
class Row:
    """A sequence whose last tokens are scored.

    Attributes:
        tokens: context and scored tokens, at most context + 1 of them.
        scored: how many at the end are scored; at least one token stands before them.
    """

    tokens: tuple[int, ...]
    scored: int

    def __post_init__(self) -> None:
        if not 0 < self.scored < len(self.tokens):
            raise ValueError(f"cannot score {self.scored} of {len(self.tokens)} tokens")


def totals(
    likelihood: Likelihood, rows: Sequence[Row]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-likelihood of the scored part of every row under every model.

    Returns:
        nats (K, R), summed over the scored tokens; and whether each of them was the most probable
        one, (K, R).
    """
    places: dict[tuple[int, ...], list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(row.tokens, []).append(place)
    nats = np.zeros((likelihood.models, len(rows)))
    greedy = np.zeros((likelihood.models, len(rows)), dtype=bool)
    for batch in _batches(sorted(places, key=lambda tokens: (-len(tokens), tokens))):
        wanted = [(b, i) for b, tokens in enumerate(batch) for i in places[tokens]]
        index = [i for _, i in wanted]
        lines = torch.tensor([b for b, _ in wanted])
        last = torch.tensor([len(rows[i].tokens) - 1 for i in index])
        first = last - torch.tensor([rows[i].scored for i in index])
        log_p, hits = likelihood.score(*_padded(batch))
        nats[:, index] = _between(log_p.double(), lines, first, last).cpu().numpy()
        found = _between(hits.double(), lines, first, last).cpu().numpy()
        greedy[:, index] = found == (last - first).numpy()
    return nats, greedy


def _batches(ordered: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """Sequences, longest first, in batches of at most TOKENS_PER_CALL tokens with padding."""
    batches = []
    start = 0
    while start < len(ordered):
        count = max(1, TOKENS_PER_CALL // len(ordered[start]))
        batches.append(ordered[start : start + count])
        start += count
    return batches


def _padded(batch: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (B, T), padded with 0 on the right, and lengths (B,)."""
    lengths = [len(tokens) for tokens in batch]
    array = np.zeros((len(batch), max(lengths)), dtype=np.int64)
    for line, tokens in zip(array, batch, strict=True):
        line[: len(tokens)] = tokens
    return torch.from_numpy(array), torch.tensor(lengths)


def _between(
    values: torch.Tensor, lines: torch.Tensor, first: torch.Tensor, last: torch.Tensor
) -> torch.Tensor:
    """Sums of values[k, line, first:last], (K, R), from values (K, B, T)."""
    sums = torch.nn.functional.pad(values.cumsum(dim=-1), (1, 0))
    device = values.device
    lines, first, last = lines.to(device), first.to(device), last.to(device)
    return sums[:, lines, last] - sums[:, lines, first]
