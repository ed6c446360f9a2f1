"""How far a study is: what the monitor counts, what the store keeps, and who is dead."""

import datetime
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cuvee.mixtures.errors import ServiceError
from cuvee.mixtures.runs.run_results import Failed, RunResult
from cuvee.mixtures.runs.run_spec import RunSpec, Stage
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.interfaces import Progress
from cuvee.tasks.process import before_this_boot, process_mark, process_namespace
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import progress
from cuvee.tasks.study.monitor import Announced, StudyMonitor
from cuvee.tasks.study.progress import DEAD, DONE, RUNNING, STOPPED, StudyProgress
from cuvee.tasks.study.progress_record import (
    BEAT_SECONDS,
    FOLDER,
    OLD_SECONDS,
    PATIENCE_SECONDS,
    ProgressReader,
    ProgressRecord,
)
from cuvee.tasks.tracking import fields
from cuvee.tasks.tracking.study_tracker import StudyTracker
from cuvee.tasks.tracking.tracker import FaultTolerantTracker, MemoryBackend

NOW = 1.9e9  # the time of day where it matters, in seconds of Unix time


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def spec(seed: int) -> RunSpec:
    return RunSpec(("a", "b"), ("x", "y"), (Stage((0.5, 0.5)),), "0.3M", 1000, seed)


SPECS = [spec(seed) for seed in range(6)]
NAMES = [one.fingerprint for one in SPECS]


def announced(some) -> dict[str, Announced]:
    return {one.fingerprint: Announced(f"design seed {one.seed}", 1000, 10.0) for one in some}


def result(one: RunSpec) -> RunResult:
    curve = ((500, 4.0), (1000, 3.0))
    return RunResult(one, {}, curve=curve, flops=10.0, seconds=2.0, scoring_seconds=0.5)


def half_way(clock: Clock) -> StudyMonitor:
    """A design of four, of which one was there, one is trained, one failed and one half done."""
    monitor = StudyMonitor(StudyProgress("tiny", host="one", home="/h", started="then"), clock)
    monitor.expect(20.0)  # two runs of a confirmation
    monitor.follow_step("Proxies", "2 of 4", 0.5)
    monitor.begin_round("Proxies", announced(SPECS[:4]), NAMES[1:4])
    monitor.end_run(result(SPECS[0]), here=False)
    clock.now = 30.0
    monitor.end_run(result(SPECS[1]), here=True)
    monitor.end_run(Failed(SPECS[2], "the loss diverged at step 7"), here=True)
    monitor.follow_training([NAMES[3]], [Progress(1, 2, 500, (4.0,))])
    return monitor


def test_what_is_done_reused_and_failed_is_counted_once_each_and_time_is_what_flops_say():
    """Catches reused runs that count as trained or as paid for, a plan without the confirmation,
    and a time left by the number of runs, of which one under way counts nothing."""
    clock = Clock()
    monitor = half_way(clock)
    now = monitor.snapshot()
    assert (now.asked, now.trained, now.reused, now.failed) == (4, 1, 1, 1)
    assert (now.planned, now.spent) == (30.0 + 20.0, 10.0 + 10.0 + 5.0)
    assert now.left == pytest.approx(30.0)  # 25 of 50 in 30 seconds
    assert (now.cost.flops, now.cost.tokens, now.cost.core_seconds) == (10.0, 1000.0, 2.5)
    assert now.evidence is not None and now.evidence.flops == 20.0  # the reused one's too
    assert [run.label for run in now.runs] == ["design seed 3", "design seed 2", "design seed 1"]
    assert now.failures == ("design seed 2: the loss diverged at step 7",)
    monitor.end_run(result(SPECS[3]), here=False)  # another sweep has trained it after all
    monitor.begin_round("Confirmation", announced(SPECS[4:]), NAMES[4:])
    clock.now = 500.0  # fits took long: time in which nothing trains is no speed
    now = monitor.snapshot()
    assert (now.planned, now.spent, now.reused) == (20.0 + 20.0, 20.0, 2)
    assert now.rounds[1].asked == 2 and now.rounds[1].done == 0
    monitor.withdraw_run(NAMES[4])  # the budget does not reach
    assert monitor.snapshot().planned == 30.0


def test_time_left_is_not_guessed_before_there_is_a_speed():
    """Catches a division by nothing, and hours that come from the first report of one pack."""
    clock = Clock()
    monitor = StudyMonitor(StudyProgress("tiny"), clock)
    assert monitor.snapshot().left is None
    monitor.begin_round("Proxies", announced(SPECS), NAMES)
    clock.now = 100.0
    monitor.follow_training([NAMES[0]], [Progress(1, 100, 10, (float("nan"),))])
    now = monitor.snapshot()
    assert now.left is None and "not known yet" in progress.time_text(now)
    assert now.runs[0].losses == ()  # of what is no number there is no curve
    json.dumps(now.to_json(), allow_nan=False)


def test_a_progress_comes_back_from_json_and_a_later_versions_too():
    """Catches a tuple that comes back as a list, and a field more that hides a study."""
    now = half_way(Clock()).snapshot()
    values = json.loads(json.dumps(now.to_json()))
    assert progress.progress_from_json(values) == now
    assert progress.progress_from_json({**values, "novel": 1}) == now


def test_a_curve_keeps_its_ends_and_a_line_its_width():
    """Catches thinning that drops the latest loss, and a flat curve that divides by zero."""
    many = tuple(float(i) for i in range(1000))
    kept = progress.thinned(many)
    assert len(kept) == progress.POINTS and (kept[0], kept[-1]) == (0.0, 999.0)
    assert progress.sparkline(many, 8) == progress.BARS
    assert progress.sparkline((2.0, 2.0), 8) == progress.BARS[0] * 2
    assert progress.sparkline((), 8) == ""


CHILD = """
import sys, time
from cuvee.tasks.process import before_this_boot, process_mark, process_namespace
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.tasks.study.monitor import StudyMonitor
from cuvee.tasks.study.progress import StudyProgress
from cuvee.tasks.study.progress_record import ProgressRecord
monitor = StudyMonitor(StudyProgress("tiny", home="/h"))
with ProgressRecord(monitor, ObjectFolder(sys.argv[1]), beat=0.1):
    print("written", flush=True)
    time.sleep(600)
"""


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_a_study_of_another_process_is_seen_and_dead_as_soon_as_it_is_killed(tmp_path):
    """Catches a study that counts as running for as long as its record lies there, a wait for a
    process that can be looked up, and a question that writes into the store."""
    objects = ObjectFolder(str(tmp_path))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None and child.stdout.readline() == "written\n"
        (seen,) = ProgressReader(objects).studies()
        assert (seen.name, seen.state) == ("tiny", RUNNING)
    finally:
        child.kill()
        child.wait()
    before, clock, waited = contents(tmp_path), Clock(), []
    (seen,) = ProgressReader(objects, clock=clock, pause=waited.append).studies()
    assert seen.state == DEAD and waited == []
    assert contents(tmp_path) == before
    monitor = StudyMonitor(StudyProgress("tiny", home="/h"))
    with ProgressRecord(monitor, objects):  # what the next run knows better is removed by it
        states = sorted(study.state for study in ProgressReader(objects).studies())
        assert states == [DEAD, RUNNING]
        monitor.begin_round("Proxies", announced(SPECS), NAMES)
    assert [study.asked for study in ProgressReader(objects).studies()] == [6]
    other = StudyMonitor(StudyProgress("other", home="/h"))
    with ProgressRecord(other, objects):
        assert len(ProgressReader(objects).studies()) == 2  # another study's stays


def test_what_a_dead_study_kept_after_its_last_word_counts(tmp_path):
    """Catches a count that is short by what was trained in the last seconds."""
    store = Store(str(tmp_path))
    with ProgressRecord(half_way(Clock()), store.objects):
        store.put(result(SPECS[3]))
        (path,) = (tmp_path / FOLDER).iterdir()
        kept = json.loads(path.read_text())
    where, _, start = json.loads(kept["process"])
    kept |= {"process": json.dumps([where, 2**22 + 1, start])}  # of a process that is gone
    path.write_text(json.dumps(kept))
    (seen,) = ProgressReader(store.objects).studies()
    assert (seen.state, seen.trained, seen.asked) == (DEAD, 2, 4)


FAR = '["far 1", 7, "9"]'


def leave_running(
    folder: Path, key: str, *, process: str = FAR, started: float = NOW, elapsed: float = 0.0
) -> Path:
    """The record of a study elsewhere that ended without a word, in a store; its file."""
    begun = datetime.datetime.fromtimestamp(started, datetime.UTC).isoformat()
    study = StudyProgress("tiny", host="far", started=begun, elapsed=elapsed)
    kept = {"process": process, "beat": 1, "study": study.to_json()}
    ObjectFolder(str(folder)).replace(f"{FOLDER}/{key}", json.dumps(kept).encode())
    path = folder / FOLDER / key
    os.utime(path, (started + elapsed, started + elapsed))
    return path


def looked_at_now(folder: Path, now: float = NOW) -> tuple[str, float]:
    """The state of the only study of a store as an observer sees it now, and how long that took."""
    clock = Clock()

    def pause(seconds: float) -> None:
        clock.now += seconds

    reader = ProgressReader(ObjectFolder(str(folder)), clock=clock, pause=pause, now=lambda: now)
    (seen,) = reader.studies()
    return seen.state, clock.now


def test_what_was_silent_for_hours_is_dead_without_a_wait(tmp_path):
    """Catches a wait for a container that was killed yesterday, an age counted from the beginning
    of a study and not from its last word, and one clock alone that is believed."""
    path = leave_running(tmp_path, "one", started=NOW - OLD_SECONDS - 4e4, elapsed=3e4)
    assert looked_at_now(tmp_path) == (DEAD, 0.0)
    os.utime(path, (NOW, NOW))  # the store heard of it now: its own clock is behind
    assert looked_at_now(tmp_path)[1] > PATIENCE_SECONDS
    path = leave_running(tmp_path, "one", started=NOW - 3e6, elapsed=3e6 - 60)
    assert looked_at_now(tmp_path)[1] > PATIENCE_SECONDS  # of a month, and heard of a minute ago
    os.utime(path, (NOW - 3e6, NOW - 3e6))  # the store's clock is behind
    assert looked_at_now(tmp_path)[1] > PATIENCE_SECONDS


def test_a_study_of_this_host_from_before_its_last_boot_is_dead_without_a_wait(tmp_path):
    """Catches a wait after every reboot, and a machine of the same name, booted by itself, whose
    living study is taken for one of ours."""
    boot = psutil.boot_time()
    before = json.dumps([" ".join(["another-boot", *process_namespace().split(" ")[1:]]), 7, "9"])
    foreign = json.dumps(["another-boot pid:[1] elsewhere", 7, "9"])
    leave_running(tmp_path, "one", process=before, started=boot - 600, elapsed=500)
    assert looked_at_now(tmp_path, boot + 60) == (DEAD, 0.0)
    for process, elapsed in ((before, 700), (foreign, 500)):
        leave_running(tmp_path, "one", process=process, started=boot - 600, elapsed=elapsed)
        assert looked_at_now(tmp_path, boot + 60)[1] > PATIENCE_SECONDS
    assert not before_this_boot(process_mark(), boot - 100) and not before_this_boot("x", 0.0)


def test_the_next_sweep_removes_what_does_not_move_and_nothing_that_does(tmp_path):
    """Catches a record of a killed container that costs every question its patience for ever, and
    one of a colleague's living sweep that is removed."""
    far, store = Elsewhere(tmp_path, True), ObjectFolder(str(tmp_path))
    leave_running(tmp_path, "gone")
    monitor = half_way(Clock())
    record = ProgressRecord(monitor, store)
    record._others = ProgressReader(store, clock=far.clock)
    for _ in range(round((PATIENCE_SECONDS + 2 * BEAT_SECONDS) / BEAT_SECONDS)):
        record._write()
        assert (tmp_path / FOLDER / "gone").exists() == (far.clock.now <= PATIENCE_SECONDS)
        far.pause(BEAT_SECONDS)
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == sorted(
        [record._key, "one"]
    )


class Elsewhere:
    """A store in which a study of another machine beats, or not, while an observer waits."""

    def __init__(self, folder: Path, beats: bool) -> None:
        self.objects, self.clock, self.beats, self.count = (
            ObjectFolder(str(folder)),
            Clock(),
            beats,
            0,
        )
        self.write()

    def write(self) -> None:
        study = StudyProgress("tiny", host="far", started="2150-01-01T00:00:00+00:00")
        kept = {"process": FAR, "beat": self.count, "study": study.to_json()}
        self.objects.replace(f"{FOLDER}/one", json.dumps(kept).encode())

    def pause(self, seconds: float) -> None:
        self.clock.now += seconds
        if self.beats and self.clock.now % BEAT_SECONDS < seconds:
            self.count += 1
            self.write()


@pytest.mark.parametrize("beats", [True, False])
def test_a_study_of_another_machine_is_judged_by_its_beat_and_by_no_clock(tmp_path, beats):
    """Catches times of two machines that are compared (its clock is a century ahead), and a record
    that counts as alive, or as dead, before it was watched."""
    far, told = Elsewhere(tmp_path, beats), []
    reader = ProgressReader(far.objects, clock=far.clock, pause=far.pause)
    (seen,) = reader.studies(waiting=told.append)
    assert seen.state == (RUNNING if beats else DEAD)
    assert [study.host for study in told[0]] == ["far"] and len(told) == 1
    assert far.clock.now <= (BEAT_SECONDS if beats else PATIENCE_SECONDS) + 1
    far.beats = False
    far.clock.now += PATIENCE_SECONDS + 1  # a page that is watched sees it die later
    assert [study.state for study in reader.studies()] == [DEAD]


def test_a_store_that_cannot_be_written_costs_no_study(tmp_path):
    """Catches a study that ends because nobody can be told of it."""
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    monitor = half_way(Clock())
    with ProgressRecord(monitor, ObjectFolder(str(tmp_path)), beat=0.01):
        monitor.end(STOPPED, "by the user")
    assert ProgressReader(ObjectFolder(str(tmp_path / "none"))).studies() == []


def test_the_record_says_how_far_a_study_is_until_its_end_has_the_last_word(tmp_path):
    """Catches a description that is written over the final one by a thread that was late, one that
    breaks the table's cells, and a server whose failure ends the study."""
    from synthetic_study import synthetic_study

    study, backend = synthetic_study(seeds=(101, 102)), MemoryBackend()
    tracker = StudyTracker(backend)
    now = half_way(Clock()).snapshot()
    tracker.log_progress(now)  # before there is a record: nothing to tell
    tracker.start_study(study.name, {}, {})
    tracker.log_progress(now)
    (parent,) = backend.runs.values()
    assert "3 of 4 proxies done (1 trained, 1 reused, 1 failed)" in parent.description
    assert "| 1 | Proxies | 4 | 1 | 1 | 1 |" in parent.description
    assert "design seed 2: the loss diverged at step 7" in parent.description
    assert "`cuvee run` on one, begun then UTC" in parent.description
    tracker.finish_study(study, tmp_path)
    tracker.log_progress(now)
    assert parent.description == fields.study_description(study)

    class Away(MemoryBackend):
        def log(self, run, entry):
            raise ServiceError("no answer")

    said: list[str] = []
    tolerant = FaultTolerantTracker(StudyTracker(Away()), said.append)
    tolerant.start_study("tiny", {}, {})
    for _ in range(5):
        tolerant.log_progress(now)
    assert len(said) == 1


def test_a_stopped_study_has_nothing_under_way():
    """Catches a record that says for ever that a proxy is under way and that it is renewed."""
    monitor = half_way(Clock())
    running = progress.progress_markdown(monitor.snapshot())
    assert "| under way |" in running and "renewed every few seconds" in running
    monitor.end(STOPPED, "by the user")
    now = monitor.snapshot()
    assert [run.state for run in now.runs if run.fingerprint == NAMES[3]] == ["left off"]
    stopped = progress.progress_markdown(now)
    assert "| left off |" in stopped and "500 of 1k" in stopped
    assert "under way" not in stopped and "renewed" not in stopped


def test_a_second_command_keeps_the_answers_of_the_first_in_sight(tmp_path):
    """Catches four answers that progress writes over, answers that stand twice after a third
    command, and a description too long for a server."""
    from synthetic_study import synthetic_study

    study, backend = synthetic_study(seeds=(101, 102)), MemoryBackend()
    first = StudyTracker(backend)
    first.start_study(study.name, {}, {})
    first.log_progress(half_way(Clock()).snapshot())
    first.finish_study(study, tmp_path)
    (parent,) = [run for run in backend.runs.values() if run.parent is None]
    answers = parent.description.partition("\n\n```")[0]
    for _ in range(2):  # one is stopped, and so is the next
        monitor, again = half_way(Clock()), StudyTracker(backend)
        again.start_study(study.name, {}, {})
        again.fail_study("by the user")
        monitor.end(STOPPED, "by the user")
        again.log_progress(monitor.snapshot())
        assert parent.description.startswith(answers)
        assert parent.description.count("stopped: by the user") == 1
        assert parent.description.count("proxies done") == 1
        assert len(parent.description) <= fields.DESCRIPTION
    last = StudyTracker(backend)
    last.start_study(study.name, {}, {})
    last.finish_study(study, tmp_path)
    assert parent.description == fields.study_description(study)


def test_what_proxies_share_is_counted_once():
    """Catches a page that counts a shared beginning in each of its runs: two runs of 10 FLOPs that
    share 4 take 16 and not 20, and one that goes on from there has not done 4 of its own."""
    monitor = StudyMonitor(StudyProgress("tiny"), Clock())
    asked = {
        one.fingerprint: Announced(f"seed {one.seed}", 1000, 10.0, shared=0.4) for one in SPECS[:2]
    }
    monitor.begin_round("Proxies", asked, NAMES[:2], {"prefix": 4.0})
    assert (monitor.snapshot().planned, monitor.snapshot().spent) == (16.0, 0.0)
    monitor.end_shared(["prefix"], trained=True)
    monitor.follow_training(NAMES[:1], [Progress(1, 2, 400, (4.0,))])
    assert monitor.snapshot().spent == pytest.approx(4.0)
    monitor.follow_training(NAMES[:1], [Progress(1, 2, 700, (4.0,))])
    assert monitor.snapshot().spent == pytest.approx(7.0)
    for one in SPECS[:2]:
        monitor.end_run(result(one), here=True)
    assert monitor.snapshot().spent == pytest.approx(monitor.snapshot().planned) == 16.0


def test_states_are_said_in_words():
    """Catches a stopped study that seems to wait, and a dead one that seems to run."""
    now = half_way(Clock()).snapshot()
    assert progress.step_text(now) == "Proxies: 2 of 4, 50%"
    stopped = replace(now, state=STOPPED, reason="no space left")
    assert progress.step_text(stopped) == "stopped: no space left"
    assert "process ended without a word" in progress.progress_line(replace(now, state=DEAD))
    assert "left" not in progress.progress_line(replace(now, state=DONE))
