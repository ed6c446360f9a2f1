"""Splits: which rows a law is fitted to, and which it is judged on, draw by draw.

* `random`, a table with tests: rows drawn from the pool, judged on all tests. Where every row of
  the pool is drawn there is one fit, and draws are random halves of the tests (whose spread is the
  sampling error of the whole).
* `random`, a table without tests: five folds of mixtures drawn anew, each predicted from rows drawn
  from the others; a draw is the whole table, every run predicted once.
* `far`: of nine tenths of the pool, drawn anew, the quarter of the mixtures farthest from the rest
  (mean Euclidean distance of the shares) is never fitted; rows are drawn from the other three. It
  is judged on that quarter, or on the quarter of each test that is farthest from the rows at hand.

Repeats of a mixture lie in one part. Draws depend on the table, the rows and their number alone, so
that all laws see the same and differences are paired.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.distance import cdist

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.diagnostics import grouped_folds
from mixbench.tables import Table

SPLITS = ("random", "far")
FOLDS = 5
FAR, DRAWN = 0.25, 0.9
Rows = np.ndarray


@dataclass(frozen=True, eq=False)
class Trial:
    """One fit: rows of the pool, and what it is judged on.

    Attributes:
        train: rows of the pool.
        held_out: rows of the pool that it predicts.
        tests: rows of each test that it predicts.
    """

    train: Rows
    held_out: Rows | None = None
    tests: dict[str, Rows] = field(default_factory=dict)


def most_rows(table: Table, split: str) -> int:
    """The most rows that a fit of a split sees."""
    n = len(table.pool.W)
    if split == "far":
        drawn = round(DRAWN * n)
        return drawn - round(FAR * drawn)
    return n if table.tests else n - -(-n // FOLDS)


def sizes(table: Table, split: str, asked: list[int]) -> list[int]:
    """The numbers of rows that are asked for and there, with all rows as the last; 0 means all."""
    most = most_rows(table, split)
    return sorted(
        {n for n in asked if 0 < n < most} | ({most} if max(asked) >= most or 0 in asked else set())
    )


def trials(table: Table, split: str, rows: int, draw: int) -> Iterator[Trial]:
    """The fits of a draw."""
    rng = np.random.default_rng([draw, rows, SPLITS.index(split)])
    if split == "far":
        yield far_trial(table, rows, rng)
    elif table.tests:
        n = len(table.pool.W)
        whole = rows >= n
        train = np.arange(n) if whole else rng.permutation(n)[:rows]
        yield Trial(
            train, None, {name: _judged(len(t.W), whole, rng) for name, t in table.tests.items()}
        )
    else:
        yield from fold_trials(table, rows, rng)


def fold_trials(table: Table, rows: int, rng: np.random.Generator) -> Iterator[Trial]:
    """Five fits that predict every run once."""
    whole = rows >= most_rows(table, "random")
    for part in grouped_folds(simplex.group_rows(table.pool.W), FOLDS, rng):
        rest = rng.permutation(np.setdiff1d(np.arange(len(table.pool.W)), part))
        yield Trial(rest if whole else rest[:rows], part)


def far_trial(table: Table, rows: int, rng: np.random.Generator) -> Trial:
    """One fit to rows near each other, judged on those farthest from them."""
    W = table.pool.W
    drawn = rng.permutation(len(W))[: round(DRAWN * len(W))]
    order = drawn[np.argsort(-farness(W[drawn]), kind="stable")]
    count = round(FAR * len(drawn))
    member = simplex.group_rows(W)
    far = np.flatnonzero(np.isin(np.arange(len(W)), drawn) & np.isin(member, member[order[:count]]))
    near = rng.permutation(np.setdiff1d(drawn, far))
    train = near[:rows]
    if not table.tests:
        return Trial(train, far)
    return Trial(train, None, {name: farthest(t.W, W[near]) for name, t in table.tests.items()})


def farness(W: Array) -> Array:
    """Mean Euclidean distance (N,) of each mixture from the others."""
    return np.asarray(cdist(W, W).sum(axis=1) / max(len(W) - 1, 1))


def farthest(W: Array, seen: Array) -> Rows:
    """Rows of the quarter of the mixtures (N, K) that is farthest from those seen; at least two."""
    order = np.argsort(-cdist(W, seen).mean(axis=1), kind="stable")
    return np.sort(order[: max(2, round(FAR * len(W)))])


def _judged(count: int, halved: bool, rng: np.random.Generator) -> Rows:
    """All rows of a test, or a random half of them where there are enough."""
    order = rng.permutation(count)
    return np.sort(order[: count // 2] if halved and count >= 8 else order)
