"""Scaling laws: held to known parameters, to fewer sizes than they need, and to new scales."""

import functools
import pickle
from dataclasses import replace

import numpy as np
import pytest
from ladder_world import ladder_runs

from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference.diagnostics import spearman
from cuvee.mixtures.registry import build, names
from cuvee.mixtures.scaling import ScalingRuns, repeated
from cuvee.mixtures.scaling.bimix import BiMixScaling
from cuvee.mixtures.scaling.bimix import _curve as bimix_curve
from cuvee.mixtures.scaling.joint import JointScaling
from cuvee.mixtures.scaling.joint import _curve as joint_curve
from cuvee.mixtures.worlds import Scaled

LAWS = tuple(name for name in names("scaling") if name != "single_scale")
FULL = (100_000_000, 4_000_000_000)


@functools.cache
def fitted_to(name, world, noise=0.0, points=3):
    """A law as it is registered, fitted to a world's runs once for all tests."""
    runs = ladder_runs(world, noise=noise, points=points)
    return build("scaling", name).fit(runs, np.random.default_rng(0))


def judged(fitted, world, scale=FULL):
    """Truth and prediction (50, M) of unseen mixtures at a scale."""
    W = np.random.default_rng(99).dirichlet(np.ones(world.size), 50)
    return world.at_scale(*scale).truth(W, W), fitted.at(*scale).predict(W)


WORLD = Scaled(size=4, count=2, moves=0.0)  # additive: every law of this folder can rank it
MOVING = Scaled(size=4, count=2, moves=0.7)


@pytest.mark.parametrize("name", LAWS)
def test_laws_rank_unseen_mixtures_at_a_scale_that_nobody_ran(name):
    """Catches a law that forgets the mixture, or belongs to other rows."""
    truth, found = judged(fitted_to(name, WORLD), WORLD)
    assert found.mean.shape == truth.shape and np.all(found.sd > 0)
    assert all(spearman(truth[:, m], found.mean[:, m]) > 0.85 for m in range(2))


@pytest.mark.parametrize("name", LAWS)
def test_laws_carry_the_level_to_full_scale(name):
    """25 times the largest model: catches a law that ignores N or D, like single-scale ranking."""
    runs = ladder_runs(WORLD)
    truth, found = judged(fitted_to(name, WORLD), WORLD)
    at_small = WORLD.at_scale(4_000_000, 80_000_000).truth(runs.W, runs.W).mean(axis=0)
    fall = at_small - truth.mean(axis=0)
    off = np.abs(found.mean.mean(axis=0) - truth.mean(axis=0))
    assert np.all(off < 0.5 * fall), (off, fall)


@pytest.mark.parametrize("name", LAWS)
def test_laws_refuse_fewer_sizes_than_they_need(name):
    """Catches an exponent in N from two sizes, which any asymptote fits."""
    runs = ladder_runs(WORLD)
    law = build("scaling", name)
    with pytest.raises(EvidenceError, match=r"at least 3 sizes; got 2"):
        law.fit(runs.take(runs.parameters < 1e6), np.random.default_rng(0))
    few = runs.take(runs.groups % 20 == 0)
    with pytest.raises(EvidenceError, match="needs at least"):
        law.fit(few.take(few.groups < 400), np.random.default_rng(0))


@pytest.mark.parametrize("name", names("scaling"))
def test_laws_are_reproducible_and_pickle(name):
    """Catches hidden randomness and closures that no worker can receive."""
    config = {"name": name, "law": "linear"} if name == "single_scale" else name
    runs, law = ladder_runs(WORLD, noise=0.002, points=1), build("scaling", config)
    first, again = (law.fit(runs, np.random.default_rng(3)) for _ in range(2))
    W = runs.W[:5]
    one = first.predict(W, *FULL)
    two = pickle.loads(pickle.dumps(again)).predict(W, *FULL)
    assert np.array_equal(one.mean, two.mean) and np.array_equal(one.sd, two.sd)


def test_the_joint_law_recovers_what_size_and_data_are_worth_by_domain():
    """Known parameters: exponents a and b, and the ratios of A_i between domains."""
    known = MOVING.known
    fitted = build("scaling", "joint").fit(ladder_runs(MOVING, points=4), np.random.default_rng(0))
    k = MOVING.size
    first = 1 + 2 * k
    for j, truth in enumerate((known.size, known.data)):
        q = fitted.p[:, first + j * (k + 3) :][:, : k + 3]
        rates = np.exp(q[:, 1])
        assert rates == pytest.approx(known.rates[:, j], rel=0.15)
        found = np.exp(q[:, 3:]) ** np.exp(q[:, 2:3])  # A(h) of a single domain
        assert np.allclose(found / found.mean(axis=1, keepdims=True),
                           truth / truth.mean(axis=1, keepdims=True), rtol=0.25)  # fmt: skip
    assert fitted.noise.max() < 0.002


def test_a_moving_optimum_is_followed_by_the_joint_law_only():
    """The additive law holds the best mixture for the same at every scale; the joint one must not
    be given away to it."""
    ranks = {}
    for name in ("additive", "joint"):
        truth, found = judged(fitted_to(name, MOVING, noise=0.002), MOVING)
        ranks[name] = np.mean([spearman(truth[:, m], found.mean[:, m]) for m in range(2)])
    assert ranks["joint"] > 0.95 and ranks["joint"] > ranks["additive"] + 0.02


def test_deviations_cover_unseen_mixtures_at_the_scales_that_were_run():
    """Catches a deviation that is of the parameters alone, or of the noise alone."""
    runs = ladder_runs(MOVING, noise=0.01)
    W = np.random.default_rng(5).dirichlet(np.full(4, 0.7), 200)
    here = (1_000_000, 40_000_000)
    found = build("scaling", "joint").fit(runs, np.random.default_rng(0)).predict(W, *here)
    truth = MOVING.at_scale(*here).truth(W, W)
    new = truth * (1 + 0.01 * np.random.default_rng(6).standard_normal(truth.shape))
    inside = np.mean(np.abs(new - found.mean) <= 1.645 * found.sd)
    assert 0.8 <= inside <= 0.99


def test_deviations_count_runs_and_not_rows():
    """Doubling every row within its run must not narrow the interval as twice the runs would."""
    runs = ladder_runs(WORLD, noise=0.01, points=1)
    double = ScalingRuns(*(np.concatenate([getattr(runs, n)] * 2) for n in (
        "W", "parameters", "tokens", "Y", "noise", "groups")))  # fmt: skip
    law = build("scaling", "additive").coarse()
    spread = []
    for table in (runs, double):
        fitted = law.fit(table, np.random.default_rng(0))
        spread.append(fitted.predict(runs.W, *FULL).sd.mean())
    assert spread[1] > 0.95 * spread[0]


@pytest.mark.parametrize(
    ("curve", "equation"),
    [(joint_curve, JointScaling().equation), (bimix_curve, BiMixScaling().equation)],
)
def test_derivatives_are_those_of_the_values(curve, equation):
    """Catches a wrong sign in a chain rule, which a damped solver hides."""
    rng = np.random.default_rng(0)
    X = np.column_stack([rng.dirichlet(np.ones(3), 9), rng.normal(size=(9, 2))])
    X[0, :3] = (1, 0, 0)
    p = equation(3).starts[:1] + 0.2 * rng.normal(size=(1, len(equation(3).center)))
    values, jacobian = curve(p, X)
    for i in range(p.shape[1]):
        moved = p.copy()
        moved[0, i] += 1e-6
        assert np.allclose((curve(moved, X)[0] - values) / 1e-6, jacobian[:, :, i], atol=1e-4)


def test_effective_tokens_follow_muennighoff():
    """By hand: 4 passes of 100 tokens, r = 15.39: 100 + 100 r (1 - exp(-3 / r)) = 372.9."""
    shares, available = np.array([[0.5, 0.5], [0.1, 0.9]]), np.array([100.0, 1000.0])
    total = repeated.effective_tokens(shares, np.array([800.0, 1000.0]), available, 15.39)
    assert total == pytest.approx([100 + 1539 * -np.expm1(-3 / 15.39) + 400, 1000])
    assert 372 < total[0] - 400 < 374


def test_repetition_changes_the_forecast_only_where_it_happens():
    runs = ladder_runs(WORLD)
    law = build("scaling", "repeated")
    rich, plain = (fitted_to(name, WORLD).at(*FULL) for name in ("repeated", "additive"))
    assert np.allclose(rich.predict(runs.W[:9]).mean, plain.predict(runs.W[:9]).mean, rtol=5e-3)
    scarce = law.fit(replace(runs, available=np.array([5e7, 1e12, 1e12, 1e12])),
                     np.random.default_rng(0)).at(*FULL)  # fmt: skip
    w = np.array([[0.97, 0.01, 0.01, 0.01]])
    assert np.all(scarce.predict(w).mean > rich.predict(w).mean + 0.003)
    with pytest.raises(EvidenceError, match="tokens that exist"):
        law.fit(replace(runs, available=None), np.random.default_rng(0))


def test_the_nested_law_without_a_step_law_stays_on_the_ladders_path():
    """Catches tokens that are ignored in silence: one number of tokens per size says nothing of
    others."""
    runs = ladder_runs(WORLD, points=1)
    fitted = build("scaling", "nested").fit(runs, np.random.default_rng(0))
    assert np.isfinite(fitted.at(10_000_000, 200_000_000).predict(runs.W[:2]).mean).all()
    with pytest.raises(EvidenceError, match="one number of tokens per size"):
        fitted.at(10_000_000, 20_000_000_000)


def test_single_scale_takes_the_largest_size_with_enough_mixtures():
    """Catches a ranking by all sizes at once, which ranks sizes."""
    runs = ladder_runs(WORLD, points=1)
    law = build("scaling", {"name": "single_scale", "law": "linear"})
    fitted = law.fit(runs, np.random.default_rng(0))
    assert (fitted.parameters, fitted.tokens) == (4_000_000, 80_000_000)
    thin = runs.take((runs.parameters < 4e6) | (np.arange(len(runs)) % 2 == 0))
    fitted = law.fit(thin, np.random.default_rng(0))
    assert fitted.parameters == 1_000_000
