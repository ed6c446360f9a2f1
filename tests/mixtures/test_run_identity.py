"""The identity of runs: contents in a canonical order, and results under whoever asks for them."""

import dataclasses
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.mixtures.controllers import dump_controller
from cuvee.mixtures.controllers.aioli import AioliController
from cuvee.mixtures.controllers.group_dro import GroupDRO
from cuvee.mixtures.controllers.mixmin import MixMinController
from cuvee.mixtures.controllers.skill_it import SkillItController
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import EvidenceError
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.mixtures.runs.run_spec import RunSpec, Stage

TEXTS = {"web": "5", "code": "9", "law": "2", "sums": "7"}  # name -> identity


def spec(stages=((0.4, 0.3, 0.2, 0.1),), names=tuple(TEXTS), **fields) -> RunSpec:
    values = {"size": "0.3M", "tokens": 1000, "seed": 4} | fields
    return RunSpec(
        domains=tuple(names),
        identities=tuple(TEXTS.values()),
        stages=tuple(Stage(w, 1 / len(stages)) for w in stages),
        heldout=tuple(f"h{text}" for text in TEXTS.values()),
        **values,
    )


def turned(run: RunSpec, order, names=None, more=0) -> RunSpec:
    """A run with its domains in another order, under other names, beside others without a share."""
    return dataclasses.replace(
        run,
        domains=tuple((names or run.domains)[i] for i in order)
        + tuple(f"added {i}" for i in range(more)),
        identities=tuple(run.identities[i] for i in order)
        + tuple("1" * (i + 2) for i in range(more)),
        heldout=tuple(run.heldout[i] for i in order) + tuple("n" * (i + 2) for i in range(more)),
        stages=tuple(
            Stage((*(s.weights[i] for i in order), *[0.0] * more), s.share) for s in run.stages
        ),
    )


def result(run: RunSpec) -> RunResult:
    """A result whose every number says which text it is of."""
    mark = [float(int(text)) for text in run.identities]
    scores = {f"domain/{n}": Score(m, 0.1, 3) for n, m in zip(run.domains, mark, strict=True)}
    return RunResult(
        run,
        scores={**scores, "task/piqa": Score(0.5, 0.1, 3)},
        details={"task/piqa/accuracy": Score(0.6, 0.1, 3)},
        trajectory=tuple((10 * t, stage.weights) for t, stage in enumerate(run.stages)),
        tokens=tuple(round(1000 * w) for w in run.weights),
        epochs=tuple(w * m for w, m in zip(run.weights, mark, strict=True)),
        points=((500, {name: score.value for name, score in scores.items()}),),
    )


shares = st.lists(st.integers(0, 9), min_size=4, max_size=4).filter(any)
mixtures = st.lists(shares.map(lambda n: tuple(x / sum(n) for x in n)), min_size=1, max_size=2).map(
    tuple
)
orders = st.permutations(range(4))
new_names = st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=4, unique=True) | (
    st.permutations(list(TEXTS))
)


@settings(max_examples=100, deadline=None)
@given(stages=mixtures, order=orders, names=new_names, more=st.integers(0, 2))
def test_names_order_and_absent_domains_are_no_part_of_a_run(stages, order, names, more):
    """Catches a hash of names, of positions, or of domains that the run never read."""
    run = spec(stages)
    assert turned(run, order, names, more).fingerprint == run.fingerprint


@settings(max_examples=100, deadline=None)
@given(stages=mixtures, order=orders, names=new_names, more=st.integers(0, 2))
def test_scores_follow_the_text_whatever_it_is_called(stages, order, names, more):
    """Catches a score that lands on another domain, or on one that nobody scored; names that are
    exchanged among the domains are the hard case."""
    run = spec(stages)
    other = turned(run, order, names, more)
    seen = result(run).seen_as(other)
    known = dict(zip(other.domains, other.identities, strict=True))
    assert {n: s.value for n, s in seen.scores.items() if n.startswith("domain/")} == {
        f"domain/{name}": float(known[name]) for name in other.domains[:4]
    }
    assert seen.scores["task/piqa"].value == 0.5 and "task/piqa/accuracy" in seen.details
    assert seen.lacking == tuple(f"domain/added {i}" for i in range(more))
    assert seen.points[0][1] == {n: s.value for n, s in seen.scores.items() if "domain/" in n}
    assert seen.tokens == tuple(round(1000 * w) for w in other.weights)
    assert seen.epochs[:4] == tuple(
        w * float(text) for w, text in zip(other.weights[:4], other.identities, strict=False)
    )
    assert [w for _, w in seen.trajectory] == [stage.weights for stage in other.stages]
    assert seen.seen_as(run) == result(run)


def test_what_a_run_is_made_of_is_a_part_of_it():
    """Catches a canonical order that forgets which text has which share, and equal text that is
    counted once."""
    run = spec()
    exchanged = spec(((0.3, 0.4, 0.2, 0.1),))
    text = dataclasses.replace(run, identities=("5", "9", "2", "8"))
    double = dataclasses.replace(run, identities=("5", "5", "2", "7"))
    other = dataclasses.replace(double, stages=(Stage((0.5, 0.2, 0.2, 0.1)),))
    prints = {one.fingerprint for one in (run, exchanged, text, double, other)}
    assert len(prints) == 5
    swapped = dataclasses.replace(double, stages=(Stage((0.3, 0.4, 0.2, 0.1)),))
    assert swapped.fingerprint == double.fingerprint
    held = dataclasses.replace(run, heldout=("a", "b", "c", "d"))
    assert held.fingerprint == run.fingerprint and result(run).seen_as(held).lacking == tuple(
        f"domain/{name}" for name in TEXTS
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("data_seed", 5), ("trainer", "ours"), ("arithmetic", "fp8"), ("document_order", "file")],
)
def test_what_is_reserved_stands_in_the_hash_already(field, value):
    """Catches a field that a later version would have to add, which voids every run once more."""
    run = spec()
    assert field in run.canonical()
    assert dataclasses.replace(run, **{field: value}).fingerprint != run.fingerprint
    assert dataclasses.replace(run, data_seed=run.seed).fingerprint == run.fingerprint
    with pytest.raises(EvidenceError, match="version 1 has no data_seed"):
        dataclasses.replace(run, version=1, **{field: value})


def test_runs_of_version_1_go_by_names_and_order():
    """Catches a version 1 that follows contents: what people have trained would not be found."""
    run = dataclasses.replace(spec(), version=1, heldout=())
    assert run.keys == run.domains
    for other in (turned(spec(), (1, 0, 2, 3)), turned(spec(), range(4), ("a", "b", "c", "d"))):
        moved = dataclasses.replace(other, version=1, heldout=())
        assert moved.fingerprint != run.fingerprint
        with pytest.raises(EvidenceError, match="cannot stand for"):
            RunResult(run, {}).seen_as(moved)
    assert dataclasses.replace(run, version=2).fingerprint != run.fingerprint


GRAPH = tuple(tuple(float(10 * i + j) for j in range(2)) for i in range(4))


@pytest.mark.parametrize(
    "controller",
    [
        SkillItController(GRAPH, ("domain/law", "domain/web")),
        SkillItController(),
        MixMinController(("w", "c", "l", "s"), ("domain/law", "task/piqa")),
        GroupDRO(reference=(0.1, 0.2, 0.3, 0.4)),
        AioliController(),
    ],
)
def test_a_controlled_run_is_the_same_whatever_its_domains_are_called(controller):
    """Catches a skill graph, source runs or reference weights that keep the order of the recipe,
    and targets that are hashed by name."""
    run = spec(controller=dump_controller(controller))
    names = {"web": "crawl", "code": "web", "law": "code", "sums": "sums"}
    for order in itertools.permutations(range(4)):
        values = json.loads(run.controller)
        for field in controller.by_domain:
            if values.get(field):
                values[field] = [values[field][i] for i in order]
        if values.get("evaluated"):
            values["evaluated"] = [
                f"domain/{names[n.removeprefix('domain/')]}" if n.startswith("domain/") else n
                for n in values["evaluated"]
            ]
        other = turned(run, order, tuple(names[n] for n in run.domains))
        other = dataclasses.replace(other, controller=json.dumps(values))
        assert other.fingerprint == run.fingerprint
    if any(getattr(controller, field) for field in controller.by_domain):
        assert turned(run, (1, 0, 2, 3)).fingerprint != run.fingerprint  # its rows stayed
    held = dataclasses.replace(run, heldout=("a", "b", "c", "d"))
    assert held.fingerprint != run.fingerprint  # it is steered by what is held out


def test_a_controller_may_give_a_share_to_every_domain():
    """Catches a domain that is left out of a controlled run because it starts without a share."""
    run = spec(((0.5, 0.5, 0.0, 0.0),), controller=dump_controller(AioliController()))
    assert len(run.order) == 4 and len(spec(((0.5, 0.5, 0.0, 0.0),)).order) == 2
    assert turned(run, range(4), more=1).fingerprint != run.fingerprint


def test_a_run_is_found_over_the_domains_of_another_study():
    """Catches a reference that is looked for under the names of the study that trained it, and text
    that is blamed for what a controller does."""
    run = spec(((0.0, 0.6, 0.4, 0.0),))
    domains = [Domain(n, 10, 10, text, heldout=f"h{text}") for n, text in TEXTS.items()]
    fewer = DomainSet((dataclasses.replace(domains[2], name="x"), domains[3], domains[1]))
    found = run.over(fewer)
    assert found.fingerprint == run.fingerprint
    assert found.domains == ("x", "sums", "code") and found.stages[0].weights == (0.4, 0.0, 0.6)
    with pytest.raises(EvidenceError, match="text of 'law'"):
        run.over(DomainSet((domains[0], domains[1])))
    moved = spec(((0.0, 0.6, 0.4, 0.0),), controller=dump_controller(AioliController()))
    with pytest.raises(EvidenceError, match="moved by a controller"):  # all its text is there
        moved.over(DomainSet(tuple(domains)))


def test_two_records_of_one_run_are_one_result():
    """Catches a new score that takes the place of an old one, and names that two texts share."""
    run = spec(((0.0, 0.6, 0.4, 0.0),))
    other = turned(run, (0, 1, 2, 3), ("law", "code", "web", "fresh"))
    other = dataclasses.replace(
        other, identities=("55", *run.identities[1:]), heldout=("h55", "h9", "h2", "h7")
    )
    both = result(other).merged(result(run))
    assert both.spec.fingerprint == run.fingerprint
    assert both.seen_as(run).scores == result(run).scores
    assert both.seen_as(other).scores == result(other).scores
    assert len(set(both.spec.domains)) == 5 and both.merged(result(run)) == both
