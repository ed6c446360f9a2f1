"""What a pack answers: log-likelihoods of answers after contexts, for all of its models at once.

Everything in this room is made of rows: a few tokens of context and a few tokens to score. Rows
from every benchmark and every held-out text go through `answer_totals` together: equal rows are
asked once, and rows that share a context are asked together, so that the pack computes it once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray


class Likelihood(Protocol):
    """A pack of K language models, as this room sees it.

    Attributes:
        models: K.
        context: longest input, in tokens.
    """

    models: int
    context: int

    def answer(
        self,
        contexts: Sequence[Sequence[int]],
        answers: Sequence[Sequence[Sequence[int]]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-likelihood of answers, each after its context.

        Args:
            contexts: sequences of at least one token.
            answers: for each context its answers, of at least one token; a context and an answer
                are at most `context` + 1 tokens.

        Returns:
            log p(answer | context) in nats, (K, R), for all answers in their order; and whether
            each of its tokens was the most probable one, (K, R) bool.
        """
        ...


@dataclass(frozen=True)
class AnswerRow:
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


def answer_totals(
    likelihood: Likelihood, rows: Sequence[AnswerRow]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Log-likelihood of the scored part of every row under every model.

    Returns:
        nats (K, R), summed over the scored tokens; and whether each of them was the most probable
        one, (K, R).
    """
    places: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for place, row in enumerate(rows):
        context, answer = row.tokens[: -row.scored], row.tokens[-row.scored :]
        places.setdefault(context, {}).setdefault(answer, []).append(place)
    log_p, hits = likelihood.answer(list(places), [list(answers) for answers in places.values()])
    asked = [same for answers in places.values() for same in answers.values()]
    order = np.empty(len(rows), dtype=np.int64)  # which answer each row is
    for number, same in enumerate(asked):
        order[same] = number
    return log_p.double().cpu().numpy()[:, order], hits.cpu().numpy()[:, order]
