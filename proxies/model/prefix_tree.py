"""Contexts and their answers as trees, in batches that a model computes at once.

The choices of an item share their context, and often how they begin, so what is shared is computed
once: a sequence holds the context (the trunk) and after it the answers as a prefix tree, depth
first, in which a token sees the tokens on its way from the root alone. Over the quickstart tasks
that is half the tokens. Only predictions of answer tokens are asked for, and each distinct one
once, which spares most of the logits.

Shapes: B sequences, T tokens, U predictions, S scored tokens, R answers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

Tokens = Sequence[int]


@dataclass(frozen=True)
class PrefixTree:
    """A context with some of its answers.

    Attributes:
        context: tokens of the trunk.
        answers: in ascending order, so that those which begin alike are neighbors.
        places: of the answers, among all answers.
        shared: inputs of each answer that stand in the tree already, for the answer before it.
        size: tokens that go into the model: the context and each new token of an answer but its
            last.
        branching: whether two answers go apart and both put tokens of their own into the model.
    """

    context: Tokens
    answers: tuple[Tokens, ...]
    places: tuple[int, ...]
    shared: tuple[int, ...] = field(init=False)
    size: int = field(init=False)
    branching: bool = field(init=False)

    def __post_init__(self) -> None:
        shared = [0] + [
            common_prefix(a, b) for a, b in zip(self.answers, self.answers[1:], strict=False)
        ]
        new = sum(len(a) - 1 - s for a, s in zip(self.answers, shared, strict=True))
        object.__setattr__(self, "shared", tuple(shared))
        object.__setattr__(self, "size", len(self.context) + new)
        object.__setattr__(self, "branching", new > max(map(len, self.answers)) - 1)


@dataclass(frozen=True, eq=False)
class PrefixTreeBatch:
    """A batch of trees.

    Attributes:
        tokens: (B, T) inputs, 0 at padding.
        positions: (B, T) of each token in its own sequence; None where no tree branches.
        ends: (B, T) the first place after a token from which it is no longer seen; None likewise.
        sources: (U,) which inputs, of B x T, predict something that is scored; ascending.
        rows: (S,) the prediction of each scored token, as its place in `sources`; ascending.
        targets: (S,) the scored tokens.
        owners: (S,) the answer of each, as its place among all answers.
    """

    tokens: Tensor
    positions: Tensor | None
    ends: Tensor | None
    sources: Tensor
    rows: Tensor
    targets: Tensor
    owners: Tensor

    @property
    def first(self) -> int:
        """The first place in any sequence whose prediction is asked for."""
        return int((self.sources % self.tokens.shape[1]).min())


def common_prefix(before: Tokens, after: Tokens) -> int:
    """How many inputs two answers have in common at their start; last tokens are no inputs."""
    most = min(len(before), len(after)) - 1
    return next((i for i in range(most) if before[i] != after[i]), most)


def grow_prefix_tree(
    contexts: Sequence[Tokens], answers: Sequence[Sequence[Tokens]], longest: int
) -> list[PrefixTree]:
    """Trees of at most `longest` inputs, unless one answer alone makes more."""
    trees = []
    firsts = accumulate((len(some) for some in answers), initial=0)
    for context, some, first in zip(contexts, answers, firsts, strict=False):
        kept: list[int] = []
        size = 0
        for place in sorted(range(len(some)), key=lambda i: tuple(some[i])):
            new = len(some[place]) - 1 - (common_prefix(some[kept[-1]], some[place]) if kept else 0)
            if kept and size + new > longest:
                trees.append(_tree(context, some, first, kept))
                kept, new = [], len(some[place]) - 1
            size = (size if kept else len(context)) + new
            kept.append(place)
        if kept:
            trees.append(_tree(context, some, first, kept))
    return trees


def _tree(context: Tokens, answers: Sequence[Tokens], first: int, kept: list[int]) -> PrefixTree:
    return PrefixTree(context, tuple(answers[i] for i in kept), tuple(first + i for i in kept))


def prefix_tree_batches(trees: Sequence[PrefixTree], budget: int) -> Iterator[PrefixTreeBatch]:
    """Batches of at most `budget` inputs with padding (but one tree at least), longest first.

    Trees that branch and trees that do not stand in different batches: the latter need no mask.
    Among trees of one size, those whose answers begin late stand together: a model's last layer
    has nothing to say before.
    """
    for branching in (False, True):
        some = [tree for tree in trees if tree.branching is branching]
        some.sort(key=lambda tree: (-tree.size, -len(tree.context), tuple(tree.context)))
        start = 0
        while start < len(some):
            stop = start + max(1, budget // some[start].size)
            yield build_prefix_trees(some[start:stop])
            start = stop


def build_prefix_trees(trees: Sequence[PrefixTree]) -> PrefixTreeBatch:
    """Lay trees out, one to a sequence."""
    width = max(tree.size for tree in trees)
    tokens, positions = np.zeros((2, len(trees), width), dtype=np.int64)
    ends = np.full((len(trees), width), width, dtype=np.int64)
    sources: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for line, tree in enumerate(trees):
        trunk = end = len(tree.context)
        tokens[line, :trunk] = tree.context
        positions[line, :trunk] = np.arange(trunk)
        path: list[int] = []  # where the inputs of the latest answer stand
        for answer, place, shared in zip(tree.answers, tree.places, tree.shared, strict=True):
            ends[line, path[shared:]] = end
            start, end = end, end + len(answer) - 1 - shared
            path[shared:] = range(start, end)
            tokens[line, start:end] = answer[shared:-1]
            positions[line, start:end] = np.arange(trunk + shared, trunk + len(answer) - 1)
            base = line * width
            sources += [base + trunk - 1, *(base + at for at in path)]
            targets += answer
            owners += [place] * len(answer)
    unique, rows = np.unique(np.array(sources), return_inverse=True)
    order = np.argsort(rows, kind="stable")
    bent = any(tree.branching for tree in trees)
    return PrefixTreeBatch(
        torch.from_numpy(tokens),
        torch.from_numpy(positions) if bent else None,
        torch.from_numpy(ends) if bent else None,
        torch.from_numpy(unique),
        *(torch.from_numpy(np.array(values)[order]) for values in (rows, targets, owners)),
    )
