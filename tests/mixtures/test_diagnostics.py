"""Diagnostics: against values worked out by hand, and against noise of known size."""

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from cuvee.mixtures import simplex
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference import diagnostics, held_out
from cuvee.mixtures.inference.diagnostics import RunTable
from cuvee.mixtures.laws import Law, Prediction
from cuvee.mixtures.objectives import WeightedMean

FORM = WeightedMean({"t": 1.0}).scalarize(["t"], np.zeros(1))


@dataclass(frozen=True)
class Fit:
    """Least squares without a constant, with the rows that it saw."""

    slope: np.ndarray
    seen: np.ndarray

    def predict(self, W):
        mean = W @ self.slope
        return Prediction(mean, np.full_like(mean, 0.1))


@dataclass(frozen=True)
class Linear(Law):
    """The smallest law there is: y = A w."""

    name = "smallest"

    def rows(self, domains):
        return domains

    def fit(self, W, Y, noise, rng):
        return Fit(np.linalg.lstsq(W, Y, rcond=None)[0], W)


def sample(n=30, noise=0.0, seed=0):
    rng = np.random.default_rng(seed)
    W = rng.dirichlet(np.ones(4), size=n)
    Y = W @ np.array([[1.0], [2.0], [3.0], [0.0]]) + noise * rng.standard_normal((n, 1))
    return RunTable(W, Y, np.array([noise]))


def test_intervals_have_the_width_of_their_level():
    """Catches a level that changes without the quantile that is written down for it."""
    assert stats.norm.ppf(0.5 + diagnostics.LEVEL / 2) == diagnostics.Z


def test_spearman_is_scipys_and_zero_for_a_constant():
    a, b = np.array([1.0, 2, 2, 4, 5]), np.array([2.0, 1, 4, 3, 9])
    assert diagnostics.spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert diagnostics.spearman(a, np.ones(5)) == 0.0
    assert diagnostics.spearman(a, -a) == pytest.approx(-1.0)


def test_decision_accuracy_by_hand():
    """Pairs of (1, 2, 3) against (1, 3, 2): two of three right; a predicted tie is half."""
    assert diagnostics.decision_accuracy(np.array([1, 2, 3]), np.array([1, 3, 2])) == 2 / 3
    assert diagnostics.decision_accuracy(np.array([1, 2]), np.array([5, 5])) == 0.5
    assert diagnostics.decision_accuracy(np.array([1, 1]), np.array([5, 6])) == 0.5


def test_repeats_of_a_mixture_share_a_fold():
    """Catches folds over rows: a law judged by a repeat of what it was fitted to."""
    W = np.repeat(np.random.default_rng(0).dirichlet(np.ones(3), size=7), 3, axis=0)[::-1]
    membership = simplex.group_rows(W)
    assert membership.tolist() == [g for g in range(7) for _ in range(3)]
    parts = diagnostics.grouped_folds(membership, 4, np.random.default_rng(1))
    assert sorted(np.concatenate(parts).tolist()) == list(range(21))
    for part in parts:
        rest = np.setdiff1d(np.arange(21), part)
        assert not set(membership[part]) & set(membership[rest])


def test_folds_need_two_mixtures():
    with pytest.raises(EvidenceError, match="at least 2 mixtures"):
        diagnostics.grouped_folds(np.zeros(5, dtype=int), 3, np.random.default_rng(0))


def test_held_out_predictions_never_saw_their_row():
    """Pure noise cannot be predicted; in-sample evaluation would rank it well."""
    rng = np.random.default_rng(3)
    W = rng.dirichlet(np.ones(12), size=24)
    noise = RunTable(W, rng.standard_normal((24, 1)), np.zeros(1))
    parts = diagnostics.grouped_folds(simplex.group_rows(W), 4, rng)
    found = diagnostics.law_evidence(
        "linear", noise, diagnostics.cross_validate(Linear(), noise, parts, rng), FORM
    )
    assert found.spearman < 0.4
    true = sample()
    parts = diagnostics.grouped_folds(simplex.group_rows(true.W), 5, rng)
    found = diagnostics.law_evidence(
        "linear", true, diagnostics.cross_validate(Linear(), true, parts, rng), FORM
    )
    assert found.spearman == pytest.approx(1.0) and found.error < 1e-9
    assert found.coverage == 1.0 and found.decision_accuracy == 1.0
    assert found.held_out[4][0] == pytest.approx(float(true.Y[4, 0]))


def test_the_learning_curve_rises_to_the_rows_of_a_fold():
    noisy = sample(n=60, noise=0.3)
    rng = np.random.default_rng(0)
    parts = diagnostics.grouped_folds(simplex.group_rows(noisy.W), 5, rng)
    curve = diagnostics.learning_curve(Linear(), noisy, FORM, parts, points=3, rng=rng)
    rows = [n for n, _ in curve]
    assert rows == sorted(rows) and rows[0] == 4 and rows[-1] < 48
    assert curve[-1][1] > curve[0][1]


def test_the_noise_floor_is_pooled_over_anchors():
    """Two anchors of 200 seeds with deviations 0.1 and 0.3 pool to sqrt(0.05) = 0.2236."""
    rng = np.random.default_rng(0)
    W = np.repeat(np.eye(2), 200, axis=0)
    Y = np.concatenate([5 + 0.1 * rng.standard_normal(200), 0.3 * rng.standard_normal(200)])
    target, objective = diagnostics.noise_floor(W, Y[:, None], ["t"], FORM)
    assert target.seeds == pytest.approx(0.2236, rel=0.08) and target.degrees == 398
    assert target.mixtures == pytest.approx(5 / np.sqrt(2), rel=0.02)
    assert (objective.target, objective.seeds) == ("objective", target.seeds)


def test_without_repeats_there_is_no_noise_floor():
    """Catches a noise of zero, which would make every gain significant."""
    true = sample()
    assert diagnostics.noise_floor(true.W, true.Y, ["t"], FORM) == ()


def test_bootstrap_refits_draw_whole_mixtures_and_enough_rows():
    W = np.repeat(np.random.default_rng(0).dirichlet(np.ones(4), size=5), 2, axis=0)
    data = RunTable(W, W[:, :1], np.zeros(1))
    found = diagnostics.bootstrap_fits(Linear(), data, 20, np.random.default_rng(0))
    assert len(found) == 20
    for refit in found:
        counts = np.bincount(simplex.group_rows(refit.seen))
        assert len(refit.seen) >= 4 and np.all(counts % 2 == 0)
    again = diagnostics.bootstrap_fits(Linear(), data, 20, np.random.default_rng(0))
    assert all(np.array_equal(a.seen, b.seen) for a, b in zip(found, again, strict=False))


def test_bootstrap_spread_is_that_of_the_estimate():
    """The spread over refits must be near the spread over fresh samples, within a factor of 2."""
    point = np.full((1, 4), 0.25)
    rng = np.random.default_rng(0)
    rows = np.arange(40)
    fresh = [
        sample(40, 0.2, seed).fit(Linear(), rows, rng).predict(point).mean[0, 0]
        for seed in range(60)
    ]
    refits = diagnostics.bootstrap_fits(Linear(), sample(40, 0.2, 99), 60, rng)
    boot = [refit.predict(point).mean[0, 0] for refit in refits]
    assert 0.5 < np.std(boot) / np.std(fresh) < 2


def test_paired_differences_by_hand():
    """(1, 2, 3): mean 2, standard error 1/sqrt 3, t(0.95, 2) = 2.920, p = P(t > 3.464) = 0.0371."""
    found = diagnostics.paired_mean([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.n == 3
    assert found.low == pytest.approx(2 - 2.91999 / np.sqrt(3), abs=1e-4)
    assert found.p == pytest.approx(0.0371, abs=1e-4)
    assert diagnostics.paired_mean([-1.0, -1.0]).p == 1.0
    for bad in ([1.0], [1.0, np.inf]):
        with pytest.raises(EvidenceError, match="at least 2 finite"):
            diagnostics.paired_mean(bad)


def test_leverage_grows_beyond_the_rows():
    W = np.random.default_rng(0).dirichlet(np.full(4, 30.0), size=50)
    inside, outside = diagnostics.leverage(W, np.array([[0.25] * 4, [1.0, 0, 0, 0]]))
    assert inside < diagnostics.leverage(W, W).max() < outside


def test_the_interval_of_a_rank_correlation_is_that_of_bonett_and_wright():
    """Catches the variance 1 / (n - 3) of Pearson's, a half-width of 90 %, and a nan where an order
    has no mistake: 0.5 of 28 pairs has z 0.54931, its deviation is sqrt(1.125 / 25) = 0.21213."""
    low, high = held_out.rank_interval(0.5, 28)
    assert (low, high) == pytest.approx((0.132747, 0.746533), abs=1e-5)
    low, high = held_out.rank_interval(1.0, 28)
    assert 0.99 < low < high < 1
    low, high = held_out.rank_interval(0.5, 28, 0.9)
    assert (low, high) == pytest.approx((0.197740, 0.715436), abs=1e-5)
    assert held_out.rank_interval(0.9, 3) == (-1.0, 1.0)


def test_narrow_intervals_are_named_as_far_as_chance_does_not_explain_them():
    """Catches a threshold that does not know of how few runs it speaks: 3 of 4 say nothing."""
    one = held_out.TargetQuality("a", 0.9, 0.8, 0.95, 0.1, 1.0, 0.75, 0.1)
    assert held_out.quality_warnings([one], 4, 4) == ()
    (said,) = held_out.quality_warnings([one], 40, 40)
    assert "too narrow" in said and "'a' (75%)" in said
