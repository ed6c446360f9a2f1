"""Continual pretraining: a recipe's checkpoint, the replay that it asks for, the floor under it.

A proxy is trained on two domains and written as a checkpoint; a recipe with a third goes on from
it.
"""

import dataclasses
import json
import shutil
import sqlite3
import textwrap
from pathlib import Path

import numpy as np
import pytest
import tiny_study
from safetensors.torch import load_file, save_file
from tiny_study import run

from cuvee.evaluation.suites import Limits, suite
from cuvee.flows.handoff import checkpoint
from cuvee.flows.recipe import consistency
from cuvee.flows.recipe.load import parse
from cuvee.flows.study import continual
from cuvee.flows.study import prepare as preparing
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import DataError, RecipeError, StorageError, UnknownName
from cuvee.mixtures.objectives import Floors
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.tasks.corpus.corpus_settings import CorpusSettings
from cuvee.tasks.corpus.corpus_state import CorpusState
from cuvee.tasks.corpus.pipeline.corpus_request import CorpusRequest
from cuvee.tasks.pack_job import PackJob
from cuvee.tasks.store.results import Store
from cuvee.tasks.train_pack import run_pack

GOOD = """
name: tiny
corpus: {domains: {a: {path: a.txt}, b: {path: b.txt}, c: {path: c.txt}}}
proxy: {size: 0.3M, start: base}
continual: {old: [a, b], replay: 0.3, forget: 0.1}
objective: {name: mean, weights: {domain/c: 1}}
full_scale: {tokens: 20M}
method: {name: regmix, runs: 12}
"""
DOMAINS = DomainSet(
    tuple(Domain(n, 1_000_000 * s, 4, n) for n, s in (("a", 1), ("b", 1), ("c", 8)))
)
OLD = ("domain/a", "domain/b")


@pytest.mark.parametrize(
    ("old", "new", "error", "words"),
    [
        (", start: base", "", RecipeError, "has both or neither"),
        ("continual: {old: [a, b], replay: 0.3, forget: 0.1}", "", RecipeError, "both or neither"),
        ("[a, b]", "[a, d]", UnknownName, "unknown old domain 'd'.*known: a, b, c"),
        ("[a, b]", "[]", RecipeError, "continual.old"),
        ("replay: 0.3", "replay: 30", RecipeError, "continual.replay.*less than or equal to 1"),
        ("replay:", "repaly:", RecipeError, "'continual.repaly', did you mean 'replay'"),
        ("forget: 0.1", "forget: .inf", RecipeError, "continual.forget.*finite"),
        ("corpus: {", "corpus: {vocabulary: 512, ", RecipeError, "own tokenizer.*remove it"),
        ("name: mean, weights: {domain/c: 1}", "name: worst, members: [domain/c]", RecipeError,
         "objectives `mean` and `floors`.*'worst' cannot"),
        ("runs: 12}", "runs: 12}\nconfirm: {sizes: [{size: 1M, tokens: 2M}]}", RecipeError,
         "checkpoint of size 0.3M, so that none can be of size 1M"),
        ("name: regmix, runs: 12",
         "name: ladder, runs: 12, rungs: [{size: 0.6M, tokens: 1M, runs: 4}]", RecipeError,
         "none can be of size 0.6M"),
    ],
)  # fmt: skip
def test_what_cannot_go_with_a_checkpoint_is_refused(old, new, error, words):
    """Catches a field that has no effect, and a size that fits no checkpoint, found an hour in."""
    assert parse(GOOD).continual is not None
    with pytest.raises(error, match=words):
        parse(GOOD.replace(old, new))


def test_runs_in_tables_start_from_nothing():
    """Catches a start that is taken in silence where nothing is trained."""
    text = GOOD.replace(
        "corpus: {domains: {a: {path: a.txt}, b: {path: b.txt}, c: {path: c.txt}}}",
        "tables: {mixtures: a.csv, scores: b.csv}",
    )
    with pytest.raises(RecipeError, match="trained elsewhere"):
        parse(text)


def test_recipes_and_corpora_of_old_keep_their_hashes():
    """Gold, from before the fields existed: catches defaults that void finished studies."""
    text = GOOD.replace(", start: base", "").replace("size: 0.3M", "size: 0.6M")
    text = text.replace("continual: {old: [a, b], replay: 0.3, forget: 0.1}\n", "")
    text = text.replace(", c: {path: c.txt}", "").replace("domain/c", "domain/a")
    text = text.replace("runs: 12", "runs: 4")
    gold = "3856a31289b9a0a2c7f0040301efd7ad5695de1ef5d39a3b9f72261a10108db5"
    assert parse(text).digest == gold

    asked = CorpusRequest(
        {}, {"a": "words"}, {"exam": ("one", "two")}, CorpusSettings(), None, CorpusState()
    )
    gold = "3a18e84483602a50fb7fb9973a46a02d73a610c54668611a0487e0d9ee697fc2"
    assert asked.key(CorpusState()) == gold


def test_every_candidate_keeps_the_replay_share():
    """Natural gives the old domains 20 %; catches a replay share that binds the answer only."""
    recipe = parse(GOOD)
    constraints = recipe.build_constraints(DOMAINS)
    problem = preparing_problem(recipe, constraints)
    specs = recipe.build_method().ask(problem, (), loop.generator(1, 0))
    shares = np.array([spec.weights[:2].sum() for spec in specs])
    assert len(specs) > 12 and shares.min() >= 0.3 - 1e-6
    assert shares.min() < 0.31  # it binds: natural was moved to it and no further
    assert any(
        "a+b at least 0.3" in name for name in constraints.active(specs[shares.argmin()].weights)
    )


def preparing_problem(recipe, constraints):
    from cuvee.mixtures.problem import Problem, Proxy

    return Problem(
        DOMAINS,
        tuple(f"domain/{name}" for name in DOMAINS.names),
        recipe.build_objective(),
        constraints,
        Proxy("0.3M", 100_000),
        20_000_000,
    )


def test_the_floor_on_forgetting_is_under_the_checkpoint_not_under_natural():
    """Allowed: 2.0 + 0.1 and 3.0 + 0.1. Catches a floor relative to the natural mixture's score."""
    recipe = parse(GOOD)
    before = {"domain/a": 2.0, "domain/b": 3.0, "domain/c": 5.0}
    objective = consistency.floored_objective(recipe, recipe.build_objective(), before)
    scores = np.array([[2.09, 3.09, 4.0], [2.09, 3.12, 3.0], [2.11, 2.0, 3.0]])
    for natural in (np.zeros(3), np.full(3, 9.0)):
        value = objective.value(scores, (*OLD, "domain/c"), natural)
        assert list(value) == [4.0, np.inf, np.inf]
    assert consistency.floored_objective(
        parse(GOOD.replace(", forget: 0.1", "")), objective, before
    ) is (objective)


def test_floors_of_both_kinds_stand_together():
    """Natural allows a up to 1.5 + 0.5 = 2, `most` allows b up to 3, and 2.2 for c where more is
    better means at least -(-2.2). Catches one list that overwrites the other, and a sign."""
    both = Floors({"a": 1.0}, {"a": 0.5}, most={"b": 3.0, "c": 2.2})
    reference = np.array([1.5, 0.0, 0.0])
    rows = np.array([[2.0, 3.0, 2.2], [2.1, 0, 0], [0, 3.1, 0], [0, 0, 2.3]])
    assert list(both.value(rows, ("a", "b", "c"), reference)) == [2.0, *[np.inf] * 3]
    turned = both.turned(("c",))
    assert turned.most == (("b", 3.0), ("c", -2.2)) and turned.floors == both.floors
    with pytest.raises(RecipeError, match="in `floors` or `most`"):
        Floors({"a": 1.0})
    with pytest.raises(RecipeError, match="must be finite"):
        Floors({"a": 1.0}, most={"b": float("nan")})


class Trained:
    """A checkpoint of two domains and a recipe that goes on from it with a third."""

    def __init__(self, root: Path) -> None:
        self.home = Workspace(root / "home")
        tiny_study.write_corpus(root / "corpus")
        text = tiny_study.recipe(
            root / "corpus",
            corpus=self.corpus(root, ("code", "prose"), "vocabulary: 512"),
            proxy="{size: 0.3M, tokens: 41000, precision: float32}",
        )
        self.base = parse(text)
        self.folder, self.spec = checkpoint.write_checkpoint(
            self.base, self.home, "natural", root / "base"
        )
        self.text = tiny_study.recipe(
            root / "corpus",
            corpus=self.corpus(root, ("code", "prose", "tables"), ""),
            proxy=f"{{size: 0.3M, tokens: 60000, precision: float32, start: {self.folder}}}",
            continual="{old: [code, prose], replay: 0.25, forget: 0.3}",
            objective="{name: mean, weights: {domain/tables: 1}}",
        )
        self.recipe = parse(self.text)

    @staticmethod
    def corpus(root: Path, names, extra: str) -> str:
        lines = [f"  {name}: {{path: {root}/corpus/{name}.jsonl}}" for name in names]
        return textwrap.dedent("\nheldout_bytes: 20000\n" + f"{extra}\ndomains:\n") + "\n".join(
            lines
        )

    def at(self, folder: Path):
        """The recipe with another checkpoint."""
        return parse(self.text.replace(f"start: {self.folder}", f"start: {folder}"))

    def copied(self, folder: Path) -> Path:
        shutil.copytree(self.folder, folder)
        return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("continual"))


@pytest.fixture(scope="module")
def prepared(trained):
    return preparing.prepare(trained.recipe, trained.home)


def test_the_corpus_has_the_checkpoints_own_tokens(trained, prepared):
    """Old domains have the very shards that the checkpoint was trained and scored on. Catches a
    tokenizer that is trained anew, whose ids mean something else to the weights."""
    old = preparing.prepare(trained.base, trained.home).corpus
    now = {domain.name: domain.identity for domain in prepared.corpus.domains}
    assert {domain.name: now[domain.name] for domain in old.domains} == {
        domain.name: domain.identity for domain in old.domains
    }
    given = (trained.folder / "tokenizer.json").read_bytes()
    assert prepared.corpus.tokenizer_path.read_bytes() == given
    assert prepared.corpus.vocabulary == old.vocabulary


def test_the_scores_before_training_are_those_of_the_checkpoint(trained, prepared):
    """Against the run that made it, trained and scored once more from nothing. Catches a model
    that is scored at random weights, and targets that are mixed up."""
    corpus = preparing.prepare(trained.base, trained.home).corpus
    job = PackJob((trained.spec,), str(corpus.root), suite([], trained.home.benchmarks), "")
    (run,) = run_pack(dataclasses.replace(job, limits=Limits(tokens=2048)), lambda _: None)
    assert isinstance(run, RunResult)
    for target, score in run.scores.items():
        assert prepared.start.scores[target] == pytest.approx(score.value, abs=1e-5)
    assert prepared.start.scores["domain/tables"] > max(s.value for s in run.scores.values())


def test_every_run_names_the_weights_that_it_starts_from(trained, prepared, tmp_path):
    """Catches a start that is known by its path: other weights there are other evidence."""
    problem = preparing.pose_problem(trained.recipe, prepared)
    spec = problem.spec((0.2, 0.3, 0.5), 1)
    assert spec.start == prepared.start.content and len(spec.start) == 64
    assert dict(problem.objective.most) == {
        f"domain/{n}": prepared.start.scores[f"domain/{n}"] + 0.3 for n in ("code", "prose")
    }
    other = trained.copied(tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"][0] *= 1.5
    save_file(tensors, other / "model.safetensors")
    recipe = trained.at(other)
    again = preparing.prepare(recipe, trained.home)
    assert again.corpus == prepared.corpus  # the same tokens are not made twice
    assert again.start.scores != prepared.start.scores
    moved = preparing.pose_problem(recipe, again).spec((0.2, 0.3, 0.5), 1)
    assert moved.fingerprint != spec.fingerprint


def test_a_plan_tells_of_the_checkpoint(trained, prepared):
    """Catches a plan that looks like one of random weights."""
    said = " ".join(continual.start_sentences(trained.recipe, prepared))
    for words in ("its tokenizer of 512 tokens", "code, prose; at least 25% of", "more than 0.3"):
        assert words in said
    assert f"code {prepared.start.scores['domain/code']:.3f}" in said
    assert continual.start_sentences(trained.base, prepared) == []


def test_a_folder_that_is_no_checkpoint_is_refused_in_a_sentence(trained, tmp_path):
    """Catches a traceback, random weights in place of missing ones, and another architecture."""
    with pytest.raises(DataError, match="config.json and model.safetensors and tokenizer.json mis"):
        preparing.prepare(trained.at(tmp_path / "nowhere"), trained.home)
    bare = trained.copied(tmp_path / "bare")
    (bare / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer.json missing.*cuvee checkpoint RECIPE"):
        preparing.prepare(trained.at(bare), trained.home)
    other = trained.copied(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(DataError, match="not of size '0.3M'.*model_type is 'gpt2', wanted 'llama'"):
        preparing.prepare(trained.at(other), trained.home)


def test_a_checkpoint_replaces_nothing_and_its_mixture_has_a_name(trained, tmp_path):
    """Catches a model that is overwritten, and a misspelled mixture that trains another."""
    with pytest.raises(StorageError, match="not an empty folder"):
        checkpoint.write_checkpoint(trained.base, trained.home, "natural", trained.folder)
    with pytest.raises(UnknownName, match="'natral'.*did you mean 'natural'"):
        checkpoint.write_checkpoint(trained.base, trained.home, "natral", tmp_path / "new")


@pytest.mark.slow
def test_a_study_goes_on_from_its_checkpoint_and_reports_what_was_forgotten(
    tmp_path, prefect_api, ray_cluster
):
    """Tables alone are wanted, so that code and prose would get nothing without replay. Catches
    random weights (no proxy of 29 steps could stay near the checkpoint), a replay share that is
    not kept, a checkpoint of which the record knows nothing, and a second run that trains anew."""
    trained = Trained(tmp_path)
    text = trained.text.replace("forget: 0.3", "forget: 2.0")  # kept by anything but random weights
    summary = run(text, trained.home, prefect_api)
    again = run(text, trained.home, prefect_api)
    assert again["trained_now"] == 0 and again["weights"] == summary["weights"]
    assert summary["weights"]["code"] + summary["weights"]["prose"] >= 0.25 - 1e-6
    found = summary["forgetting"]
    assert found["old"] == ["code", "prose"] and found["floor"] == 2.0
    ours = found["mixtures"]["recommended"]
    assert ours["code"]["seeds"] == 2 and ours["tables"]["change"] < 0  # the new one was learned
    assert max(ours["code"]["change"], ours["prose"]["change"]) < 2.0
    folder = trained.home.study("tiny")
    report = (folder / "report.md").read_text()
    assert "## Forgetting" in report and found["start"][:12] in report
    with sqlite3.connect(trained.home.record / "mlflow.db") as base:
        names = {row[0] for row in base.execute("select distinct key from metrics")}
    assert {"forgetting/recommended/code", "checkpoint/domain/prose"} <= names
    specs = {run.spec.start for run in Store(trained.home.store).outcomes()}
    assert specs == {found["start"]}
