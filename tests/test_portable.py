"""An instruction set changes digits, never an answer: ties are decided by rule."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cuvee.mixtures import simplex, ties
from cuvee.mixtures.inference import diagnostics

HERE = Path(__file__).parent
CPU = Path("/proc/cpuinfo")
FEATURES = CPU.read_text(encoding="utf-8") if CPU.is_file() else ""
OLDER = (  # (a feature that the processor must have, what turns it off), newest first
    ("avx512f", {"NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
                 "OPENBLAS_CORETYPE": "Haswell"}),
    ("avx2", {"NPY_DISABLE_CPU_FEATURES": "X86_V3", "OPENBLAS_CORETYPE": "Nehalem"}),
)  # fmt: skip


def _answers(**setting: str) -> dict[str, dict]:
    """What the studies answer in a process of its own, whose instructions a setting narrows."""
    bare = {k: v for k, v in os.environ.items() if k not in OLDER[0][1]}
    env = bare | {"PYTHONPATH": f"{HERE.parent}", "OMP_NUM_THREADS": "1"} | setting
    program = [sys.executable, str(HERE / "portable_answers.py")]
    done = subprocess.run(
        program, env=env, cwd=HERE.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_recommendations_do_not_depend_on_the_instruction_set() -> None:
    """Catches a design, law, search, tail or verdict that hangs on the last bits of a sum: draws
    accepted by them, an argmin over values that tie, ranks of predictions that are all equal."""
    older = next((setting for feature, setting in OLDER if feature in FEATURES), None)
    if older is None:
        pytest.skip("this processor has one instruction set alone")
    newest, other = _answers(), _answers(**older)
    assert newest.keys() == other.keys() and len(newest) >= 10
    for name, one in newest.items():
        two = other[name]
        for key in ("runs", "asked", "law", "verdict", "warnings"):
            assert one[key] == two[key], (name, key)
        assert one["shares"] == pytest.approx(two["shares"], abs=1e-5), name
        assert one["gain"] == pytest.approx(two["gain"], abs=1e-5), name


def test_what_differs_by_rounding_ties_and_the_first_wins() -> None:
    """Catches a bare argmin (2, 3 below), a sort that tells rounding apart, an infinite value that
    swallows the rest, and ranks of predictions that are equal but for rounding."""
    values = np.array([3.0, 1.0 + 1e-13, 1.0, 1.0 - 1e-13, np.inf])
    assert ties.lowest(values) == 1 and ties.highest(-values) == 1
    assert ties.sort_order(values).tolist() == [1, 2, 3, 0, 4]
    assert ties.lowest(np.array([1.0, 1.0 - 1e-6])) == 1
    assert ties.lowest(np.array([np.inf, np.nan, 5.0])) == 2
    assert ties.lowest(np.array([0.0, 0.0])) == 0
    constant = 2.0 + np.array([0, 4e-16, -4e-16, 4e-16, 0])
    assert diagnostics.spearman(np.arange(5.0), constant) == 0.0
    assert diagnostics.decision_accuracy(np.arange(5.0), constant) == 0.5


def test_a_share_of_repeats_is_one_mixture_however_it_is_cut() -> None:
    """0.3 in float32 is 0.30000001: catches a grid of digits (0.1234565 falls on both sides of one)
    and a comparison with the first row alone (the third row lies 2e-6 from it)."""
    rows = np.array([[0.1234565, 0.8765435]] * 4 + [[0.2, 0.8]])
    rows[1] += [1e-6, -1e-6]
    rows[2] += [2e-6, -2e-6]
    rows[3] -= [4e-8, -4e-8]
    assert simplex.group_rows(rows).tolist() == [0, 0, 0, 0, 1]
    assert simplex.group_rows(rows[::-1]).tolist() == [0, 1, 1, 1, 1]
    assert (simplex.canonical_rows(rows)[:4] == rows[0]).all()
    apart = np.array([[0.5, 0.5], [0.50001, 0.49999], [0.5, 0.5]])
    assert simplex.group_rows(apart).tolist() == [0, 1, 0]


def test_a_value_beyond_measure_makes_no_tie():
    """Catches ties as wide as the largest value: a law that blows up in one corner makes all others
    equal, and the first draw is recommended."""
    values = np.array([3.5, 3.2, 3.0, 1e10, np.inf])
    assert ties.lowest(values) == 2
    assert ties.sort_order(values).tolist() == [2, 1, 0, 3, 4]
    assert ties.lowest(np.array([0.0, 0.0, 1.0])) == 0
    assert ties.lowest(np.array([1.0 + 1e-13, 1.0, 2.0])) == 0
