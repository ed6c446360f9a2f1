"""The team's topology with real processes: PostgreSQL, Prefect, MLflow with sign-in, two Ray nodes.

A study runs through it twice, a schedule is served, looks first, is cancelled, and tells a webhook
of a failure.
"""

import contextlib
import http.server
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
import tiny_study
import yaml

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("local_topology", ROOT / "infra/local.py")
local = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(local)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        local.postgres_programs() is None,
        reason="PostgreSQL is not installed (Debian: apt-get install postgresql)",
    ),
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("psycopg2", "flask_wtf"))),
        reason="the servers' extras are not installed: pip install '.[team]'",
    ),
]


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    with local.Topology(tmp_path_factory.mktemp("team")) as topology:
        yield topology


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    tiny_study.write_corpus(folder)
    return folder


def cuvee(team, place: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flows", *words, "--home", str(place / "home")],
        env={**os.environ, **team.environment, "PREFECT_HOME": str(place / "prefect")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


class Prefect:
    """The API, as the UI uses it."""

    def __init__(self, team) -> None:
        user, secret = team.environment["PREFECT_API_AUTH_STRING"].split(":", 1)
        self._url = team.environment["PREFECT_API_URL"]
        self._client = httpx.Client(auth=(user, secret), timeout=60)

    def ask(self, method: str, path: str, body: dict | None = None) -> dict:
        answer = self._client.request(method, f"{self._url}{path}", json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def run(self, name: str, **parameters) -> str:
        place, deadline = f"/deployments/name/scheduled-sweep/{name}", time.monotonic() + 120
        while self._client.get(f"{self._url}{place}").status_code == 404:  # being registered
            assert time.monotonic() < deadline, place
            time.sleep(0.5)
        made = self.ask("GET", place)
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.ask("POST", f"/deployments/{made['id']}/create_flow_run", body)["id"]

    def state(self, run: str) -> dict:
        return self.ask("GET", f"/flow_runs/{run}")["state"]

    def until(self, run: str, *types: str, seconds: float = 900) -> dict:
        deadline = time.monotonic() + seconds
        while (state := self.state(run))["type"] not in types:
            assert time.monotonic() < deadline, state
            time.sleep(0.5)
        return state


def packs(team) -> list[int]:
    """Processes of the cluster that train a pack now."""
    found = []
    for name in ("ray-0", "ray-1"):
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(team.processes[name].pid).children(recursive=True):
                named = any("ray::pack-" in word for word in child.cmdline())
                found += [child.pid] if named else []
    return found


@contextlib.contextmanager
def webhook():
    """A server that keeps what is posted to it."""
    told: list[dict] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", told
        server.shutdown()


def test_the_servers_ask_who_comes(team):
    """Catches a topology that is open to anyone who reaches a port."""
    record = team.environment["MLFLOW_TRACKING_URI"] + "/api/2.0/mlflow/experiments/search"
    assert httpx.post(record, json={"max_results": 1}).status_code == 401
    api = team.environment["PREFECT_API_URL"] + "/flows/count"
    assert httpx.post(api, json={}).status_code == 401
    assert Prefect(team).ask("POST", "/flows/count", {}) >= 0
    for file in ("secrets", "environment.sh", "mlflow-auth.ini"):
        assert (team.folder / file).stat().st_mode & 0o077 == 0


def test_a_study_runs_on_the_servers_and_the_second_time_trains_nothing(team, place):
    """Catches a database, a sign-in or a token that one of the parts cannot deal with."""
    (place / "tiny.yaml").write_text(tiny_study.recipe(place))
    for trained in (20, 0):
        process = cuvee(team, place, "run", str(place / "tiny.yaml"))
        said, _ = process.communicate(timeout=1200)
        assert process.returncode == 0, said
        summary = json.loads((place / "home/studies/tiny/summary.json").read_text())
        assert (summary["trained_now"], summary["failed"]) == (trained, 0)
    assert list((team.folder / "artifacts").rglob("report.html"))
    assert len(list((team.folder / "store/runs").iterdir())) == 20


def test_a_schedule_looks_first_is_cancelled_within_seconds_and_tells_of_failures(team, place):
    """Catches a sweep without a change, Ray work that outlives its run, and a silent failure."""
    prefect = Prefect(team)
    with webhook() as (url, told):
        block(team, place, url)
        schedule = "{cron: 0 3 1 1 *, notify: custom-webhook/test-hook}"
        (place / "tiny.yaml").write_text(tiny_study.recipe(place, schedule=schedule))
        serving = cuvee(team, place, "schedule", str(place / "tiny.yaml"))
        try:
            assert "Serving" in serving.stdout.readline()
            same = prefect.until(prefect.run("tiny"), "COMPLETED", "FAILED", "CRASHED")
            assert (same["name"], same["type"]) == ("Unchanged", "COMPLETED"), same
            assert "Nothing changed" in same["message"]

            running = prefect.run("tiny", changes={"seed": 99})
            while not packs(team):
                assert prefect.state(running)["type"] in ("SCHEDULED", "PENDING", "RUNNING")
                time.sleep(0.2)
            body = {"state": {"type": "CANCELLING"}}
            prefect.ask("POST", f"/flow_runs/{running}/set_state", body)
            began = time.monotonic()
            while packs(team):
                assert time.monotonic() - began < 30
                time.sleep(0.1)
            assert prefect.until(running, "CANCELLED", "CRASHED")["type"] == "CANCELLED"

            wrong = {"changes": {"corpus.domains.code.path": "/nowhere/*.jsonl"}}
            failed = prefect.until(prefect.run("tiny", **wrong), "FAILED", "CRASHED", "COMPLETED")
            assert failed["type"] == "FAILED" and "/nowhere" in failed["message"], failed["message"]
            deadline = time.monotonic() + 60
            while not told:
                assert time.monotonic() < deadline
                time.sleep(0.5)
            assert "tiny failed" in json.dumps(told)
        finally:
            serving.terminate()
            serving.communicate(timeout=120)


def block(team, place: Path, url: str) -> None:
    """Make the block that is told of failures, as a person does in the UI."""
    program = (
        "import sys; from prefect.blocks.notifications import CustomWebhookNotificationBlock as B;"
        "B(name='test', url=sys.argv[1], method='POST',"
        " json_data={'subject': '{{subject}}', 'body': '{{body}}'})"
        ".save('test-hook', overwrite=True)"
    )
    subprocess.run(
        [sys.executable, "-c", program, url],
        env={**os.environ, **team.environment, "PREFECT_HOME": str(place / "prefect")},
        check=True,
        timeout=300,
    )


def test_prefect_takes_the_deployments_file(team, place):
    """Catches a file that is only YAML: `prefect deploy` must register what it says."""
    environment = {**os.environ, **team.environment, "PREFECT_HOME": str(place / "prefect")}
    environment |= {"CUVEE_WORKDIR": str(ROOT), "CUVEE_HOME": str(place / "home")}
    command = [str(local.BIN / "prefect"), "--no-prompt"]
    pool = [*command, "work-pool", "create", "--type", "process", "cuvee"]
    subprocess.run(pool, env=environment, check=True, timeout=300)
    deploy = [*command, "deploy", "--prefect-file", "infra/prefect.yaml", "--all"]
    done = subprocess.run(
        deploy, env=environment, check=False, timeout=600, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (given,) = yaml.safe_load((ROOT / "infra/prefect.yaml").read_text())["deployments"]
    made = Prefect(team).ask("GET", f"/deployments/name/scheduled-sweep/{given['name']}")
    assert made["entrypoint"] == "flows.schedule.scheduled_sweep"
    assert made["parameters"]["home"] == str(place / "home")
    assert made["work_pool_name"] == "cuvee" and made["schedules"][0]["active"]
    assert made["global_concurrency_limit"]["limit"] == 1
