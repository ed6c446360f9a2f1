"""Runs that a program of others trains: what comes back, what is tried again, what is refused.

The trainer is real and small (`tests/trainer_programs/good.py`); the corpus is prepared, the store
and the record are real. What needs Ray or a command line of its own is slow.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import tiny_study
from command import inside

from cuvee.flows.execution.evaluator import Evaluator
from cuvee.flows.execution.executor import Interrupted
from cuvee.flows.execution.inline_executor import InlineExecutor
from cuvee.flows.external.asked_runs import asked_runs
from cuvee.flows.external.swarm import export_swarm
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.prepare import pose_problem, prepare
from cuvee.flows.study.study import search_mixture
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import CuveeError, RecipeError, TrainingError
from cuvee.mixtures.inference.dataset import is_evidence
from cuvee.mixtures.runs.run_results import Failed
from cuvee.tasks.store.results import Store
from cuvee.tasks.tracking.study_tracker import StudyTracker
from cuvee.tasks.tracking.tracker import MemoryBackend
from cuvee.tasks.trainer.contract import read_run
from cuvee.tasks.trainer.supervisor import marked_processes
from cuvee.tasks.trainer.swarm_folder import read_swarm

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests/trainer_programs/good.py"
CUVEE = Path(sys.executable).with_name("cuvee")
COMMAND = [sys.executable, str(PROGRAM)]


@pytest.fixture(autouse=True)
def allowed(monkeypatch):
    monkeypatch.setenv("CUVEE_TRAINER_COMMANDS", " ".join(COMMAND))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    tiny_study.write_corpus(folder)
    return folder


def recipe(corpus: Path, settings: dict | None = None, **fields: object) -> str:
    trainer = {"command": COMMAND, "settings": settings or {}, **fields}
    return tiny_study.recipe(
        corpus, proxy=json.dumps({"size": "0.3M", "tokens": 42_000, "trainer": trainer})
    )


class Sweep:
    """Runs of a recipe in a home, as a study trains them."""

    def __init__(self, text: str, home: Path, executor: object = None) -> None:
        self.recipe, self.place = parse(text), Workspace(home)
        self.prepared = prepare(self.recipe, self.place)
        self.problem = pose_problem(self.recipe, self.prepared)
        self.record, self.executor = MemoryBackend(), executor or InlineExecutor("cpu")

    def train(self, *seeds: int) -> tuple:
        specs = [self.problem.spec(self.problem.domains.uniform, seed) for seed in seeds]
        tracker, store = StudyTracker(self.record), Store(self.place.store)
        tracker.start_study("tiny", {}, {})
        self.evaluator = Evaluator(
            self.recipe, self.prepared, store, tracker, self.executor, self.place
        )
        with self.executor:
            return self.evaluator(specs)

    @property
    def folders(self) -> list[Path]:
        return sorted(path for path in self.place.trainings.glob("*") if path.is_dir())

    def attempts(self) -> list[str]:
        """What every attempt said, the oldest first."""
        log = (self.folders[0] / "trainer.log") if self.folders else Path("/nowhere")
        return log.read_text().split("--- attempt")[1:] if log.exists() else []


@pytest.fixture(scope="module")
def prepared_home(corpus, tmp_path_factory) -> Path:
    """A home with the corpus in it, to be copied."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUVEE_TRAINER_COMMANDS", " ".join(COMMAND))
        Sweep(recipe(corpus), home)
    return home


@pytest.fixture
def home(prepared_home, tmp_path) -> Path:
    subprocess.run(["cp", "-r", prepared_home, tmp_path / "home"], check=True)
    return tmp_path / "home"


def test_a_trained_run_is_a_result_like_any_other(corpus, home):
    """Catches shares, tokens, curve, cost or scores that are not the trainer's, a run that is
    trained again, and one that the built-in trainer's result would stand for."""
    sweep = Sweep(recipe(corpus), home)
    (run,) = sweep.train(0)
    (folder,) = sweep.folders
    written = json.loads((folder / "result.json").read_text())
    assert {k: v.value for k, v in run.scores.items()} == {
        name: score["value"] for name, score in written["scores"].items()
    }
    assert set(run.scores) == {"domain/code", "domain/prose", "domain/tables"}
    assert [tokens for tokens, _ in run.curve] == [8400, 16800, 25200, 33600, 42000]
    assert run.tokens == (14_000,) * 3 and run.flops > 0 and 0 < run.seconds < 60
    for name, share in zip(run.spec.domains, run.epochs, strict=True):
        train = json.loads((folder / "run.json").read_text())["domains"][name]["train"]
        assert os.path.getsize(train["path"]) == 2 * train["tokens"]
        assert share == pytest.approx(14_000 / train["tokens"])
    assert not (folder / "state").exists() and sweep.evaluator.trained == 1
    (told,) = [r.params["trainer"] for r in sweep.record.runs.values() if "trainer" in r.params]
    assert told == run.spec.trainer
    assert json.loads(run.spec.trainer)["name"] == "good"
    again = Sweep(recipe(corpus), home)
    assert again.train(0) == (run,) and again.evaluator.trained == 0
    own = parse(tiny_study.recipe(corpus, proxy="{size: 0.3M, tokens: 42000}"))
    built_in = pose_problem(own, sweep.prepared).spec(run.spec.weights, 0)
    assert built_in.fingerprint != run.spec.fingerprint
    assert Store(sweep.place.store).outcome_of(built_in) is None
    assert is_evidence(sweep.problem, run.spec) and not is_evidence(sweep.problem, built_in)


def test_a_trainer_that_crashed_goes_on_from_what_it_kept(corpus, home):
    """Catches a retry that begins anew, a run that differs because it was cut off, a curve that
    holds a stretch twice, and one more attempt than was allowed."""
    sweep = Sweep(recipe(corpus, {"crash": 2, "kill": 4}), home)
    (run,) = sweep.train(0)
    begins = [said.splitlines()[1] for said in sweep.attempts()]
    assert begins == [f"begins at step {step} with rank 0" for step in (0, 2, 4)]
    (whole,) = Sweep(recipe(corpus), home).train(0)
    assert run.scores == whole.scores and run.curve == whole.curve
    short = Sweep(recipe(corpus, {"crash": 1}, retries=0), home)
    with pytest.raises(TrainingError, match=r"(?s)good ended with code 3.*fell off the bus"):
        short.train(0, 1)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nan", "the score of domain/.* is not finite"),
        ("none", "ended well and left nothing that can be scored"),
        pytest.param("foreign", "belongs to run '000000000000'", marks=pytest.mark.slow),
        pytest.param("lacking", "lacks the score of domain/", marks=pytest.mark.slow),
        pytest.param("half", "is not JSON", marks=pytest.mark.slow),
    ],
)
def test_a_refused_result_is_named_and_not_used(corpus, home, kind, words):
    """Catches a number that is used though it is none, a wrong program that is tried three times,
    and a directory in which the mended program would find the old result."""
    sweep = Sweep(recipe(corpus, {"steps": 2, "result": kind}), home)
    (run,) = sweep.train(0)
    assert isinstance(run, Failed)
    (folder,) = sweep.folders
    assert folder.name.endswith(".refused-1") and str(folder) in run.reason
    assert re.search(words, run.reason), run.reason
    assert len(sweep.attempts()) == 1
    assert Store(sweep.place.store).outcome_of(run.spec) is None  # the next run tries again


def test_a_checkpoint_that_cannot_be_scored_here_stays(corpus, home):
    """Catches a trained model that is thrown away or trained again because this machine cannot
    read it, and a relative path that is looked for where `cuvee` was called."""
    for _ in range(2):
        sweep = Sweep(recipe(corpus, {"steps": 2, "result": "empty model"}), home)
        (run,) = sweep.train(0)
        (folder,) = sweep.folders
        assert isinstance(run, Failed) and "the next `cuvee run` scores it" in run.reason
        assert f"the checkpoint in {folder}/model cannot be scored: " in run.reason
        assert ".refused" not in folder.name and len(sweep.attempts()) == 1


def test_a_trainer_that_is_edited_in_mid_study_trains_no_more(corpus, home, monkeypatch, tmp_path):
    """Catches runs of an edited script that stand in the store as the earlier one's."""
    script = tmp_path / "mine.py"
    script.write_text(PROGRAM.read_text())
    monkeypatch.setenv("CUVEE_TRAINER_COMMANDS", sys.executable)
    sweep = Sweep(recipe(corpus, command=[sys.executable, str(script)]), home)
    script.write_text(f"{PROGRAM.read_text()}# edited\n")
    (run,) = sweep.train(0)
    assert isinstance(run, Failed) and "are not those that this study began with" in run.reason
    assert sweep.attempts() == []


def test_two_studies_of_one_folder_train_a_run_once(corpus, home, tmp_path):
    """Catches two stores whose trainers write the same directory at a time: the supervisor of each
    would end the other's, or both would write state and result."""
    other, shared = tmp_path / "other", tmp_path / "shared"
    subprocess.run(["cp", "-r", home, other], check=True)
    text = recipe(corpus, {"wait": 0.4}, folder=str(shared))
    found: dict[Path, tuple] = {}

    def study(place: Path) -> None:
        found[place] = Sweep(text, place).train(0)

    both = [threading.Thread(target=study, args=(place,)) for place in (home, other)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    (first,), (second,) = found[home], found[other]
    assert first.scores == second.scores and first.spec == second.spec
    (log,) = shared.rglob("trainer.log")
    assert log.read_text().count("--- attempt") == 1
    assert Store(Workspace(other).store).outcome_of(second.spec) is not None


def test_a_run_that_ended_before_it_was_stored_is_not_trained_again(corpus, home):
    """Catches a sweep that was killed between the result and the store, and trains it twice."""
    sweep = Sweep(recipe(corpus), home)
    (run,) = sweep.train(0)
    subprocess.run(["rm", "-r", f"{sweep.place.store}/runs"], check=True)
    again = Sweep(recipe(corpus), home)
    assert again.train(0)[0].scores == run.scores and len(again.attempts()) == 1
    subprocess.run(["rm", "-r", f"{sweep.place.store}/runs"], check=True)
    values = json.loads((sweep.folders[0] / "result.json").read_text())
    values["scores"]["domain/code"]["value"] += 1e-9
    (sweep.folders[0] / "result.json").write_text(json.dumps(values))
    (refused,) = Sweep(recipe(corpus), home).train(0)
    assert isinstance(refused, Failed) and "written twice with other values" in refused.reason


def sleeping(seconds: int) -> bool:
    """Whether a trainer's children are there, the one without environment too."""
    return ["sleep", str(seconds)] in [p.info["cmdline"] for p in psutil.process_iter(["cmdline"])]


def test_nothing_of_a_trainer_outlives_it_and_no_secret_is_written(corpus, home, monkeypatch):
    """Catches children that go on training, an endless trainer without an end, and a token in a
    log, a run.json or the record."""
    monkeypatch.setenv("MY_TOKEN", "hunter2-hunter2")
    seconds = 10_000 + os.getpid()  # by which our children are known
    settings = {"steps": 2, "children": seconds, "never": True, "say": "API_TOKEN"}
    text = recipe(corpus, settings, timeout=10, retries=0, environment={"API_TOKEN": "$MY_TOKEN"})
    sweep = Sweep(text, home)
    (run,) = sweep.train(0)
    assert isinstance(run, Failed) and "was ended after 10 s, its limit" in run.reason
    assert not sleeping(seconds)
    assert marked_processes(str(sweep.folders[0])) == []
    assert "the secret is ***" in sweep.attempts()[0]
    for path in home.rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path
    assert "hunter2" not in repr(vars(sweep.record))


def test_an_interrupted_run_ends_within_seconds(corpus, home):
    """Catches a Ctrl-C that waits for the trainer, and a trainer that outlives it."""
    executor = InlineExecutor("cpu")
    seconds = 20_000 + os.getpid()
    sweep = Sweep(recipe(corpus, {"wait": 30, "children": seconds}), home, executor)
    found: list = []

    def stop() -> None:
        until = time.monotonic() + 30
        while "begins" not in "".join(sweep.attempts()) and time.monotonic() < until:
            time.sleep(0.05)
        found.append(time.monotonic())
        executor.cancel()

    threading.Thread(target=stop).start()
    with pytest.raises(Interrupted):
        sweep.train(0)
    assert time.monotonic() - found[0] < 10 and not sleeping(seconds)
    assert marked_processes(str(sweep.folders[0])) == []


def test_a_method_that_moves_shares_is_refused(corpus, home):
    """Catches a controller that nobody runs, whose shares are then believed."""
    text = re.sub("method: .*", "method: {name: odm}", recipe(corpus))
    with pytest.raises(RecipeError, match="method 'odm' moves the shares while a run is trained"):
        search_mixture(
            parse(text),
            InlineExecutor("cpu"),
            Workspace(home),
            text=text,
            tracker=StudyTracker(MemoryBackend()),
        )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"size"', '"pack": 2, "size"', "proxy.pack is of the built-in trainer"),
        ("suite: null", "suite: null, curve: 2", "evaluation.curve is of the built-in trainer"),
        ("suite: null", "suite: offline, audit: {detectors: [loss]}", "audit.detectors is of the"),
        (sys.executable, "python", "name the program by its full path"),
        ('"settings"', '"environment": {"HF_TOKEN": "x"}, "settings"', "looks like a secret"),
        ('"settings"', '"cpus": 0.00001, "settings"', "at most 4 decimals"),
        ('"settings"', '"gpus": 1.5, "settings"', "a run gets whole GPUs: take 2"),
        ('"settings": {}', '"settings": {"x": .inf}', "settings.x cannot stand in run.json"),
        ('"settings"', '"environment": {"PYTHONPATH": "/x"}, "settings"', "which code is loaded"),
    ],
)
def test_a_recipe_with_a_trainer_is_checked_when_it_is_read(corpus, old, new, words):
    """Catches a field that has no effect and says nothing of it."""
    with pytest.raises(RecipeError, match=words):
        parse(recipe(corpus).replace(old, new))


def test_a_swarm_has_the_runs_that_the_study_would_train(corpus, home, tmp_path, monkeypatch):
    """Catches runs with other fingerprints or shares than `cuvee run` gives them, a run of a swarm
    that is trained again by it, one that is exported though it is stored, an export that needs the
    operator's list or a secret, and a place that is not told as it is."""
    monkeypatch.delenv("CUVEE_TRAINER_COMMANDS")
    folder, place = tmp_path / "a b", Workspace(home)
    text = recipe(corpus, {"wait": 0.2}, environment={"SAID": "$NOT_HERE"})
    given = parse(text)
    made = export_swarm(given, place, form="json", to=str(folder))
    asked = asked_runs(given, prepare(given, place), place)
    assert made == read_swarm(folder) and made.study == "tiny" and made.format == "json"
    assert [run.fingerprint for run in made.runs] == list(asked)
    assert [(run.name, run.role) for run in made.runs] == [(r.name, r.role) for r in asked.values()]
    assert Counter(run.role for run in made.runs) == {"design": 8, "anchor": 2, "seed": 2}
    for run in made.runs:
        spec = asked[run.fingerprint].spec
        told = read_run(folder / run.folder / "run.json")
        own = json.loads((folder / run.folder / "mixture.json").read_text())
        domains = own["stages"][0]["domains"]
        shares = {n: float(w) for n, w in zip(spec.domains, spec.weights, strict=True)}
        assert told.stages[0].shares == shares
        assert {d["name"]: d["weight"] for d in domains} == pytest.approx(shares, abs=1e-6)
        assert own["target_tokens"] == told.tokens == 42_000 and own["seed"] == spec.seed
        assert domains[0]["paths"] == [told.domains[domains[0]["name"]].train.path]
    (uniform,) = [r for r in made.runs if r.name.startswith("anchor uniform seed 0")]
    called = ["bash", folder / "run_one.sh", uniform.folder]
    subprocess.run(called, check=True, env={**os.environ, "NOT_HERE": "x"})
    monkeypatch.setenv("CUVEE_TRAINER_COMMANDS", " ".join(COMMAND))
    (run,) = Sweep(recipe(corpus, {"wait": 0.2}, folder=str(folder / "runs")), home).train(0)
    log = (folder / uniform.folder / "trainer.log").read_text()
    assert run.spec.fingerprint == uniform.fingerprint and log.count("--- attempt") == 1
    assert run.seconds > 0
    (tmp_path / "again.yaml").write_text(text)
    monkeypatch.setenv("HOME", str(tmp_path))  # what ~ stands for
    words = ["export", str(tmp_path / "again.yaml"), "--swarm", "contract", "--to", "~/a b"]
    again = inside(*words, "--json", home=home)
    assert again.returncode == 0, again.stderr
    answer = json.loads(again.stdout)
    assert answer["written"] == str(folder)
    assert [run["fingerprint"] for run in answer["swarm"]["runs"]] == [
        run.fingerprint for run in made.runs if run != uniform
    ]


def test_a_swarm_that_cannot_be_is_refused_before_anything_is_written(corpus, home, tmp_path):
    """Catches a folder of something else that is written into, a swarm that another study's would
    replace, shares that files of a trainer cannot say, and a trainer that only the cluster has
    refused for that."""

    def export(text: str, to: object, form: str = "contract") -> object:
        return export_swarm(parse(text), Workspace(home), form=form, to=str(to))

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    away = recipe(corpus, command=["/cluster/python", "/cluster/train.py"], version="7")
    made = export(away, tmp_path / "away")
    assert json.loads(parse(away).proxy.trainer.identity)["name"] == "train" and made.runs
    matched = away.replace('"tokens": 42000', '"tokens": 42000, "match_repetition": true')
    for text, to, form, said in (
        (tiny_study.recipe(corpus), "new", "contract", "name it in proxy.trainer"),
        (away, "full", "contract", "thesis.tex"),
        (away.replace("name: tiny", "name: other"), "away", "contract", "has the swarm of tiny"),
        (away, "s3://bucket/swarm", "contract", "on a disk"),
        (away, "n\udce9w", "contract", r"n\\udce9w' is not UTF-8"),
        (away, "new", "megatorn", "did you mean 'megatron'"),
        (away, "new", "torchtitan", "proxy.tokens is the length"),
        (matched, "new", "json", "match_repetition"),
    ):
        with pytest.raises(CuveeError, match=said):
            export(text, to if "://" in to else tmp_path / to, form)
    assert not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["thesis.tex"]
