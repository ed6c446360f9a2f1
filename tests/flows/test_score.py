"""`cuvee score`: checkpoints that others trained, as rows that a fit reads."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_study
from checkpoints import write_checkpoint, write_tokenizer
from command import inside

from cuvee.evaluation import causal_model
from cuvee.evaluation.scores import PackScores
from cuvee.flows.external import score_checkpoints
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.prepare import pose_problem, prepare
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import loop
from cuvee.mixtures.errors import DataError
from cuvee.mixtures.runs.run_results import Score
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.tasks import checkpoint_scores
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.tables import read_tables

QUESTIONS = [
    {"query": f"{i} and {i} is", "choices": [str(2 * i), str(2 * i + 1)], "gold": 0}
    for i in range(6)
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A recipe, its home, and two checkpoints of other families with other tokenizers."""
    root = tmp_path_factory.mktemp("score")
    tiny_study.write_corpus(root / "corpus")
    (root / "qa.jsonl").write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS))
    scored = f"{{suite: null, heldout_tokens: 1024, custom: {{qa: {root}/qa.jsonl}}}}"
    (root / "recipe.yaml").write_text(tiny_study.recipe(root / "corpus", evaluation=scored))
    prose = (root / "corpus" / "prose.jsonl").read_text()[:50_000]
    tables = (root / "corpus" / "tables.jsonl").read_text()[:50_000]
    for name, family, text in (("first", "llama", prose), ("second", "gpt_neox", tables)):
        write_checkpoint(root / name, family, max_position_embeddings=128)
        write_tokenizer(root / name, [text], begins=family == "llama")
    return root


def score(place: Path, *names: str, more: tuple[str, ...] = ()):
    recipe = str(place / "recipe.yaml")
    folders = [str(place / name) for name in names]
    return inside("score", *folders, "--recipe", recipe, *more, home=place / "home")


def test_rows_are_what_a_fit_reads_and_one_bad_checkpoint_loses_none(place, tmp_path):
    """Catches rows by position, a table that `cuvee fit` cannot read, an exit code of 0 where a
    checkpoint failed, and scores of one tokenizer's bytes."""
    bad = tmp_path / "bad"
    shutil.copytree(place / "first", bad)
    (bad / "model.safetensors").rename(bad / "pytorch_model.bin")
    table = tmp_path / "scores.csv"
    done = score(place, "first", str(bad), "second", more=("--csv", str(table), "--json"))
    assert done.returncode == 2, done.stderr
    answer = json.loads(done.stdout)
    one, refused, other = answer["checkpoints"]
    assert "only unpickling reads" in refused["error"]
    targets = ["domain/code", "domain/prose", "domain/tables", "task/qa"]
    assert sorted(one["scores"]) == sorted(other["scores"]) == targets
    (tmp_path / "ratios.csv").write_text("run,code,prose\nsecond,0.25,0.75\nfirst,0.5,0.5\n")
    joined = read_tables(tmp_path / "ratios.csv", table)
    assert joined.ids == ("second", "first")
    assert sorted(joined.targets) == targets
    for row, run in zip(joined.Y, (other, one), strict=True):
        assert dict(zip(joined.targets, row, strict=True)) == {
            name: value["value"] for name, value in run["scores"].items()
        }
    with open(answer["details"], newline="") as file:
        lines = {(line["run"], line["score"]): line for line in csv.DictReader(file)}
    accuracy = one["details"]["task/qa/accuracy"]
    assert float(lines["first", "task/qa/accuracy"]["stderr"]) == accuracy["stderr"]
    assert {"task/qa/probability", "task/qa/accuracy"} <= {name for _, name in lines}
    units = [one["scores"][n]["n"] for n in targets]
    assert units == [other["scores"][n]["n"] for n in targets]  # the same text
    assert units[3] == len(QUESTIONS)
    assert abs(
        one["scores"]["domain/prose"]["value"] - other["scores"]["domain/prose"]["value"]
    ) > (2 * one["scores"]["domain/prose"]["stderr"])


def test_nothing_is_scored_twice_and_ctrl_c_keeps_what_is_done(place, tmp_path, monkeypatch):
    """Catches a second call that loads or scores anew, parts that are lost with the process, scores
    of other weights under a folder's name, or of a domain under a name that it had, and parts of
    an earlier version, which have no units, read as damaged."""
    folder = tmp_path / "third"
    write_checkpoint(folder, "gpt2", n_positions=64)
    write_tokenizer(folder, ["1 and 1 is 2, " * 20])
    plain, scored = checkpoint_scores._score_part, []

    def stop_at_the_third(model, target, *rest):
        scored.append(target)
        if len(scored) == 3:
            raise KeyboardInterrupt
        return plain(model, target, *rest)

    monkeypatch.setattr(checkpoint_scores, "_score_part", stop_at_the_third)
    assert score(place, str(folder)).returncode == 130
    done = score(place, str(folder), more=("--json",))
    assert done.returncode == 0, done.stderr
    assert scored == ["domain/code", "domain/prose", *["domain/tables"] * 2, "task/qa"]
    monkeypatch.setattr(checkpoint_scores, "load_checkpoint", None)
    store, whole = Store(str(place / "home" / "store")), 3
    kept = f"{checkpoint_scores.PARTS}/{json.loads(done.stdout)['checkpoints'][0]['content']}"
    for key in store.keys(kept)[:whole]:
        part = store.recall(kept, key)
        assert part["units"].keys() >= part["scores"].keys()
        store.remember(kept, key, {k: v for k, v in part.items() if k != "units"})
    again = score(place, str(folder), more=("--json",))
    assert json.loads(again.stdout)["checkpoints"] == json.loads(done.stdout)["checkpoints"]
    renamed = tmp_path / "renamed.yaml"
    text = (place / "recipe.yaml").read_text().replace("prose:", "words:")
    renamed.write_text(text.replace("domain/prose", "domain/words"))
    same = inside("score", str(folder), "--recipe", str(renamed), "--json", home=place / "home")
    before, after = (json.loads(one.stdout)["checkpoints"][0]["scores"] for one in (done, same))
    assert after == {name.replace("prose", "words"): score for name, score in before.items()}
    monkeypatch.undo()
    write_checkpoint(folder, "gpt2", n_positions=64, seed=1)
    other = score(place, str(folder), more=("--json",))
    assert json.loads(other.stdout)["checkpoints"] != json.loads(done.stdout)["checkpoints"]


def test_passages_are_the_text_whatever_the_tokenizer(place):
    """Catches text that is lost or doubled where a document is cut, letters that are cut in two,
    and a limit that is not kept to."""
    score(place, "first")
    (root,) = (place / "home" / "corpora").glob("*/manifest.json")
    corpus = Corpus.open(root.parent)
    for name in ("code", "prose", "tables"):
        shard = corpus.valid(name)
        every = checkpoint_scores.held_out_passages(corpus, name, 0)
        assert sum(len(one.text.encode()) for one in every) == shard.bytes.sum()
        most = int(np.diff(shard.offsets).max())
        some = checkpoint_scores.held_out_passages(corpus, name, 1024)
        longest = max(len(one.text.encode()) for one in some)
        assert longest < 64 * 8
        share = sum(len(one.text.encode()) for one in some) / shard.bytes.sum()
        assert 0.5 < share / (1024 / shard.offsets[-1]) < 2, most
        whole = {n: "".join(p.text for p in every if p.document == n) for n in range(len(shard))}
        assert all(one.text in whole[one.document] for one in some)
    assert len({one.document for one in some}) > 3  # of tables


def test_a_checkpoint_of_a_run_goes_by_its_run(place, tmp_path):
    """Catches rows that are all called `checkpoint`, and two checkpoints in one row."""
    for run in ("a", "b"):
        shutil.copytree(place / "first", tmp_path / run / "checkpoint")
    (tmp_path / "a" / "run.json").write_text(json.dumps({"fingerprint": "f" * 64}))
    write_checkpoint(tmp_path / "b" / "checkpoint", "llama", seed=3, max_position_embeddings=128)
    shutil.copytree(place / "first", tmp_path / "c" / "checkpoint")
    folders = [str(tmp_path / run / "checkpoint") for run in "abc"]
    done = score(place, *folders, more=("--json",))
    names = [one["run"] for one in json.loads(done.stdout)["checkpoints"]]
    assert names[0] == "f" * 64
    assert [name[:11] for name in names[1:]] == ["checkpoint-"] * 2
    assert names[1] != names[2]


def test_names_of_checkpoints_and_domains(tmp_path):
    """Catches a row that is called `..`, a run.json of nested brackets that ends all, and domains
    with a slash in their names that are not shown."""
    (tmp_path / "mine" / "sub").mkdir(parents=True)
    assert score_checkpoints.checkpoint_name(tmp_path / "mine" / "sub" / "..") == "mine"
    (tmp_path / "mine" / "run.json").write_text("[" * 200_000)
    assert score_checkpoints.checkpoint_name(tmp_path / "mine") == "mine"
    scores = {"domain/web/en": Score(1.0, 0.1, 9), "task/qa": Score(1.0, 0.1, 9)}
    details = {"task/qa/accuracy": Score(0.5, 0.1, 9), "task/qa/chance": Score(0.5, 0.0, 9)}
    one = score_checkpoints.ScoredCheckpoint(tmp_path, "mine", "", PackScores(scores, details))
    shown = [str(cell) for cell in score_checkpoints.scores_table([one]).columns[0].cells]
    assert shown == ["domain/web/en", "task/qa", "task/qa/accuracy"]
    for _ in range(2):  # what was written before is written anew
        more = score_checkpoints.write_tables([one], tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines()[1] == "mine,1.0,1.0"
    assert len(more.read_text().splitlines()) == 5


def test_scores_of_a_trainers_runs_are_their_outcomes(place, tmp_path):
    """Catches rows that only a table reads though a run asked for them, and a checkpoint without a
    run among a study's runs; and, as what a run has for good, scores of a shorter context or of an
    earlier step that lies beside its last."""
    text = (place / "recipe.yaml").read_text().replace(
        "proxy: {", "proxy: {trainer: {command: [/bin/false], version: 1.0.0}, "
    )  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(text)
    home, recipe = Workspace(place / "home"), parse(text)
    problem = pose_problem(recipe, prepare(recipe, home, planned=True))
    rng = loop.generator(recipe.seed, 0)
    spec, other, *_ = recipe.build_method().ask(problem, (), rng)
    for run in ("a", "b"):
        shutil.copytree(place / "first", tmp_path / run / "checkpoint")
    (tmp_path / "a" / "run.json").write_text(json.dumps({"fingerprint": spec.fingerprint}))
    given = ["--recipe", str(tmp_path / "recipe.yaml"), "--json"]
    folders = [str(tmp_path / run / "checkpoint") for run in "ab"]
    other_way = inside("score", folders[0], *given, "--context", "64", home=place / "home")
    assert "none of them became a result of a run of tiny" in other_way.stderr
    shutil.copytree(tmp_path / "a" / "checkpoint", tmp_path / "a" / "checkpoint-500")
    earlier = inside("score", f"{folders[0]}-500", *given, home=place / "home")
    assert json.loads(earlier.stdout)["checkpoints"][0]["run"] == "checkpoint-500"
    assert Store(home.store).outcome_of(spec) is None
    done = inside("score", *folders, *given, home=place / "home")
    assert done.returncode == 0, done.stderr
    assert "1 of them are new results of runs of tiny" in done.stderr
    outcome = Store(home.store).outcome_of(spec)
    named = json.loads(done.stdout)["checkpoints"][0]
    assert named["run"] == spec.fingerprint
    assert outcome.scores["task/qa"].value == named["scores"]["task/qa"]["value"]
    units = Store(home.store).units_of(spec)
    assert {**outcome.scores, "task/qa/accuracy": None}.keys() <= units.keys()
    for name, score in outcome.scores.items():
        assert units[name].value == pytest.approx(score.value, rel=1e-6)
    assert Store(home.store).outcome_of(other) is None


def test_mistakes_are_sentences(place, tmp_path):
    """Catches tracebacks, and a file of the user's that is written over."""
    one_field = "x" * 200_000  # more than the reader of CSV takes
    for text in ("run,code,prose\n", "run,web/en,web/de\nfirst,0.5,0.5\n", "run\n", one_field):
        (tmp_path / "ratios.csv").write_text(text)
        told = score(place, "first", "nowhere", more=("--csv", str(tmp_path / "ratios.csv")))
        assert told.returncode == 2
        assert "holds something else: name another file" in told.stderr
        assert "not scored" not in told.stderr  # it is told before anything is scored
        assert (tmp_path / "ratios.csv").read_text() == text
    told = score(place, "first", more=("--csv", str(tmp_path / "no" / "scores.csv")))
    assert "name a file, in a folder that is there" in told.stderr
    told = score(place, "nowhere")
    assert told.returncode == 2
    assert "nowhere is not there: name the folder of a Hugging Face checkpoint" in told.stderr
    assert "float32, bfloat16, float16" in score(place, "first", more=("--dtype", "int4")).stderr
    with pytest.raises(DataError, match="loses"):
        lossy = tmp_path / "lossy"
        shutil.copytree(place / "first", lossy)
        body = json.loads((lossy / "tokenizer.json").read_text())
        body["normalizer"] = {"type": "Lowercase"}
        (lossy / "tokenizer.json").write_text(json.dumps(body))
        checkpoint_scores._loaded(lossy, causal_model.CheckpointReading(device="cpu"))
