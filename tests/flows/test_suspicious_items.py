"""A study's benchmarks in its training text, and its gains without the items that stand there."""

import json
from dataclasses import replace

import numpy as np
import pytest
from synthetic_study import synthetic_study

from cuvee.evaluation import lm_eval_tasks
from cuvee.flows.recipe.load import build_recipe
from cuvee.flows.study.confirm import conclude_confirmation
from cuvee.flows.study.prepare import prepare
from cuvee.flows.study.suspicious_items import asked_items, look_for_benchmarks, with_matches
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.runs.unit_scores import UnitScores
from cuvee.tasks.corpus import benchmark_matches
from cuvee.tasks.report.sections.suspicious_items import suspicious_item_blocks
from cuvee.tasks.study.suspicious_items import ItemMatch

LEAK = "the northern heron builds its nest from willow and mud"  # 10 words, of 18: not removed
ITEMS = [
    {"query": f"Tell me: {LEAK}. How many months", "choices": ["three", "six"], "gold": 1},
    {"query": "Are moons of", "choices": ["green planets", "salt"], "gold": 1},
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two domains of nonsense; documents of one say most of an item's question, twice."""
    root = tmp_path_factory.mktemp("suspicious_items")
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 5)) for _ in range(300)]
    for name in ("web", "books"):
        rows = [" ".join(rng.choice(words, 60)) for _ in range(60)]
        for i in range(20 if name == "books" else 0):  # so many that not all can be held out
            rows[i] += f" {LEAK.upper()}, {rows[i]}"
        (root / f"{name}.jsonl").write_text("\n".join(json.dumps({"text": one}) for one in rows))
    (root / "qa.jsonl").write_text("\n".join(map(json.dumps, ITEMS)))
    return root


def recipe(place, **audit):
    domains = {name: {"path": str(place / f"{name}.jsonl")} for name in ("web", "books")}
    return build_recipe(
        {
            "name": "own",
            "corpus": {"domains": domains, "vocabulary": 300, "min_tokens": 2000},
            "evaluation": {
                "suite": None,
                "custom": {"qa": str(place / "qa.jsonl")},
                "audit": audit,
            },
            "objective": {"name": "mean", "weights": {"task/qa": 1}},
            "full_scale": {"tokens": "1M"},
            "method": {"name": "regmix", "runs": 8},
        },
        "the recipe",
    )


def test_an_item_is_known_by_the_key_of_its_scores_and_looked_for_once(place, monkeypatch):
    """Catches an item whose question alone is looked for, keys that no score has, text that was
    looked through before and is again, and an audit that cannot be turned off."""
    home, given = Workspace(place / "home"), recipe(place)
    prepared = prepare(given, home)
    leaked, other = look_for_benchmarks(given, prepared, home, None)
    assert (leaked.task, leaked.run) == ("task/qa", tuple(LEAK.split()))
    assert (leaked.domain, leaked.suspicious, leaked.words) == ("books", ("books",), 16)
    shard = prepared.corpus.train("books")
    long = np.flatnonzero(shard.bytes > shard.bytes.mean() * 1.3)
    assert (leaked.count, leaked.document) == (len(long), long[0])
    assert not other.suspicious and other.run == () and other.count == 0
    (task,) = lm_eval_tasks.task_requests(
        prepared.suite,
        tokenizer_path=prepared.corpus.tokenizer_path,
        eot=prepared.corpus.eot,
        context=128,
    )
    assert [leaked.key, other.key] == task.keys.tolist()
    monkeypatch.setattr(benchmark_matches, "corpus_matches", None)
    assert look_for_benchmarks(given, prepared, home, None) == (leaked, other)
    assert look_for_benchmarks(recipe(place, longest_match=False), prepared, home, None) is None


def test_what_other_items_share_is_not_looked_for(place, tmp_path, monkeypatch):
    """Catches the description of a task and its examples as words of every item: a page that quotes
    them would make all of them suspicious."""
    prepared = prepare(recipe(place), Workspace(place / "home"))
    own = (lm_eval_tasks.TASKS / "piqa_offline.yaml").read_text()
    shared = "description: 'The following are questions with answers. '\nnum_fewshot: 1\n"
    (tmp_path / "piqa_offline.yaml").write_text(own + shared + "fewshot_split: test\n")
    monkeypatch.setattr(lm_eval_tasks, "TASKS", tmp_path)
    lm_eval_tasks.forget_requests()
    asked = [text for _, text in asked_items(prepared)["task/qa"]]
    lm_eval_tasks.forget_requests()
    assert sorted(asked) == sorted(f"{i['query']} {i['choices'][1]}" for i in ITEMS)


def test_what_was_found_before_an_interruption_is_not_looked_for_again(
    place, tmp_path, monkeypatch
):
    """Catches matches that are kept only when every domain was looked through."""
    home, given, looked = Workspace(tmp_path), recipe(place), []
    prepared = prepare(given, Workspace(place / "home"))
    match = benchmark_matches.CorpusMatcher.__call__

    def interrupted(work, part):
        looked.append(part[0])
        if len(looked) == 2:
            raise KeyboardInterrupt
        return match(work, part)

    monkeypatch.setattr(benchmark_matches.CorpusMatcher, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        look_for_benchmarks(given, prepared, home, None)
    assert len(look_for_benchmarks(given, prepared, home, None)) == 2
    first, other, again = looked
    assert first != other == again


def suspect(key, *domains):
    return ItemMatch("task/clauses", key, "Is it?", 2, ("is",), "legal", 0, 1, domains)


def confirmed_on_items():
    """A study whose task has items 1, 2 and 3; the recommended mixture is better by 0.9 bits per
    byte on item 2, and by the same as ever on the others."""
    study = synthetic_study()
    outcomes = {}
    for run in study.confirmation.runs:
        score = run.result.scores["task/clauses"]
        better = 0.9 * (run.mixture == "recommended")
        totals = np.array([score.value, score.value - better, score.value])
        units = UnitScores(np.array([1, 2, 3], np.uint64), 10 * totals, np.full(3, 10.0))
        scores = {**run.result.scores, "task/clauses": replace(score, value=units.value)}
        result = replace(run.result, scores=scores, units={"task/clauses": units})
        outcomes[run.mixture, run.result.spec.seed] = result
    return replace(study, confirmation=conclude_confirmation(study.problem, outcomes))


def clean_gains(study, matches):
    clean = with_matches(study, matches).clean
    return clean and clean.objective


def test_gains_are_scored_again_without_the_suspicious_items():
    """Catches items that are dropped from one mixture alone, that weigh nothing in the objective,
    or whose task keeps its old score; and the wrong item."""
    study = confirmed_on_items()
    plain = synthetic_study().confirmation.objective
    matches = (suspect(1), suspect(2, "legal"), suspect(3))
    clean = clean_gains(study, matches)
    wrong = clean_gains(study, (suspect(1, "legal"),))
    for name, gain in plain.items():
        assert clean[name].gain == pytest.approx(gain.gain, abs=1e-12)
        # of weights 1, 2 and 1, the task has a quarter; of two items left, one is better by 0.9
        assert wrong[name].gain - gain.gain == pytest.approx(0.9 / 2 / 4, abs=1e-12)


def test_what_cannot_be_told_of_gains_is_not_told():
    """Catches a gain on one item, and runs without items that keep their scores with them."""
    study, none = confirmed_on_items(), (suspect(1), suspect(2))
    most = (suspect(1, "legal"), suspect(2, "legal"))
    assert clean_gains(study, none) is None
    assert clean_gains(study, most) is None
    assert clean_gains(synthetic_study(), most[:1]) is None
    *_, told = suspicious_item_blocks(with_matches(study, most))
    assert "The objective reads task/clauses" in told.text


def test_a_task_that_leaked_whole_does_not_hide_the_gains_of_the_others():
    """Catches clean gains that are dropped for a task that the objective does not read, and a row
    that states its gain with all items as one without."""
    study, lost = confirmed_on_items(), replace(suspect(7, "legal"), task="task/facts")
    clean = with_matches(study, (suspect(1, "legal"), lost))
    assert clean.clean == with_matches(study, (suspect(1, "legal"),)).clean
    *_, told, gains = suspicious_item_blocks(clean)
    assert "Of task/facts no gain" in told.text and "objective" not in told.text
    assert {row[0].split(" against")[0] for row in gains.rows} == {"objective", "task/clauses"}


def test_the_report_says_which_items_and_what_gains_are_without_them():
    """Catches shares of another task or domain, worst items last, a change of the wrong sign."""
    study, task = confirmed_on_items(), "task/clauses"
    long = replace(suspect(2, "legal", "news"), run=("one",) * 30, words=12)
    matches = (suspect(1), long, suspect(3), replace(suspect(4), task="task/facts"))
    told, table, items, gains = suspicious_item_blocks(with_matches(study, matches))
    assert "Suspicious: 1 of 4 items" in told.text
    assert table.columns[-2:] == ("in legal", "in news")
    assert table.rows[0] == ("task/clauses", "3", "1", *["33.3%"] * 3)
    assert table.rows[1] == ("task/facts", "1", "1", *["0.0%"] * 3)
    assert [row[3] for row in items.rows] == ["30"]
    assert [row[0] for row in gains.rows] == [
        f"{what} against {name}" for name in ("natural", "uniform") for what in ("objective", task)
    ]
    before = study.confirmation.objective["natural"].gain
    assert gains.rows[0][-1] == f"{clean_gains(study, matches)['natural'].gain - before:+.4f}"
    assert float(gains.rows[1][-1]) == pytest.approx(-0.9 / 3, abs=1e-4)
    assert list(suspicious_item_blocks(study)) == []
