"""Laws: known parameters found again, honest deviations, weights that matter.

The contract that every registered law keeps is in test_contracts_laws.py; here is what each must
get right on its own.
"""

import numpy as np
import psutil
import pytest

from cuvee.mixtures.errors import EvidenceError, RecipeError
from cuvee.mixtures.laws import (
    calibration,
    curves,
    default,
    gaussian_field,
    implicit,
    least_squares,
    log_linear,
    power,
    saturating_power,
    stack,
)
from cuvee.mixtures.laws.baselines import autoscale, bimix, linear, mixing_laws_m1_to_m3
from cuvee.mixtures.laws.bounds import unbounded
from cuvee.mixtures.registry import build
from cuvee.mixtures.searches.score import exponential

CURVES = {
    "autoscale": (autoscale._curve, 10),
    "bimix": (bimix._curve, 10),
    "implicit": (implicit._curve, 9),
    "linear": (linear._curve, 4),
    "log_linear": (log_linear._free, 5),
    "log_linear positive": (log_linear._positive, 5),
    "mixing_law_m1": (mixing_laws_m1_to_m3._m1_curve, 9),
    "mixing_law_m2": (mixing_laws_m1_to_m3._m2_curve, 6),
    "mixing_law_m3": (mixing_laws_m1_to_m3._m3_curve, 3),
    "power": (power._curve, 6),
    "saturating_power": (saturating_power._curve, 8),
}


def shares(n, k=4, seed=0, alpha=0.7):
    return np.random.default_rng(seed).dirichlet(np.full(k, alpha), size=n)


def fit(name, W, Y, noise=0.0, seed=0):
    sd = np.broadcast_to(np.asarray(noise, dtype=float), Y.shape)
    return build("law", name).fit(W, Y, sd, np.random.default_rng(seed))


@pytest.mark.parametrize("name", CURVES)
def test_derivatives_are_those_of_the_values(name):
    """A central difference must agree; catches a wrong term in a hand-written Jacobian."""
    curve, size = CURVES[name]
    W = shares(6)
    W[0] = [0.0, 0.0, 1.0, 0.0]  # a vertex, where 0 ** p and log 0 lurk
    p = np.random.default_rng(1).normal(0.0, 0.4, size=(2, size))
    _, jacobian = curve(p, W)
    for i in range(size):
        step = np.zeros(size)
        step[i] = 1e-5
        slope = (curve(p + step, W)[0] - curve(p - step, W)[0]) / 2e-5
        assert np.allclose(jacobian[:, :, i], slope, rtol=1e-5, atol=1e-7), f"parameter {i}"


def test_log_linear_finds_the_parameters_it_was_made_from():
    """Y = c + exp(A w) without noise has one answer; catches a fit stuck at a start, or k lost."""
    W = shares(30, 5)
    A, c = np.random.default_rng(1).normal(size=(3, 5)), np.array([1.0, -2.0, 0.5])
    for law in ("log_linear",):
        found = exponential(fit(law, W, c + np.exp(W @ A.T)))
        assert np.allclose(found.offsets, c, atol=1e-4)
        assert np.allclose(found.exponents, A, atol=1e-4)


def test_the_offset_can_be_held_positive():
    """exp(w . A) alone fits best with c = 0; the free law may go below, the positive may not."""
    W = shares(40, 3)
    Y = 2.0 + W @ np.array([[1.0], [0.0], [-0.9]])  # linear: c would go to minus infinity
    law = {"name": "log_linear", "offset": "positive"}
    own, free = (exponential(fit(one, W, Y)) for one in (law, "log_linear"))
    assert own.offsets[0] >= 0 > free.offsets[0]
    with pytest.raises(RecipeError, match="positive scores"):
        fit(law, W, Y - 5.0)


def test_power_finds_its_exponent_and_what_domains_are_worth():
    """Y = c + (b . w)^-g. Scaling the scores by 1/s turns b into b s^(1/g): g and the ratios of b
    stay. Catches an exponent that is folded away, or b in the wrong order."""
    W = shares(60, 4)
    b, g = np.array([2.0, 1.0, 0.5, 0.1]), 0.7
    found = unbounded(fit("power", W, (1.5 + (W @ b) ** -g)[:, None]))
    assert np.exp(found.p[0, 1]) == pytest.approx(g, rel=0.02)
    worth = np.exp(found.p[0, 2:])
    assert worth / worth[0] == pytest.approx(b / b[0], rel=0.03)


def test_saturating_power_finds_how_fast_domains_saturate():
    """Y = c + (b0 + sum b w^p)^-g; catches p frozen at its prior mean of 0.6."""
    W = shares(120, 3)
    for p in (0.35, 1.0):
        Y = (1.0 + (0.05 + (W**p) @ np.array([1.0, 0.3, 0.1])) ** -0.5)[:, None]
        found = unbounded(fit("saturating_power", W, Y))
        assert np.exp(found.p[0, 2]) == pytest.approx(p, rel=0.1)


def test_linear_is_ridge_regression_in_the_limit():
    """Without noise the ridge vanishes and predictions are exact anywhere, vertices too."""
    W, t = shares(20, 4), np.array([[1.0], [2.0], [3.0], [-1.0]])
    found = unbounded(fit("linear", W, W @ t))
    assert np.allclose(found.predict(np.eye(4)).mean, t, atol=1e-5)


@pytest.mark.parametrize("name", ["mixing_law_m2", "bimix", "autoscale", "implicit"])
def test_laws_predict_unseen_mixtures_of_their_own_kind(name):
    """Truths of each law's equation, 60 runs; catches one that interpolates its runs only."""
    truths = {
        "mixing_law_m2": lambda W: 1 + 0.5 * np.exp(-W * [4.0, 2.0, 1.0]).sum(axis=1),
        "bimix": lambda W: 1 + (W + 0.02) ** -0.4 @ np.array([0.3, 0.1, 0.05]),
        "autoscale": lambda W: 1 + ((W + 0.1) ** -np.array([0.3, 0.1, 0.05])).sum(axis=1),
        "implicit": lambda W: np.exp(W @ [-3.0, 0.0, 0.5]) + np.exp(W @ [0.0, -2.0, 0.2]),
    }
    W, X = shares(60, 3), shares(200, 3, seed=1)
    truth = truths[name]
    off = fit(name, W, truth(W)[:, None]).predict(X).mean[:, 0] - truth(X)
    assert np.sqrt(np.mean(off**2)) < 0.02 * truth(X).std()


def test_m3_knows_the_product_of_the_shares_alone():
    """Y = c + k exp(T prod 3 w): exact on its own kind, and blind to which domain is which."""
    W = shares(40, 3, alpha=3.0)
    Y = (1 + 0.5 * np.exp(-1.2 * np.prod(3 * W, axis=1)))[:, None]
    found = fit("mixing_law_m3", W, Y)
    assert np.allclose(found.predict(W).mean, Y, atol=1e-3)
    assert np.allclose(found.predict(W[:, ::-1]).mean, found.predict(W).mean)


@pytest.mark.parametrize("name", ["log_linear", "saturating_power", "gaussian_process", "kriging"])
def test_runs_known_to_be_noisy_weigh_less(name):
    """A third of the runs are shifted by 1 and declared to have noise 1; catches noise ignored."""
    W, X = shares(45, 3), shares(100, 3, seed=1)
    truth = lambda V: (1 + np.exp(V @ [-2.0, -1.0, 0.0]))[:, None]  # noqa: E731
    noise = np.full((45, 1), 0.01)
    noise[::3] = 1.0
    Y = truth(W)
    Y[::3] += 1.0
    # The same tables, with the noise of every run said to be equal.
    off = [np.abs(fit(name, W, Y, sd).predict(X).mean - truth(X)).mean() for sd in (noise, 0.01)]
    assert off[0] < 0.05 and off[0] < 0.5 * off[1], off


@pytest.mark.parametrize("name", ["log_linear", "kriging"])
def test_one_run_that_went_wrong_does_not_spoil_the_fit(name):
    """40 good runs and one far off, noise unknown; catches plain least squares."""
    W, X = shares(41, 3), shares(100, 3, seed=1)
    rng = np.random.default_rng(2)
    truth = lambda V: np.column_stack([1 + np.exp(V @ [-2.0, -1.0, 0.0]), 2 - V[:, 0]])  # noqa: E731
    Y = truth(W) + 0.005 * rng.standard_normal((41, 2))
    Y[7] += 1.0
    off = np.median(np.abs(fit(name, W, Y).predict(X).mean - truth(X)))
    assert off < 0.02, off


@pytest.mark.parametrize(
    ("name", "low"),
    [
        ("log_linear", 0.82),
        ("saturating_power", 0.82),
        pytest.param("kriging", 0.82, marks=pytest.mark.slow),
    ],
)
def test_ninety_per_cent_intervals_hold_new_observations(name, low):
    """Over 4 worlds of 50 runs, on fresh noisy observations; catches deviations that leave out the
    noise or the law's own error (coverage near 0) and ones that are far too wide (near 1)."""
    inside = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        A = rng.normal(size=(3, 4))

        def truth(V, A=A):
            return 1 + np.exp(V @ A.T)

        W, X = shares(50, 4, seed), shares(300, 4, seed + 100)
        found = fit(name, W, truth(W) + 0.05 * rng.standard_normal((50, 3))).predict(X)
        fresh = truth(X) + 0.05 * rng.standard_normal((300, 3))
        inside.append(np.abs(found.mean - fresh) <= calibration.NORMAL_90 * found.sd)
    assert low <= np.mean(inside) <= 0.97, np.mean(inside)


def test_deviations_grow_where_no_run_was():
    """Runs near the middle, a question at a vertex; catches one deviation for all mixtures."""
    W = shares(40, 4, alpha=20.0)
    Y = (1 + np.exp(-W[:, :1])) + 0.01 * np.random.default_rng(0).standard_normal((40, 1))
    for name in ("log_linear", "kriging"):
        sd = fit(name, W, Y).predict(np.vstack([np.full(4, 0.25), np.eye(4)[3]])).sd[:, 0]
        assert sd[1] > 1.5 * sd[0], (name, sd)


def test_the_default_ranks_better_than_either_classic():
    """40 runs, a saturating truth with a synergy. Catches a default worse than what it replaces."""
    W, X = shares(40, 5), shares(300, 5, seed=1)

    def truth(V):
        data = 0.02 + np.sqrt(V) @ np.array(
            [[1.0, 0.2], [0.3, 0.1], [0.1, 1.0], [0.0, 0.3], [0, 0]]
        )
        return 1 + data**-0.5 - 0.1 * np.sqrt(V[:, :1] * V[:, 1:2])

    Y = truth(W) + 0.005 * np.random.default_rng(0).standard_normal((40, 2))
    off = {
        name: np.abs(fit(name, W, Y).predict(X).mean - truth(X)).mean()
        for name in (default.NAME, "log_linear", "power")
    }
    assert off[default.NAME] < 0.6 * min(off["log_linear"], off["power"]), off


@pytest.mark.parametrize("name", ["log_linear", "saturating_power", "kriging"])
def test_no_target_depends_on_the_unit_of_the_scores(name):
    """Nats or bits: predictions must scale alike; catches priors in the unit of the scores."""
    W = shares(40, 3)
    Y = 1 + np.exp(W @ np.array([[-1.0], [0.5], [0.0]])) + 0.01 * shares(40, 3, seed=5)[:, :1]
    one, two = fit(name, W, Y).predict(W), fit(name, W, 7.0 * Y).predict(W)
    assert np.allclose(two.mean, 7.0 * one.mean, rtol=1e-3)
    assert np.allclose(two.sd, 7.0 * one.sd, rtol=0.05)


@pytest.mark.parametrize("name", ["log_linear", "saturating_power", "gaussian_process", "kriging"])
def test_a_target_that_never_moves_is_no_accident(name):
    """Catches a division by a spread of 0."""
    W = shares(30, 3)
    Y = np.column_stack([np.full(30, 2.0), 1 + W[:, 0]])
    found = fit(name, W, Y).predict(W)
    assert np.allclose(found.mean[:, 0], 2.0, atol=1e-3) and np.all(np.isfinite(found.sd))


def test_left_out_residuals_are_those_of_refits():
    """For a linear curve r / (1 - h) is exact; catches a leverage without the prior."""
    W, y = shares(12, 3), np.random.default_rng(0).normal(size=(1, 12))
    prior = curves.centering_prior(3, 0, 3)

    def solve(rows):
        problem = least_squares.FitProblem(
            linear._curve,
            W[rows],
            y[:, rows],
            np.ones((1, len(rows))),
            np.array([0.3]),
            prior,
            np.zeros((1, 3)),
        )
        return least_squares.marquardt(problem, np.zeros((1, 3)))

    whole = solve(np.arange(12))
    for i in range(12):
        part = solve(np.delete(np.arange(12), i))
        assert whole.left_out[0, i] == pytest.approx(float(y[0, i] - W[i] @ part.p[0]), abs=1e-6)


def test_weights_do_not_trust_a_quiet_run_beyond_the_law():
    """Residuals of 1 say that the law errs by 1: noise of 0.001 against 0.01 changes no weight."""
    r = np.tile([1.0, -1.0], (1, 10))
    noise = np.where(np.arange(20) < 10, 1e-3, 1e-2)[None]
    assert np.allclose(least_squares.noise_weights(r, noise), 1.0, atol=1e-3)
    loud = np.where(np.arange(20) < 10, 0.1, 3.0)[None]
    v = least_squares.noise_weights(r, loud)[0]
    assert v[0] > 5 * v[-1]


def test_the_factor_makes_the_interval_hold_nine_in_ten():
    """Residuals twice as wide as the deviations say; the factor must be 2, per target."""
    r = np.random.default_rng(0).standard_normal((4000, 2)) * [2.0, 0.5]
    assert calibration.width_factor(r, np.ones((4000, 2))) == pytest.approx([2.0, 0.5], rel=0.05)


def test_folds_deal_every_run_once():
    """Catches a run that is never held out, or judged by a fit that saw it."""
    folds = calibration.random_folds(23, 5, np.random.default_rng(0))
    assert all(sorted([*kept, *held]) == list(range(23)) for kept, held in folds)
    dealt = [held for _, held in folds]
    assert sorted(np.concatenate(dealt)) == list(range(23))
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_the_gradient_of_the_marginal_likelihood_is_right():
    """Against central differences; catches a wrong sign or factor in any hyper-parameter."""
    rng = np.random.default_rng(0)
    W = shares(15, 3)
    data = gaussian_field.FieldData(
        X=np.sqrt(W),
        y=rng.normal(size=(1, 15)),
        trend=rng.normal(size=(1, 15, 2)),
        spread=rng.normal(size=15),
        known=rng.uniform(0, 0.1, size=(1, 15)),
        scattered=np.arange(15),
    )
    target = gaussian_field._Target(data, rng.normal(size=15), 0, np.arange(15))
    theta = rng.normal(0, 0.5, size=7)
    _, gradient = target.objective(theta)
    for i, step in enumerate(np.eye(7) * 1e-5):
        slope = (target.objective(theta + step)[0] - target.objective(theta - step)[0]) / 2e-5
        assert gradient[i] == pytest.approx(slope, rel=1e-4, abs=1e-6), f"hyper-parameter {i}"


def test_the_stack_trusts_the_member_that_predicts():
    """A log-linear truth: the weight must go to the log-linear law; weights are convex."""
    W = shares(60, 4)
    A = np.random.default_rng(1).normal(0, 2, size=(2, 4))
    members = ["linear", "log_linear"]
    found = unbounded(fit({"name": "stack", "members": members}, W, 1 + np.exp(W @ A.T)))
    assert np.all(found.weights >= 0) and np.allclose(found.weights.sum(axis=1), 1)
    assert np.all(found.weights[:, 1] > 0.9)


def test_the_stack_holds_out_no_more_than_its_members_can_spare():
    """With exactly rows(K) runs, every fold's fit has enough; catches an error from inside."""
    law = stack.Stack()
    most = max(member.rows(17) for member in law.laws)
    n = law.rows(17)
    assert n - -(-n // law.folds) >= most > (n - 1) - -(-(n - 1) // law.folds)


@pytest.mark.parametrize("name", ["kriging", "saturating_power"])
def test_the_order_of_domains_and_targets_does_not_matter(name):
    """Tighter than the contract: 1e-3 of the spread. Catches random or positional starts."""
    W = shares(30, 4)
    Y = 1 + np.exp(W @ np.random.default_rng(0).normal(size=(4, 3))) + 0.01 * shares(30, 3, seed=3)
    order, targets = [2, 0, 3, 1], [2, 0, 1]
    one = fit(name, W, Y).predict(W).mean
    two = fit(name, W[:, order], Y[:, targets]).predict(W[:, order]).mean
    assert np.all(np.abs(one[:, targets] - two).max(axis=0) < 5e-3 * Y[:, targets].std(axis=0))


BAD = {
    "shapes": (lambda W, Y, s: (W[:-1], Y, s), "one row per run"),
    "sum": (lambda W, Y, s: (W * 0.9, Y, s), "sum to 1"),
    "nan": (lambda W, Y, s: (W, np.where(Y < 1.1, np.nan, Y), s), "finite scores"),
    "noise shape": (lambda W, Y, s: (W, Y, np.zeros(7)), "noise of shape"),
    "negative noise": (lambda W, Y, s: (W, Y, s - 1.0), "noise of at least 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_tables_that_cannot_be_fitted_are_refused_in_words(case):
    """Catches NaN that spreads, rows that are paired wrongly, and broadcasting by accident."""
    W = shares(30, 3)
    Y = np.column_stack([1 + W[:, 0], 2 - W[:, 1]])
    change, words = BAD[case]
    with pytest.raises(EvidenceError, match=words):
        build("law", "linear").fit(*change(W, Y, np.zeros(2)), np.random.default_rng(0))


def test_trees_over_many_domains_hold_no_memory_of_their_training():
    """Catches boosters that keep their histograms: 27 MB for each target at 200 domains."""
    W, memory = shares(300, 200), psutil.Process().memory_info
    Y, noise = np.random.default_rng(0).normal(size=(300, 8)), np.zeros((300, 8))
    law = build("law", {"name": "lightgbm", "trees": 1, "folds": 2})
    law.fit(W, Y[:, :1], noise[:, :1], np.random.default_rng(0))
    before = memory().rss
    fitted = law.fit(W, Y, noise, np.random.default_rng(0))
    assert memory().rss - before < 100e6
    assert fitted.predict(W[:3]).mean.shape == (3, 8)


@pytest.mark.parametrize(
    "config",
    [
        {"name": "log_linear", "offset": "negative"},
        {"name": "lightgbm", "leaf": 0.7},
        {"name": "implicit", "components": 0},
        {"name": "kriging", "power": 0.0},
        {"name": "gaussian_process", "folds": 1},
        {"name": "stack", "members": ["log_linear"]},
        {"name": "stack", "members": ["stack", "linear"]},
    ],
)
def test_settings_out_of_range_are_refused(config):
    with pytest.raises(RecipeError):
        build("law", config)
