"""Scores texts token by token under a pack, and asks detectors of membership of a suite's items."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from cuvee.evaluation.membership import ScoredText, detect, item_text, order_excess
from cuvee.evaluation.requests import RequestEncoder

Floats = NDArray[np.float64]
BATCH = 16  # texts that a likelihood is given at once


@runtime_checkable
class TokenLikelihood(Protocol):
    """A pack of K language models that tell of each token; `PackLikelihood` is one."""

    models: int
    context: int

    def token_statistics(
        self, tokens: torch.Tensor, lengths: torch.Tensor
    ) -> tuple[torch.Tensor, ...]: ...


def score_texts(
    likelihood: TokenLikelihood, texts: Sequence[str], encoder: RequestEncoder
) -> list[list[ScoredText]]:
    """Every text under every model, K lists in the order of the texts.

    Args:
        likelihood: the pack.
        texts: what is longer than its context loses its end.
        encoder: its end-of-text token stands before each text.
    """
    ids, eot = [encoder.encode(text)[: likelihood.context] for text in texts], encoder.eot
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # equal lengths need no padding
    found: dict[tuple[int, int], ScoredText] = {}
    for first in range(0, len(order), BATCH):
        batch = order[first : first + BATCH]
        longest = len(ids[batch[-1]])
        padded = torch.tensor([[eot, *ids[i], *[eot] * (longest - len(ids[i]))] for i in batch])
        lengths = torch.tensor([len(ids[i]) + 1 for i in batch])
        told = likelihood.token_statistics(padded, lengths)
        log_p, greedy, mean, deviation = (values.double().numpy() for values in told)
        for k, (row, i) in itertools.product(range(likelihood.models), enumerate(batch)):
            at = (k, row, slice(len(ids[i])))
            parts = (log_p[at], mean[at], deviation[at], greedy[at] > 0)
            found[k, i] = ScoredText(texts[i], np.array(ids[i]), *parts)
    return [[found[k, i] for i in range(len(ids))] for k in range(likelihood.models)]


def audit_items(
    likelihood: TokenLikelihood,
    items: Sequence[Mapping[str, Any]],
    *,
    encoder: RequestEncoder,
    frequency: Floats,
    names: Sequence[str],
) -> list[dict[str, Floats]]:
    """By how much detectors find each item likelier in its published order; see `order_excess`.

    Items without choices, and those that do not fit into the context, are left out: no order of
    theirs could be compared.

    Returns:
        For each model, (I,) by detector; empty where no item is left.
    """
    every = [[item_text(one, turn) for turn in range(len(one.get("choices", ())))] for one in items]
    most = likelihood.context
    fits = [own for own in every if own and all(len(encoder.encode(t)) <= most for t in own)]
    texts = [text for own in fits for text in own]
    result = []
    for seen in score_texts(likelihood, texts, encoder):
        left = iter(seen)
        told = [detect([next(left) for _ in own], frequency, names) for own in fits]
        asked = told[0] if told else ()
        result.append({n: np.array([order_excess(n, one[n]) for one in told]) for n in asked})
    return result
