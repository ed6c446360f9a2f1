"""Contracts: what every registered controller must keep; a new one enters by being registered."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from cuvee import mixtures
from cuvee.mixtures import registry, simplex
from cuvee.mixtures.controllers import ControllerEvidence, dump_controller, load_controller
from cuvee.mixtures.registry import build, describe, names

SKILLS = ("red", "green", "blue", "black")
STEPS = 60
SIZES = {  # of losses, nats per token: usual, nothing to lose, a run that is about to diverge
    "usual": (1.0, 2.0),
    "zero": (0.0, 0.0),
    "huge": (1e300, 1e308),
    "one huge": (0.0, 1e308),
}


def evidence(controller, state, domains, size="usual", seed=0):
    """Evidence as a trainer gives it at the step where a state wants it; a function of names."""
    rng = np.random.default_rng([seed, state["due"]])
    values = dict(zip(SKILLS, np.linspace(*SIZES[size], 4) * rng.uniform(0.9, 1.0, 4), strict=True))
    targets = controller.targets(domains)
    counts = tuple(0 if name == "blue" and state["due"] % 2 else 3 for name in domains)
    seen = tuple(values[name] if n else None for name, n in zip(domains, counts, strict=True))
    examples = [[-x * min(values[n], 1e300) for n in domains] for x in (0.5, 1.0, 2.0)]
    return ControllerEvidence(
        step=state["due"],
        counts=counts,
        losses=seen,
        excess=seen if controller.compares else (),
        held_out=tuple(values[name.removeprefix("domain/")] for name in targets),
        products=tuple(
            tuple(
                float(min(values[a], 1e150) * min(values[b.removeprefix("domain/")], 1e150))
                for b in targets
            )
            for a in domains
        )
        if controller.gradients
        else (),
        norms=tuple(values[name] for name in domains) if controller.gradients else (),
        rate=0.01,
        likelihoods=tuple(map(tuple, examples)) if controller.mixes else (),
        lengths=(1, 1, 1) if controller.mixes else (),
    )


def moved(controller, domains=SKILLS, size="usual", state=None, until=STEPS, hop=False):
    """States of a run from its start, or from one of its states."""
    shares = dict(zip(SKILLS, (0.1, 0.2, 0.3, 0.4), strict=True))
    start = tuple(shares[name] for name in domains)
    states = [state or controller.start(domains, start, STEPS)]
    while states[-1]["due"] < until:
        if hop:  # what a checkpoint does to a state
            states[-1] = json.loads(json.dumps(states[-1]))
        found = evidence(controller, states[-1], domains, size)
        states.append(controller.update(states[-1], found))
        assert states[-1]["due"] > found.step, "an update that is due again at once never ends"
    return states


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


def test_the_example_of_the_readme_is_a_controller(tmp_path, monkeypatch):
    """One file, as a newcomer copies it; catches an example that its own contract refuses."""
    text = (Path(mixtures.__file__).parent / "README.md").read_text(encoding="utf-8")
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
