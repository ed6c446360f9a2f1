"""The default law takes any number of runs, and is calibrated in closed form."""

import dataclasses

import numpy as np
import pytest

from cuvee.mixtures.laws import gaussian_field
from cuvee.mixtures.registry import build

FIELDS = ["kriging", "gaussian_process"]


def table(n=60, m=2):
    W = np.random.default_rng(0).dirichlet(np.full(4, 0.7), n)
    A = np.random.default_rng(1).normal(size=(4, m))
    noise = 0.01 * np.random.default_rng(2).standard_normal((n, m))
    return W, 1 + np.exp(W @ A) + 0.1 * np.sqrt(W[:, :1] * W[:, 1:2]) + noise


def fit(name, W, Y):
    return build("law", name).fit(W, Y, np.zeros(Y.shape[1]), np.random.default_rng(0))


@pytest.mark.parametrize("name", FIELDS)
def test_many_runs_are_known_by_anchors(name, monkeypatch):
    """80 anchors of 160 runs against all of them. Catches anchors that are not those predicted
    from, means without the trend, and deviations that know nothing of the runs left aside."""
    W, Y = table(n=160)
    X, _ = table(n=40, m=2)
    exact = fit(name, W, Y).predict(X)
    monkeypatch.setattr(gaussian_field, "EXACT", 100)
    monkeypatch.setattr(gaussian_field, "ANCHORS", 80)
    found = fit(name, W, Y).predict(X)
    assert np.all(np.abs(found.mean - exact.mean).max(axis=0) < 0.03 * Y.std(axis=0))
    assert np.all(np.abs(np.log(found.sd / exact.sd)).mean(axis=0) < 0.15)


@pytest.mark.parametrize("anchors", [False, True])
def test_residuals_of_blocks_are_those_of_fits_without_them(anchors, monkeypatch):
    """At the same hyper-parameters. Catches a residual of one run where a block was left out."""
    if anchors:
        monkeypatch.setattr(gaussian_field, "EXACT", 20)
        monkeypatch.setattr(gaussian_field, "ANCHORS", 40)  # all: without a block they are fewer
    W, Y = table(n=40, m=1)
    data = gaussian_field.FieldData(
        np.sqrt(W), Y.T - Y.mean(), np.sqrt(W)[None], np.zeros(40), np.zeros((1, 40)), np.arange(40)
    )
    theta, blocks = np.full((1, 8), -1.0), (np.arange(9), np.arange(9, 40))
    whole = gaussian_field.solve_fields(data, theta, np.zeros(40), (blocks,))
    rest = gaussian_field.solve_fields(data.take(blocks[1]), theta, np.zeros(31))
    mean, variance = rest.predict(data.X[:9], data.trend[:, :9], np.zeros(9))
    residual, spread = whole.left_out[0]
    assert residual[:, :9] == pytest.approx(data.y[:, :9] - mean, abs=1e-3)
    assert spread[:, :9] == pytest.approx(variance, rel=0.02)


def test_a_recipe_that_limits_the_runs_still_loads():
    """`most` was a field of both; catches an older recipe that no longer loads."""
    for name in FIELDS:
        law = build("law", {"name": name, "most": 39})
        assert dataclasses.replace(law, most=None) == build("law", name)
        W, Y = table(n=40)
        found = law.fit(W, Y, np.zeros(2), np.random.default_rng(0)).predict(W)
        assert np.all(np.isfinite(found.sd))
