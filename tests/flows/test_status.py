"""`cuvee status` and the page that is watched: one view of one value, wherever it is asked for."""

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
from cuvee.flows.progress_page import study_page
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.live_progress import live_progress
from cuvee.flows.upkeep.status import study_statuses, watch_studies
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import DataError
from cuvee.mixtures.runs import TrainingCost
from cuvee.tasks.study.monitor import Announced
from cuvee.tasks.study.progress import (
    BARS,
    RUNNING,
    TRAINED,
    TRAINING,
    RoundProgress,
    RunProgress,
    StudyProgress,
    step_text,
)
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
