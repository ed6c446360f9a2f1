"""Ties: values that differ by rounding alone, between which a rule decides and never the last bits.

Processors round sums and exponentials differently (AVX-512 adds in another order than AVX2), so a
bare `argmin` or sort over fitted values may answer one thing on one machine and another on the
next. Here what lies within `ROUNDING` of the values' size is equal, and the earlier one wins.
"""

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.domains import Array

ROUNDING = 1e-9  # part of the values' size: far above float64's rounding, far below any noise


def lowest(values: Array, size: float | None = None) -> int:
    """The first place (n,) whose value is the lowest but for rounding; infinite values lose.

    Args:
        values: (n,) at least one.
        size: what the values were computed from; by default their median size.
    """
    v = np.where(np.isnan(values), np.inf, np.asarray(values, dtype=np.float64))
    return int(np.argmax(v <= v.min() + ROUNDING * (_size(v) if size is None else size)))


def highest(values: Array) -> int:
    """The first place (n,) whose value is the highest but for rounding."""
    return lowest(-np.asarray(values, dtype=np.float64))


def leveled(values: Array) -> Array:
    """Values (n,) rounded to `ROUNDING` of their median size, so that those that tie are equal."""
    v = np.asarray(values, dtype=np.float64)
    step = ROUNDING * _size(v)
    return np.asarray(np.round(v / step) * step if step > 0 else v, dtype=np.float64)


def sort_order(values: Array) -> NDArray[np.intp]:
    """Places (n,) from the lowest value to the highest; those that tie in their order."""
    return np.argsort(leveled(values), kind="stable")


def _size(values: Array) -> float:
    """The median size of what is neither infinite nor 0: one value beyond measure is no measure."""
    finite = np.abs(values[np.isfinite(values)])
    finite = finite[finite > 0]
    return float(np.median(finite)) if finite.size else 0.0
