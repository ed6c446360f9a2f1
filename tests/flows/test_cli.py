"""The command line as a person meets it: a sentence per mistake, no loss by an interruption."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import tiny_study
from command import inside

from cuvee.tasks.process import HOME_MARK

pytestmark = pytest.mark.usefixtures("quick_pictures_everywhere")

CUVEE = [sys.executable, "-m", "cuvee.flows"]
ROOT = Path(__file__).parent.parent.parent


def call(*words: str, home: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CUVEE, *words, "--home", str(home)],
        capture_output=True,
        check=False,
        text=True,
        timeout=240,
        env={**os.environ, **settings},
        cwd=ROOT,
    )


def assert_said(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """An error in one sentence: the words, no traceback, and the exit code of wrong usage."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("cuvee: error: ") and done.stderr.count("\n") == 1
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in done.stderr


def write(folder: Path, text: str) -> str:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_mistake_in_a_recipe_is_one_sentence(tmp_path):
    """Catches a traceback, and a mistake that is found only after work was done."""
    text = tiny_study.recipe(tmp_path, proxi="{size: 0.3M}")
    done = call("run", write(tmp_path, text), home=tmp_path / "home")
    assert_said(done, "'proxi'", "did you mean 'proxy'")
    assert not (tmp_path / "home").exists()
    assert_said(
        inside("plan", str(tmp_path / "none.yaml"), home=tmp_path), "none.yaml", "recipe.yaml"
    )


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ("missing", ("prose.jsonl",)),
        ("empty", ("prose",)),
        ("latin", ("prose.jsonl", "line 2", "UTF-8")),
        ("broken", ("prose.jsonl", "line 2")),
        ("small", ("prose", "16,384 are needed")),
        ("size", ("0.4M", "did you mean")),
        ("bounds", ("clash",)),
        ("weights", ("sum to 0.9",)),
        ("task", ("piqa_ofline",)),
        ("benchmark", ("own.jsonl", "line 2")),
    ],
)
def test_bad_data_is_one_sentence_that_names_it(tmp_path, harm, words):
    """Catches each kind of bad input being used, dropped, or shown as a traceback."""
    tiny_study.write_corpus(tmp_path)
    prose = tmp_path / "prose.jsonl"
    rows = prose.read_bytes().splitlines(keepends=True)
    changes = {}
    if harm == "missing":
        prose.unlink()
    elif harm == "empty":
        prose.write_bytes(b"")
    elif harm == "latin":
        prose.write_bytes(rows[0] + b'{"text": "caf\xe9"}\n' + b"".join(rows[1:]))
    elif harm == "broken":
        prose.write_bytes(rows[0] + b'{"text": "cut off\n' + b"".join(rows[1:]))
    elif harm == "small":
        prose.write_bytes(b"".join(rows[:2]))
    elif harm == "size":
        changes["proxy"] = "{size: 0.4M, tokens: 60000}"
    elif harm == "bounds":
        changes["constraints"] = "{bounds: {code: [0.6, 1], prose: [0.6, 1]}}"
    elif harm == "weights":
        changes["confirm"] = "{seeds: 2, mixtures: {hand: {code: 0.5, prose: 0.4}}}"
    elif harm == "task":
        changes["evaluation"] = "{suite: null, tasks: [piqa_ofline]}"
    else:
        good = '{"query": "1 + 1 =", "choices": [" 2", " 3"], "gold": 0}\n'
        (tmp_path / "own.jsonl").write_text(good + good.replace("0}", "7}"))
        changes["evaluation"] = f"{{suite: null, custom: {{own: {tmp_path}/own.jsonl}}}}"
    recipe = write(tmp_path, tiny_study.recipe(tmp_path, **changes))
    assert_said(inside("plan", recipe, home=tmp_path / "home"), *words)


def test_plan_trains_nothing_and_says_what_it_would_cost(tmp_path):
    """Catches a plan that spends, one that leaves out design, targets, epochs, FLOPs or time, and
    one that takes its speed from a table of another machine."""
    tiny_study.write_corpus(tmp_path)
    done = inside("plan", write(tmp_path, tiny_study.recipe(tmp_path)), home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    for word in ("12 runs", "prose", "epochs", "FLOPs", "tokens", "on one core"):
        assert word in done.stdout
    assert "3 targets: domain/code, domain/prose, domain/tables" in done.stdout
    assert "measured for a second on this machine" in done.stdout
    assert not list((tmp_path / "home" / "store").glob("runs/*"))


def test_a_home_that_cannot_be_used_is_one_sentence(tmp_path):
    """Catches an OSError when the directory is a file."""
    (tmp_path / "home").write_text("a file")
    recipe = write(tmp_path, tiny_study.recipe(tmp_path))
    assert_said(inside("run", recipe, home=tmp_path / "home"), str(tmp_path / "home"), "--home")


def test_fit_reads_two_tables_without_training(tmp_path):
    """Catches a fit that pairs by position: the second table is in another order."""
    rows = [(i / 10, 1 - i / 10) for i in range(11)]
    mixtures = "run,a,b\n" + "".join(f"r{i},{a},{b}\n" for i, (a, b) in enumerate(rows))
    losses = [f"r{i},{2 - a},{2 - b}\n" for i, (a, b) in enumerate(rows)]
    (tmp_path / "m.csv").write_text(mixtures)
    (tmp_path / "s.csv").write_text("run,on_a,on_b\n" + "".join(reversed(losses)))
    text = tiny_study.recipe(
        tmp_path,
        tables=f"{{mixtures: {tmp_path}/m.csv, scores: {tmp_path}/s.csv}}",
        objective="{name: mean, weights: {on_a: 3, on_b: 1}}",
        method="{name: mixing_laws, runs: 4}",
    )
    text = text.replace(text[text.index("corpus:") : text.index("proxy:")], "")
    done = inside("fit", write(tmp_path, text), home=tmp_path / "home")
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "home/studies/tiny/fit/summary.json").read_text())
    assert summary["weights"]["a"] > 0.9 and summary["trained_now"] == 0
    (tmp_path / "s.csv").write_text("run,on_a,on_b\n" + "".join(losses[1:]))
    assert_said(inside("fit", write(tmp_path, text), home=tmp_path / "home"), "r0")


def test_a_step_of_given_gains_under_guardrails_is_fitted_told_and_reported(tmp_path):
    """By hand: losses fall by the share, so that a gain of 0.1 over equal shares is a step of
    10 points, and with a guardrail of 0.04 on the other no more than 0.04 can be had. Catches an
    answer that goes further, a gain that is bought with a guardrail, and one that is not told."""
    shares = [round(i / 20, 2) for i in range(21)]
    rows = [f"r{i},{a},{round(1 - a, 2)}\n" for i, a in enumerate(shares)]
    losses = [f"r{i},{3 - a},{2 + a}\n" for i, a in enumerate(shares)]
    (tmp_path / "m.csv").write_text("run,a,b\n" + "".join(rows))
    (tmp_path / "s.csv").write_text("run,on_a,on_b\n" + "".join(losses))

    def fitted(tolerance, more=""):
        text = tiny_study.recipe(
            tmp_path,
            tables=f"{{mixtures: {tmp_path}/m.csv, scores: {tmp_path}/s.csv}}",
            objective="{name: hinge, weights: {on_a: 1}, floors: [on_b], tolerance: "
            f"{tolerance}}}",
            method="{name: mixing_laws, refits: 10, search: {name: smallest_step, "
            f"gains: {{on_a: 0.1}}{more}}}}}",
        )
        text = text.replace(text[text.index("corpus:") : text.index("proxy:")], "")
        done = inside("fit", write(tmp_path, text), home=tmp_path / "home")
        folder = tmp_path / "home/studies/tiny/fit"
        return done, json.loads((folder / "recommendation.json").read_text()), folder

    done, answer, folder = fitted(0.2)
    assert done.returncode == 0, done.stderr
    assert answer["stages"][0]["weights"] == pytest.approx([0.6, 0.4], abs=5e-3)
    assert answer["step"]["moved"] == pytest.approx(0.1, abs=5e-3)
    assert "Asked: on_a gains at least 0.1" in done.stdout.replace("\n", " ")
    report = (folder / "report.md").read_text()
    assert "What was asked for" in report and "loses at most 0.2" in report
    done, answer, folder = fitted(0.04)
    assert answer["stages"][0]["weights"] == pytest.approx([0.54, 0.46], abs=5e-3)
    guardrail, gain = answer["demands"]
    assert guardrail["margin"]["mean"] >= -2e-6
    assert gain["margin"]["mean"] == pytest.approx(-0.06, abs=5e-3)
    assert any("on_a gains at least 0.1" in line for line in answer["warnings"])
    done, *_ = fitted(0.2, ", start: {a: 0.5, b: 0.4}")
    assert_said(done, "sum to 0.9")


def ours(home: Path) -> list[psutil.Process]:
    """Processes that carry the mark of a home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(HOME_MARK) == str(home):
                found.append(process)
        except psutil.Error:
            continue
    return found


def results(home: Path) -> dict[str, float]:
    """Finished proxies with the time at which they were written."""
    return {p.parent.name: p.stat().st_mtime for p in home.glob("store/runs/*/result.json")}


def started(recipe: str, home: Path) -> subprocess.Popen[str]:
    """A run in a process group of its own, as a shell starts it, with at least two results."""
    process = subprocess.Popen(
        [*CUVEE, "run", recipe, "--home", str(home)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )
    deadline = time.monotonic() + 180
    while len(results(home)) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_study_goes_on_where_it_was(tmp_path, how):
    """Catches lost results, trainings done twice, processes left behind, a traceback on Ctrl-C."""
    home = tmp_path / "home"
    tiny_study.write_corpus(tmp_path)
    recipe = write(tmp_path, tiny_study.recipe(tmp_path))
    process = started(recipe, home)
    before = results(home)
    if how == signal.SIGTERM:
        process.send_signal(how)
    else:
        os.killpg(process.pid, how)
    out, err = process.communicate(timeout=60)
    if how != signal.SIGKILL:
        assert process.returncode == 130, err
        assert "Finished proxies are kept" in err and "Traceback" not in out + err
        deadline = time.monotonic() + 20
        while ours(home) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert ours(home) == []
    again = call("run", recipe, home=home)
    assert again.returncode == 0, again.stderr
    after = results(home)
    assert before.items() <= after.items()  # what was finished was not written again
    summary = json.loads((home / "studies/tiny/summary.json").read_text())
    assert summary["trained_now"] <= len(after) - len(before)
    assert ours(home) == []


@pytest.mark.slow
def test_a_disk_that_fills_up_loses_nothing(tmp_path):
    """Catches a full disk shown as a traceback, or results that are damaged by it."""
    home = tmp_path / "home"
    tiny_study.write_corpus(tmp_path)
    recipe = write(tmp_path, tiny_study.recipe(tmp_path))
    plan = call("plan", recipe, home=home)
    assert plan.returncode == 0, plan.stderr
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24k", "none", str(disk)]
    mounted = subprocess.run(mount, check=False)
    if mounted.returncode:
        disk.chmod(0o500)  # no right to mount: a folder that cannot be written stands in
    try:
        full = call("run", recipe, home=home, CUVEE_STORE=str(disk / "store"))
        kept = len(list(disk.glob("store/runs/*/result.json")))
        shutil.copytree(disk, tmp_path / "larger")
    finally:
        if not mounted.returncode:
            subprocess.run(["umount", str(disk)], check=True)
    assert_said(full, "store")
    again = call("run", recipe, home=home, CUVEE_STORE=str(tmp_path / "larger" / "store"))
    assert again.returncode == 0, again.stderr
    summary = json.loads((home / "studies/tiny/summary.json").read_text())
    assert summary["reused"] == kept
