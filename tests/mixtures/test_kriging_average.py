"""The default law's average: weights from held-out regions, and a share that no run takes away."""

import numpy as np
import pytest

from cuvee.mixtures.laws import calibration, kriging
from cuvee.mixtures.laws.bounds import unbounded
from cuvee.mixtures.laws.observations import scattered_rows

NOISE = 0.002


def index_law(W, low=0.5):
    """Two targets of the plain power law, one line of effective data each."""
    b = np.array([[2.0, 0.7, 0.2, 0.1], [0.1, 0.4, 1.0, 1.5]])
    return 2.0 + (W @ b.T + 0.05) ** -low


def wiggles(W):
    """What holds at one scale alone: smooth, and no line of shares."""
    return 0.02 * np.sin(7.0 * np.sqrt(W[:, :2]) + np.array([0.0, 1.0]))


def fitted(W, Y, seed=0):
    law = kriging.Kriging()
    return unbounded(law.fit(W, Y, np.full(Y.shape[1], NOISE), np.random.default_rng(seed)))


def clustered(rng, places=5, each=8):
    """Runs at a few places, so that random folds never leave one."""
    centers = rng.dirichlet(np.full(4, 0.6), size=places)
    W = centers.repeat(each, axis=0) + 0.01 * rng.random((places * each, 4))
    return W / W.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", [0, 2])
def test_regions_tell_which_field_goes_beyond_the_runs(seed):
    """Weights by random folds alone would leave both fields theirs: within places all are right."""
    rng = np.random.default_rng(seed)
    W = clustered(rng)
    model = fitted(W, index_law(W) + NOISE * rng.standard_normal((len(W), 2)))
    residuals, _ = kriging._left_out(model.members)
    inside = kriging._weights_of(residuals[:, :1])
    np.testing.assert_allclose(inside[:, 1], kriging.SHARES[1], atol=0.03)
    assert (model.weights[:, 1] < 0.24).all()
    np.testing.assert_allclose(model.weights.sum(axis=1), 1.0, atol=1e-6)


def test_what_holds_at_one_scale_is_not_believed_in_full():
    """A law that takes the fields alone, right as they are here, is more wrong at another scale."""
    rng = np.random.default_rng(0)
    W, V = rng.dirichlet(np.ones(4), size=256), rng.dirichlet(np.ones(4), size=200)
    Y = index_law(W) + wiggles(W) + NOISE * rng.standard_normal((256, 2))
    model = fitted(W, Y)
    fields = np.mean([member.predict(V)[0] for member in model.members[0]], axis=0).T
    fields = np.exp(model.center + model.spread * fields)

    def error(mean, truth):
        return np.sqrt(np.mean((mean - truth) ** 2))

    whole, here = model.predict(V).mean, index_law(V) + wiggles(V)
    assert error(fields, here) < error(whole, here) < 0.25 * error(fields, index_law(V))
    assert error(whole, index_law(V)) < 0.95 * error(fields, index_law(V))
    assert (model.weights[:, 2] > 0.15).all()


def test_no_order_of_runs_moves_an_average():
    """Folds dealt by position would weigh the members otherwise for another order."""
    rng = np.random.default_rng(4)
    W = rng.dirichlet(np.ones(4), size=24)
    Y = index_law(W) + NOISE * rng.standard_normal((24, 2))
    order = rng.permutation(24)
    first, second = fitted(W, Y), fitted(W[order], Y[order])
    np.testing.assert_allclose(first.weights, second.weights, atol=1e-6)
    np.testing.assert_allclose(first.predict(W).sd, second.predict(W).sd, rtol=1e-5)


def test_deviations_grow_where_members_disagree():
    """Deviations of the fields alone held half of what lies far from the runs."""
    values = np.array([[[1.0, 1.0]], [[1.0, 3.0]]])
    mean, sd = kriging._average(values, np.array([[0.75, 0.25]]), np.full((1, 2), 0.25))
    np.testing.assert_allclose(mean, [[1.0, 1.5]])
    np.testing.assert_allclose(sd**2, [[0.25, 0.25 + 0.75 * 0.25 + 0.25 * 2.25]])


def test_regions_are_places_whatever_the_order():
    """Clusters begun at the first rows would depend on their order; repeats would be parted."""
    rng = np.random.default_rng(3)
    W = np.vstack([clustered(rng), clustered(rng)[:3].repeat(2, axis=0)])
    y, order = index_law(W).T, rng.permutation(len(W))

    def regions(W, y):
        return calibration.region_folds(np.sqrt(W), scattered_rows(W, y), 5)

    found = {frozenset(rows.tolist()) for rows in regions(W, y)}
    again = {frozenset(order[rows].tolist()) for rows in regions(W[order], y[:, order])}
    assert found == again and min(map(len, found)) >= 2
    assert sorted(np.concatenate(regions(W, y))) == list(range(len(W)))
    few = calibration.region_folds(W[[0, 0, 9]], np.arange(3), 5)
    assert [rows.tolist() for rows in few] in ([[0, 1], [2]], [[2], [0, 1]])


def test_weights_are_pulled_to_their_center():
    """Of members alike in what they miss, the center decides; a better one wins without a pull."""
    r = np.random.default_rng(0).standard_normal((2, 50))
    alike, center = np.stack([r[0], r[0]]), np.array([0.2, 0.8])
    np.testing.assert_allclose(calibration.convex_weights(alike, center, 1e-3), center, atol=1e-4)
    better = np.stack([0.01 * r[0], r[1]])
    assert calibration.convex_weights(better, center, 1e-9)[0] > 0.99
    np.testing.assert_allclose(calibration.convex_weights(better, center, 1e4), center, atol=1e-3)
