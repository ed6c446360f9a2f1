"""What a law and its refits choose: paired gains, intervals, and predictions held to the range."""

import numpy as np
import pytest
from contract_parts import PROBLEM, data, fitted, standard

from cuvee.mixtures.inference.optimum import (
    Optimum,
    answer_of,
    draw_interval,
    gains_over,
    refit_interval,
    search_refits,
)
from cuvee.mixtures.laws.bounds import Bounds
from cuvee.mixtures.recommendation import BEYOND
from cuvee.mixtures.registry import build

WIDE = Bounds(np.full(2, -100.0), np.full(2, 100.0))
NATURAL, UNIFORM = PROBLEM.domains.natural, PROBLEM.domains.uniform


def chosen(levels, refit_levels) -> Optimum:
    """An optimum as searches leave it: a first share that refits scatter, and 1e-12 of rounding."""
    weights = np.array([0.6, 0.4 - 1e-12, 0.0, 1e-12])
    scattered = np.array([[0.5, 0.5, 0, 0], [0.6, 0.4, 0, 0], [0.8, 0.2, 0, 0]])
    points = np.vstack([weights, NATURAL, UNIFORM, UNIFORM])
    nothing = np.zeros((3, 3))
    names = ("recommended", "natural", "uniform", "best observed")
    values = np.array(levels), scattered, np.array(refit_levels), nothing
    return Optimum(weights, points, names, *values)


def test_an_interval_is_the_central_part_of_refits_and_holds_the_value():
    """By hand, of 0 to 100: 5 and 95. Catches quartiles, and a value outside its own interval."""
    values = np.arange(101.0)
    found = refit_interval(50.0, values)
    assert (found.low, found.mean, found.high) == pytest.approx((5.0, 50.0, 95.0))
    assert refit_interval(120.0, values).high == 120.0
    assert refit_interval(-3.0, values).low == -3.0


def test_an_interval_of_draws_is_as_wide_as_they_differ_in_pairs():
    """By hand: draws of 6, 7 and 8 have a deviation of 1. Catches a shift of all mixtures in it,
    and the draws' mean, 7, in place of the law's own 0.5."""
    shift, gains = np.array([[0.0], [10.0], [20.0]]), np.array([[0, v, 0, 0] for v in (6, 7, 8)])
    found = gains_over(chosen([1.0, 1.5, 1.3, 1.1], shift + gains), draw_interval)
    natural = dict(found)["natural"]
    assert natural.mean == 0.5
    assert natural.high - 0.5 == pytest.approx(1.6448536) == pytest.approx(0.5 - natural.low)


def test_gains_are_paired_refit_by_refit():
    """By hand: refits that shift all mixtures alike leave gains of 0.5 + (-0.1, 0, 0.1). Catches a
    difference the wrong way round, against another mixture than the first, and one of intervals."""
    shift = np.array([[0.0], [10.0], [20.0]])
    gains = np.array([[0, 0.4, 0.3, 0.1], [0, 0.5, 0.3, 0.1], [0, 0.6, 0.3, 0.1]])
    best = chosen([1.0, 1.5, 1.3, 1.1], 1 + shift + gains)
    found, over = answer_of(PROBLEM, best, LAW, WIDE), dict(gains_over(best))
    natural = over["natural"]
    assert (natural.low, natural.mean, natural.high) == pytest.approx((0.41, 0.5, 0.59))
    assert over["best observed"].mean == pytest.approx(0.1)
    assert list(over) == ["natural", "uniform", "best observed"]
    own = found["candidates"][0].objective
    assert own.high - own.low > 15  # of the level itself it is wide, and says so
    assert found["stages"][0].weights == pytest.approx((0.6, 0.4, 0.0, 0.0))
    assert found["stages"][0].weights[3] == 0.0  # what a solver left there is none
    assert found["intervals"][0] == pytest.approx((0.51, 0.78)) and found["intervals"][2] == (0, 0)


def test_targets_have_the_interval_of_one_new_run():
    """mean +- 1.645 sd of the law, within what scores can be; catches sd for a half-width."""
    found = answer_of(PROBLEM, chosen([1.0] * 4, np.ones((3, 4))), LAW, WIDE)
    said = LAW.predict(NATURAL[None])
    one = found["candidates"][1].targets[1]
    assert one.mean == pytest.approx(said.mean[0, 1])
    assert one.high - one.mean == pytest.approx(1.6448536 * said.sd[0, 1])
    assert one.mean - one.low == pytest.approx(1.6448536 * said.sd[0, 1])


def test_predictions_beyond_what_scores_can_be_are_held_and_told():
    """Catches a cut without a word, one that is told where nothing was cut, and refits that are
    not looked at: at last scores can be no lower than the most that the law predicts of any run."""
    search, rng = build("search", "mirror"), np.random.default_rng

    def told(law, again, low, high=100.0):
        bounds = Bounds(np.full(2, low), np.full(2, high))
        posed, points = (PROBLEM, bounds), {"natural": NATURAL, "uniform": UNIFORM}
        return search_refits((law, again), search, posed, points, rng=rng(0))

    again = [standard("log_linear")]
    free = told(LAW, again, -100.0)
    assert free.cut == () and free.levels[0] == free.levels.min()
    assert free.refit_gains.shape == (1, 1) and free.refit_gains[0, 0] >= 0
    W, Y = data()
    astray = told(LAW, [fitted(build("law", "linear"), W, Y + 500.0), LAW], -100.0)
    assert astray.cut[0].startswith(
        "1 of 2 refits of the law predict scores that no run comes near"
    )
    every = LAW.predict(W).mean.max()
    held = told(LAW, again, every, every)
    assert held.cut[0].startswith(BEYOND) and "at most 1 times the range" in held.cut[0]
    assert np.all(held.levels == held.levels[0])  # the objective of what all were held to


LAW = standard("linear")
