"""What a task asks, encoded: items, their requests, and text as tokens.

Requests are encoded by the rules of lm-eval's `HFLM` (0.4.13): blanks at the end of a context move
to the continuation, the pair is encoded as one text and cut where the encoded context ends, an
empty context becomes the end-of-text token, and what is too long loses its left end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from cuvee.evaluation.likelihood import AnswerRow
from cuvee.mixtures.runs.unit_scores import Keys, unit_keys

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Item:
    """One item of a task, as encoded requests.

    Attributes:
        task: lm-eval's task, which judges the answers.
        instances: lm-eval's requests.
        choices: how many of the requests are choices (others serve lm-eval's own metrics).
        gold: position of the gold answer among them.
        sizes: UTF-8 bytes of what each request scores.
        averaged: metrics of the task that are averaged over items.
        own_verdict: whether the task's class leaves lm-eval's verdict on answers as it is.
        content: the texts of all its requests, by which it is known to be the same item.
    """

    task: Any
    instances: tuple[Any, ...]
    choices: int
    gold: int
    sizes: tuple[int, ...]
    averaged: frozenset[str]
    own_verdict: bool
    content: bytes = b""


@dataclass(frozen=True)
class TaskRequests:
    """A task whose requests are built and encoded.

    Attributes:
        name: of the target, without "task/".
        items: what is asked, in a fixed order.
        rows: what the pack has to score.
        starts: (requests,) the first row of each request of each item, in order.
        left_out: items that do not fit into the model's context.
    """

    name: str
    items: tuple[Item, ...]
    rows: tuple[AnswerRow, ...]
    starts: NDArray[np.int64]
    left_out: int

    @cached_property
    def keys(self) -> Keys:
        """(items,) what each item is known by among the units of a score."""
        return unit_keys(item.content for item in self.items)

    def answers(self, nats: Floats, greedy: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
        """Per request: nats, and whether decoding would give it; (..., rows) -> (..., requests)."""
        whole = np.logical_and.reduceat(greedy, self.starts, axis=-1)
        return np.add.reduceat(nats, self.starts, axis=-1), whole


@dataclass(frozen=True)
class RequestEncoder:
    """Text to tokens, by the rules of lm-eval's HFLM.

    Attributes:
        tokenizer: of the proxies.
        eot: id of the end-of-text token, which also stands before a text without context.
        context: longest input of the proxies, in tokens.
    """

    tokenizer: Tokenizer
    eot: int
    context: int
    _latest: dict[str, list[int]] = field(default_factory=dict, compare=False, repr=False)

    def pair(self, context: str, continuation: str) -> AnswerRow | None:
        """A continuation after a context; None where it does not fit."""
        before: Sequence[int]
        if context == "":
            after = self.encode(continuation, special=False)
            if after[:1] == [self.eot]:
                before, after = after[:1], after[1:]
            else:
                before = [self.eot]
        else:
            text, moved = split_context(context)
            if text not in self._latest:  # the choices of an item share their context
                self._latest.clear()
                self._latest[text] = self.encode(text)
            before = self._latest[text]
            after = self.encode(text + moved + continuation)[len(before) :]
        if not before or not 0 < len(after) <= self.context:
            return None
        return AnswerRow((*before, *after)[-(self.context + 1) :], len(after))

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Tokens of a text, as its tokenizer begins it."""
        special = special and not text.startswith(self.tokenizer.id_to_token(self.eot) or " ")
        return list(self.tokenizer.encode(text, add_special_tokens=special).ids)


def split_context(context: str) -> tuple[str, str]:
    """A context without the blanks at its end, and those blanks."""
    text = context.rstrip()
    return text, context[len(text) :]
