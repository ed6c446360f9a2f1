"""What the tests of contracts share: a small noisy world, constraints, laws of its runs."""

import dataclasses

import numpy as np

from cuvee.mixtures import worlds
from cuvee.mixtures.constraints import Group, constrain

WORLD = worlds.Noisy(world=worlds.Additive(size=4, count=2), sd=0.005)
PROBLEM = worlds.problem(WORLD)
DOMAINS = PROBLEM.domains
CONSTRAINTS = {
    "free": constrain(DOMAINS, full_tokens=1),
    "caps": constrain(DOMAINS, full_tokens=10_000_000, epochs=3.0),
    "tight": constrain(DOMAINS, full_tokens=10_000_000, epochs=1.1),
    "group": constrain(DOMAINS, full_tokens=1, groups=[Group(("a0", "a1"), at_least=0.6)]),
    "sparse": constrain(DOMAINS, full_tokens=1, most_domains=3),
    "ball": constrain(DOMAINS, full_tokens=1, most_kl=0.3),
}


def quick(law):
    """A law of many trees with fewer of them: the contract is the same, and the test is fast."""
    fields = {f.name for f in dataclasses.fields(law)}
    cheap = {"trees": 100, "rate": 0.07, "folds": 2}
    return dataclasses.replace(law, **cheap) if set(cheap) <= fields else law


def data(n=40, seed=0):
    rng = np.random.default_rng(seed)
    W = rng.dirichlet(np.full(4, 0.7), size=n)
    return W, WORLD.truth(W, W) + 0.005 * rng.standard_normal((n, 2))


def fitted(law, W, Y, seed=0):
    return law.fit(W, Y, np.full(Y.shape[1], 0.005), np.random.default_rng(seed))
