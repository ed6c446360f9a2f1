"""Power: gains that a confirmation can show, against simulated confirmations and closed forms."""

import numpy as np
import pytest
from scipy import stats

from cuvee.mixtures.inference.power import POWER, PairNoise, pair_noise


def test_a_promised_gain_is_claimed_as_often_as_was_promised():
    """20,000 studies: noise from 2 anchors under 3 seeds, then a gain of just what it promises
    under 3 fresh ones. Catches noise that is taken for exact (64 % of claims would hold), a
    two-sided test of 5 %, and the noise of a run in place of a pair's."""
    rng, unit = np.random.default_rng(0), PairNoise(1.0, 2).smallest_gain(3)
    known = rng.standard_normal((20_000, 2, 3)) + rng.standard_normal((20_000, 1, 3))
    one = pair_noise(known[0].ravel(), np.repeat([0, 1], 3), [0, 1, 2] * 2)
    sd = (known[:, 0] - known[:, 1]).std(axis=1, ddof=1)  # which is what a pair's noise is here
    assert (one.sd, one.degrees) == (pytest.approx(sd[0]), 2)
    gains = unit * sd[:, None] + np.sqrt(2.0) * rng.standard_normal((20_000, 3))
    low = gains.mean(axis=1) - stats.t.ppf(0.95, 2) * stats.sem(gains, axis=1)
    assert np.mean(low > 0) == pytest.approx(POWER, abs=0.01)


def test_noise_that_is_known_gives_the_textbook_power():
    """A one-sided 5 % test of 10 pairs at 0.854 deviations has 80 %; catches degrees of the wrong
    seeds, and items that seeds make smaller: they double the error here, and no seeds do."""
    noise = PairNoise(0.02, 10**6)
    assert noise.smallest_gain(10) == pytest.approx(0.02 * 0.8529, rel=0.01)
    assert noise.power(0.02 * 0.8529, 10) == pytest.approx(0.8, abs=0.005)
    assert noise.seeds_for(0.02 * 0.8529) in (10, 11)
    items = PairNoise(0.02, 10**6, items=0.02)
    assert items.smallest_gain(500) > 0.02 * 2.4 and items.seeds_for(0.02 * 2.4) is None


@pytest.mark.parametrize(("degrees", "critical"), [(2, 17.5), (4, 6.94), (16, 3.81)])
def test_what_dunnetts_value_shows_is_shown_as_often_as_was_promised(degrees, critical):
    """By s of one study, the worth that another shows in 80 %: catches critical + t.ppf(0.8), which
    keeps 53 to 72 % of its word, and a value that is Student's."""
    rng = np.random.default_rng(0)
    first, second = np.sqrt(rng.chisquare(degrees, (2, 40_000)) / degrees)
    noise = PairNoise(1.0, degrees, critical=critical)
    t = (noise.smallest_gain(1) * first + rng.standard_normal(40_000)) / second
    assert np.mean(t > critical) == pytest.approx(POWER, abs=0.01)


def test_fewer_degrees_promise_less():
    """Catches a promise that ignores how little is known of the noise."""
    gains = [PairNoise(1.0, d).smallest_gain(5) for d in (2, 5, 50)]
    assert gains[0] > 1.2 * gains[1] > 1.2 * gains[2]


def test_pairs_are_told_from_any_table_of_mixtures_and_seeds():
    """A mixture that costs 1 more and a seed that is 5 worse are no noise; cells may lack, and a
    mixture that was run once says nothing. Catches noise between mixtures or seeds."""
    rng = np.random.default_rng(1)
    mixture, seed = (a.ravel() for a in np.indices((4, 60)))
    values = mixture + 5.0 * (seed % 7) + 0.1 * rng.standard_normal(mixture.size)
    kept = rng.permutation(mixture.size)[:200]
    found = pair_noise(values[kept], mixture[kept], seed[kept])
    assert found.sd == pytest.approx(0.1 * np.sqrt(2), rel=0.2) and found.degrees == 200 - 63
    alone = np.append(values[kept], 99.0), np.append(mixture[kept], 9), [*seed[kept], 0]
    assert pair_noise(*alone).sd == pytest.approx(found.sd)
    assert pair_noise(values[:60], mixture[:60], seed[:60]) is None
