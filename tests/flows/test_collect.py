"""`cuvee collect`: what comes back of runs that were trained elsewhere, by run id alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_study

from cuvee.flows.recipe.load import parse
from cuvee.flows.study.asked_runs import AskedRun, asked_runs
from cuvee.flows.study.prepare import prepare
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.tasks.store.results import Store

PROGRAM = Path(__file__).parents[1] / "trainer_programs/good.py"
TARGETS = ("domain/code", "domain/prose", "domain/tables")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    tiny_study.write_corpus(folder)
    return folder


def recipe(corpus: Path, **trainer: object) -> str:
    trainer = {"command": [sys.executable, str(PROGRAM)], "version": "1", **trainer}
    return tiny_study.recipe(
        corpus, proxy=json.dumps({"size": "0.3M", "tokens": 42_000, "trainer": trainer})
    )


@pytest.fixture(scope="module")
def prepared_home(corpus, tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("home")
    prepare(parse(recipe(corpus)), Workspace(home))
    return home


@pytest.fixture
def home(prepared_home, tmp_path) -> Path:
    subprocess.run(["cp", "-r", prepared_home, tmp_path / "home"], check=True)
    return tmp_path / "home"


def asked(text: str, home: Path) -> dict[str, AskedRun]:
    given, place = parse(text), Workspace(home)
    return asked_runs(given, prepare(given, place), place)


def scored(run: AskedRun) -> dict[str, float]:
    """A truth of our own: less of a domain costs more there."""
    shares = zip(run.spec.domains, run.spec.weights, strict=True)
    return {
        f"domain/{name}": 3.0 - float(share) + run.spec.seed % 7 / 1e3 for name, share in shares
    }


def test_what_is_asked_for_grows_with_the_store(corpus, home):
    """Catches a confirmation that is asked for before its search is whole, runs of a round that
    are left out because others are there, and names or roles that are not the record's."""
    text = recipe(corpus)
    first = asked(text, home)
    assert {one.role for one in first.values()} == {"anchor", "seed", "design"}
    assert all(one.name.endswith(f"({mark[:6]})") for mark, one in first.items())
    store, (last, *runs) = Store(str(home / "store")), first.values()
    for run in runs:
        store.put(RunResult(run.spec, {n: Score(v, 0.01, 9) for n, v in scored(run).items()}))
    second = asked(text, home)
    assert list(second) == list(first)
    assert [mark for mark, one in second.items() if not one.outcome] == [last.spec.fingerprint]
    store.put(RunResult(last.spec, {n: Score(v, 0.01, 9) for n, v in scored(last).items()}))
    third = asked(text, home)
    fresh = [one for mark, one in third.items() if mark not in first]
    assert len(fresh) in (6, 8) and {one.role for one in fresh} == {"confirmation"}
    assert all(one.outcome for mark, one in third.items() if mark in first)
