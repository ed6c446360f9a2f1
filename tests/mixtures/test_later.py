"""What a plan says of later rounds holds for the rounds that a method then asks for."""

import dataclasses

import pytest

from cuvee.mixtures import worlds
from cuvee.mixtures.loop import generator
from cuvee.mixtures.registry import build, lookup, names
from cuvee.mixtures.runs.run_results import History
from cuvee.mixtures.runs.run_spec import RunSpec
from cuvee.mixtures.worlds import Learning, Noisy, Recency

CHEAP = {"runs": 8, "folds": 3, "refits": 10, "laws": ("log_linear",), "search": "exact"}
CHEAP |= {"batch": 3, "rounds": 2, "seeds": 2, "trials": 2, "candidates": 7, "pairs": 2}


def worth(specs: tuple[RunSpec, ...]) -> float:
    """Whole runs that the specs cost, where runs that begin alike share what they begin with."""
    shared: dict[tuple, list[RunSpec]] = {}
    for spec in specs:
        if len(spec.stages) > 1:
            shared.setdefault((spec.stages[0].weights, spec.seed), []).append(spec)
    single = sum(len(spec.stages) == 1 for spec in specs)
    trunks = sum(max(spec.stages[0].share for spec in group) for group in shared.values())
    tails = sum(spec.stages[1].share for group in shared.values() for spec in group)
    return single + trunks + tails


@pytest.mark.parametrize("name", names("method"))
def test_no_method_asks_for_more_than_its_plan_says(name: str) -> None:
    """Catches a round that was forgotten, and a count that is far above what can be asked for."""
    known = {field.name for field in dataclasses.fields(lookup("method", name))}
    fields = {field: value for field, value in CHEAP.items() if field in known}
    world = Recency(world=Noisy(world=Learning(size=3), sd=0.002))
    problem = worlds.world_problem(world)
    method = build("method", {"name": name, **fields})
    first = method.ask(problem, (), generator(1, 0))
    history: History = ()
    while specs := method.ask(problem, history, generator(1, len(history))):
        history += tuple(world(specs))
    rest = specs_after(history, first)
    said = method.remaining(problem)
    assert worth(rest) <= said.runs + 1e-9
    assert worth(rest) >= 0.5 * said.runs
    assert bool(said.words) == bool(rest)


def specs_after(history: History, first: tuple[RunSpec, ...]) -> tuple[RunSpec, ...]:
    known = {spec.fingerprint for spec in first}
    return tuple(run.spec for run in history if run.spec.fingerprint not in known)
