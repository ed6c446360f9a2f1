"""The campaign of generated inputs counts by itself: what it calls a defect must be one."""

import input_recipes
import inputs
import numpy as np
import pytest

from cuvee.mixtures.errors import RecipeError


def refuse():
    raise RecipeError("no")


def crash():
    raise KeyError("x")


def hang():
    raise inputs.Hang


@pytest.mark.parametrize(
    ("act", "valid", "counted"),
    [
        (lambda: True, True, {"accepted": 1}),
        (lambda: True, None, {"accepted": 1}),
        (refuse, False, {"refused": 1}),
        (refuse, None, {"refused": 1}),
        (lambda: True, False, {"accepted": 1, "wrong_acceptances": 1}),
        (lambda: False, True, {"accepted": 1, "misread": 1}),
        (refuse, True, {"refused": 1, "wrong_refusals": 1}),
        (crash, False, {"tracebacks": 1}),
        (crash, None, {"tracebacks": 1}),
        (hang, None, {"hangs": 1}),
    ],
)
def test_what_an_input_does_is_counted_as_what_it_is(act, valid, counted):
    """Catches a campaign that passes whatever the readers do."""
    tally = inputs.Tally()
    tally.tried("kind", act, "text", valid=valid)
    assert dict(tally.count) == {"inputs_tried": 1, **counted}


def test_a_reader_that_believes_everything_is_found_out(monkeypatch):
    """Catches broken inputs that are not broken."""
    monkeypatch.setattr(inputs, "read_recipe", lambda text: None)
    monkeypatch.setattr(inputs, "read_pair", lambda text: None)
    monkeypatch.setattr(inputs, "same_numbers", lambda tables, joined: True)
    count = inputs.campaign(200, 3).count
    assert count["wrong_acceptances"] > 60 and count["tracebacks"] == 0


def test_damaged_files_differ_from_what_was_written_and_are_often_refused():
    """Catches damage that does nothing."""
    rng = np.random.default_rng(0)
    raw = input_recipes.dump(input_recipes.valid_recipe(rng)).encode()
    assert sum(input_recipes.mangled(raw, rng) != raw for _ in range(100)) > 95
    count = inputs.campaign(60, 5).count
    assert count["refused"] > 20 and count["inputs_tried"] == 60
