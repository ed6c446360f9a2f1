"""`cuvee collect`: what comes back of runs that were trained elsewhere, by run id alone."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_study
from checkpoints import write_checkpoint, write_tokenizer

from cuvee.evaluation.causal_model import CheckpointReading
from cuvee.flows.external import score_checkpoints
from cuvee.flows.external.asked_runs import AskedRun, asked_runs
from cuvee.flows.external.collect import Collected, collect_runs
from cuvee.flows.external.swarm import export_swarm
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.prepare import prepare
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import DataError, RecipeError
from cuvee.mixtures.runs.run_results import RunResult, Score
from cuvee.proxies import ladder
from cuvee.tasks.store.results import Store
from cuvee.tasks.trainer import contract

PROGRAM = Path(__file__).parents[1] / "trainer_programs/good.py"
CUVEE = Path(sys.executable).with_name("cuvee")
TARGETS = ("domain/code", "domain/prose", "domain/tables")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    tiny_study.write_corpus(folder)
    return folder


def recipe(corpus: Path, confirm: str = "null", **trainer: object) -> str:
    trainer = {"command": [sys.executable, str(PROGRAM)], "version": "1", **trainer}
    proxy = json.dumps({"size": "0.3M", "tokens": 42_000, "trainer": trainer})
    method = "{name: mixing_laws, runs: 8, seeds: 2, folds: 2, refits: 10}"
    return tiny_study.recipe(corpus, proxy=proxy, method=method, confirm=confirm)


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
    text = recipe(corpus, confirm="{seeds: 2}")
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


def trained_swarm(text: str, home: Path, folder: Path) -> None:
    """The run directories of all that a recipe asks for first, each with its result."""
    export_swarm(parse(text), Workspace(home), form="contract", to=str(folder))
    for run in asked(text, home).values():
        told = contract.read_run(folder / "runs" / run.spec.fingerprint[:32] / "run.json")
        scores = {n: {"value": v, "stderr": 0.01, "n": 9} for n, v in scored(run).items()}
        contract.write_result(told, scores, flops=1e9)


@pytest.fixture(scope="module")
def swarm(corpus, prepared_home, tmp_path_factory) -> tuple[str, Path]:
    """A recipe, and a swarm that is trained whole."""
    text, folder = recipe(corpus), tmp_path_factory.mktemp("swarm")
    trained_swarm(text, prepared_home, folder)
    return text, folder


@pytest.fixture
def back(swarm, tmp_path) -> Path:
    subprocess.run(["cp", "-r", swarm[1], tmp_path / "swarm"], check=True)
    return tmp_path / "swarm"


def collect(text: str, home: Path, *paths: Path) -> Collected:
    return collect_runs(parse(text), Workspace(home), paths)


def states(found: Collected) -> dict[str, str]:
    return {run.asked.spec.fingerprint[:32]: run.state for run in found.runs}


def test_results_are_read_back_by_run_id_and_once(swarm, home, back, caplog):
    """Catches runs that are paired by position, results that lose their errors or costs, a second
    call that stores or refuses what is there, a part of a sweep that waits for the rest, and a run
    that holds up the next round without being named."""
    text, folders = swarm[0], sorted((back / "runs").iterdir())
    folders[0].rename(back / "elsewhere")
    folders[1].rename(back / "runs" / "renamed by hand")
    (back / "runs" / "empty").mkdir()
    caplog.set_level("INFO")
    half = collect(text, home, back / "runs")
    (away,) = [run.asked.name for run in half.runs if run.state == "missing"]
    assert f"What comes next waits for {away}. A run that fails" in caplog.text
    assert half.counts == {
        **dict.fromkeys(("stored", "unfinished", "refused", "foreign", "unreadable"), 0),
        "new": len(folders) - 1,
        "missing": 1,
    }
    store = Store(str(home / "store"))
    for run in half.runs:
        if run.state == "new":
            kept = store.outcome_of(run.asked.spec)
            assert {n: s.value for n, s in kept.scores.items()} == scored(run.asked)
            assert kept.flops == 1e9 and kept.scores["domain/code"] == Score(
                scored(run.asked)["domain/code"], 0.01, 9
            )
            assert abs(sum(kept.tokens) - 42_000) < 3
    again = collect(text, home, back / "runs", back)
    assert again.counts["stored"] == len(folders) - 1 and again.counts["new"] == 1
    assert collect(text, home, back).counts["new"] == 0


def edit(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps(values | changes))


def scores_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())["scores"]


def worse(folder: Path, value: float) -> dict:
    scores = scores_of(folder)
    return {**scores, "domain/prose": {**scores["domain/prose"], "value": value}}


def test_what_cannot_be_a_result_of_its_run_is_named_and_never_stored(swarm, home, back):
    """Catches a result of another run, one that is not finite, cut off or lacks a target, a copy
    with other values, a run directory under another's name, links that lead out, a run that none
    asked for, a stranger's row in a run's directory, and a whole progress that passes for an end;
    and a sound run that is lost because of them, or of damaged files beside its result."""
    a, b, c, d, e, f, g, h, i, *rest = sorted((back / "runs").iterdir())
    (i / "result.json").unlink()
    table(i / "stranger.csv", {"f" * 64: dict.fromkeys(TARGETS, 1.0)})
    (i / "progress.jsonl").write_text('{"tokens": 42000, "loss": 2.5}\n')
    os.mkfifo(rest[0] / "progress.jsonl")
    for place, spent in ((i, "[1]"), (rest[0], '{"seconds": NaN}'), (rest[1], '{"seconds": "x"}')):
        (place / "spent.json").write_text(spent)
    edit(a, fingerprint="f" * 64)
    edit(b, scores=worse(b, float("nan")))
    (c / "result.json").write_text((c / "result.json").read_text()[:90])
    edit(d, scores={"domain/prose": {"value": 1, "stderr": 0, "n": 1}})
    subprocess.run(["cp", "-r", e, back / "copy"], check=True)
    edit(back / "copy", scores=worse(e, 2.0))
    code = scores_of(e)["domain/code"]["value"]
    table(back / "runs" / "part.csv", {e.name: {"domain/code": code}})
    f.rename(back / "outside")
    (back / "runs" / "link").symlink_to(back / "outside")
    (g / "result.json").rename(back / "outside.json")
    (g / "result.json").symlink_to(back / "outside.json")
    (h / "result.json").rename(h / "progress.jsonl")
    (h / "spent.json").write_text('{"seconds": 1, "ended": true}')
    (h / "trainer.log").write_text(" validation loss at iteration 900 | lm loss value: 2.5 | \n")
    stranger = back / "runs" / ("0" * 32)
    subprocess.run(["cp", "-r", rest[0], stranger], check=True)
    run = json.loads((stranger / "run.json").read_text())
    (stranger / "run.json").write_text(json.dumps({**run, "fingerprint": "0" * 64}))
    found = collect(swarm[0], home, back / "runs", back / "copy")
    said = {one.asked.spec.fingerprint[:32]: (one.state, one.said) for one in found.runs}
    for folder, state, words in (
        (a, "refused", "belongs to run 'ffffffffffff'"),
        (b, "refused", "domain/prose is not finite"),
        (c, "refused", "is not JSON"),
        (d, "refused", "lacks the score of domain/code, domain/tables"),
        (e, "refused", "domain/prose differs: "),
        (f, "missing", ""),
        (g, "missing", ""),
        (h, "unfinished", "no log has domain/code, domain/prose, domain/tables; they have lm loss"),
        (h, "unfinished", "has no result.json"),
        (i, "unfinished", "has no result.json, nor says"),
        *((folder, "new", "") for folder in rest),
    ):
        assert said[folder.name][0] == state and words in said[folder.name][1], folder
    assert {path for path, _ in found.foreign} == {stranger, i / "stranger.csv"}
    assert sorted(path.name for path, _ in found.unreadable) == ["link", "result.json"]
    kept = {one.spec.fingerprint[:32] for one in Store(str(home / "store")).outcomes()}
    assert kept == {folder.name for folder in rest}
    assert (a / "result.json").exists()  # nothing there was moved
    edit(rest[0], scores=worse(rest[0], 9.0))
    after = {one.asked.spec.fingerprint[:32]: one for one in collect(swarm[0], home, back).runs}
    assert after[rest[0].name].state == "refused" and "the store" in after[rest[0].name].said


def table(path: Path, rows: dict[str, dict[str, float]], key: str = "run") -> Path:
    names = list(next(iter(rows.values())))
    lines = [",".join([key, *names])]
    lines += [",".join([run, *(repr(row[name]) for name in names)]) for run, row in rows.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_of_a_table_are_of_the_run_that_they_name(swarm, home, tmp_path):
    """Catches rows that are joined by position, digits that are too few or of two runs, rows of
    others that take the run of their folder, and a cell that is no finite number."""
    runs = list(asked(swarm[0], home).values())
    marks = [run.spec.fingerprint for run in runs]
    folder = tmp_path / marks[-1][:20]
    folder.mkdir()
    ids = [marks[0], f"job-7_{marks[1][:12]}", runs[2].name, marks[3][:11]]
    ids.append(f"{marks[4]} {marks[5]}")
    rows = {"f" * 64: scored(runs[-1])} | dict(zip(ids, map(scored, runs), strict=False))
    rows[marks[6]] = {**scored(runs[6]), "domain/code": float("inf")}
    found = collect(swarm[0], home, table(folder / "all.csv", dict(reversed(rows.items()))))
    told = {one.asked.spec.fingerprint: one for one in found.runs}
    assert [told[mark].state for mark in marks[:8]] == [
        *["new"] * 3,
        *["missing"] * 3,
        "refused",
        "missing",
    ]
    assert "domain/code is not finite (inf" in told[marks[6]].said
    assert told[marks[-1]].state == "missing" and len(found.foreign) == 3
    assert any("more than one run" in said for _, said in found.foreign)
    for one in runs[:3]:
        kept = Store(str(home / "store")).outcome_of(one.spec)
        assert {n: score.value for n, score in kept.scores.items()} == scored(one)


def test_logs_are_told_apart_by_their_end(corpus, home, tmp_path):
    """Catches scores of a run that was cut off, a requeued job that did steps again and passes for
    another or hides that it is, metrics without a name of ours, and a target that is none."""
    text = recipe(corpus, metrics={n: f"eval/{n[7:]}" for n in TARGETS})
    runs, end = list(asked(text, home).values()), ladder.training_plan("0.3M", 42_000, 1).steps

    def history(run: AskedRun, *rows: tuple[int, float]) -> None:
        folder = tmp_path / "logs" / run.spec.fingerprint[:16]
        folder.mkdir(parents=True)
        lines = [
            {"_step": at, "eval/code": 1.0, "eval/prose": x, "eval/tables": 2} for at, x in rows
        ]
        (folder / "history.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    whole, cut, again, differs, other = runs[:5]
    history(whole, (5, 3.0), (end, 2.5))
    history(cut, (5, 3.0))
    history(again, (5, 3.0), (end, 2.5), (5, 3.1), (end, 2.5 + 1e-9))
    history(differs, (5, 3.0), (end, 2.5), (end, 2.6))
    folder = tmp_path / "logs" / other.spec.fingerprint[:16]
    folder.mkdir()
    (folder / "history.jsonl").write_text(f'{{"_step": {end}, "val/loss": 2.5}}\n{{"_step": 1')
    found = {one.asked.spec: one for one in collect(text, home, tmp_path / "logs").runs}
    assert [found[one.spec].state for one in runs[:6]] == [
        *("new", "unfinished", "new", "refused", "unfinished", "missing")
    ]
    assert "ends at step 5 of" in found[cut.spec].said
    assert "twice with other values: 2.5 in" in found[differs.spec].said
    assert "no log has eval/code" in found[other.spec].said and "val/loss" in found[other.spec].said
    with pytest.raises(RecipeError, match="unknown target.*; did you mean 'domain/code'"):
        collect(recipe(corpus, metrics={"domain/cod": "x"}), home, tmp_path)
    with pytest.raises(RecipeError, match="names no trainer"):
        collect(tiny_study.recipe(corpus), home, tmp_path)
    with pytest.raises(DataError, match="is not there"):
        collect(text, home, tmp_path / "nowhere")


def test_logs_and_a_run_directory_together(corpus, home, tmp_path):
    """Catches a model that is scored in other units than those of the logs that the recipe names,
    and the costs in a result without scores that are lost where logs have these."""
    text = recipe(corpus, metrics={n: f"eval/{n[7:]}" for n in TARGETS})
    trained_swarm(text, home, tmp_path / "swarm")
    a, b, *rest = sorted((tmp_path / "swarm" / "runs").iterdir())
    for folder in (a, b):
        edit(folder, scores=None)
        write_checkpoint(folder / "checkpoint", "llama")
        write_tokenizer(folder / "checkpoint", ["some text of a sort"] * 99)
    table(tmp_path / "scores.csv", {b.name: {f"eval/{n[7:]}": 2.5 for n in TARGETS}})
    found = collect(text, home, tmp_path / "swarm", tmp_path / "scores.csv")
    told = {one.asked.spec.fingerprint[:32]: one for one in found.runs}
    assert told[a.name].state == "unfinished"
    assert f"{a / 'checkpoint'} is not scored: by proxy.trainer.metrics" in told[a.name].said
    assert {told[folder.name].state for folder in (b, *rest)} == {"new"}
    kept = Store(str(home / "store")).outcome_of(told[b.name].asked.spec)
    assert kept.flops == 1e9 and {score.value for score in kept.scores.values()} == {2.5}


def test_runs_that_suffice_for_no_recommendation_are_kept_and_told(corpus, home, tmp_path, caplog):
    """Catches a collection that ends in an error, without saying what it has stored."""
    caplog.set_level("INFO")
    text = recipe(corpus, confirm="{seeds: 2}").replace("runs: 8, seeds: 2", "runs: 2, seeds: 1")
    trained_swarm(text, home, tmp_path / "swarm")
    found = collect(text, home, tmp_path / "swarm")
    assert found.counts["new"] == len(found.runs) > 0 and found.counts["missing"] == 0
    assert "What comes next cannot be said: " in caplog.text


@pytest.mark.slow
def test_a_checkpoint_alone_is_scored_once_its_trainer_has_ended(swarm, home, back):
    """Catches a model that is scored while it is trained, one that is scored anew when all is
    known, one that another run's score is taken for, and a folder that holds no model."""
    a, b, c, *_ = sorted((back / "runs").iterdir())
    for number, folder in enumerate((a, b, c)):
        (folder / "result.json").unlink()
        write_checkpoint(folder / "checkpoint", "llama", seed=number)
        write_tokenizer(folder / "checkpoint", ["some text of a sort"] * 99)
        (folder / "spent.json").write_text(json.dumps({"seconds": 5, "ended": folder != b}))
    (c / "checkpoint" / "model.safetensors").write_bytes(b"half")
    found = {one.asked.spec.fingerprint[:32]: one for one in collect(swarm[0], home, back).runs}
    assert [found[one.name].state for one in (a, b, c)] == ["new", "unfinished", "refused"]
    assert "cannot be scored" in found[c.name].said
    kept = Store(str(home / "store")).outcome_of(found[a.name].asked.spec)
    whole = score_checkpoints.score_checkpoints(
        parse(swarm[0]), Workspace(home), [a / "checkpoint"], CheckpointReading(device="cpu")
    )
    assert {n: s.value for n, s in kept.scores.items()} == pytest.approx(
        {n: s.value for n, s in whole[0].scores.scores.items()}
    )
    shutil.rmtree(a / "checkpoint")
    again = {one.asked.spec.fingerprint[:32]: one for one in collect(swarm[0], home, back).runs}
    assert again[a.name].state == "stored"


@pytest.mark.slow
def test_a_call_that_is_killed_goes_on_from_what_it_has_stored(swarm, home, back, tmp_path):
    """Catches half a run that is kept, one that is lost or doubled by a kill, a name that writes to
    the terminal, and an exit code that says that all is well."""
    (tmp_path / "study.yaml").write_text(swarm[0])
    command = [str(CUVEE), "collect", str(tmp_path / "study.yaml"), str(back), "--home", str(home)]
    for _ in range(2):
        stored = len(list((home / "store").glob("runs/*/result.json")))
        begun = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while begun.poll() is None and len(list((home / "store").glob("runs/*"))) < stored + 2:
            time.sleep(0.002)
        begun.kill()
        begun.wait()
    kept = {one.spec.fingerprint for one in Store(str(home / "store")).outcomes()}
    assert len(kept) >= 2
    evil = back / "runs" / "results\x1b[31m\x1b]0;x\x07.json"
    evil.write_text("{")
    done = subprocess.run([*command, "--json"], check=False, capture_output=True, text=True)
    told = json.loads(done.stdout)
    assert done.returncode == 2 and told["counts"]["unreadable"] == 1
    assert told["counts"]["new"] + told["counts"]["stored"] == 12
    assert told["counts"]["stored"] == len(kept) and "\x1b" not in done.stderr
    assert not list((home / "store").rglob("*corrupt*"))
