"""Runs of several sizes: what is refused, by name, and how runs are resampled."""

from dataclasses import replace

import numpy as np
import pytest

from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.scaling import ScalingRuns


def table(n=12, k=3, m=2):
    rng = np.random.default_rng(0)
    return ScalingRuns(
        W=rng.dirichlet(np.ones(k), n),
        parameters=np.repeat([1e6, 2e6, 4e6], n // 3),
        tokens=np.full(n, 1e7),
        Y=rng.uniform(1, 2, (n, m)),
        noise=np.zeros((n, m)),
        groups=np.arange(n),
        names=tuple(f"r{i}" for i in range(n)),
    )


def spoiled(runs, field, row, value):
    array = np.array(getattr(runs, field), dtype=float)
    array[row] = value
    return replace(runs, **{field: array})


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("Y", np.nan, "score is missing"),
        ("Y", 0.0, "not positive"),
        ("W", 0.7, "sum to 1"),
        ("parameters", 0.0, "must be positive"),
        ("tokens", np.nan, "must be positive"),
        ("noise", -1.0, "noise"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_the_runs_name(field, value, reason):
    """Catches a missing row that turns into NaN parameters, or is dropped in silence."""
    with pytest.raises(EvidenceError, match=f"r7.*{reason}"):
        spoiled(table(), field, 7, value)


def test_tables_of_different_lengths_are_refused():
    with pytest.raises(EvidenceError, match="tokens has shape"):
        replace(table(), tokens=np.ones(3))


def test_resampling_keeps_every_size_and_whole_runs():
    """Catches a bootstrap over rows: points of one curve must come and go together."""
    runs = table()
    curves = replace(runs, groups=np.arange(12) // 2)
    for seed in range(20):
        drawn = curves.resample(np.random.default_rng(seed))
        assert drawn.sizes == runs.sizes and len(drawn) == 12
        for group in np.unique(drawn.groups):
            rows = drawn.W[drawn.groups == group]
            first = int(np.flatnonzero((rows[0] == runs.W).all(axis=1))[0])
            assert first % 2 == 0 and np.array_equal(rows, runs.W[first : first + 2])
