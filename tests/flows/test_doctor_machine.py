"""`cuvee doctor` on this machine, and against servers that are there, gone, silent or wrong."""

import http.server
import importlib.metadata
import json
import os
import socket
import socketserver
import threading
import time
import tomllib
from pathlib import Path

import pytest
from command import ROOT, inside

from cuvee.flows.upkeep import machine, servers
from cuvee.flows.upkeep.machine import OK, PROBLEM, WARNING, examine_machine
from cuvee.flows.upkeep.servers import examine_servers
from cuvee.flows.workspace import Workspace
from cuvee.proxies.train import device

NAMES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS", "CUVEE_STORE")


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def closed() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def web(request):
    """A server that answers with a code, and a clock that is some seconds wrong; its port."""
    code, wrong = request.param

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(code if self.path == "/api/health" else 404)
            self.send_header("Date", self.date_time_string(int(time.time()) + wrong))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


def told(subject: str, found: list) -> list[tuple[str, str]]:
    return [(one.state, one.said) for one in found if one.subject == subject]


@pytest.mark.parametrize(
    ("web", "path", "state"),
    [((200, 0), "/api", OK), ((401, 0), "/api", OK), ((200, 0), "", PROBLEM)],
    indirect=["web"],
)
def test_a_server_that_is_there(web, path, state, monkeypatch):
    """Catches a check that takes any open port for the server, or a sign-in for its absence."""
    monkeypatch.setenv("PREFECT_API_URL", f"http://me:hidden@127.0.0.1:{web}{path}")
    ((found, said),) = told("PREFECT_API_URL", list(examine_servers()))
    assert found == state and "hidden" not in said
    assert ("/api" in said.split("answers")[1]) == (state == PROBLEM)


@pytest.mark.parametrize("web", [(200, 7200)], indirect=True)
def test_a_clock_that_is_wrong(web, monkeypatch):
    """Catches clocks that differ by hours, by which leases of others look dead."""
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{web}/api")
    ((state, said),) = told("clock", list(examine_servers()))
    assert state == WARNING and "NTP" in said


@pytest.mark.parametrize("name", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"])
def test_a_server_that_is_not_there(name, closed, monkeypatch):
    """Catches a server that is called well though nobody listens, and a sentence with no way on."""
    address = f"127.0.0.1:{closed}"
    monkeypatch.setenv(name, address if name == "RAY_ADDRESS" else f"http://{address}")
    ((state, said),) = told(name, list(examine_servers()))
    assert state == PROBLEM and f"unset {name}" in said and address in said


@pytest.fixture
def raw(request):
    """A server that answers every connection with some bytes; its port."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1000)
            self.request.sendall(request.param)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize("raw", [b"SSH-2.0-OpenSSH_9.2\r\n"], indirect=True)
def test_a_server_that_speaks_no_http(raw, monkeypatch):
    """Catches a traceback for a port of something else, such as SSH or a database."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{raw}")
    ((state, said),) = told("MLFLOW_TRACKING_URI", list(examine_servers()))
    assert state == PROBLEM and f"127.0.0.1:{raw}" in said and "SSH-2.0" in said


@pytest.mark.parametrize("raw", [b"HTTP/1.0 200 OK\r\nDate: soon\r\n\r\n"], indirect=True)
def test_a_date_that_is_none(raw, monkeypatch):
    """Catches a traceback for a clock of a server, or of a proxy before it, that says no date."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{raw}")
    found = list(examine_servers())
    assert told("MLFLOW_TRACKING_URI", found)[0][0] == OK
    ((state, said),) = told("clock", found)
    assert state == WARNING and "'soon'" in said


@pytest.mark.parametrize("name", ["PREFECT_API_URL", "MLFLOW_TRACKING_URI"])
@pytest.mark.parametrize(
    "url", ["http://my host/api", "http://[::1/api", "http://h:port/api", "host/api"]
)
def test_an_address_that_is_none(name, url, monkeypatch):
    """Catches a traceback for a slip in an address, after which nothing else is looked at."""
    monkeypatch.setenv(name, url)
    found = list(examine_servers())
    ((state, said),) = told(name, found)
    wanted = OK if (name, url) == ("MLFLOW_TRACKING_URI", "host/api") else PROBLEM  # a folder
    assert state == wanted and url in said
    assert told("Hugging Face", found)


def test_findings_are_said_as_they_come(tmp_path, monkeypatch):
    """Catches a doctor who says nothing until the last server has answered."""

    def fail():
        raise OSError("the last look")
        yield

    monkeypatch.setattr(servers, "examine_servers", fail)
    done = inside("doctor", home=tmp_path / "home")
    assert "the last look" in done.stderr and "python:" in done.stdout


def test_a_server_that_takes_connections_and_is_silent(monkeypatch):
    """Catches a look without a limit on time, which would hang here, and a limit that is no fault
    of the server."""
    monkeypatch.setattr(servers, "SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", f"ray://{address}")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{address}")
        found = list(examine_servers())
    assert told("RAY_ADDRESS", found)[0][0] == OK
    ((state, said),) = told("MLFLOW_TRACKING_URI", found)
    assert state == PROBLEM and "timed out" in said


@pytest.mark.parametrize(
    ("url", "state"),
    [("memory://there", OK), ("foo://key:hidden@bucket/x", PROBLEM), ("{tmp}", OK)],
)
def test_a_store(url, state, monkeypatch, tmp_path):
    """Catches a store of no known kind that is called well, and its keys on the screen."""
    monkeypatch.setenv("CUVEE_STORE", url.format(tmp=tmp_path))
    ((found, said),) = told("CUVEE_STORE", list(examine_servers()))
    assert found == state and "hidden" not in said


def test_a_store_that_never_answers(monkeypatch):
    """Catches a doctor that hangs with its patient."""
    monkeypatch.setenv("CUVEE_STORE", "memory://x")
    monkeypatch.setattr(servers, "STORE_SECONDS", 0.05)
    over = threading.Event()
    monkeypatch.setattr(servers, "ObjectFolder", lambda _url: over.wait())
    ((state, said),) = told("CUVEE_STORE", list(examine_servers()))
    over.set()
    assert state == PROBLEM and "does not answer within" in said


def test_this_machine_is_looked_at_and_nothing_is_changed(tmp_path):
    """Catches a home that is made, and a look that is left out without a word."""
    home = Workspace(tmp_path / "home")
    found = list(examine_machine(home))
    assert not list(tmp_path.iterdir())
    subjects = {one.subject for one in found}
    assert {"python", "packages", "cores", "threads", "memory", "gpu", "home", "disk"} <= subjects
    assert {one.state for one in found} <= {OK, WARNING, PROBLEM}


def test_a_home_that_cannot_be_written(tmp_path):
    """Catches a home under a file, which only the first run would tell."""
    (tmp_path / "file").write_text("")
    ((state, said),) = told("home", list(machine._home(Workspace(tmp_path / "file" / "home"))))
    assert state == PROBLEM and "--home" in said


def test_little_disk_memory_and_shared_memory(tmp_path, monkeypatch):
    """Catches limits of a container that are not read, and comparisons the wrong way round."""
    home = Workspace(tmp_path)
    monkeypatch.setattr(machine, "LEAST_DISK", 1e30)
    assert told("disk", list(machine._disk(home)))[0][0] == PROBLEM
    monkeypatch.setattr(machine, "SHARED", 1e30)
    assert "--shm-size" in told("shared memory", list(machine._shared_memory(home)))[0][1]
    (tmp_path / "memory.max").write_text(f"{1.5e9:.0f}\n")
    monkeypatch.setattr(device, "MEMORY_LIMITS", (tmp_path / "memory.max",))
    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    ((state, said),) = told("memory", list(machine._memory(home)))
    assert state == WARNING and "1.5 GB" in said and "--cores 1" in said
    (tmp_path / "memory.max").write_text(f"{0.2e9:.0f}\n")
    assert told("memory", list(machine._memory(home)))[0][0] == PROBLEM


def test_a_home_on_the_network(tmp_path, monkeypatch):
    """Catches a home on NFS that is called well, and the mount of a folder above taken for it."""
    kinds = {"/": "ext4", str(tmp_path): "nfs4", f"{tmp_path}/local": "xfs"}
    mounts = [type("Mount", (), {"mountpoint": p, "fstype": k}) for p, k in kinds.items()]
    monkeypatch.setattr(machine.psutil, "disk_partitions", lambda all: mounts)
    (tmp_path / "local").mkdir()
    assert told("home", list(machine._home(Workspace(tmp_path / "x"))))[0][0] == WARNING
    assert told("home", list(machine._home(Workspace(tmp_path / "local"))))[0][0] == OK


def test_packages_of_other_versions(tmp_path, monkeypatch):
    """Catches a version that is not as declared, or as pinned, of which nobody is told."""
    monkeypatch.setattr(
        importlib.metadata, "requires", lambda _: ["numpy<1", 'rich>=1; extra == "train"']
    )
    ((state, said),) = [
        one for one in told("packages", list(machine._packages(None))) if one[0] == PROBLEM
    ]
    assert "numpy" in said and "<1" in said
    (tmp_path / "constraints.txt").write_text("numpy==0.1\nrich==0.2\nscipy==0.1\n")
    monkeypatch.setattr(machine, "CONSTRAINTS", tmp_path / "constraints.txt")
    monkeypatch.setattr(importlib.metadata, "requires", lambda _: ["numpy", "rich>=1"])
    ((state, said),) = [
        one for one in told("packages", list(machine._packages(None))) if "verified" in one[1]
    ]
    assert state == WARNING and "numpy" in said and "rich" in said and "scipy" not in said


def test_every_extra_has_its_purpose():
    """Catches an extra that is added and that the doctor does not know."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(declared["optional-dependencies"])
    assert extras - {"all", "dev", "docs", "team"} == set(machine.EXTRAS)


def test_the_command(tmp_path, closed, monkeypatch):
    """Catches an exit of 0 with a problem, JSON that lacks the findings, and `--store` lost."""
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{closed}")
    done = inside("doctor", "--json", home=tmp_path / "home")
    assert done.returncode == 1
    found = json.loads(done.stdout)["findings"]
    assert {"state", "subject", "said"} == set(found[0])
    assert any(one["subject"] == "RAY_ADDRESS" and one["state"] == PROBLEM for one in found)
    assert not list(Path(tmp_path).iterdir()) and "CUVEE_STORE" not in os.environ
    gone = inside("doctor", "--store", home=tmp_path / "home")
    assert gone.returncode == 2 and "there is no store" in gone.stderr
