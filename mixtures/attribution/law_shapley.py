"""Shapley values of a fitted law: each domain's fair part of what a mixture teaches.

Shapley 1953, "A value for n-person games". A coalition S of the domains of a mixture w is w without
the others, its value minus the score that the law predicts of it:

    phi_k = sum over S without k of |S|! (K - |S| - 1)! / K! (y(S) - y(S and k))

The values sum to y(nobody) - y(w). y(nobody) is the mean over the single domains; a study that
knows an untrained model's scores moves them there (`ShapleyWorth.from_empty`). All coalitions are
weighed up to 12 domains; above that, domains are added in sampled orders, each with its reverse,
whose error widens the interval.
"""

import math

import numpy as np
from numpy.typing import NDArray

from cuvee.mixtures.attribution.leave_out import with_objective, without
from cuvee.mixtures.domain_worth import ShapleyWorth, Worth
from cuvee.mixtures.domains import Array
from cuvee.mixtures.inference.dataset import Dataset
from cuvee.mixtures.inference.diagnostics import Z, bootstrap_fits, leverage
from cuvee.mixtures.inference.evidence_grade import TOUCHING
from cuvee.mixtures.laws import FittedLaw, Law, posterior_draws, predicted_means
from cuvee.mixtures.simplex import ZERO

MOST = 12  # domains of which every coalition is weighed
ORDERS = 256  # sampled above that, half of them reverses
DRAWS, REFITS = 40, 10  # behind the intervals


def law_shapley(
    found: Dataset,
    law: Law,
    fitted: FittedLaw,
    mixture: Array,
    rng: np.random.Generator,
) -> ShapleyWorth:
    """Values of a mixture's (K,) domains with a share, by a law fitted to `found.sample`."""
    players, (order_rng, draw_rng) = np.flatnonzero(mixture > ZERO), rng.spawn(2)
    few, size = len(players) <= MOST, len(players)
    plan = _all_coalitions(size) if few else _sampled_orders(size, order_rng)
    masks, before, after, weights = plan
    W = np.array([without(mixture, players[~mask]) for mask in masks[1:]])
    draws = posterior_draws(fitted, DRAWS, draw_rng)
    if draws is None:
        draws = bootstrap_fits(law.coarse(), found.sample, REFITS, draw_rng)

    def gains(one: FittedLaw) -> tuple[Array, Array]:
        scores = with_objective(predicted_means(one, W), found.scalar)
        nobody = scores[masks[1:].sum(axis=1) == 1].mean(axis=0)
        scores = np.vstack([nobody, scores])
        return scores[before] - scores[after], nobody

    gain, nobody = gains(fitted)  # (K, n, 1 + M)
    phi = np.einsum("kn,knt->kt", weights, gain)
    drawn = [np.einsum("kn,knt->kt", weights, gains(one)[0]) for one in draws]
    low, high = np.quantile([phi, *drawn], [0.05, 0.95], axis=0)
    if not few:
        pairs = gain.reshape(len(gain), -1, 2, gain.shape[2]).mean(axis=2)
        error = Z * pairs.std(axis=1, ddof=1) / np.sqrt(pairs.shape[1])
        low, high = low - error, high + error
    cells = np.stack([phi, np.minimum(low, phi), np.maximum(high, phi)], axis=-1).tolist()
    widest = leverage(found.sample.W, found.sample.W).max() * (1 + TOUCHING)
    return ShapleyWorth(
        domains=tuple(found.problem.domains.names[k] for k in players),
        worths=tuple(tuple(Worth(*cell) for cell in row) for row in cells),
        empty=tuple(nobody.tolist()),
        outside=float((leverage(found.sample.W, W) > widest).mean()),
        orders=0 if few else ORDERS,
    )


Numbers = NDArray[np.int64]
Plan = tuple[NDArray[np.bool_], Numbers, Numbers, Array]


def _all_coalitions(size: int) -> Plan:
    """Coalitions as masks (C, K), nobody first; by domain the numbers of those without it, and with
    it besides, and the weight of each such step (K, 2^(K - 1))."""
    masks = ((np.arange(2**size)[:, None] >> np.arange(size)) & 1).astype(bool)
    before = np.array([np.flatnonzero(~masks[:, k]) for k in range(size)])
    each = np.array([1 / (size * math.comb(size - 1, n)) for n in range(size)])
    return masks, before, before + 2 ** np.arange(size)[:, None], each[masks[before].sum(axis=2)]


def _sampled_orders(size: int, rng: np.random.Generator) -> Plan:
    """The same of orders, each followed by its reverse; every step counts alike."""
    half = np.array([rng.permutation(size) for _ in range(ORDERS // 2)])
    orders = np.stack([half, half[:, ::-1]], axis=1).reshape(ORDERS, size)
    place = np.argsort(orders, axis=1)  # (orders, K): when each domain comes
    joined = place[:, None, :] < np.arange(size + 1)[:, None]
    masks, number = np.unique(joined.reshape(-1, size), axis=0, return_inverse=True)
    number = number.reshape(ORDERS, size + 1)
    before = np.take_along_axis(number, place, axis=1).T
    after = np.take_along_axis(number, place + 1, axis=1).T
    return masks, before, after, np.full(before.shape, 1 / ORDERS)
