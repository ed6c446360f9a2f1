"""Scores by sampling unit: a ratio of sums, found by content under whatever name a domain has."""

import dataclasses

import numpy as np
import pytest

from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.runs.run_records import outcome_from_json, outcome_to_json
from cuvee.mixtures.runs.run_results import Score
from cuvee.mixtures.runs.unit_scores import UnitScores, unit_keys
from tests.mixtures.test_run_identity import result, spec, turned

KEYS = unit_keys([b"a", b"b", b"c"])
UNITS = UnitScores(KEYS, np.array([1.0, 4.0, 9.0]), np.array([1.0, 2.0, 4.0]))
NAMES = ("one", "two", "three", "four")


def test_a_score_is_a_ratio_of_sums():
    """(1 + 4 + 9) / (1 + 2 + 4) = 2, where the mean of ratios is 1.75; without b it is 10 / 5."""
    assert UNITS.value == 2.0 and len(UNITS) == 3
    assert UNITS.without(KEYS[1:2]).totals.tolist() == [1.0, 9.0]
    assert UNITS.without(unit_keys([b"d"])).value == 2.0


def test_keys_go_by_content_and_tell_equal_units_apart():
    """Catches a salted hash (another process, other keys) and one key for two equal units."""
    assert KEYS.tolist()[:2] == unit_keys([b"b", b"a"]).tolist()[::-1]
    assert unit_keys([b"a"]).tolist() == [3405396810240292928]
    twice = unit_keys([b"a", b"a"])
    assert twice[0] == KEYS[0] and twice[1] not in KEYS


@pytest.mark.parametrize(
    "parts",
    [
        (KEYS, np.ones(2), np.ones(3)),
        (KEYS[[0, 0, 1]], np.ones(3), np.ones(3)),
        (KEYS, np.array([1.0, np.nan, 1.0]), np.ones(3)),
    ],
)
def test_units_that_make_no_sense_do_not_construct(parts):
    with pytest.raises(EvidenceError):
        UnitScores(*parts)


def test_units_follow_the_text_and_not_the_name():
    """Catches units left under the name that a domain had in the study that trained the run."""
    run = spec()
    kept = dataclasses.replace(result(run), units={"domain/code": UNITS, "task/piqa": UNITS})
    seen = kept.seen_as(turned(run, (2, 0, 3, 1), NAMES))
    assert seen.units == {"domain/two": UNITS, "task/piqa": UNITS}  # code's name there


def test_units_are_of_the_score_that_is_kept():
    """Catches another scoring's units beside a score, and units lost where only they are known."""
    first = dataclasses.replace(result(spec()), units={"domain/web": UNITS, "task/piqa": UNITS})
    later = dataclasses.replace(first, scores={"task/piqa": Score(0.9, 0.1, 3)}, details={})
    assert dataclasses.replace(later, units={}).merged(first).units == {"domain/web": UNITS}
    other = UNITS.without(KEYS[:1])
    both = dataclasses.replace(later, units={"task/piqa": other}).merged(first)
    assert both.units == {"domain/web": UNITS, "task/piqa": other}


def test_units_are_no_part_of_the_record():
    """Catches arrays in result.json, and results that differ by what is kept beside them."""
    run = dataclasses.replace(result(spec()), units={"domain/web": UNITS})
    assert "units" not in outcome_to_json(run) and run == result(spec())
    assert outcome_from_json(outcome_to_json(run)).units == {}
