"""The comparison of devices tells a difference, and tells none where there is none."""

import device
import torch


def test_a_processor_held_against_itself_differs_in_bfloat16_alone():
    """Catches a comparison that never ran, one of other models, and one that rounds by itself."""
    seen = device.correctness("cpu", "0.3M", 2)
    assert 0 < seen.pop("loss_bfloat16_against_cpu") < 1e-3
    assert set(seen.values()) == {0.0} and len(seen) == 6


def test_a_number_that_is_none_is_far_away():
    """Catches a comparison that NaN passes."""
    truth = torch.tensor([2.0, 4.0])
    assert device.distance(torch.tensor([2.0, 5.0]), truth) == 0.25
    assert device.distance(torch.tensor([2.0, torch.nan]), truth) == float("inf")
