"""Runs of a store that no longer count are told with their reason, on corpora that are prepared."""

import pytest
import tiny_study

from cuvee.flows.recipe.load import parse
from cuvee.flows.study import superseded_runs
from cuvee.flows.study.prepare import pose_problem, prepare
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.runs import RunResult, Score
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
    return superseded_runs.superseded_sentences(store, posed, home.corpora)


def test_a_study_as_it_was_says_nothing(before):
    """Catches runs that are counted as lost because the design no longer asks for them."""
    assert told(before) == []
    assert told(before, proxy="{size: 0.3M, tokens: 90000}", seed="7") == []


def test_what_moved_is_named(before):
    """Catches a study that trains everything anew without a word, or blames every domain where one
    changed: all identities differ, since the tokenizer is trained on all text."""
    assert told(before, lambda t: t.replace("    tables:", "    figures:")) == [
        "3 earlier runs do not count: domains renamed: tables to figures"
    ]
    lines = [line for line in before[1].splitlines() if ".jsonl" in line]
    other = "\n".join(lines[::-1])
    assert told(before, lambda t: t.replace("\n".join(lines), other)) == [
        "3 earlier runs do not count: the domains stand in another order"
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
    assert line == (f"3 earlier runs do not count: text of tables changed ({superseded_runs.ALL})")


def test_a_domain_that_is_added_is_named(before):
    """Catches `text of all domains changed` where only their number did."""
    jokes = before[0] / "more.jsonl"
    rows = (f'{{"text": "{i} a joke of {i * 7} words and {i}"}}\n' for i in range(3000))
    jokes.write_text("".join(rows))
    add = f"    jokes: {{path: {jokes}}}\nproxy:"
    (line,) = told(before, lambda t: t.replace("proxy:", add, 1))
    assert line == f"3 earlier runs do not count: domain jokes added ({superseded_runs.ALL})"
