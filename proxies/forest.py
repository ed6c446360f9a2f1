"""Contexts and their answers as trees, in batches that a model computes at once.

The choices of an item share their context, so the context is computed once: a sequence holds the
context (the trunk) and after it every answer (a branch) that sees the trunk and itself alone. Over
the quickstart tasks that is half the tokens. Only the predictions of answer tokens are
asked for, which spares most of the logits.

Shapes: B sequences, T tokens, S scored tokens, R answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

Tokens = Sequence[int]


@dataclass(frozen=True)
class Tree:
    """A context with some of its answers.

    Attributes:
        context: tokens of the trunk.
        answers: tokens of each branch.
        places: of the answers, among all answers.
    """

    context: Tokens
    answers: tuple[Tokens, ...]
    places: tuple[int, ...]

    @property
    def size(self) -> int:
        """Tokens that go into the model: all but the last of each answer."""
        return len(self.context) + sum(len(answer) - 1 for answer in self.answers)

    @property
    def branching(self) -> bool:
        """Whether two answers put tokens of their own into the model."""
        return sum(len(answer) > 1 for answer in self.answers) > 1


@dataclass(frozen=True, eq=False)
class Forest:
    """A batch of trees.

    Attributes:
        tokens: (B, T) inputs, 0 at padding.
        positions: (B, T) of each token in its own sequence; None where no tree branches.
        branch: (B, T) the answer's number from 1, 0 in trunk and padding; None likewise.
        sources: (S,) which input, of B x T, predicts each scored token.
        targets: (S,) the scored tokens.
        owners: (S,) the answer of each, as its place among all answers.
    """

    tokens: Tensor
    positions: Tensor | None
    branch: Tensor | None
    sources: Tensor
    targets: Tensor
    owners: Tensor


def grow(
    contexts: Sequence[Tokens], answers: Sequence[Sequence[Tokens]], longest: int
) -> list[Tree]:
    """Trees of at most `longest` inputs, unless one answer alone makes more."""
    trees = []
    firsts = accumulate((len(some) for some in answers), initial=0)
    for context, some, first in zip(contexts, answers, firsts, strict=False):
        kept: list[int] = []
        size = len(context)
        for place, answer in enumerate(some):
            if kept and size + len(answer) - 1 > longest:
                trees.append(_tree(context, some, first, kept))
                kept, size = [], len(context)
            kept.append(place)
            size += len(answer) - 1
        if kept:
            trees.append(_tree(context, some, first, kept))
    return trees


def _tree(context: Tokens, answers: Sequence[Tokens], first: int, kept: list[int]) -> Tree:
    return Tree(context, tuple(answers[i] for i in kept), tuple(first + i for i in kept))


def forests(trees: Sequence[Tree], budget: int) -> Iterator[Forest]:
    """Batches of at most `budget` inputs with padding (but one tree at least), longest first.

    Trees that branch and trees that do not stand in different batches: the latter need no mask.
    """
    for branching in (False, True):
        some = [tree for tree in trees if tree.branching is branching]
        some.sort(key=lambda tree: (-tree.size, tuple(tree.context)))
        start = 0
        while start < len(some):
            stop = start + max(1, budget // some[start].size)
            yield plant(some[start:stop])
            start = stop


def plant(trees: Sequence[Tree]) -> Forest:
    """Lay trees out, one to a sequence."""
    width = max(tree.size for tree in trees)
    tokens, positions, branch = np.zeros((3, len(trees), width), dtype=np.int64)
    sources: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for line, tree in enumerate(trees):
        trunk = len(tree.context)
        tokens[line, :trunk] = tree.context
        positions[line, :trunk] = np.arange(trunk)
        end = trunk
        for number, (answer, place) in enumerate(zip(tree.answers, tree.places, strict=True), 1):
            start, end = end, end + len(answer) - 1
            tokens[line, start:end] = answer[:-1]
            positions[line, start:end] = np.arange(trunk, trunk + end - start)
            branch[line, start:end] = number
            base = line * width
            sources += [base + trunk - 1, *range(base + start, base + end)]
            targets += answer
            owners += [place] * len(answer)
    bent = any(tree.branching for tree in trees)
    return Forest(
        torch.from_numpy(tokens),
        torch.from_numpy(positions) if bent else None,
        torch.from_numpy(branch) if bent else None,
        *(torch.from_numpy(np.array(values)) for values in (sources, targets, owners)),
    )
