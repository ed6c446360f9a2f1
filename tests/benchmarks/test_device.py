"""The comparison of devices tells a difference, and tells none where there is none."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import device
import pytest
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


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "complete"), [("6", False), ("500", True)])
def test_the_program_says_what_it_knows_and_ends_itself(tmp_path, seconds, complete):
    """Catches a part that fails on a CPU, a loaned GPU that is held for ever, and a program that is
    cut short without a line that can be read."""
    began = time.monotonic()
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run(
        [sys.executable, Path(device.__file__), "--device", "cpu", "--seconds", seconds],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=600,
        env=settings,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0 and lines[-1]["complete"] is complete, done.stderr[-2000:]
    assert not [name for name in lines[-1] if name.endswith("failed")]
    if complete:
        parts = [line["part"] for line in lines if "part" in line]
        assert list(dict.fromkeys(parts)) == [
            "correctness", "waits", "peak", "packs 0.3M", "rival 0.3M", "profile 1"
        ]  # fmt: skip
        assert lines[-1]["0.3M K=1"] > 0 and lines[-1]["0.3M K=2 of peak"] > 0
    else:
        assert time.monotonic() - began < 120
