"""What is computed keeps its version: outputs of every registered part, golden with the version.

`golden/outputs.json` holds, by kind and name, what the parts of `mixtures` answer on small worlds
and tables, and the losses of a proxy's first twenty steps; first made by 404a3ce. Parts are those
of the registry: a new one fails here until its output is added. Numbers agree where they differ by
what another instruction set rounds otherwise; all else, words too, is equal.

`python tests/test_versions.py` writes the file anew. It refuses while an output differs whose
version was not raised in `tasks/store/provenance.py`; words alone need none.
"""

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import old_study
import pytest
from contract_parts import DOMAINS, PROBLEM, WORLD, data, moved, quick, small, standard
from ladder_world import ladder_runs
from synthetic_corpus import SyntheticCorpus

from cuvee.flows.recipe.load import load_recipe
from cuvee.flows.study.table_problem import from_tables
from cuvee.mixtures import registry
from cuvee.mixtures.errors import CuveeError
from cuvee.mixtures.loop import generator, search
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.registry import build, lookup, names
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.mixtures.runs.run_spec import BY_NAMES, VERSION
from cuvee.mixtures.worlds import Scaled
from cuvee.proxies.train.trainer import train_pack
from cuvee.tasks.store import provenance

GOLDEN = Path(__file__).parent / "golden" / "outputs.json"
WRITE = "`python tests/test_versions.py`"
LONG = 20  # numbers of a list beyond which it is kept as a few of its moments
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
TARGETS = PROBLEM.targets
NEEDED = {  # what a recipe must say of a part that has no defaults
    "floors": {"weights": {TARGETS[0]: 1.0}, "floors": {TARGETS[1]: 0.01}},
    "hinge": {"weights": {TARGETS[0]: 1.0}, "floors": [TARGETS[1]], "tolerance": 0.01},
    "mean": {"weights": {TARGETS[0]: 2.0, TARGETS[1]: 1.0}},
    "regret": {"best": {TARGETS[0]: 1.0, TARGETS[1]: 1.1}},
    "smallest_step": {"gains": {"objective": 0.002}},
    "worst": {"members": TARGETS},
}


def made(kind: str, name: str) -> Any:
    """A registered part with its defaults; what it needs beside them stands in NEEDED."""
    return build(kind, {"name": name, **NEEDED.get(name, {})})


def mixtures_of(design: Any, n: int) -> Any:
    """n mixtures, or as many as a design with few mixtures has."""
    for count in (n, 4, 2, 1):
        try:
            return design.draw(DOMAINS, PROBLEM.constraints, count, generator(3))
        except CuveeError:
            continue
    raise AssertionError("a design without a single mixture")


def law_output(name: str) -> Any:
    found = standard(name).predict(data(n=6, seed=1)[0])
    return {"mean": found.mean, "sd": found.sd}  # whole: moments of both would hide a digit


def scaling_output(name: str) -> Any:
    fit = made("scaling", name).fit(
        ladder_runs(Scaled(size=4, count=2, moves=0.7), noise=0.002), generator(0)
    )
    found = fit.at(100_000_000, 4_000_000_000).predict(
        np.random.default_rng(99).dirichlet(np.ones(4), 6)
    )
    return {"mean": found.mean, "sd": found.sd}


def search_output(name: str) -> Any:
    law = standard("log_linear")
    reference = law.predict(DOMAINS.natural[None]).mean[0]
    return made("search", name).choose(law, PROBLEM, reference, generator(4))


def recommended(found: Any, evidence: Any) -> Any:
    """A recommendation but its pictured surface, which follows rounding from peak to peak."""
    return {**found.to_json(), "evidence": evidence, "surface": found.surface is not None}


def as_by_names(problem: Problem) -> Problem:
    """With runs of version 1: worlds draw their noise, and fits their order, from fingerprints."""
    return dataclasses.replace(problem, version=BY_NAMES)


def run_by_names(run: RunResult) -> RunResult:
    """The same run as version 1 has it."""
    return dataclasses.replace(run, spec=dataclasses.replace(run.spec, version=BY_NAMES))


def method_output(name: str) -> Any:
    """The runs it asks for on a world, by their shares, and the whole recommendation."""
    found, history = search(small(name), as_by_names(PROBLEM), WORLD, 7)
    asked = [[run.spec.seed, *(w for s in run.spec.stages for w in s.weights)] for run in history]
    return recommended(found, asked)


def objective_output(name: str) -> Any:
    scores = data(n=8, seed=2)[1]
    return made("objective", name).value(scores, TARGETS, scores.mean(axis=0))


def table_output(**method: Any) -> Any:
    """What a method recommends from the two tables of `old_study`, or why it does not."""
    recipe, _ = load_recipe(Path("tables.yaml"))
    cheap = {"name": "regmix", "runs": 8, "folds": 2, "refits": 10, "laws": ["log_linear"]} | method
    known = {f.name for f in dataclasses.fields(lookup("method", cheap["name"]))} | {"name"}
    cheap = {key: value for key, value in cheap.items() if key in known}
    try:
        problem, history = from_tables(recipe)
        problem, history = as_by_names(problem), tuple(map(run_by_names, history))
        chooser = recipe.model_copy(update={"method": cheap}).build_method()
        found = chooser.recommend(problem, history, generator(1, len(history)))
        return recommended(found, len(found.evidence))
    except CuveeError as error:
        return str(error)


def proxy_output(name: str) -> Any:
    """Losses of a proxy by arithmetic; without a version in its name, of a run of version 1."""
    precision, _, version = name.partition(" version ")
    corpus = SyntheticCorpus(256, {"code": 30_000, "law": 20_000, "web": 60_000})
    how = {"precision": precision, "version": int(version or BY_NAMES)}
    run = train_pack([corpus.spec({"code": 0.5, "law": 0.25, "web": 0.25}, **how)], corpus)
    return [loss for _, loss in run.runs[0].curve]


OUTPUTS = {  # by kind: the names, and what is computed of one
    "law": (functools.partial(names, "law"), law_output),
    "scaling": (functools.partial(names, "scaling"), scaling_output),
    "design": (
        functools.partial(names, "design"),
        lambda name: mixtures_of(made("design", name), 6),
    ),
    "search": (functools.partial(names, "search"), search_output),
    "controller": (
        functools.partial(names, "controller"),
        lambda name: [state["weights"] for state in moved(made("controller", name))],
    ),
    "method": (functools.partial(names, "method"), method_output),
    "objective": (functools.partial(names, "objective"), objective_output),
    "law on tables": (
        functools.partial(names, "law"),
        lambda name: table_output(laws=[quick(made("law", name))]),
    ),
    "search on tables": (
        functools.partial(names, "search"),
        lambda name: table_output(search={"name": name, **NEEDED.get(name, {})}),
    ),
    "method on tables": (
        functools.partial(names, "method"),
        lambda name: table_output(name=name),
    ),
    "proxy": (
        lambda: tuple(
            f"{p}{v}" for p in ("bfloat16", "float32") for v in ("", f" version {VERSION}")
        ),
        proxy_output,
    ),
}
TOLERANCE = {  # of numbers, beside EXACT, where instruction sets or rounding decide more
    "proxy": 2e-5,
    "proxy/bfloat16": 2e-3,
    f"proxy/bfloat16 version {VERSION}": 2e-3,
    "controller/ado": 2e-2,  # its fits of a few losses are flat
    "method/ado": 2e-2,
    "law on tables/autoscale": 1e-3,
}
EXACT = 1e-5  # of a number, or of 1 where that is more
CASES = [(kind, name) for kind, (known, _) in OUTPUTS.items() for name in known()]
DEAR = (
    *("autoscale", "bimix", "gaussian_process", "implicit", "kriging", "mixing_law_m1"),
    *("mixing_law_m2", "power", "saturating_power", "stack"),
)
SLOW = {("law on tables", name) for name in DEAR}  # their own outputs are in the default run


def output(kind: str, name: str) -> Any:
    """What a part answers, as it is kept."""
    return shortened(OUTPUTS[kind][1](name))


def shortened(value: Any) -> Any:
    """Plain JSON: eight digits of a number, and moments of long lists of numbers."""
    if isinstance(value, dict):
        return {str(key): shortened(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        flat = _numbers(value)
        if flat is not None and len(flat) > LONG:
            X = np.array(flat)
            turns = np.cos(np.arange(len(X)))  # so that an exchange of two of them shows
            return shortened([len(X), X.mean(), X.std(), (X * turns).mean()])
        return [shortened(item) for item in value]
    return float(f"{float(value):.8g}") if isinstance(value, float | np.number) else value


def _numbers(value: Any) -> list[float] | None:
    """The numbers of a list of numbers or of such lists; None where it holds anything else."""
    if isinstance(value, bool | str | dict) or value is None:
        return None
    if not isinstance(value, list | tuple | np.ndarray):
        return [float(value)]
    parts = [_numbers(item) for item in value]
    return None if None in parts else [x for part in parts for x in part or ()]


def differing(then: Any, now: Any, most: float, where: str = "") -> tuple[str, bool]:
    """Where two outputs differ first, and whether it is in a number; "" where they agree."""
    if then == now:
        return "", False
    if isinstance(then, dict) and isinstance(now, dict) and then.keys() == now.keys():
        parts = [(then[key], now[key], f"{where}.{key}") for key in then]
    elif isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        parts = [(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(zip(then, now, strict=True))]
    elif isinstance(then, str) and isinstance(now, str):
        return _worded(then, now, where)
    else:
        both = all(isinstance(one, float | int) for one in (then, now))
        same = both and abs(then - now) <= most * max(1.0, abs(then))
        return ("" if same else f"{where}: {then!r}, now {now!r}"), True
    found = [one for a, b, at in parts if (one := differing(a, b, most, at))[0]]
    return max(found, key=lambda one: one[1], default=("", False))


def _worded(then: str, now: str, where: str) -> tuple[str, bool]:
    """The same of words, whose numbers may differ by one in the last digit that is shown."""
    between = NUMBER.split(then)
    words = between == NUMBER.split(now)
    near = words and all(
        abs(float(a) - float(b)) <= _last_digit(a, after)
        for a, b, after in zip(NUMBER.findall(then), NUMBER.findall(now), between[1:], strict=True)
    )
    return ("" if near else f"{where}: {then!r}, now {now!r}"), words


def _last_digit(number: str, after: str) -> float:
    """One in the last digit of a number as it is written; counts are exact, percentages are not."""
    mantissa, _, exponent = number.partition("e")
    digits = mantissa.partition(".")[2]
    if not digits and not exponent and not after.lstrip().startswith("%"):
        return 0.0
    return 1.01 * 10.0 ** (int(exponent or 0) - len(digits))


def changed(kind: str, name: str, golden: Any) -> tuple[str, bool]:
    """How an output differs from the golden one, and whether in a number; "" where it does not."""
    most = TOLERANCE.get(f"{kind}/{name}", TOLERANCE.get(kind, EXACT))
    return differing(golden["outputs"][kind][name], output(kind, name), most)


def version(kind: str) -> tuple[str, int]:
    """The version that a kind's outputs are tied to: its name, and what it is now."""
    name = "TRAINING_VERSION" if kind == "proxy" else "MATHS_VERSION"
    return name, getattr(provenance, name)


@pytest.fixture(scope="module")
def golden() -> Any:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.fixture
def tables(tmp_path, monkeypatch):
    old_study.write(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("kind", "name"),
    [pytest.param(*case, marks=[pytest.mark.slow] if case in SLOW else []) for case in CASES],
)
def test_what_is_computed_has_the_version_that_computed_it(kind, name, golden, tables):
    """Catches a change of what is recommended or trained that leaves approvals of the old answer
    standing, and one that a refactoring made unseen."""
    raised, now = version(kind)
    if name not in golden["outputs"].get(kind, {}):
        pytest.fail(f"no golden output of the {kind} {name!r}: {WRITE} adds it; commit the file")
    if golden[raised] != now:
        pytest.fail(f"{GOLDEN.name} was made by {raised} {golden[raised]}, not {now}: {WRITE}")
    said, number = changed(kind, name, golden)
    if said and number:
        pytest.fail(
            f"the {kind} {name!r} answers otherwise than in {raised} {now} ({said}): if that is "
            f"meant, raise {raised} in tasks/store/provenance.py and run {WRITE}"
        )
    assert not said, f"the {kind} {name!r} says it in other words ({said}): if meant, run {WRITE}"


def test_outputs_are_kept_of_what_is_registered_and_of_nothing_else(golden):
    """Catches a kind of parts that nobody watches, and outputs of a part that is gone."""
    kinds = {kind for kind, folder in registry.FOLDERS.items() if ".mixtures." in folder}
    assert kinds - {"world"} <= OUTPUTS.keys(), "a new kind of parts needs an entry in OUTPUTS"
    kept = {(kind, name) for kind, parts in golden["outputs"].items() for name in parts}
    assert kept - set(CASES) == set(), f"{WRITE} takes out what is registered no more"


def test_a_difference_is_told_from_rounding_and_from_words():
    """Catches a comparison that passes everything: one that sees no number, or none in words."""
    then = shortened({"a": [1.0, "gain 0.12 of 3"], "b": list(range(50)), "c": None})
    for now, number in (
        ({**then, "a": [1.001, "gain 0.12 of 3"]}, True),
        ({**then, "a": [1.0, "gain 0.14 of 3"]}, True),
        ({**then, "a": [1.0, "gain 0.12 of 4"]}, True),
        ({**then, "a": [1.0, "a gain of 0.12 of 3"]}, False),
        ({**then, "b": shortened([1, 0, *range(2, 50)])}, True),
        ({**then, "c": 0.0}, True),
        ({"a": then["a"]}, True),
    ):
        said, found = differing(then, now, EXACT)
        assert said and found == number, (now, said)
    near = {**then, "a": [1.0 + 1e-7, "gain 0.13 of 3"]}
    assert differing(then, near, EXACT)[0] == ""


def write() -> str:
    """Writes the golden outputs anew; returns why not, or ""."""
    old = json.loads(GOLDEN.read_text(encoding="utf-8")) if GOLDEN.is_file() else {"outputs": {}}
    for kind, name in CASES:
        raised, now = version(kind)
        if name in old["outputs"].get(kind, {}) and old[raised] == now:
            said, number = changed(kind, name, old)
            if said and number:
                return f"{kind} {name}: {said}. Raise {raised} in tasks/store/provenance.py first"
    outputs: dict[str, Any] = {kind: {} for kind in OUTPUTS}
    for kind, name in CASES:
        outputs[kind][name] = output(kind, name)
    versions = dict(map(version, ("law", "proxy")))
    kinds = (
        f'"{kind}": {{\n'
        + ",\n".join(f"{json.dumps(n)}: {json.dumps(value)}" for n, value in parts.items())
        + "}"
        for kind, parts in outputs.items()
    )
    head = json.dumps(versions).removesuffix("}")
    GOLDEN.write_text(f'{head}, "outputs": {{\n' + ",\n".join(kinds) + "}}\n", encoding="utf-8")
    return ""


if __name__ == "__main__":
    import os
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        old_study.write(Path(folder))
        os.chdir(folder)
        sys.exit(write())
