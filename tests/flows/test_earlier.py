"""Runs of a store that no longer count are told with their reason, on corpora that are prepared."""

import re
from dataclasses import replace

import pytest
import tiny_study

from cuvee.flows.recipe.load import parse
from cuvee.flows.study import superseded_runs
from cuvee.flows.study.confirm import fresh_seeds
from cuvee.flows.study.prepare import pose_problem, prepare
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.tasks.store.results import Store


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    """A home with a prepared corpus and three runs on it."""
    folder = tmp_path_factory.mktemp("earlier")
    tiny_study.write_corpus(folder / "corpus")
    text = tiny_study.recipe(folder / "corpus")
    home = Workspace(folder / "home")
    store = Store(home.store)
    posed = pose_problem(parse(text), prepare(parse(text), home))
    for seed in range(3):
        scores = {name: Score(1.0, 0.1, 9) for name in posed.targets}
        store.put(RunResult(posed.spec((0.2, 0.3, 0.5), seed), scores))
    return folder / "corpus", text, home, store


def told(before, change=None, **fields):
    folder, text, home, store = before
    text = change(text) if change else tiny_study.recipe(folder, **fields)
    posed = pose_problem(parse(text), prepare(parse(text), home))
    asked = (posed.spec(posed.domains.uniform, 0),)
    return superseded_runs.superseded_sentences(store, posed, home.corpora, asked)


def test_a_study_as_it_was_says_nothing(before):
    """Catches runs that are counted as lost because the design no longer asks for them, or because
    the lines of the recipe stand in another order."""
    assert told(before) == []
    assert told(before, proxy="{size: 0.3M, tokens: 90000}", seed="7") == []
    lines = [line for line in before[1].splitlines() if ".jsonl" in line]
    other = "\n".join(lines[::-1])
    assert told(before, lambda t: t.replace("\n".join(lines), other)) == []


def test_what_moved_is_named(before):
    """Catches a study that trains everything anew without a word, or blames every domain where one
    changed, and a name that voids what was trained."""
    assert told(before, lambda t: t.replace("    tables:", "    figures:")) == [
        "3 earlier runs stay evidence: domains renamed: tables to figures"
    ]
    assert told(before, evaluation="{suite: null, heldout_tokens: 1024}") == [
        "3 earlier runs do not count: they were scored on other benchmarks, or on other amounts of "
        "text"
    ]
    path = before[0] / "tables.jsonl"
    whole = path.read_text()
    more = " ".join(f"quixotic{i % 7} wombats" for i in range(20_000))
    path.write_text(f'{whole}{{"text": "{more}"}}\n')
    try:
        (line,) = told(before)
    finally:
        path.write_text(whole)
    count = int(re.search(r"\((\d+) documents before", line)[1])
    assert line == (
        f"3 earlier runs do not count: the text of tables changed ({count} documents before, "
        f"{count + 1} now)"
    )


def test_a_domain_that_is_added_is_named(before):
    """Catches an added domain that is said to void runs, one that nobody mentions, and a design
    that is said to ask for other mixtures than those that only test a recommendation."""
    posed = pose_problem(parse(before[1]), prepare(parse(before[1]), before[2]))
    tested = posed.spec((0.1, 0.3, 0.6), fresh_seeds(3, 1)[0])
    before[3].put(RunResult(tested, {name: Score(1.0, 0.1, 9) for name in posed.targets}))
    jokes = before[0] / "more.jsonl"
    rows = (f'{{"text": "{i} a joke of {i * 7} words and {i}"}}\n' for i in range(3000))
    jokes.write_text("".join(rows))
    add = f"    jokes: {{path: {jokes}}}\nproxy:"
    try:
        lines = told(before, lambda t: t.replace("proxy:", add, 1))
    finally:
        before[3].objects.remove(f"runs/{tested.fingerprint}/result.json")
    assert lines == [
        "3 earlier runs stay evidence: they have no share of jokes, and the design asks for other "
        "mixtures",
        "1 earlier runs stay evidence: they have no share of jokes, and they tested a "
        "recommendation, which no design asks for",
    ]


def test_runs_of_version_1_are_told_with_the_way_to_go_on_with_them(before):
    """Catches old runs that count with new ones, and a user who is not told that their study is
    still there."""
    _, text, home, store = before
    posed = pose_problem(parse(text), prepare(parse(text), home))
    old = replace(posed, version=1)
    scores = {name: Score(1.0, 0.1, 9) for name in posed.targets}
    store.put(RunResult(old.spec((0.2, 0.3, 0.5), 77), scores))
    try:
        (line,) = told(before)
    finally:
        store.objects.remove(f"runs/{old.spec((0.2, 0.3, 0.5), 77).fingerprint}/result.json")
    assert line == f"1 earlier runs do not count: {superseded_runs.EARLIER}"
