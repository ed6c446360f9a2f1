"""Only our own leftovers are ended, and what we start listens to us alone and runs our code."""

import importlib.util
import io
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import ray
import strangers
from rich.console import Console

from cuvee.flows import workspace
from cuvee.flows.console import Display
from cuvee.flows.execution.ray_cluster import INHERITED, check_address
from cuvee.flows.execution.ray_executor import RayExecutor
from cuvee.flows.workspace import end_leftovers, open_workspace
from cuvee.mixtures.errors import ServiceError
from cuvee.tasks import process
from cuvee.tasks.approval import webhook
from cuvee.tasks.approval.webhook import HandoffCall
from cuvee.tasks.process import BEFORE, HOME_MARK, RUN_MARK

ROOT = Path(__file__).parent.parent.parent


def ended() -> tuple[int, str]:
    """The id and the start of a process that has ended."""
    gone = subprocess.Popen(["true"])
    start = process.process_start(gone.pid)
    gone.wait()
    return gone.pid, start


def sleeper(home: Path, *mark: object) -> subprocess.Popen[bytes]:
    marks = {HOME_MARK: str(home), RUN_MARK: json.dumps(mark)}
    return subprocess.Popen(["sleep", "60"], env={**os.environ, **marks})


def test_only_what_a_dead_run_of_this_place_left_is_ended(tmp_path):
    """Catches a look at the process id alone: on another host or in another container it names
    another process or none, and the worker of a living sweep there would be killed."""
    here, (pid, start) = process.process_namespace(), ended()
    boot, space = here.split()[:2]
    ours = {
        "left": sleeper(tmp_path, here, pid, start),
        "its id was given away": sleeper(tmp_path, here, os.getpid(), "1"),
    }
    others = {
        "another boot": sleeper(tmp_path, here.replace(boot, "b" * 36), pid, start),
        "another namespace": sleeper(tmp_path, here.replace(space, "pid:[1]"), pid, start),
        "another home": sleeper(tmp_path / "other", here, pid, start),
        "of a living run": sleeper(tmp_path, here, os.getpid(), process.process_start(os.getpid())),
        "no mark that can be read": sleeper(tmp_path, pid),
    }
    try:
        assert sorted(end_leftovers(tmp_path)) == sorted(p.pid for p in ours.values())
        assert all(one.wait(timeout=5) == -signal.SIGKILL for one in ours.values())
        assert [name for name, one in others.items() if one.poll() is not None] == []
    finally:
        for one in (*ours.values(), *others.values()):
            one.kill()
            one.wait()
    assert not {HOME_MARK, RUN_MARK} & {*INHERITED}, "marks go to other nodes"


@pytest.fixture
def launcher(tmp_path, monkeypatch):
    """Starts a training whose output it leaves to it, writes its environment, and returns."""
    script = tmp_path / "launch"
    script.write_text(
        f"#!/bin/sh\ncat > {tmp_path}/body\nenv > {tmp_path}/env\n"
        f"(while true; do echo step; sleep 0.1; done) &\necho $! > {tmp_path}/pid\necho started\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv(webhook.COMMANDS, str(script))
    yield script
    pid = tmp_path / "pid"
    if pid.exists() and psutil.pid_exists(int(pid.read_text())):
        os.kill(int(pid.read_text()), signal.SIGKILL)


def test_a_launched_training_outlives_the_handoff_and_every_later_command(
    launcher, tmp_path, monkeypatch
):
    """Catches a wait for the end of the output, which the training holds, and marks that it
    inherits, by which the next command takes it for a leftover; and pipes that break under it."""
    for name in (BEFORE, "PYTHONPATH", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv(HOME_MARK, str(tmp_path))
    monkeypatch.setenv(RUN_MARK, json.dumps([process.process_namespace(), *ended()]))
    process.set_environment({"HF_HOME": "ours", "OMP_NUM_THREADS": "1"})
    told = webhook._send_command(HandoffCall(command=(str(launcher),), timeout=30), "k", b"{}")
    assert told.state == "done" and "started" in told.said
    training = psutil.Process(int((tmp_path / "pid").read_text()))
    assert training.pid not in end_leftovers(tmp_path)
    time.sleep(0.5)
    assert training.is_running() and training.status() != psutil.STATUS_ZOMBIE
    seen = dict(
        line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line
    )
    assert seen["CUVEE_HANDOFF_KEY"] == "k" and (tmp_path / "body").read_text() == "{}"
    assert seen["OMP_NUM_THREADS"] == "7" and not {HOME_MARK, RUN_MARK, BEFORE, "HF_HOME"} & {*seen}


def test_a_home_of_ours_is_closed_to_others_and_a_shared_folder_is_left(tmp_path, monkeypatch):
    """Catches a home that others can enter, also one made before, or in a group's folder; /tmp or
    a group's own home made private; and a folder that is closed without a word."""
    for name in (HOME_MARK, RUN_MARK, BEFORE):
        monkeypatch.setenv(name, "{}")
    monkeypatch.setattr(os, "environ", dict(os.environ))
    modes = {0o755: 0o700, 0o1777: 0o1777, 0o2770: 0o2770, 0o2755: 0o700}
    for before, after in modes.items():
        home = tmp_path / f"{before:o}"
        home.mkdir()
        home.chmod(before)
        console = Console(file=io.StringIO(), width=200)
        open_workspace(home, Display(console))
        assert stat.S_IMODE(home.stat().st_mode) == after
        said = console.file.getvalue()
        assert said.startswith(f"Note: closed {home} to other") == (before != after)
    for holds, after in ((["notes"], 0o755), (["store", "studies"], 0o700)):
        home = tmp_path / holds[0]
        for name in holds:
            (home / name).mkdir(parents=True)
        home.chmod(0o755)
        open_workspace(home)
        open_workspace(home)
        assert stat.S_IMODE(home.stat().st_mode) == after
    open_workspace(tmp_path / "2770" / "made")  # inherits setgid
    assert stat.S_IMODE((tmp_path / "2770" / "made").stat().st_mode) == 0o700


def test_a_folder_that_was_deleted_is_no_traceback(tmp_path):
    """Catches an error about the working folder before anything could tell it."""
    gone = tmp_path / "gone"
    gone.mkdir()
    call = f"rmdir {gone} && exec {sys.executable} -m cuvee.flows"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    for words, code in (("--help", 0), ("clean", 2), ("recommended x", 2)):
        done = subprocess.run(
            ["sh", "-c", f"{call} {words}"], cwd=gone, env=env, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        gone.mkdir()
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr


PROGRAM = """
import json, os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from pathlib import Path
from cuvee.flows import python_path
cleaned = python_path.leave_working_folder()
os.environ["PYTHONPATH"] = cleaned or ""
from cuvee.flows.workspace import open_workspace
place = open_workspace(Path(sys.argv[1]))
import psutil, ray, numpy
from cuvee.flows.execution.ray_executor import RayExecutor, import_in_worker
def look():
    import_in_worker(("cuvee.tasks.train_pack", "lightgbm"))
    import threadpoolctl, torch
    import numpy
    numpy.ones((300, 300)) @ numpy.ones((300, 300))
    threads = [one["num_threads"] for one in threadpoolctl.threadpool_info()]
    return sys.path, [*threads, torch.get_num_threads()], os.getcwd()
with RayExecutor(place.root, device="cpu") as runner:
    slots = runner.slots
    path, threads, cwd = ray.get(ray.remote(look).remote())
    me = psutil.Process()
    heard = [c.laddr.ip for p in [me, *me.children(recursive=True)]
             for c in p.net_connections(kind="inet") if c.status == "LISTEN"]
    import threadpoolctl
    own = [one["num_threads"] for one in threadpoolctl.threadpool_info()]
    temporary = str(runner._sockets)
    mode = oct(os.stat(os.path.dirname(temporary)).st_mode & 0o777)
    print(json.dumps([slots, path, threads, cwd, heard, own, temporary, mode,
                      "RAY_AUTH_TOKEN" in os.environ]))
"""


@pytest.mark.slow
def test_a_local_cluster_listens_here_alone_and_runs_nothing_of_the_working_folder(tmp_path):
    """Catches ports on other interfaces, Ray's token in a HOME (which cannot be written here), a
    `tasks.py` of the user's run by workers, cores that affinity forbids, a home whose name Ray
    cannot take, BLAS on all cores, and a folder in /tmp that somebody else may have made."""
    work = tmp_path / "project"
    work.mkdir()
    for name in ("tasks", "evaluation", "proxies", "mixtures", "torch", "numpy"):
        (work / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a')\n")
    (tmp_path / "program.py").write_text(PROGRAM)
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "home of bü")],
        env={
            **env,
            "HOME": "/proc",
            "PYTHONPATH": ".",
            "RAY_AUTH_MODE": "disabled",
            "OMP_NUM_THREADS": "2",
        },
        capture_output=True,
        text=True,
        check=False,
        cwd=work,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    slots, path, threads, cwd, heard, own, temporary, mode, left = json.loads(
        done.stdout.splitlines()[-1]
    )
    assert slots == 1 and cwd == str(work)
    assert not (tmp_path / "ran").exists()
    assert not {str(work), "", "."} & {*path}
    assert {*threads} == {*own} == {1}
    assert heard and {ip.removeprefix("::ffff:") for ip in heard} == {"127.0.0.1"}
    assert temporary.isascii() and mode == "0o700" and not Path(temporary).exists() and not left


def test_a_bar_says_how_long_a_step_takes_in_all():
    """Catches "0:59 left 1:40", which everybody reads as 59 seconds left."""
    from rich.console import Console

    from cuvee.flows.console import Display

    display = Display(Console(force_terminal=True, width=120))
    now = [0.0]
    display.bars.get_time = lambda: now[0]
    task = display.bars.add_task("Proxies", total=1.0)
    now[0] = 59.0
    display.bars.update(task, completed=59 / 159)
    shown = [column.render(display.bars.tasks[0]) for column in display.bars.columns[-1:]]
    assert shown[0].plain == "0:59 of about 2:39"


def test_a_limit_of_cores_holds_for_all_that_is_started():
    """Catches `--cores` that is taken and forgotten: children have all cores."""
    code = (
        "import os; from cuvee.flows.cli.app import limit_cores\n"
        "from cuvee.tasks.process import usable_cores\n"
        "limit_cores(1); import subprocess, sys\n"
        "print(usable_cores(), subprocess.run(['nproc'], capture_output=True).stdout.decode())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "1"], done.stderr


@pytest.mark.slow
def test_a_worker_that_cannot_import_is_one_sentence_and_no_word_on_rates(tmp_path):
    """Catches an escaped traceback three times over, with the advice to lower the learning rate."""

    def lacking(_job, _board):
        import of_no_node

        return of_no_node

    try:
        with (
            RayExecutor(tmp_path / "home", device="cpu", cores=1) as runner,
            pytest.raises(ServiceError) as told,
        ):
            runner.run_in_worker(lacking, SimpleNamespace(name="one", device="cpu", request=None))
    finally:
        ray.shutdown()
    said = str(told.value)
    assert "No module named 'of_no_node'" in said and "Every node needs" in said
    assert "Traceback" not in said and "\n" not in said and "rate" not in said and len(said) < 700


@pytest.mark.parametrize("layout", ["cuvee/flows", "site-packages/cuvee/flows"])
def test_only_the_folder_that_holds_the_package_stays_in_the_path(tmp_path, layout):
    """Catches a clone called `cuvee`, whose neighbors were imported in place of packages."""
    room = tmp_path / layout
    room.mkdir(parents=True)
    if layout == "cuvee/flows":
        (tmp_path / "cuvee" / "cuvee").mkdir()  # a clone has the folder of links
    (room / "python_path.py").write_bytes((ROOT / "flows" / "python_path.py").read_bytes())
    spec = importlib.util.spec_from_file_location("copy_of_python_path", room / "python_path.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert tmp_path / layout.split("/")[0] == module.HOUSE


def test_packages_with_the_names_of_our_rooms_are_nothing_to_us(tmp_path):
    """Catches a run with somebody else's `tasks`, where PYTHONPATH leads to one."""
    ran = tmp_path / "ran"
    for room in ("tasks", "flows", "mixtures"):
        (tmp_path / "theirs" / room).mkdir(parents=True)
        (tmp_path / "theirs" / room / "__init__.py").write_text(f"open({str(ran)!r}, 'w')")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cuvee.flows", "plan", "x.yaml"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'theirs'}:{ROOT}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and not ran.exists(), done.stderr
    assert "x.yaml" in done.stderr


@pytest.mark.parametrize(
    ("quota", "most"), [("50000 100000", 1), ("100000 100000", 1), ("max 1", 0)]
)
def test_a_containers_quota_is_a_limit_of_cores(tmp_path, monkeypatch, quota, most):
    """Catches a worker for every core of the host, in a container that may use one."""
    (tmp_path / "cpu.max").write_text(quota + "\n")
    monkeypatch.setattr("cuvee.tasks.process.QUOTA", tmp_path / "cpu.max")
    assert process.usable_cores() == (most or len(os.sched_getaffinity(0)))


def test_a_cluster_with_tls_is_not_greeted_in_the_clear(monkeypatch):
    """Catches a good cluster that is refused because it closes on a greeting it cannot read."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_USE_TLS", "1")
        check_address(address)
        monkeypatch.delenv("RAY_USE_TLS")
        answer = threading.Thread(target=lambda: [server.accept()[0].close() for _ in range(2)])
        answer.start()
        with pytest.raises(ServiceError, match="no Ray cluster answers"):
            check_address(address)
        answer.join()


def test_a_home_that_somebody_else_uses_can_be_used():
    """Catches a lock file that only its first user can open: the home is then used without it."""
    with tempfile.TemporaryDirectory(prefix="cuvee-tests-") as folder:  # pytest's are ours alone
        home = Path(folder)
        home.chmod(0o755)
        (home / ".in-use").touch(mode=0o444)

        def held() -> bool:
            workspace._hold(home)
            return home in workspace._held

        assert strangers.as_nobody(held) is True
