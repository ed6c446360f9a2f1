"""ROC areas of detectors: by hand, and against areas that are known."""

import math

import numpy as np
import pytest
from evidence.roc import mean_area, roc_area


def test_roc_area_by_hand() -> None:
    """Catches members and others changed over, and ties that count for one side."""
    found = roc_area(np.array([3.0, 1.0, 2.0]), np.array([1.0, 0.0]))
    assert found.area == pytest.approx((2 + 1.5 + 2) / 6)
    perfect = roc_area(np.array([5.0, 6.0]), np.array([1.0, 2.0, 3.0]))
    assert perfect.area == 1 and perfect.error > 0.1  # of two members nobody knows so much
    with pytest.raises(ValueError, match="got 1 and 2"):
        roc_area(np.ones(1), np.ones(2))


@pytest.mark.parametrize(("shift", "models_"), [(0.0, 1), (1.0, 1), (1.0, 4)])
def test_roc_intervals_hold_the_true_area(shift: float, models_: int) -> None:
    """Catches an error of the wrong size, such as the binomial one of all pairs, or one that is not
    divided by the number of models: the area of two normal distributions is known."""
    rng = np.random.default_rng(3)
    truth = 0.5 * (1 + math.erf(shift / 2))
    held = 0
    for _ in range(600):
        found = mean_area(
            [roc_area(rng.normal(shift, size=30), rng.normal(size=60)) for _ in range(models_)]
        )
        low, high = found.interval(0.9)
        held += low <= truth <= high
    assert 0.86 <= held / 600 <= 0.94
