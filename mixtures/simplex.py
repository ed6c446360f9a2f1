"""Mixtures as weight vectors: points of the probability simplex, and the operations on them.

Nothing here renormalises in silence: `check` refuses what is not a mixture, and the operations that
move a vector say so in their names.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cuvee.mixtures.domains import Array, DomainSet
from cuvee.mixtures.errors import ConstraintError, RecipeError

TOLERANCE = 1e-6  # of a sum of shares: far below any share that a trainer can realise
SAME = 1e-6  # in every share; rows that lie this near to one mixture are runs of it
STEP = 2 * SAME * (1 + 1e-9)  # between two rows of one mixture
ZERO = 1e-9  # shares below it are a solver's rounding
LEAST = 1e-3  # share that stands for 0 where a distance from it must be finite
TINY = 1e-300  # in place of 0 in a logarithm
NAMED = ("natural", "uniform")  # mixtures that a recipe need not write out


def check_mixture(weights: ArrayLike, names: Sequence[str] | None = None) -> Array:
    """The weights as a float64 vector (K,), if they are a mixture.

    Raises:
        ConstraintError: a share is not finite or negative, or the shares do not sum to one within
            `TOLERANCE`.
    """
    w = np.asarray(weights, dtype=np.float64)
    labels = list(names) if names is not None else [str(i) for i in range(w.size)]
    shown = ", ".join(f"{n}={x:.4g}" for n, x in zip(labels, w.ravel(), strict=False))
    if w.ndim != 1 or len(labels) != w.size:
        raise ConstraintError(
            f"weights must be one number per domain ({len(labels)}); got ({shown})"
        )
    if not np.all(np.isfinite(w)) or np.any(w < 0):
        raise ConstraintError(f"weights must be finite and not negative; got ({shown})")
    if abs(w.sum() - 1.0) > TOLERANCE:
        raise ConstraintError(
            f"weights sum to {w.sum():.6g} over {w.size} domains ({shown}); they must sum to 1"
        )
    return w


def written_mixture(given: Any, what: str) -> Any:
    """A mixture as a recipe writes it, hashable: one of `NAMED`, or (domain, share) pairs.

    Raises:
        RecipeError: it is neither.
    """
    if isinstance(given, str) and given in NAMED:
        return given
    pairs = tuple(sorted(given.items())) if isinstance(given, Mapping) else given
    if isinstance(given, str) or not isinstance(pairs, tuple) or not pairs:
        raise RecipeError(
            f"{what} is 'natural', 'uniform' or shares by domain, such as "
            f"{{web: 0.7, code: 0.3}}; got {given!r}"
        )
    return pairs


def written_shares(given: Any, domains: DomainSet) -> Array:
    """Shares (K,) of what `written_mixture` gives; a domain that is not named has none.

    Raises:
        ConstraintError: the shares do not sum to one, or one is negative.
        DataError: a domain is not in the corpus.
    """
    if isinstance(given, str):
        return domains.natural if given == "natural" else domains.uniform
    return check_mixture(domains.vector(dict(given)), domains.names)


def group_rows(W: ArrayLike) -> NDArray[np.int64]:
    """Numbers (N,) from 0 up, equal for rows (N, K) of one mixture, in order of first appearance.

    Rows are of one mixture where a chain of rows leads from one to the other, each step within
    twice `SAME`. So the order of rows has no part in it, and neither has a grid, between whose
    cells repeats that went through float32 would fall.

    A chain is one in every coordinate, so a gap in any parts rows for good; that parts nearly all.
    """
    rows = np.asarray(W, dtype=np.float64)
    member = np.zeros(len(rows), dtype=np.int64)
    left, before = np.arange(len(rows)), (0, 0)
    while len(left):  # rows that are not alone yet
        for column in rows.T:
            order = left[np.lexsort((column[left], member[left]))]
            apart = (np.diff(member[order]) != 0) | (np.diff(column[order]) > STEP)
            member[order] = member.max() + 1 + np.concatenate([[0], np.cumsum(apart)])
            left = left[np.bincount(member)[member[left]] > 1]
            if not len(left):
                break
        now = (len(left), len(np.unique(member[left])))
        if now == before:
            break
        before = now
    for number in np.unique(member[left]):
        block = np.flatnonzero(member == number)
        if (np.ptp(rows[block], axis=0) > STEP).any():
            member[block] = member.max() + 1 + _chained(rows[block])
    _, first, numbers = np.unique(member, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first, kind="stable"), kind="stable")
    return np.asarray(rank[numbers.ravel()], dtype=np.int64)


def _chained(rows: Array) -> NDArray[np.int64]:
    """Numbers (N,) of the chains of few rows (N, K), each looked at beside each."""
    from scipy.sparse import coo_array  # here: half a second that reading a recipe need not wait
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    unique, inverse = np.unique(rows, axis=0, return_inverse=True)
    pairs = cKDTree(unique).query_pairs(STEP, p=np.inf, output_type="ndarray")
    links = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(len(unique), len(unique)))
    return np.asarray(connected_components(links, directed=False)[1][inverse.ravel()])


def canonical_rows(W: ArrayLike) -> Array:
    """The same rows (N, K), where all rows of one mixture bear the shares of its first row."""
    rows = np.asarray(W, dtype=np.float64)
    member = group_rows(rows)
    return np.asarray(rows[np.unique(member, return_index=True)[1]][member], dtype=np.float64)


def count_mixtures(W: ArrayLike) -> int:
    """How many mixtures the rows (N, K) are of; N is at least 1."""
    return int(group_rows(W).max()) + 1


def group_means(values: Array, member: NDArray[np.int64]) -> Array:
    """The mean (G, ...) of the values (N, ...) of each group, by numbers as `group_rows` gives."""
    return np.array([values[member == g].mean(axis=0) for g in range(int(member.max()) + 1)])


def without_rounding(weights: Array) -> Array:
    """Shares (..., K) in which what a solver's rounding left above 0 is 0."""
    return normalized(np.where(weights > ZERO, weights, 0.0))


def without_zeros(weights: Array) -> Array:
    """Shares (K,) to measure KL from: those of 0 become `LEAST`, all others shrink by as much."""
    return weights if weights.all() else normalized(np.maximum(weights, LEAST))


def normalized(values: ArrayLike) -> Array:
    """Non-negative values divided by their sum, along the last axis."""
    v = np.asarray(values, dtype=np.float64)
    total = v.sum(axis=-1, keepdims=True)
    if np.any(v < 0) or np.any(total <= 0):
        raise ConstraintError(
            f"cannot make shares of {v}: they need a positive sum and no negatives"
        )
    return np.asarray(v / total, dtype=np.float64)


def project_simplex(values: ArrayLike) -> Array:
    """The mixture nearest to a vector in Euclidean distance, shape (K,).

    Source: Duchi et al. 2008, "Efficient projections onto the l1-ball", figure 1.
    """
    v = np.asarray(values, dtype=np.float64)
    ordered = np.sort(v)[::-1]
    excess = (np.cumsum(ordered) - 1.0) / np.arange(1, v.size + 1)
    active = int(np.nonzero(ordered - excess > 0)[0][-1])
    return np.asarray(np.maximum(v - excess[active], 0.0), dtype=np.float64)


def tilt(weights: Array, scores: ArrayLike) -> Array:
    """Multiplicative update `w_i exp(s_i) / sum_j w_j exp(s_j)`, (K,); exact for huge scores."""
    w = np.asarray(weights, dtype=np.float64)
    s = np.asarray(scores, dtype=np.float64)
    logs = np.where(w > 0, np.log(np.where(w > 0, w, 1.0)) + s, -np.inf)
    return normalized(np.exp(logs - logs.max()))


def temper(weights: ArrayLike, temperature: float) -> Array:
    """`w ** temperature`, renormalised: 1 keeps the weights, 0 makes those above zero equal.

    The C library's power, not numpy's, whose last bits depend on the processor: draws that start
    from them would be other draws.
    """
    w = np.asarray(weights, dtype=np.float64)
    powered = [math.pow(x, temperature) if x > 0 else 0.0 for x in w.ravel().tolist()]
    return normalized(np.reshape(powered, w.shape))


def kl(W: ArrayLike, prior: ArrayLike) -> Array:
    """Kullback-Leibler divergence KL(w || prior) in nats of mixtures (..., K), shape (...).

    Infinite where w has mass and the prior none.
    """
    w, q = np.asarray(W, dtype=np.float64), np.asarray(prior, dtype=np.float64)
    ratio = np.where(w > 0, w, 1.0) / np.where(q > 0, q, 1.0)
    terms = np.where(w > 0, w * np.log(ratio), 0.0)
    return np.asarray(np.where((w > 0) & (q <= 0), np.inf, terms).sum(axis=-1))


def kl_slope(w: Array, prior: Array) -> Array:
    """The gradient (K,) of `kl`, finite for solvers where w or the prior is 0."""
    logs = np.log(np.maximum(w, TINY) / np.maximum(prior, TINY))
    return np.asarray(np.maximum(logs, -50.0) + 1.0, dtype=np.float64)


def entropy(weights: ArrayLike) -> float:
    """Shannon entropy in nats; log K for equal shares, 0 for a single domain."""
    w = np.asarray(weights, dtype=np.float64)
    support = w[w > 0]
    return float(-np.sum(support * np.log(support)))


def whole_counts(weights: ArrayLike, total: int) -> NDArray[np.int64]:
    """Whole numbers (K,) that sum to `total`, in proportion to the weights, by largest remainder.

    Ties go to the earlier domain, so that the answer is unique.
    """
    w = check_mixture(weights)
    exact = w / w.sum() * total
    whole: NDArray[np.int64] = np.floor(exact + 1e-9).astype(np.int64)
    remainder = exact - whole
    order = np.lexsort((np.arange(w.size), -np.round(remainder, 9)))
    missing = int(total - whole.sum())
    whole[order[:missing]] += 1
    return whole
