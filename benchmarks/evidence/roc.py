"""ROC areas with DeLong's errors: how often a text that was seen scores above one that was not."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RocArea:
    """Area under a ROC curve: how often a member scores above a text that was not seen.

    Attributes:
        area: 0.5 says nothing, 1 tells all; a tie counts half.
        error: standard error.
        members, others: texts of each kind.
    """

    area: float
    error: float
    members: int
    others: int

    def interval(self, level: float = 0.9) -> tuple[float, float]:
        """Confidence interval, within 0 and 1."""
        width = float(stats.norm.ppf(0.5 + level / 2)) * self.error
        return max(0.0, self.area - width), min(1.0, self.area + width)


def roc_area(members: Floats, others: Floats) -> RocArea:
    """The area from scores of members (m,) and of others (n,), with DeLong's error.

    Var = var(V10) / m + var(V01) / n, V10 and V01 the placements of members and others (DeLong et
    al. 1988, Biometrics 44, equation 5). Where all are equal, as at an area of 1, that is 0; then
    the rarer kind is taken to err on half a text.

    Raises:
        ValueError: fewer than two members or others.
    """
    m, n = len(members), len(others)
    if min(m, n) < 2:
        raise ValueError(f"an area needs 2 members and 2 others at least; got {m} and {n}")
    wins = np.sign(members[:, None] - others) / 2 + 0.5
    variance = wins.mean(1).var(ddof=1) / m + wins.mean(0).var(ddof=1) / n
    half = 0.5 / min(m, n)
    if variance == 0:
        variance = half * (1 - half) / min(m, n)
    return RocArea(float(wins.mean()), float(np.sqrt(variance)), m, n)


def mean_area(areas: Sequence[RocArea]) -> RocArea:
    """Mean over models that were shown texts of their own, none of which two of them share."""
    return RocArea(
        float(np.mean([one.area for one in areas])),
        float(np.sqrt(np.sum(np.square([one.error for one in areas])))) / len(areas),
        sum(one.members for one in areas),
        sum(one.others for one in areas),
    )
