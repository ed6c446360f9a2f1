"""The scripts of a swarm: run by a real bash, with a trainer of three lines."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from cuvee.tasks.trainer.program import TrainerProgram, identity_files
from cuvee.tasks.trainer.swarm_scripts import TRAINER_ID, launch_scripts, trainer_id

BASH = shutil.which("bash") or "/bin/bash"
RUNS = ["runs/" + digit * 32 for digit in "abc"]
RESULT = """
folder=$(dirname "$CUVEE_RUN_JSON")
printf '{"fingerprint": "%s"}\\n' "$(basename "$folder")" >"$folder/result.json"
"""
EVIL = ["it's", '"$(touch pwned)"', "`touch pwned`", "; touch pwned #", "\\", "", "a\nb", "$HOME"]


def program(code: str = RESULT, *words: str, **more: object) -> TrainerProgram:
    """A trainer that is a few lines of bash, with its words behind."""
    fields = {"version": "1", "retries": 0, "identity": "one", **more}
    return TrainerProgram((BASH, "-c", code, "trainer", *words), "trainer", **fields)


def swarm(folder: Path, trainer: TrainerProgram) -> Path:
    for run in RUNS:
        (folder / run / "state").mkdir(parents=True, exist_ok=True)
        (folder / run / "run.json").write_text("{}")
        (folder / run / TRAINER_ID).write_text(f"{trainer_id(trainer.identity)}\n")
    for name, content in launch_scripts(trainer, folder, RUNS, name="wine").items():
        (folder / name).write_text(content)
    return folder


def call(script: Path, *words: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {"PATH": os.environ["PATH"], **variables}
    reading, writing = os.pipe()  # nothing comes in, and it does not end: like a terminal
    try:
        return subprocess.run(
            [BASH, str(script), *words], env=environment, cwd=script.parent, stdin=reading,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(reading)
        os.close(writing)


def fake(folder: Path, name: str, code: str) -> str:
    """A program of the machine in the place of the real one; the PATH that finds it."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!{BASH}\n{code}\n")
    (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def attempts(folder: Path, run: str = RUNS[0]) -> int:
    return (folder / run / "trainer.log").read_text().count("--- attempt")


def test_the_words_of_a_recipe_reach_the_trainer_and_never_the_shell(tmp_path):
    """Catches a word, a value or a folder that bash reads as code, and a place left unfilled."""
    given = {"SAID": "a'b $(touch pwned)", "folder": "`touch pwned`", "TAKEN": "$OUTER"}
    words = [*EVIL, "{run}", "--n={cpus}/{gpus}/{nodes}/{node_rank}", "{nothing}"]
    code = 'printf "%s\\0" "$@" "$SAID" "$folder" "$TAKEN" >"$CUVEE_RUN_JSON.words"' + RESULT
    trainer = program(code, *words, cpus=2.5, gpus=0.5, environment=given)
    folder = swarm(tmp_path / 'it\'s $(touch pwned) "x"', trainer)
    ended = call(folder / "run_one.sh", RUNS[0], OUTER="c $(touch pwned)")
    assert ended.returncode == 0, ended.stderr
    run = folder / RUNS[0] / "run.json"
    assert Path(f"{run}.words").read_text().split("\0")[:-1] == [
        *EVIL, str(run), "--n=2/1/1/0", "{nothing}",
        given["SAID"], given["folder"], "c $(touch pwned)",
    ]  # fmt: skip
    assert not list(tmp_path.rglob("pwned"))
    lacking = call(folder / "run_all.sh")
    assert lacking.returncode == 2 and lacking.stderr.count("OUTER is not set") == 1
    assert not (folder / RUNS[1] / "trainer.log").exists()
    for script in ("run_one.sh", "run_all.sh", "array.slurm"):
        assert not subprocess.run([BASH, "-n", str(folder / script)], check=False).returncode


def test_a_variable_is_what_the_caller_has(tmp_path):
    """Catches a value that is taken from what the recipe or the script has set in the meantime,
    the caller's folder that is taken for the run's, a variable that the scripts use themselves, and
    a script that does not find its own folder where CDPATH is set."""
    names = ["name", "limit", "folder", "run", "runs", "code", "pid", "rank", "swarm", "failed"]
    given = {"A": "x", "B": "$A", "C": "$PWD", "D": "${name}", "OMP_NUM_THREADS": "$N"}
    said = " ".join(f'"${one}"' for one in (*given, *names))
    trainer = program(f'printf "%s\\0" {said} >said{RESULT}', environment=given)
    folder = swarm(tmp_path / "swarm", trainer)
    outer = {one: f"of {one}" for one in names}
    ended = call(folder / "run_all.sh", A="outer", N="7", CDPATH=str(tmp_path), **outer)
    assert ended.returncode == 0, ended.stderr
    assert (folder / RUNS[0] / "said").read_text().split("\0")[:-1] == [
        "x", "outer", str(folder), "of name", "7", *outer.values(),
    ]  # fmt: skip
    (folder / RUNS[0] / "result.json").unlink()
    (folder / RUNS[0] / "spent.json").unlink()
    begun = subprocess.run(
        [BASH, "swarm/run_one.sh", RUNS[0]], cwd=tmp_path, capture_output=True, text=True,
        check=False, env={"PATH": os.environ["PATH"], "CDPATH": str(tmp_path), "A": "", "N": "",
                          "name": ""},
    )  # fmt: skip
    assert begun.returncode == 0, begun.stderr


@pytest.mark.parametrize(
    ("code", "ends", "said"),
    [
        ('[ "$1" = -n ] && exit 1; exit 0', 0, "another process holds"),
        ('[ "$1" = -n ] && exit 1; exit 65', 2, "cannot be locked (flock ended with code 65)"),
        ("exit 65", 2, "Lustre needs its mount option"),  # as without it, or without NFS's service
        ("exit 127", 2, "flock is of util-linux"),
    ],
)
def test_a_run_that_cannot_be_locked_is_not_trained(tmp_path, code, ends, said):
    """Catches a run that two jobs train at once on a disk without locks, and a lock that fails and
    is told as another job's."""
    folder = swarm(tmp_path / "swarm", program())
    ended = call(folder / "run_all.sh", PATH=fake(tmp_path / "bin", "flock", code))
    assert ended.returncode == ends and said in ended.stdout + ended.stderr
    assert (folder / RUNS[0] / "trainer.log").exists() == (ends == 0)
    assert ("another process" in ended.stdout) == ("-n" in code)


@pytest.mark.parametrize("again", [{"identity": "two"}, {"identity": "two", "version": "2"}])
def test_a_queued_run_is_not_trained_by_another_trainer(tmp_path, again):
    """Catches an array that trains its runs with the trainer of a later export, whose scores then
    pass for those of its own."""
    folder = swarm(tmp_path, program())
    queued = tmp_path / "queued"
    queued.write_text((folder / "array.slurm").read_text())
    for name, content in launch_scripts(program(**again), folder, RUNS, name="wine").items():
        (folder / name).write_text(content)
    ended = call(queued, SLURM_ARRAY_TASK_ID="1", SLURM_JOB_ID="7")
    assert ended.returncode == 2 and "of another trainer" in ended.stderr
    assert not (folder / RUNS[1] / "trainer.log").exists()
    (folder / RUNS[1] / TRAINER_ID).unlink()
    assert call(folder / "run_one.sh", RUNS[1]).returncode == 2
    swarm(folder, program(**again))
    assert call(folder / "run_one.sh", RUNS[1]).returncode == 0


def test_a_run_of_two_nodes_reads_no_terminal_and_has_a_port_of_its_own(tmp_path):
    """Catches srun that reads what the script was called with, and is stopped where that is a
    terminal; an srun that passes no variables; and runs of one job that share a port."""
    srun = """cat >/dev/null
case " $* " in *" --export=ALL "*) ;; *) exit 9;; esac
while [ "${1#--}" != "$1" ]; do shift; done
SLURM_PROCID=1 "$@" && SLURM_PROCID=0 exec "$@" """
    fake(tmp_path / "bin", "scontrol", "echo node7; echo node8")
    path = fake(tmp_path / "bin", "srun", srun)
    code = 'echo "$@" >"said$CUVEE_NODE_RANK"' + RESULT
    words = ("{node_rank}", "{master_address}", "{master_port}")
    folder = swarm(tmp_path / "swarm", program(code, *words, nodes=2, timeout=20.0))
    ports = set()
    for run in RUNS[:2]:
        job = {"SLURM_JOB_ID": "77", "SLURM_JOB_NODELIST": "node[7-8]"}
        ended = call(folder / "run_one.sh", run, PATH=path, **job)
        assert ended.returncode == 0, ended.stderr
        first, second = ((folder / run / f"said{rank}").read_text().split() for rank in "01")
        assert first[:2] == ["0", "node7"] and second[:2] == ["1", "node7"]
        assert first[2] == second[2] and 20_000 <= int(first[2]) < 32_000
        assert (folder / run / "trainer-1.log").exists()
        ports.add(first[2])
    assert len(ports) == 2


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing(tmp_path):
    """Catches a variable without quotation marks."""
    folder = swarm(
        tmp_path / "a b",
        program("", *EVIL, nodes=2, timeout=9.0, environment={"A": "$B", "B": "$A", "C": "c"}),
    )
    scripts = [str(folder / name) for name in ("run_one.sh", "run_all.sh", "array.slurm")]
    found = subprocess.run(
        ["shellcheck", "-S", "warning", *scripts], capture_output=True, text=True, check=False
    )
    assert not found.stdout


def test_a_loop_goes_on_past_a_failed_run_and_begins_it_again(tmp_path):
    """Catches a loop that stops at the first failure, hides it, or trains a run again that has a
    result; and a failed run that is not tried as often as the recipe says."""
    code = f'case $CUVEE_RUN_JSON in */b*) [ -e "{tmp_path}/mended" ] || exit 7;; esac' + RESULT
    folder = swarm(tmp_path / "swarm", program(code, retries=1))
    first = call(folder / "run_all.sh")
    assert first.returncode == 1 and "ended with code 7 (attempt 2 of 2)" in first.stderr
    assert first.stderr.splitlines()[-1].endswith(RUNS[1])
    assert [attempts(folder, run) for run in RUNS] == [1, 2, 1]
    assert json.loads((folder / RUNS[1] / "spent.json").read_text())["ended"] is False
    (tmp_path / "mended").touch()
    second = call(folder / "run_all.sh")
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("to train it again remove its result.json, its spent.json") == 2
    assert [attempts(folder, run) for run in RUNS] == [1, 3, 1]
    assert json.loads((folder / RUNS[1] / "spent.json").read_text())["ended"] is True


@pytest.mark.parametrize(
    ("left", "code", "again"),
    [
        ('printf "{\\"fingerprint\\": \\"" >result.json', 1, 1),  # half of one
        ('printf "{\\"fingerprint\\": \\"0000\\"}" >result.json', 1, 1),  # of another run
        ("true", 0, 0),  # no scores: a checkpoint, or logs
    ],
)
def test_what_a_trainer_left_is_looked_at(tmp_path, left, code, again):
    """Catches a result that is half or foreign and counts as trained, and a trainer without scores
    that is begun again and again."""
    folder = swarm(tmp_path, program(left))
    for _ in range(2):
        assert call(folder / "run_one.sh", RUNS[0]).returncode == code
    assert attempts(folder) == 1 + again


def test_a_trainer_that_takes_too_long_is_ended_with_what_it_started(tmp_path):
    """Catches a limit that is not kept in a loop, and a process that outlives its run."""
    folder = swarm(tmp_path, program("setsid sleep 71.5 & trap '' TERM; exit 0", timeout=1.0))
    (folder / RUNS[0] / "spent.json").write_text('{"seconds": 12.5, "ended": false}')
    call(folder / "run_one.sh", RUNS[0])
    slow = swarm(tmp_path / "slow", program("sleep 71.5", timeout=1.0))
    ended = call(slow / "run_one.sh", RUNS[0])
    assert ended.returncode == 1 and "longer than 1 seconds" in ended.stderr
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "sleep 71.5" not in listed.stdout
    assert json.loads((folder / RUNS[0] / "spent.json").read_text())["seconds"] >= 12


def test_a_stopped_loop_ends_its_trainer_and_goes_on_from_its_state(tmp_path):
    """Catches a trainer that gets no SIGTERM, or counts as trained since it ended well then."""
    code = 'if [ ! -e state/kept ]; then trap "touch state/kept; exit 0" TERM; touch state/begun; '
    code += "while :; do sleep 0.1; done; fi" + RESULT
    folder = swarm(tmp_path, program(code))
    process = subprocess.Popen([BASH, str(folder / "run_all.sh")], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not (folder / RUNS[0] / "state/begun").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143
    assert (folder / RUNS[0] / "state/kept").exists()
    assert json.loads((folder / RUNS[0] / "spent.json").read_text())["ended"] is False
    assert not (folder / RUNS[1] / "trainer.log").exists()
    ended = call(folder / "run_one.sh", RUNS[0])
    assert ended.returncode == 0 and attempts(folder) == 2
    (folder / RUNS[0] / "result.json").unlink()
    (folder / RUNS[0] / "spent.json").unlink()  # as it says, and what is in state/ stays
    assert call(folder / "run_one.sh", RUNS[0]).returncode == 0 and attempts(folder) == 3


def test_a_loop_that_is_stopped_between_two_runs_begins_no_other(tmp_path):
    """Catches a signal that comes just before a run begins, and is looked at hours later."""
    folder = swarm(tmp_path / "swarm", program("sleep 5"))
    early = tmp_path / "early"  # bash reads it first
    early.write_text("trap 'case $BASH_COMMAND in bash*run_one*) kill -TERM $$;; esac' DEBUG")
    began = time.monotonic()
    assert call(folder / "run_all.sh", BASH_ENV=str(early)).returncode == 143
    assert time.monotonic() - began < 4
    assert not list(folder.glob("runs/*/result.json"))


def test_an_array_keeps_its_runs_and_is_queued_again_when_its_time_is_over(tmp_path):
    """Catches an index into a list that a later export has replaced, a job without the resources of
    the recipe, one that is not queued again from what it kept, or that is for ever."""
    trainer = program("sleep 60", cpus=2.5, gpus=0.5, memory=3 << 30, timeout=90.0, retries=2)
    folder = swarm(tmp_path / "a b", trainer)
    (folder / "runs.txt").write_text(f"{RUNS[2]}\n")
    text = (folder / "array.slurm").read_text()
    assert re.findall(r"^#SBATCH --(\S+)", text, re.MULTILINE) == [
        "job-name=wine", "array=0-2", "nodes=1", "ntasks-per-node=1", "cpus-per-task=3",
        "gpus-per-node=1", "mem=3072M", "time=4", "signal=B:USR1@60", "open-mode=append", "requeue",
    ]  # fmt: skip
    called = tmp_path / "called"
    path = fake(tmp_path / "bin", "scontrol", f'echo "$@" >>"{called}"')
    for count in ("1", "2"):
        process = subprocess.Popen(
            [BASH, str(folder / "array.slurm")],
            env={
                "PATH": path, "SLURM_ARRAY_TASK_ID": "1",
                "SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": count,
            },
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        log, until = folder / RUNS[1] / "trainer.log", time.monotonic() + 60
        while not (log.exists() and attempts(folder, RUNS[1]) == int(count)):
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR1)
        assert process.wait(60) == 143
    assert called.read_text() == "requeue 77\n"
    assert not (folder / RUNS[2] / "trainer.log").exists()


def test_a_trainer_that_was_edited_since_trains_nothing(tmp_path):
    """Catches runs that are trained by another trainer than their fingerprints say."""
    own = tmp_path / "it's own.sh"
    own.write_text(RESULT)
    trainer = TrainerProgram((BASH, str(own)), "own", "", retries=0)
    assert [path for path, *_ in identity_files(trainer.command)] == [own]
    folder = swarm(tmp_path / "swarm", trainer)
    assert call(folder / "run_one.sh", RUNS[0]).returncode == 0
    own.write_text(f"true{RESULT}")
    edited = call(folder / "run_all.sh")
    assert edited.returncode == 2 and "export it again" in edited.stderr
    assert not (folder / RUNS[1] / "trainer.log").exists()
