"""`cuvee status` and the page that is watched: one view of one value, wherever it is asked for."""

import contextlib
import datetime
import io
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import recommended_study
import tiny_study
from command import inside
from rich.console import Console

from cuvee.flows.console import Display
from cuvee.flows.execution.executor import Interrupted
from cuvee.flows.progress_page import LivePage, study_page
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.live_progress import followed_study, live_progress
from cuvee.flows.upkeep.status import study_statuses, watch_studies
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import DataError, ServiceError
from cuvee.mixtures.runs.run_results import TrainingCost
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.study.answers import Grade
from cuvee.tasks.study.monitor import Announced
from cuvee.tasks.study.progress import (
    BARS,
    DONE,
    RUNNING,
    TRAINED,
    TRAINING,
    RoundProgress,
    RunProgress,
    StudyProgress,
    step_text,
)
from cuvee.tasks.study.progress_record import ProgressReader
from cuvee.tasks.tracking.study_tracker import StudyTracker
from cuvee.tasks.tracking.tracker import MemoryBackend

LOSSES = tuple(6.0 - i / 10 for i in range(24))
NOW = StudyProgress(
    "a-study-with-a-long-name",
    host="node7",
    elapsed=130.0,
    step="Proxies",
    message="6 of 18",
    fraction=0.38,
    rounds=(RoundProgress("Proxies", 18, trained=4, reused=2, failed=1),),
    runs=(
        RunProgress("design 7 seed 1 (8624c2)", "f" * 64, TRAINING, 30_000, 60_000, LOSSES),
        RunProgress("anchor natural seed 2 (1a040e)", "e" * 64, TRAINED, 60_000, 60_000, LOSSES),
    ),
    failures=("design 3 seed 0 (aa11bb): the loss diverged at step 7",),
    planned=3e11,
    spent=1.14e11,
    cost=TrainingCost(1e11, 240_000, 65.0),
    evidence=TrainingCost(2e11, 480_000, 130.0),
    left=212.0,
)


@pytest.mark.parametrize("width", [80, 40])
def test_the_page_says_all_at_two_widths(width):
    """Catches a page that is cut off where the terminal is narrow: each figure of the value is
    there, no line is longer than the terminal, and a curve is drawn where it has room."""
    console = Console(record=True, width=width, file=io.StringIO())
    console.print(study_page(NOW, width))
    text = console.export_text()
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(text.split())
    for part in (
        "Proxies: 6 of 18, 38%",
        "2 min 10 s so far, about 3 min 32 s of training left",
        "7 of 18 proxies done (4 trained, 2 reused, 1 failed)",
        "1.14e+11 of about 3.00e+11 FLOPs (38%)",
        "240k tokens and 1 min 5 s of one core",
        "reused ones included: 2.00e+11 FLOPs",
        "diverged at step 7",
        "design 7 seed 1",
        "50%",
        "3.700",
    ):
        assert part in words, part
    assert any(re.search(r"1\. Proxies +18 +4 +2 +1", line) for line in lines)
    drawn = [line for line in lines if set(BARS) <= set(line)]
    assert len(drawn) == (2 if width == 80 else 0)
    plain = Console(record=True, width=width, file=io.StringIO())
    plain.print(study_page(NOW, width, plain=True))
    assert not set(BARS) & set(plain.export_text())


def many(rounds: int, runs: int, failures: int) -> StudyProgress:
    """A study of which there is more to show than a low terminal has room for."""
    label = "design {} seed 1 (8624c2)"
    return replace(
        NOW,
        rounds=tuple(RoundProgress(f"Round of {i}", 10, trained=10) for i in range(rounds)),
        runs=tuple(replace(NOW.runs[0], label=label.format(i)) for i in range(runs)),
        failures=tuple(f"design {i}: {'why ' * 40}" for i in range(failures)),
    )


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 12), (40, 24)])
def test_a_low_terminal_shows_what_matters_and_says_what_it_leaves_out(width, height):
    """Catches a live page whose counts, cost and failures are cut off at its end, and proxies that
    are not there without a word."""
    study, out = many(9, 16, 5), io.StringIO()
    console = Console(file=out, width=width, height=height, force_terminal=True)
    page = LivePage(console, console.print, live=True)
    page.show([study])
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    page.close()
    lines = text.splitlines()
    assert len(lines) <= height and max(map(len, lines)) <= width
    words = " ".join(text.split())
    assert "90 of 90 proxies done" in words
    assert "of about 3.00e+11 FLOPs" in words and "Failed" in words and "not shown" in words
    assert text.index("proxies done") < text.index("Failed")
    if (width, height) == (80, 24):
        assert "Failed: design 4: why" in words and "Failed before: " in words
        shown = len(re.findall(r"design \d+ seed 1", words))
        assert shown and f"and {16 - shown} more, not shown" in words
        (first, last) = re.search(r"1 to (\d+) .* 9\. Round of (8)", words).groups()
        assert 1 < int(first) < 9 and last == "8"
    full = Console(record=True, width=width, file=io.StringIO())
    full.print(study_page(study, width))
    whole = full.export_text()
    assert "not shown" not in whole and "design 15 seed 1" in whole


def test_two_studies_share_a_low_terminal():
    """Catches a page whose first study leaves nothing to the second."""
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=True)
    page = LivePage(console, console.print, live=True)
    page.show([many(9, 16, 5), replace(many(9, 16, 0), name="second")])
    text = out.getvalue()
    page.close()
    assert text.count("90 of 90 proxies done") == 2 and "second" in text


def test_where_there_is_no_terminal_lines_are_printed_and_not_too_many():
    """Catches cursor codes in a log file, and a line for every look."""
    out = io.StringIO()
    display = Display(Console(file=out, soft_wrap=True))
    display.watch()
    for _ in range(5):
        display.show([NOW])
    display.show([replace(NOW, step="Fits", message="")])
    display.close()
    first, second = out.getvalue().splitlines()
    assert first.startswith("a-study-with-a-long-name: Proxies: 6 of 18, 38%; 7 of 18 proxies done")
    assert "Fits" in second and "\x1b" not in out.getvalue()


def test_on_a_terminal_the_page_is_written_over():
    """Catches a page that scrolls by, and a run's own lines lost under it."""
    out = io.StringIO()
    display = Display(Console(file=out, width=80, force_terminal=True))
    display.watch()
    for percent in (0.1, 0.2):
        display.show([replace(NOW, fraction=percent)])
    display.say("a line meanwhile")
    display.close()
    assert out.getvalue().count("\x1b[2K") > 10  # lines that are erased before they are drawn anew
    assert "a line meanwhile" in out.getvalue()


@pytest.fixture
def finished_home(recommended, tmp_path):
    """A folder with a recommended study's home and recipe."""
    shutil.copytree(recommended / "home", tmp_path / "home")
    (tmp_path / "tiny.yaml").write_text(recommended_study.text(recommended / "corpus"))
    return tmp_path


def asked(folder: Path, *options: str) -> str:
    done = inside("status", *options, home=folder / "home")
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def test_a_finished_study_says_what_it_recommends_and_what_to_do_next(finished_home):
    """Catches a status that knows only what runs, one that changes what it looks at, and a
    command to type that works in another home."""
    before = sorted(str(path) for path in finished_home.rglob("*"))
    line = asked(finished_home)
    assert line.startswith("tiny: done; ") and line.count(". ") == 0  # one sentence of the verdict
    recipe = str(finished_home / "tiny.yaml")
    text = asked(finished_home, recipe)
    typed = f"{recipe} --home {finished_home / 'home'}"
    assert "How sure? " in text and f"Next: cuvee approve {typed}" in text
    done = inside("status", "--json", home=finished_home / "home")
    (study,) = json.loads(done.stdout)["studies"]
    assert study["state"] == "done" and len(study["recommendation"]) == 64
    changed = finished_home / "changed.yaml"
    changed.write_text(Path(recipe).read_text().replace("seed: 3", "seed: 4"))
    assert "Next: cuvee run" in (told := asked(finished_home, str(changed))) and "changed" in told
    changed.unlink()
    assert sorted(str(path) for path in finished_home.rglob("*")) == before


@pytest.mark.parametrize("grade", [Grade.WEAK, Grade.UNCONFIRMED, Grade.DRAFT, Grade.STRONG])
def test_what_mends_weak_evidence_comes_before_an_approval(finished_home, grade):
    """Catches a study that is not to be used yet and whose only next step is to approve it, and
    advice on one that needs none."""
    store = Store(str(finished_home / "home" / "store"))
    kept = finished.latest_of_name(store, "tiny")
    assert kept.grade == Grade.STRONG
    advised = replace(kept, grade=str(grade), next_steps=("raise method.runs from 8 to 12",))
    finished.save_finished(store, advised)
    text = asked(finished_home, str(finished_home / "tiny.yaml"))
    approve = text.index("Next: cuvee approve")
    assert (0 <= text.find("Next: raise method.runs from 8 to 12") < approve) == (
        grade is not Grade.STRONG
    )


def test_a_home_that_is_not_there_is_not_made(tmp_path):
    """Catches a question that leaves an empty home behind."""
    text = asked(tmp_path)
    assert "no study was run here yet" in text and not (tmp_path / "home").exists()
    (tmp_path / "tiny.yaml").write_text(tiny_study.recipe(tmp_path))
    assert "tiny: not begun" in (said := asked(tmp_path, str(tmp_path / "tiny.yaml")))
    assert "Next: cuvee plan" in said and not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DataError("no file at data/x"), "stopped: no file at data/x"),
        (KeyboardInterrupt(), "stopped: by the user"),
        (Interrupted(), "stopped: by the user"),
        (ValueError("odd"), "stopped: ValueError('odd')"),
        (None, "done"),
    ],
)
def test_how_a_study_ended_is_kept(tmp_path, error, said):
    """Catches a study that is running for ever because it stopped by an error or by Ctrl-C, and a
    record that goes on saying that it runs."""
    recipe, backend = parse(tiny_study.recipe(tmp_path)), MemoryBackend()
    home, tracker = Workspace(tmp_path / "home"), StudyTracker(backend)
    tracker.start_study("tiny", {}, {})

    def fail() -> None:
        with live_progress(recipe, home, tracker) as within, within.display.step("Corpus") as bar:
            bar.move("counting", 0.25)
            (status,) = study_statuses(home, recipe)
            assert status.state == RUNNING and "--watch" in status.next
            assert within.monitor.snapshot().step == "Corpus"
            if error is not None:
                raise error

    if error is None:
        fail()
    else:
        with pytest.raises(type(error)):
            fail()
    (status,) = study_statuses(home, recipe, Path("tiny.yaml"))
    assert step_text(status.progress[0]) == said
    if error is not None:
        assert "Next: " not in status.next and status.next.startswith("cuvee run tiny.yaml")
        (parent,) = backend.runs.values()
        assert parent.description.startswith("**stopped: ")


def test_a_run_that_stopped_early_hides_nothing_of_what_the_one_before_it_kept(tmp_path):
    """Catches a second run that was stopped at once and makes twelve trained proxies disappear."""
    recipe, home = parse(tiny_study.recipe(tmp_path)), Workspace(tmp_path / "home")
    tracker = StudyTracker(MemoryBackend())
    for asked in (3, 0):
        with pytest.raises(DataError), live_progress(recipe, home, tracker) as within:
            told = {str(i): Announced(f"design {i}", 100, 1.0) for i in range(asked)}
            within.monitor.begin_round("Proxies", told, list(told))
            raise DataError(f"stopped with {asked}")
    (status,) = study_statuses(home, recipe)
    assert status.progress[0].reason == "stopped with 0" and status.progress[0].asked == 3


def test_a_stopped_run_of_another_recipe_is_told_and_options_are_typed_again(tmp_path):
    """Catches "goes on" for a run whose proxies are others, and a next command without the --set
    that the question had."""
    text, home = tiny_study.recipe(tmp_path), Workspace(tmp_path / "home")
    recipe, path = parse(text), Path("tiny.yaml")
    with pytest.raises(DataError), live_progress(recipe, home, StudyTracker(MemoryBackend())):
        raise DataError("stopped")
    (status,) = study_statuses(home, recipe, path)
    assert status.next.startswith("cuvee run tiny.yaml") and "goes on" in status.next
    assert status.notes == ()
    other = parse(text.replace("seed: 3", "seed: 4"))
    changes = ["seed=4", "corpus.domains={a: b}"]
    (status,) = study_statuses(home, other, path, changes=changes)
    assert "another recipe" in status.notes[0] and "goes on" not in status.next
    assert status.next.startswith("cuvee run tiny.yaml --set seed=4 --set 'corpus.domains={a: b}'")
    (tmp_path / "tiny.yaml").write_text(text)
    said = asked(tmp_path, str(tmp_path / "tiny.yaml"), "--set", "seed=4")
    assert "another recipe" in said and "--set seed=4 --home" in said


def test_a_recipe_of_tables_is_told_to_fit():
    """Catches a next command that refuses the recipe: tables train nothing."""
    tables = Path("examples/fit_from_csv/recipe.yaml")
    text = asked(Path("/nonexistent-home"), str(tables))
    assert f"Next: cuvee fit {tables}" in text and "cuvee plan" not in text
    assert "cuvee run" not in text


def test_a_study_is_seen_while_servers_start_and_has_one_record(tmp_path):
    """Catches half a minute in which a study that began is not there, a second record of one sweep
    once it trains, a reason that is lost to what followed from it, and a start that failed and
    seems to run for ever."""
    recipe, home = parse(tiny_study.recipe(tmp_path)), Workspace(tmp_path / "home")
    records = tmp_path / "home" / "store" / "progress"
    with pytest.raises(KeyboardInterrupt), followed_study(recipe, home, "confirm") as followed:
        (status,) = study_statuses(home, recipe)
        assert (status.state, status.progress[0].command) == (RUNNING, "confirm")
        assert step_text(status.progress[0]) == "Starting"
        raise KeyboardInterrupt
    (path,) = records.iterdir()
    assert study_statuses(home, recipe)[0].progress[0].reason == "by the user"
    path.unlink()
    tracker = StudyTracker(MemoryBackend())
    with (
        pytest.raises(ValueError, match="what Prefect makes of it"),
        followed_study(recipe, home) as followed,
    ):
        with pytest.raises(DataError), live_progress(recipe, followed, tracker) as within:
            assert within.monitor is followed.monitor and len(list(records.iterdir())) == 1
            raise DataError("no text")
        raise ValueError("what Prefect makes of it")
    assert len(list(records.iterdir())) == 1
    assert study_statuses(home, recipe)[0].progress[0].reason == "no text"


def test_run_writes_its_record_before_anything_is_started(tmp_path, monkeypatch):
    """Catches a first record that waits for Prefect: a start that fails is told, and has ended."""
    from cuvee.flows.cli import study_commands

    recipe, home = parse(tiny_study.recipe(tmp_path)), Workspace(tmp_path / "home")
    seen = []

    def unable(*_, **__):
        seen.extend(study_statuses(home, recipe))
        raise ServiceError("Prefect does not start")

    monkeypatch.setattr(study_commands, "prefect_api", unable)
    (tmp_path / "tiny.yaml").write_text(tiny_study.recipe(tmp_path))
    done = inside("run", str(tmp_path / "tiny.yaml"), home=home.root)
    assert done.returncode == 2 and "Prefect does not start" in done.stderr
    assert [status.state for status in seen] == [RUNNING]
    (status,) = study_statuses(home, recipe)
    assert step_text(status.progress[0]) == "stopped: Prefect does not start"


def test_a_watcher_waits_for_the_studies_that_it_follows_alone(tmp_path, monkeypatch):
    """Catches a page that stands still for a record of another study that nobody renews."""
    recipe, home = parse(tiny_study.recipe(tmp_path)), Workspace(tmp_path / "home")
    now = datetime.datetime.now(datetime.UTC).isoformat()
    stale = StudyProgress("other", host="far", started=now)
    kept = {"process": '["far 1", 7, "9"]', "beat": 1, "study": stale.to_json()}
    display = Display(Console(file=(out := io.StringIO()), width=200))
    with contextlib.ExitStack() as study:
        within = study.enter_context(followed_study(recipe, home))
        record = ObjectFolder(home.store)

        def refresh(_seconds: float) -> None:
            record.replace("progress/far", json.dumps(kept).encode())
            within.monitor.end(DONE)
            study.close()

        def impatient(_seconds: float) -> None:
            pytest.fail("waits for a study that is not followed")

        monkeypatch.setattr("cuvee.flows.upkeep.status.time.sleep", refresh)
        monkeypatch.setattr(
            ProgressReader.__init__,
            "__kwdefaults__",
            {**ProgressReader.__init__.__kwdefaults__, "pause": impatient},
        )
        watch_studies(replace(home, display=display), "tiny")
    assert "tiny: done" in out.getvalue()


WATCHER = """
import sys
from pathlib import Path
from cuvee.flows.cli.main import main
sys.argv = ["cuvee", "status", "--watch", "--home", sys.argv[1]]
main()
"""


def test_ctrl_c_of_a_watcher_leaves_the_study_alone(tmp_path):
    """Catches a watcher that ends the study, or that goes on when the study has ended."""
    recipe, home = parse(tiny_study.recipe(tmp_path)), Workspace(tmp_path / "home")
    tracker = StudyTracker(MemoryBackend())
    with live_progress(recipe, home, tracker) as within:
        watcher = subprocess.Popen(
            [sys.executable, "-c", WATCHER, str(home.root)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert watcher.stdout is not None and watcher.stdout.readline().startswith("tiny: ")
        watcher.send_signal(signal.SIGINT)
        said, _ = watcher.communicate(timeout=30)
        assert watcher.returncode == 0, said
        assert "No longer watching; the study goes on." in said and "stopping" not in said
        assert within.monitor.snapshot().state == RUNNING
        assert study_statuses(home, recipe)[0].state == RUNNING
    display = Display(Console(file=(out := io.StringIO()), width=200))
    watch_studies(replace(home, display=display), None)
    assert "Nothing runs now" in out.getvalue()
