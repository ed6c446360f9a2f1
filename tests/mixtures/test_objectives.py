"""Objectives: values by hand, families, floors, and refusals."""

import numpy as np
import pytest

from cuvee.mixtures.errors import RecipeError
from cuvee.mixtures.objectives import Floors, Regret, WeightedMean, Worst
from cuvee.mixtures.registry import build

TARGETS = ("a", "b", "c")
SCORES = np.array([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]])
NATURAL = np.array([2.0, 2.0, 2.0])


def value(objective):
    return objective.value(SCORES, TARGETS, NATURAL).tolist()


def test_a_mean_is_weighted_and_normalized():
    """(1 * 1 + 3 * 3) / 4 = 2.5; catches weights taken by position of the target."""
    assert value(WeightedMean({"c": 3.0, "a": 1.0})) == [2.5, 2.0]


def test_a_family_counts_once_however_many_members_it_has():
    """Mean of c and of the mean of (a, b): (1.5 + 3) / 2; catches averaging raw targets."""
    objective = WeightedMean({"pair": 1.0, "c": 1.0}, {"pair": ("a", "b")})
    assert value(objective) == [2.25, 2.0] and objective.targets == ("a", "b", "c")


def test_the_worst_is_relative_to_natural():
    assert value(Worst(TARGETS)) == [1.0, 0.0]
    assert value(Worst(("pair", "a"), {"pair": ("b", "c")})) == [0.5, 0.0]


def test_regret_is_against_each_targets_own_best():
    """max(1 - 0.5, 3 - 2) = 1; max(2 - 0.5, 2 - 2) = 1.5."""
    assert value(Regret({"a": 0.5, "c": 2.0})) == [1.0, 1.5]


def test_a_broken_floor_is_infinite_and_its_level_is_not():
    """c is worse than natural by 1: allowed at 1, broken at 0.5."""
    assert value(Floors({"a": 1.0}, {"c": 1.0})) == [1.0, 2.0]
    broken = Floors({"a": 1.0}, {"c": 0.5})
    assert value(broken) == [np.inf, 2.0]
    shape = broken.scalarize(TARGETS, NATURAL)
    assert shape.relaxed(SCORES).tolist() == [1.0, 2.0]
    assert shape.violation(SCORES).tolist() == [0.5, 0.0]


@pytest.mark.parametrize(
    "objective",
    [
        WeightedMean({"a": 1.0, "c": 2.0}),
        Worst(("a", "b")),
        Regret({"a": 0.1}),
        Floors({"a": 1.0}, {"b": 0.1}),
    ],
)
def test_the_shape_gives_the_value(objective):
    """Searches see the shape alone; it must be the same objective."""
    scores = np.random.default_rng(0).normal(2, 1, size=(50, 3))
    shape = objective.scalarize(TARGETS, NATURAL)
    assert np.allclose(shape.value(scores), objective.value(scores, TARGETS, NATURAL))
    linear = objective.linear(TARGETS)
    if linear is not None:
        assert np.allclose(scores @ linear, objective.value(scores, TARGETS, NATURAL))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"name": "mean"}, "at least one target"),
        ({"name": "mean", "weights": {"a": 0.0}}, "positive weight"),
        ({"name": "mean", "weights": {"f": 1.0}, "families": {"f": []}}, "no members"),
        ({"name": "worst"}, "at least one target"),
        ({"name": "floors", "weights": {"a": 1.0}}, "at least one in `floors`"),
        ({"name": "regret", "best": {"a": float("nan")}}, "finite"),
    ],
)
def test_objectives_that_make_no_sense_are_refused(config, text):
    with pytest.raises(RecipeError, match=text):
        build("objective", config)


def test_an_unknown_target_is_named():
    with pytest.raises(RecipeError, match="no target 'z'; measured: a, b, c"):
        WeightedMean({"z": 1.0}).linear(TARGETS)


@pytest.mark.parametrize("given", [5, None, "domain/code"])
def test_weights_that_are_no_mapping_are_told_what_is_wanted(given):
    """Catches a person who reads that an int is not iterable."""
    with pytest.raises(RecipeError, match=f"mapping.* or as a list of pairs.*got {given!r}"):
        WeightedMean(weights=given)
