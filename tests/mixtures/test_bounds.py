"""No law runs off: what every registered law may say of small random tables."""

import pickle
from dataclasses import dataclass, replace

import numpy as np
import pytest
from contract_parts import quick, standard
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cuvee.mixtures import registry
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference.diagnostics import RunTable
from cuvee.mixtures.laws import Law, Prediction
from cuvee.mixtures.laws.bounds import BoundedLaw, Bounds, unbounded
from cuvee.mixtures.registry import build, names
from cuvee.mixtures.searches.score import exponential

KINDS = ("plain", "constant", "one mixture", "collinear")
SIGNS = ("positive", "negative", "either")
DEAR = ("stack", "lightgbm", "kriging", "gaussian_process")  # a fit of a second


def small_table(seed, kind, sign):
    """Shares (N, K) of 8 to 40 runs over 3 to 12 domains, and three scores of each run."""
    rng = np.random.default_rng(seed)
    K, N = int(rng.integers(3, 13)), int(rng.integers(8, 41))
    W = rng.dirichlet(np.full(K, rng.choice([0.3, 1.0, 5.0])), N)
    if kind == "one mixture":
        W = np.tile(W[:1], (N, 1))
    if kind == "collinear":
        W[:, 1] = 0.5 * W[:, 0]
        W /= W.sum(axis=1, keepdims=True)
    slopes = rng.normal(size=(K, 3)) * rng.choice([0.1, 1.0, 4.0])
    Y = np.exp(W @ slopes) + rng.normal(size=(N, 3)) * rng.choice([0.0, 0.01, 0.3])
    Y -= {"positive": Y.min() - 0.01, "negative": Y.max() + 0.01, "either": Y.mean()}[sign]
    if kind == "constant":
        Y[:, 0] = Y[0, 0]
    return W, Y


def hold_to_bounds(law, W, Y):
    """Fit a law to a table and hold what it says, of corners too, to what may be said."""
    if len(W) < law.rows(W.shape[1]):
        with pytest.raises(EvidenceError):
            law.fit(W, Y, np.zeros(3), np.random.default_rng(0))
        return
    found = law.fit(W, Y, np.zeros(3), np.random.default_rng(0))
    rng = np.random.default_rng(1)
    everywhere = np.vstack([np.eye(W.shape[1]), W, rng.dirichlet(np.full(W.shape[1], 0.2), 50)])
    said = found.predict(everywhere)
    span, rounding = np.ptp(Y, axis=0), 1e-12 * np.abs(Y).max(axis=0)
    assert np.isfinite(said.mean).all() and np.isfinite(said.sd).all()
    assert (said.mean <= Y.max(axis=0) + span + rounding).all()
    assert (said.mean >= Y.min(axis=0) - span - rounding).all()
    assert (said.mean > 0)[:, Y.min(axis=0) > 0].all()
    assert (said.sd > 0).all() and (said.sd <= np.where(span > 0, 3.001 * span, np.inf)).all()


@pytest.mark.parametrize("name", [n for n in names("law") if n not in DEAR])
@settings(max_examples=6, derandomize=True, deadline=None, database=None)
@given(st.integers(0, 9999), st.sampled_from(KINDS), st.sampled_from(SIGNS))
@example(1, "one mixture", "positive")
def test_no_law_runs_off_on_small_tables(name, seed, kind, sign):
    """Catches an equation that promises a loss of -3 or of 1e19, and a deviation that is none."""
    hold_to_bounds(build("law", name), *small_table(seed, kind, sign))


@pytest.mark.slow
@pytest.mark.parametrize("name", names("law"))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 9999), st.sampled_from(KINDS), st.sampled_from(SIGNS))
def test_no_law_runs_off_on_many_small_tables(name, seed, kind, sign):
    """As above with fresh tables, and of the laws whose fits take a second."""
    hold_to_bounds(quick(build("law", name)), *small_table(seed, kind, sign))


@pytest.mark.parametrize("name", [n for n in names("law") if n not in DEAR])
def test_equations_are_tame_before_they_are_bounded(name):
    """Of tables of few runs, from what the equation itself says of corners and far mixtures.

    Catches fits without the prior on corners: their worst was 1e4 to 1e19 ranges off, over these
    tables as over 12.
    """
    for seed in (1, 7, 8):
        W, Y = small_table(seed, "plain", "positive")
        law = build("law", name)
        if len(W) < law.rows(W.shape[1]):
            continue
        found = unbounded(law.fit(W, Y, np.zeros(3), np.random.default_rng(0)))
        far = np.vstack([np.eye(W.shape[1]), np.random.default_rng(1).dirichlet(W[0] + 0.1, 50)])
        off = np.abs(found.predict(far).mean - Y.mean(axis=0)) / np.ptp(Y, axis=0)
        assert off.max() < 12


@pytest.mark.parametrize("name", [n for n in names("law") if n not in DEAR])
@pytest.mark.parametrize("seed", [1, 2, 7])
def test_no_law_depends_on_the_order_of_runs_or_domains(name, seed):
    """Catches starts, subsets and folds that follow the order of rows or of columns: starts that
    grow from the first column to the last are told by one of these tables for each law that has
    more minima than one. Deviations may follow it: their folds are dealt by chance to rows.
    """
    W, Y = small_table(seed, "plain", "positive")
    law, rng = build("law", name), np.random.default_rng(seed)
    if len(W) < law.rows(W.shape[1]):
        return
    rows, columns = rng.permutation(len(W)), rng.permutation(W.shape[1])
    noise = np.zeros(3)
    first = law.fit(W, Y, noise, np.random.default_rng(0)).predict(W).mean
    shuffled = law.fit(W[rows][:, columns], Y[rows], noise, np.random.default_rng(0))
    second = shuffled.predict(W[:, columns]).mean
    assert np.abs(second - first).max() <= 1e-3 * np.ptp(Y, axis=0).max()


@pytest.mark.parametrize("name", [n for n in names("law") if n not in DEAR])
def test_declared_bounds_hold_everywhere(name):
    """Accuracies, turned: in -1 to 0. Catches a range beyond the runs that passes what can be."""
    rng = np.random.default_rng(3)
    W = rng.dirichlet(np.ones(4), 24)
    Y = -np.clip(W @ rng.uniform(0.2, 1.0, (4, 2)) + 0.02 * rng.normal(size=(24, 2)), 0.0, 1.0)
    sample = RunTable(W, Y, np.zeros(2), np.array([[-1.0, 0.0], [-np.inf, np.inf]]))
    said = sample.fit(build("law", name), np.arange(24), rng).predict(np.eye(4))
    free = replace(sample, limits=None).fit(build("law", name), np.arange(24), rng)
    assert (said.mean[:, 0] >= -1).all() and (said.mean[:, 0] <= 0).all()
    assert np.array_equal(sample.columns([1]).limits, [[-np.inf, np.inf]])
    assert free.bounds.least[0] < -1 and said.mean[:, 1] == pytest.approx(
        free.predict(np.eye(4)).mean[:, 1]
    )


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=8), st.sampled_from((-5.0, 2.0)))
def test_the_bend_keeps_what_was_observed_and_every_order(values, low):
    """Catches a bend inside the range, one that turns, and bounds that are passed or reached at 0.

    The scores lie in low .. low + 4.
    """
    bounds = Bounds.of(np.array([[low], [low + 4.0]]))
    points = np.sort(np.array(values))[:, None]
    bent = bounds.bend(points)
    inside = (points >= low - 0.9) & (points <= low + 6.0)
    assert np.array_equal(bent[inside], points[inside])
    assert (np.diff(bent[:, 0]) >= 0).all() and (bent <= low + 8.0).all()
    assert (bent >= (0.002 if low > 0 else -9.0)).all()


def test_a_bend_begins_without_a_kink_and_ends_at_the_bound():
    """By hand: 4 beyond scores of 10 to 14 is bent to 16 + 2 (2 / pi) atan(pi / 2)."""
    bounds = Bounds.of(np.array([[10.0], [14.0]]))
    assert bounds.bend(np.array([[18.0]]))[0, 0] == pytest.approx(16 + 1.27819, abs=1e-5)
    assert bounds.bend(np.array([[16.01]]))[0, 0] == pytest.approx(16.01, abs=1e-6)
    assert bounds.bend(np.array([[1e9]]))[0, 0] == pytest.approx(18.0)


def test_what_ran_off_is_told_by_the_unbent_law():
    """Of scores of 10 to 14, 6 to 18 may be. Catches a warning that the bend keeps from being said,
    and one of what lies within."""
    W, bounds = np.eye(3), Bounds.of(np.array([[10.0], [14.0]]))
    law = BoundedLaw(Line((5.9, 6.1, 18.1)), bounds)
    assert bounds.run_off(law, W).tolist() == [True, False, True]
    assert not bounds.run_off(law, W[1:2] * 0.5 + W[2:] * 0.5).any()


@dataclass(frozen=True)
class Line:
    """A fitted law that is linear: these scores at the corners."""

    corners: tuple[float, ...]

    def predict(self, W):
        mean = W @ np.array(self.corners)[:, None]
        return Prediction(mean, np.abs(mean))


class Wild(Law):
    """A law of one's own that runs off by 1e30 everywhere."""

    name = "wild"

    def rows(self, domains):
        return 1

    def fit(self, W, Y, noise, rng):
        return Line((1e30, 1e30))


def test_a_law_of_ones_own_is_bounded_by_being_registered():
    """Catches bounds that each law must remember, and two bends where a class is entered twice."""
    try:
        registry.register("law")(registry.register("law")(Wild))
        found = Wild().fit(np.eye(2), np.array([[1.0], [3.0]]), np.zeros(1), None)
        said = pickle.loads(pickle.dumps(found.law)).predict(np.eye(2))
        assert said.mean[0, 0] == 1e30 and isinstance(found, BoundedLaw)
        said = found.predict(np.eye(2))
        assert said.mean[0, 0] == pytest.approx(5.0) and said.sd[0, 0] == pytest.approx(4.999)
        assert isinstance(unbounded(found), Line)
    finally:
        registry.forget("law", "wild")


def test_bounds_leave_runs_and_exponents_as_they_are():
    """Catches predictions that are bent where runs were, and a law that loses its exact search."""
    found = standard("log_linear")
    assert exponential(found) is unbounded(found)
    assert pickle.loads(pickle.dumps(found)).bounds.ranges == 1.0


def test_the_slope_of_a_bend_says_nothing_where_there_is_no_room(recwarn):
    """Catches an overflow that is printed to whoever fits a target that a run has at its bound."""
    held = Bounds(np.zeros(1), np.ones(1), limits=np.array([[0.0, 1.0]]))
    assert held.bend_slope(np.array([[0.5], [1.5], [-2.0]])).ravel().tolist() == [1.0, 0.0, 0.0]
    assert len(recwarn) == 0
