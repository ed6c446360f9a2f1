"""Errors of scaling laws beyond their runs: from back-tests, wider with distance, shared."""

import numpy as np
import pytest
from ladder_world import ladder_runs

from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.inference.diagnostics import Z
from cuvee.mixtures.registry import build
from cuvee.mixtures.scaling.average import FittedAverage, fit_average
from cuvee.mixtures.scaling.discrepancy import learn_discrepancy
from cuvee.mixtures.worlds import Scaled

TOP = (4_000_000, 80_000_000)


def broken(W, parameters, tokens, seed):
    """A truth of no law's form: powers of size and data that turn within and beyond the ladder."""
    rng = np.random.default_rng([seed, 2])
    powers, turns = rng.uniform(0.15, 0.3, 2), rng.uniform(0.5, 6.0, 2)
    more, A, C = (
        rng.uniform(-0.12, 0.25, 2),
        np.exp(0.6 * rng.standard_normal((2, 4))),
        rng.uniform(0.3, 3, 4),
    )
    value = 0.8 + 0.6 / (W @ C + 0.3)
    for x, a, power, turn, bend in zip(
        (parameters / 1e6, tokens / 2e7), A, powers, turns, more, strict=True
    ):
        value = value + 0.4 * (W @ a) * x**-power * (1 + (x / turn) ** 2) ** (-bend / 2)
    return value[:, None]


def turned(seed):
    """A ladder of the broken truth, one number of tokens a size, with noise of 0.3 %."""
    runs = ladder_runs(Scaled(size=4, count=1), points=1)
    truth = np.vstack([
        broken(w[None], n, d, seed)
        for w, n, d in zip(runs.W, runs.parameters, runs.tokens, strict=True)
    ])  # fmt: skip
    noise = 1 + 0.003 * np.random.default_rng(seed).standard_normal(truth.shape)
    return type(runs)(runs.W, runs.parameters, runs.tokens, truth * noise, 0 * truth, runs.groups)


@pytest.mark.slow
def test_intervals_cover_truths_of_no_laws_form():
    """Twelve worlds, at 4 times the size and the tokens. Intervals of a bootstrap, which knows
    nothing of a wrong form, covered 40 % here; and an infinite interval would cover everything."""
    law, inside, width = build("scaling", "average"), [], []
    for seed in range(12):
        runs = turned(seed)
        W, at = runs.W[:10], (4 * TOP[0], 4 * TOP[1])
        said = law.fit(runs, np.random.default_rng(0)).predict(W, *at)
        inside.append(np.mean(abs(broken(W, *at, seed) - said.mean) <= Z * said.sd))
        width.append(Z * np.mean(said.sd / said.mean))
    assert np.mean(inside) > 0.8 and max(width) < 0.3, (inside, width)


RUNS = ladder_runs(Scaled(size=4, count=2, moves=1.0), noise=0.002, points=1)
FITTED = build("scaling", "average").fit(RUNS, np.random.default_rng(0))


def test_intervals_widen_with_distance_in_size_and_in_tokens():
    """Catches an interval that is as wide at 100 times the size as at the largest one tried."""
    for axis in ((1, 0), (0, 1), (1, 1)):
        scales = [(TOP[0] * f ** axis[0], TOP[1] * f ** axis[1]) for f in (1.0, 2.0, 8.0, 100.0)]
        found = [FITTED.predict(RUNS.W, *at) for at in scales]
        relative = [float(np.mean(p.sd / p.mean)) for p in found]
        assert relative == sorted(set(relative)) and relative[-1] > 2 * relative[0]
        level, order = FITTED.discrepancy.errors(*scales[1])
        assert np.all(level > 0) and np.all(order > 0)
    assert np.all(np.concatenate(FITTED.discrepancy.errors(*TOP)) == 0)


def test_a_shared_level_error_cancels_in_gains():
    """Refits that are set off differ in levels by more than in the difference of two mixtures that
    lie close. Catches an error that each mixture draws for itself."""
    at = (20 * TOP[0], 20 * TOP[1])
    W = np.array([RUNS.W[0], RUNS.W[0] + [1e-3, -1e-3, 0, 0]])
    drawn = FITTED.refits(RUNS, 12, np.random.default_rng(1))
    refits = [refit.at(*at).predict(W).mean for refit in drawn]
    logs = np.log(np.array(refits))
    assert logs[:, 0].std(axis=0).min() > 0.005
    assert (logs[:, 1] - logs[:, 0]).std(axis=0).max() < 0.002


def test_laws_are_weighed_by_what_they_predicted():
    """In the joint law's world, whose optimum moves, it predicts held-out sizes best, and laws that
    are far off have no share; on a world that every law can follow several have. Catches equal
    weights and one winner alone."""
    runs = ladder_runs(Scaled(size=4, count=2, moves=1.2, seed=3), noise=0.001, points=3)
    fitted = build("scaling", "average").fit(runs, np.random.default_rng(0))
    shares = {law.name: w for law, w in zip(fitted.laws, fitted.weights, strict=True)}
    assert max(shares, key=shares.get) == "joint" and sum(shares.values()) == pytest.approx(1.0)
    assert min(shares.values()) > 0.1
    calm = ladder_runs(Scaled(size=4, count=2, moves=0.0), noise=0.01, points=1)
    assert len(build("scaling", "average").fit(calm, np.random.default_rng(0)).weights) > 1
    assert FITTED.discrepancy.refused == ""


def test_where_nothing_can_be_held_out_there_is_no_interval():
    """Nested laws take three sizes; with three in all none can be held out. Within the runs there
    is an interval, beyond them none. Catches an interval that no back-test stands behind."""
    few = RUNS.take(RUNS.parameters < 2e6)
    found = learn_discrepancy(build("scaling", "nested"), few, np.random.default_rng(0))
    assert "no back-test can be made" in found.refused and "at least 3 sizes" in found.refused
    level, order = found.errors(*TOP)
    assert np.isinf(level).all() and np.isinf(order).all()
    assert np.all(found.errors(1_000_000, 20_000_000)[0] == 0)
    with pytest.raises(EvidenceError, match="at least 3 sizes; got 2"):
        build("scaling", "average").fit(few.take(few.parameters < 1e6), np.random.default_rng(0))


def test_an_average_is_averaged_once():
    """Catches an average around the law `average`: its refits would be averages of all laws in
    equal parts, and none would hold what a law leaves over of the runs."""
    law = build("scaling", "average")
    runs = ladder_runs(Scaled(size=4, count=1), noise=0.005)
    found = fit_average([law], runs, np.random.default_rng(0))
    assert {one.name for one in found.laws} <= {"additive", "joint", "bimix"}
    refits = list(found.refits(runs, 3, np.random.default_rng(1)))
    assert refits and not any(isinstance(one.refit, FittedAverage) for one in refits)
