"""The same commands on a team's servers: Prefect, MLflow, a Ray cluster of two nodes.

Real servers, started here on 127.0.0.1; only URLs in the environment differ from the embedded
default.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
import tiny_study

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def server(folder: Path, name: str, *command: str, **settings: str):
    """A server in a process group of its own, ended with everything that it started."""
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            env={**os.environ, **settings},
            start_new_session=True,
            cwd=folder,
        )
    try:
        yield process
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        process.kill()
        process.wait()


def until(check, what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError, OSError):
            if check():
                return
        time.sleep(0.3)
    raise AssertionError(f"{what} did not come up in {seconds} s")


def listens(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


@pytest.fixture
def servers(tmp_path):
    """URLs of the three services, as the environment of a run, and the two Ray nodes."""
    prefect, mlflow, ray = free_port(), free_port(), free_port()
    sockets = Path("/tmp") / f"cuvee-test-ray-{os.getpid()}"  # sockets need a short path
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "x" * 32}
    node = ("--num-cpus=1", "--disable-usage-stats", "--block", "--object-store-memory=100000000")
    head = (f"--port={ray}", "--node-ip-address=127.0.0.1", "--include-dashboard=false")
    with contextlib.ExitStack() as running:
        start = lambda *words, **settings: running.enter_context(  # noqa: E731
            server(tmp_path, *words, **settings)
        )
        start(
            "prefect",
            *(str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1"),
            *("--port", str(prefect), "--no-ui"),
            PREFECT_HOME=str(tmp_path / "prefect-server"),
        )
        start(
            "mlflow",
            *(str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(mlflow)),
            *("--backend-store-uri", f"sqlite:///{tmp_path}/record.db", "--workers", "1"),
            *("--artifacts-destination", str(tmp_path / "artifacts")),
        )
        first = start(
            "head",
            *(str(BIN / "ray"), "start", "--head", *head, *node, f"--temp-dir={sockets}"),
            **quiet,
        )
        until(lambda: listens(ray), "the Ray head")
        second = start(
            "worker",
            *(str(BIN / "ray"), "start", f"--address=127.0.0.1:{ray}", *node),
            **quiet,
        )
        urls = {
            "PREFECT_API_URL": f"http://127.0.0.1:{prefect}/api",
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{mlflow}",
            "RAY_ADDRESS": f"127.0.0.1:{ray}",
            **quiet,
        }
        until(lambda: httpx.get(urls["PREFECT_API_URL"] + "/health").is_success, "Prefect")
        until(lambda: httpx.get(urls["MLFLOW_TRACKING_URI"] + "/health").is_success, "MLflow")
        yield urls, (first, second)


def busy(node: subprocess.Popen[bytes]) -> bool:
    """Whether a node's worker is training a pack."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(node.pid).children(recursive=True):
            if any("ray::pack-" in word for word in child.cmdline()):
                return True
    return False


def test_a_study_runs_through_a_teams_servers(servers, tmp_path):
    """Catches anything that only works embedded, and work that stays on one node."""
    urls, nodes = servers
    home = tmp_path / "home"
    tiny_study.write_corpus(tmp_path)
    (tmp_path / "tiny.yaml").write_text(tiny_study.recipe(tmp_path))
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "cuvee.flows",
            "run",
            str(tmp_path / "tiny.yaml"),
            "--home",
            str(home),
        ],
        env={**os.environ, **urls},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    worked = [False, False]
    while process.poll() is None:
        worked = [was or busy(node) for was, node in zip(worked, nodes, strict=True)]
        time.sleep(0.1)
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert worked == [True, True]
    summary = json.loads((home / "studies/tiny/summary.json").read_text())
    assert summary["trained_now"] == summary["proxies"] == 20 and summary["failed"] == 0

    flows = httpx.post(urls["PREFECT_API_URL"] + "/flow_runs/filter", json={}).json()
    assert [run["state"]["type"] for run in flows] == ["COMPLETED"]
    tasks = httpx.post(urls["PREFECT_API_URL"] + "/task_runs/filter", json={"limit": 200}).json()
    assert sum(run["name"].startswith("pack-") for run in tasks) == 20

    record = urls["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow"
    experiment = httpx.get(f"{record}/experiments/get-by-name?experiment_name=cuvee").json()
    found = httpx.post(
        f"{record}/runs/search",
        json={"experiment_ids": [experiment["experiment"]["experiment_id"]], "max_results": 100},
    ).json()["runs"]
    assert len(found) == 21 and {run["info"]["status"] for run in found} == {"FINISHED"}
    assert list((tmp_path / "artifacts").rglob("report.html"))
    assert not (home / "mlflow").exists() and not (home / "ray").exists()


def test_a_server_that_is_gone_is_one_sentence(tmp_path):
    """Catches minutes of retries and a traceback when an address is wrong."""
    tiny_study.write_corpus(tmp_path)
    (tmp_path / "tiny.yaml").write_text(tiny_study.recipe(tmp_path))
    command = [sys.executable, "-m", "cuvee.flows", "run", str(tmp_path / "tiny.yaml")]
    for name, value in (
        ("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api"),
        ("RAY_ADDRESS", f"127.0.0.1:{free_port()}"),
    ):
        done = subprocess.run(
            [*command, "--home", str(tmp_path / "home")],
            env={**os.environ, name: value},
            capture_output=True,
            check=False,
            text=True,
            timeout=200,
            cwd=ROOT,
        )
        assert done.returncode == 2, done.stdout + done.stderr
        assert name in done.stderr or value in done.stderr
        assert "Traceback" not in done.stdout + done.stderr
