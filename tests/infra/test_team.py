"""The team's topology with real processes: PostgreSQL, Prefect, MLflow with sign-in, two Ray nodes.

A study runs through it twice, a schedule is served, looks first, is cancelled, and tells a webhook
of a failure; a backup brings back what was lost. The commands of the Kubernetes manifests run with
what a container has: a read-only root, no capabilities, only the manifest's variables.
"""

import contextlib
import http.server
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import httpx
import psutil
import psycopg2
import pytest
import tiny_study
import yaml

ROOT = Path(__file__).parent.parent.parent
SPEC = importlib.util.spec_from_file_location("local_topology", ROOT / "infra/local.py")
local = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(local)

BACKUP = ROOT / "infra/kubernetes/backup.sh"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        local.postgres_programs() is None and os.environ.get("CI") != "true",
        reason="PostgreSQL is not installed (Debian: apt-get install postgresql)",
    ),
]


@pytest.fixture(scope="module")
def team():
    folder = Path(tempfile.mkdtemp(prefix="cuvee-team-"))  # pytest's are closed to PostgreSQL
    with local.Topology(folder) as topology:
        yield topology
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    tiny_study.write_corpus(folder)
    return folder


def cuvee(team, place: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cuvee.flows", *words, "--home", str(place / "home")],
        env={**os.environ, **team.environment, "PREFECT_HOME": str(place / "prefect")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
    )


@pytest.fixture(scope="module")
def study(team, place) -> dict:
    """A study that ran on the servers: its summary."""
    (place / "tiny.yaml").write_text(tiny_study.recipe(place))
    return summary(team, place)


def summary(team, place: Path) -> dict:
    """Run the study; what it says of itself."""
    finish(cuvee(team, place, "run", str(place / "tiny.yaml")))
    return json.loads((place / "home/studies/tiny/summary.json").read_text())


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=1200)
    assert process.returncode == 0, said
    return said


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
    for file in team.folder.iterdir():
        assert file.stat().st_mode & 0o066 == 0, file
    (head,) = (w for w in team.processes["ray-0"].args if w.startswith("--temp-dir="))
    assert Path(head.split("=")[1]).parent.stat().st_mode & 0o077 == 0
    assert str(team.ports["ray"]) not in head, "the name of a folder in /tmp can be guessed"


def test_no_server_knows_the_secret_of_another_and_none_is_an_argument(team):
    """Catches a password in `ps` or a log, and one that opens another server's database."""
    kept = dict(line.split("=", 1) for line in (team.folder / "secrets").read_text().splitlines())
    words = [value.split(":")[-1] for value in kept.values()]
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        assert not any(word in line for word in words), line[:60]
    for log in team.folder.glob("*.log"):
        assert not any(word in log.read_text(errors="replace") for word in words), log
    for name, other in (("mlflow", "prefect"), ("prefect", "mlflow"), ("prefect", "mlflow_auth")):
        mine = team.database(name, "psycopg2").replace("+psycopg2", "")
        psycopg2.connect(mine).close()
        with pytest.raises(psycopg2.OperationalError, match="permission denied"):
            psycopg2.connect(mine.rsplit("/", 1)[0] + f"/{other}")


def test_a_study_runs_on_the_servers_and_the_second_time_trains_nothing(team, place, study):
    """Catches a database, a sign-in or a token that one of the parts cannot deal with."""
    for trained, said in ((20, study), (0, summary(team, place))):
        assert (said["trained_now"], said["failed"]) == (trained, 0)
    assert list((team.folder / "artifacts").rglob("report.html"))
    assert len(list((team.folder / "store/runs").iterdir())) == 20


def record(team) -> dict:
    """What the servers know: every run of a study, who approved, how often flows ran."""
    from mlflow import MlflowClient

    names = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setenv(name, team.environment[name])
        client = MlflowClient(team.environment["MLFLOW_TRACKING_URI"])
        found = client.search_runs([e.experiment_id for e in client.search_experiments()])
        version = client.get_model_version_by_alias("tiny", "approved")
    return {
        "runs": {run.info.run_id: (run.data.metrics, run.data.tags) for run in found},
        "approved": (version.version, version.tags),
        "flows": Prefect(team).ask("POST", "/flow_runs/count", {}),
    }


def test_a_backup_brings_back_the_record_and_the_approval(team, place, study):
    """Catches a backup that nobody ever restored: one that cannot be read, or lacks a part."""
    recipe, store = str(place / "tiny.yaml"), Path(team.environment["CUVEE_STORE"])
    finish(cuvee(team, place, "approve", recipe, "--by", "Ada", "--note", "all is well"))
    before = record(team)
    assert len(before["runs"]) > 20 and before["approved"][1]["cuvee.approved_by"] == "Ada"
    for _ in range(2):  # a second one of the same second would be lost
        saved = team.administer("sh", BACKUP, "save", team.folder / "backups")
        assert saved.returncode == 0, saved.stderr
        time.sleep(1)
    for name in ("mlflow", "prefect"):
        team.stop(name)
    programs = local.postgres_programs()
    for lost in [
        *(f"DATABASE {name} WITH (FORCE)" for name in local.ROLES),
        "ROLE prefect, mlflow",
    ]:
        done = team.administer(programs / "psql", "--command", f"DROP {lost}", "postgres")
        assert done.returncode == 0, done.stderr
    shutil.rmtree(store)

    assert team.make_databases(programs)
    kept = sorted((team.folder / "backups").iterdir())
    assert len(kept) == 2 and all(folder.stat().st_mode & 0o077 == 0 for folder in kept)
    restored = team.administer("sh", BACKUP, "restore", kept[-1])
    assert restored.returncode == 0, restored.stderr
    for name in ("prefect", "mlflow"):
        team.start(name)
    team.wait()
    assert record(team) == before
    exported = cuvee(team, place, "export", recipe, "--format", "json", "--to", str(place / "out"))
    finish(exported)
    assert json.loads((place / "out/manifest.json").read_text())["approval"]["by"] == "Ada"
    assert summary(team, place)["trained_now"] == 0


def test_a_schedule_looks_first_is_cancelled_within_seconds_and_tells_of_failures(
    team, place, study
):
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
    assert made["entrypoint"] == "cuvee.flows.scheduling.schedule.scheduled_sweep"
    assert made["parameters"]["home"] == str(place / "home")
    assert made["work_pool_name"] == "cuvee" and made["schedules"][0]["active"]
    assert made["global_concurrency_limit"]["limit"] == 1


def privileged() -> bool:
    """Whether a machine like a cluster's can be made here: mounts and a network of one's own."""
    tried = ["unshare", "--mount", "--net", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    with contextlib.suppress(OSError):
        return subprocess.run(tried, check=False, capture_output=True).returncode == 0
    return False


def passable() -> list[str]:
    """Commands that show our programs to user 1000 where they lie in a closed folder, as /root."""
    places = {Path(sys.base_prefix), local.BIN.parent, ROOT}
    above = [path for place in places for path in place.parents if not path.stat().st_mode & 0o001]
    closed = {path for path in above if not set(path.parents) & set(above)}
    hidden = sorted(place for place in places if set(place.parents) & closed)
    kept = [f"mkdir /media/{k} && mount --bind {p} /media/{k}" for k, p in enumerate(hidden)]
    shown = [f"mkdir -p {p} && mount --bind /media/{k} {p}" for k, p in enumerate(hidden)]
    opened = [f"mount -t tmpfs -o mode=755 tmpfs {path}" for path in closed]
    return ["mount -t tmpfs tmpfs /media", *kept, *opened, *shown, "umount -R -l /media"]


class Machine:
    """The commands of the manifests as processes, with what their containers have.

    A network of its own, in which every service is 127.0.0.1 at its manifest's port; for each
    container a read-only root, the manifest's mounts as empty folders, user 1000 without
    capabilities, and none but the manifest's variables. PostgreSQL is this machine's.
    """

    MOUNTS: ClassVar = {"/data": "/mnt", "/artifacts": "/media", "/opt/cuvee": str(ROOT)}
    SECRETS: ClassVar = {
        key: f"cuvee:{key}-secret" if key.endswith("-auth") else f"{key}-secret-of-some-length"
        for key in ("db-password", "prefect-db-password", "mlflow-db-password", "mlflow-password",
                    "mlflow-key", "prefect-auth", "ray-token")
    }  # fmt: skip

    def __init__(self, folder: Path) -> None:
        self._folder, self.processes = folder, {}
        self._templates = {}
        for path in sorted((ROOT / "infra/kubernetes").glob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                spec = document.get("spec", {})
                groups = [spec.get("headGroupSpec"), *spec.get("workerGroupSpecs", [])]
                for group in [spec, *filter(None, groups)]:
                    pod = group.get("template", {}).get("spec")
                    for container in pod["containers"] if pod else []:
                        self._templates[container["name"]] = (container, group)
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost postgres prefect mlflow ray-head-svc\n")
        ready = ["ip link set lo up", f"mount --bind {hosts} /etc/hosts", *passable()]
        ready += ["exec sleep infinity"]
        self._start("machine", ["unshare", "--mount", "--net", "sh", "-ec", "\n".join(ready)])
        self.until(lambda: "prefect" in self.ask("cat", "/etc/hosts").stdout, "machine")

    def _start(self, name: str, command: list[str]) -> None:
        with open(self._folder / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def inside(self, *words: str) -> list[str]:
        """A command as one that runs in the machine."""
        pid = str(self.processes["machine"].pid)
        return ["nsenter", "--target", pid, "--mount", "--net", "--", *words]

    def _ours(self, text: str) -> str:
        for theirs, here in self.MOUNTS.items():
            text = text.replace(theirs, here)
        return text

    def _port(self, name: str, value: str) -> str:
        """A node's port beside the head's, who has another address in a cluster."""
        return "6381" if (name, value) == ("ray-worker", "6380") else value

    def variables(self, name: str) -> dict[str, str]:
        """The variables of a container; PATH and HOME are the image's."""
        image = (ROOT / "infra/Dockerfile").read_text()
        found = dict([re.search(r"HOME=(\S+)", image).group().split("=")])
        found["PATH"] = f"{local.BIN}:/usr/bin:/bin:/usr/sbin:/sbin"
        for variable in self._templates[name][0].get("env", []):
            value = variable.get("value")
            if value is None:
                value = self.SECRETS[variable["valueFrom"]["secretKeyRef"]["key"]]
            found[variable["name"]] = self._ours(value)
        return found

    def _command(self, name: str) -> str:
        container, group = self._templates[name]
        words = [*container.get("command", []), *container.get("args", [])]
        if not name.startswith("ray"):
            return f"exec {shlex.join(map(self._ours, words))}"
        (first,) = group["template"]["spec"]["initContainers"]
        words = first["command"]
        given = [f"--{k}={self._port(name, v)}" for k, v in group["rayStartParams"].items()]
        where = "--head" if name == "ray-head" else "--address=ray-head-svc:6379"
        ray = ["ray", "start", where, *given, "--block"]  # as KubeRay puts them together
        return f"{shlex.join(map(self._ours, words))} || exit; ulimit -n 65536; {shlex.join(ray)}"

    def start(self, name: str) -> None:
        """Start a container's command."""
        mounts = [m["mountPath"] for m in self._templates[name][0]["volumeMounts"]]
        empty = [f"mount -t tmpfs -o mode=1777 tmpfs {self._ours(path)}" for path in mounts]
        first = " && ".join(["mount -o remount,bind,ro /", *empty, 'exec "$@"'])
        settings = [f"{key}={value}" for key, value in self.variables(name).items()]
        user = ["setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--no-new-privs"]
        user += ["--bounding-set=-all", "--inh-caps=-all", "env", "--chdir=/tmp", "-i", *settings]
        bash = ["bash", "-c", self._command(name)]
        unshared = ["unshare", "--mount", "sh", "-c", first, "sh", *user, *bash]
        self._start(name, self.inside(*unshared))

    def probe(self, name: str, kind: str) -> bool:
        """Ask as the kubelet does."""
        probe = self._templates[name][0][kind]
        if "grpc" in probe:
            port = self._port(name, str(probe["grpc"]["port"]))
            words = ["sh", str(ROOT / "infra/ray-health.sh"), port]
        else:
            asked = probe["httpGet"]
            words = ["curl", "--fail", "--silent", "--max-time", str(probe["timeoutSeconds"])]
            for header in asked.get("httpHeaders", []):
                words += ["--header", f"{header['name']}: {header['value']}"]
            words += [f"http://127.0.0.1:{asked['port']}{asked['path']}"]
        return self.ask(*words).returncode == 0

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, as root."""
        return subprocess.run(self.inside(*words), check=False, capture_output=True, text=True)

    def until(self, check: Callable[[], bool], name: str) -> None:
        """Wait; what does not come says in its log why."""
        deadline = time.monotonic() + 300
        while not check():
            log = (self._folder / f"{name}.log").read_text()
            assert self.processes[name].poll() is None and time.monotonic() < deadline, log
            time.sleep(0.5)

    def database(self) -> None:
        """PostgreSQL at its port, made as its image makes it."""
        programs, data = local.postgres_programs(), self._folder / "postgres"
        (self._folder / "words").write_text(self.SECRETS["db-password"])
        data.mkdir()
        for path in (data, self._folder / "words"):
            shutil.chown(path, local.UNPRIVILEGED)
        user = ["runuser", "-u", local.UNPRIVILEGED, "--"]
        made = [str(programs / "initdb"), "-D", str(data), "-U", "cuvee", "-A", "scram-sha-256"]
        made += ["--pwfile", str(self._folder / "words")]
        subprocess.run([*user, *made], check=True, capture_output=True, cwd="/")
        postgres = [str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-k", ""]
        self._start("postgres", self.inside(*user, *postgres))
        words = ["env", *(f"{k}={v}" for k, v in self.variables("postgres").items())]
        words += [f"PGPASSWORD={self.SECRETS['db-password']}", "psql", "--host", "postgres"]
        words += ["--username", "cuvee", "--file", str(local.DATABASES), "postgres"]
        self.until(lambda: self.ask(*words).returncode == 0, "postgres")


@pytest.fixture
def machine():
    folder = Path(tempfile.mkdtemp(prefix="cuvee-machine-"))
    folder.chmod(0o711)
    made = Machine(folder)
    yield made
    for process in reversed(made.processes.values()):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    shutil.rmtree(folder)


@pytest.mark.skipif(not privileged(), reason="needs root, and mounts and networks of its own")
def test_the_manifests_commands_run_as_their_containers_do(machine):
    """Catches a server that writes to its image, lacks a right or a variable, or fails its probes.

    KubeRay's own probes ask an HTTP server that Ray has only as ray[default]; they never answered.
    """
    assert not machine.probe("ray-head", "startupProbe")
    machine.database()
    for name in ("ray-head", "prefect", "mlflow"):
        machine.start(name)
    for name in ("ray-head", "prefect", "mlflow", "ray-worker", "worker"):
        if name.endswith("worker"):
            machine.start(name)
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            machine.until(lambda name=name, kind=kind: machine.probe(name, kind), name)
    services = yaml.safe_load((ROOT / "infra/compose.yaml").read_text())["services"]
    for name in ("ray-head", "prefect", "mlflow", "worker"):
        words = services[name]["healthcheck"]["test"][1:]
        done = machine.ask(*(word.replace("/opt/cuvee", str(ROOT)) for word in words))
        assert done.returncode == 0, (name, done.stderr)
    for name in ("ray-worker", "ray-head"):
        os.killpg(machine.processes.pop(name).pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        while machine.probe(name, "livenessProbe"):
            assert time.monotonic() < deadline, "the probe answers without a server"
            time.sleep(0.5)
