"""Distinct mixtures: what every design needs, and the sentence for when there are too few."""

import numpy as np

from cuvee.mixtures import simplex
from cuvee.mixtures.domains import Array
from cuvee.mixtures.errors import ConstraintError

NEAR = 1e-5  # L1 distance below which two mixtures are one, as in RegMix


def distinct_rows(points: Array, near: float = NEAR, against: Array | None = None) -> Array:
    """The rows that are farther than `near` (L1) from every earlier row, in their order.

    Args:
        points: (n, K).
        near: distance up to which a row counts as a copy.
        against: (m, K) further rows that must not be copied, such as an earlier sweep's.
    """
    taken = np.zeros((0, points.shape[1])) if against is None else np.atleast_2d(against)
    member = simplex.group_rows(np.vstack([taken, points])).tolist()
    seen = set(member[: len(taken)])
    kept: list[Array] = []
    for row, group in zip(points, member[len(taken) :], strict=True):
        if group in seen or (near > NEAR and _close(row, taken, kept, near)):
            continue
        seen.add(group)
        kept.append(row)
    return np.array(kept).reshape(-1, points.shape[1])


def _close(row: Array, taken: Array, kept: list[Array], near: float) -> bool:
    others = [taken, *([np.array(kept)] if kept else [])]
    return any(len(o) > 0 and bool((np.abs(o - row).sum(axis=1) <= near).any()) for o in others)


def first_rows(points: Array, n: int, design: str) -> Array:
    """The first n rows.

    Raises:
        ConstraintError: there are fewer.
    """
    if len(points) < n:
        raise ConstraintError(
            f"design {design!r} found {len(points)} distinct feasible mixtures of the {n} asked "
            "for; ask for fewer or relax the constraints"
        )
    return points[:n]
