"""Contracts: what every registered controller must keep; a new one enters by being registered."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from contract_parts import SIZES, SKILLS, evidence, moved

from cuvee.mixtures import registry, simplex
from cuvee.mixtures.controllers import dump_controller, load_controller
from cuvee.mixtures.registry import build, describe, names


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", names("controller"))
def test_controllers_stay_on_the_simplex_and_finite(name, size):
    """Catches overflow of exp, 0 * inf, and shares that are not renormalized after smoothing."""
    states = moved(build("controller", name), size=size)
    assert len(states) > 1
    for state in states:
        simplex.check_mixture(state["weights"])


@pytest.mark.parametrize("name", names("controller"))
def test_controllers_do_not_know_the_order_of_domains(name):
    """Catches a weight that goes to a position, and ties or sweeps by number."""
    controller, turned = build("controller", name), (SKILLS[2], SKILLS[0], SKILLS[3], SKILLS[1])
    for one, two in zip(moved(controller), moved(controller, turned), strict=True):
        other = dict(zip(turned, two["weights"], strict=True))
        assert [other[n] for n in SKILLS] == pytest.approx(one["weights"], abs=1e-6)


@pytest.mark.parametrize("name", names("controller"))
def test_controllers_are_pure_and_move(name):
    """Same evidence, same states; catches a state that is changed in place, and one that rests."""
    controller = build("controller", name)
    before = describe(controller)
    first = moved(controller)
    kept = json.dumps(first[:-1])
    controller.update(first[-2], evidence(controller, first[-2], SKILLS))
    assert json.dumps(first[:-1]) == kept and first == moved(controller)
    assert describe(controller) == before and hash(controller) == hash(build("controller", name))
    assert not np.allclose(first[0]["weights"], first[-1]["weights"])


@pytest.mark.parametrize("name", names("controller"))
def test_controllers_resume_from_a_checkpoint(name):
    """Every state goes through JSON and back, as in a checkpoint; catches hidden or array state."""
    controller = build("controller", name)
    whole = moved(controller)
    assert [s["weights"] for s in moved(controller, hop=True)] == [s["weights"] for s in whole]
    half = json.loads(json.dumps(whole[len(whole) // 2]))
    assert moved(controller, state=half)[-1] == whole[-1]


@pytest.mark.parametrize("name", names("controller"))
def test_controllers_come_back_from_a_spec(name):
    """Catches a field that a spec's JSON loses."""
    controller = build("controller", name)
    assert load_controller(json.loads(dump_controller(controller))) == controller
    assert controller.moves in ("sampling", "loss")


def test_the_example_of_the_docs_is_a_controller(tmp_path, monkeypatch):
    """One file, as a newcomer copies it; catches an example that its own contract refuses."""
    page = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-controller.md"
    text = page.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "losses_first.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        importlib.import_module("losses_first")
        for size in SIZES:
            test_controllers_stay_on_the_simplex_and_finite("losses_first", size)
        test_controllers_do_not_know_the_order_of_domains("losses_first")
        test_controllers_are_pure_and_move("losses_first")
        test_controllers_resume_from_a_checkpoint("losses_first")
        test_controllers_come_back_from_a_spec("losses_first")
    finally:
        registry.forget("controller", "losses_first")
