"""The embedded Prefect API: its own processes get in, another user and a web page do not."""

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import strangers
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from cuvee.flows.execution.prefect_server import PrefectApi
from cuvee.tasks.tracking.ui import unsafe_approvals

EVIL = "https://evil.example"
SHUT = [
    ("POST", "/api/deployments/filter"),
    ("GET", "/api/admin/settings"),
    ("POST", "/api/flow_runs/"),
    ("DELETE", "/api/flows/00000000-0000-0000-0000-000000000000"),
    ("POST", "/api/health"),
    ("HEAD", "/api/health"),
    ("GET", "/api/health/"),
    ("GET", "/api//health"),
    ("GET", "/api/variables/name/health"),
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", "/ui-settings"),
]


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    with PrefectApi(tmp_path_factory.mktemp("prefect"), schedules=True) as server:
        server.wait()
        yield server


@pytest.fixture(scope="module")
def port(api):
    return int(urlsplit(api.url).port or 0)


def test_another_user_learns_only_that_the_server_is_up(port):
    """Catches an API that any local user can patch a deployment through, and so run commands.

    And a secret that is asked for below /api only, or by the end of a path.
    """
    told = strangers.as_nobody(lambda: [strangers.ask(port, *one)[0] for one in SHUT])
    assert told == [401] * len(SHUT)
    wrong = strangers.as_nobody(
        lambda: strangers.ask(port, "POST", "/api/flows/filter", Authorization="Basic Y3V2ZWU6")
    )
    assert wrong[0] == 401
    up = strangers.as_nobody(
        lambda: [strangers.ask(port, "GET", f"/api/{name}")[0] for name in ("health", "ready")]
    )
    assert up == [200, 200]


def test_a_page_of_another_site_is_turned_away_whatever_it_knows(api, port):
    """Catches CORS for everybody, and DNS rebinding: a page that has its own name mean 127.0.0.1.

    With the right secret, so that nothing but the origin and the host can be the reason.
    """
    basic = httpx.BasicAuth(*api.secret.split(":"))._auth_header
    for method in ("OPTIONS", "POST", "GET"):
        status, headers = strangers.ask(
            port, method, "/api/deployments/filter", Origin=EVIL, Authorization=basic,
            Access_Control_Request_Method="PATCH",
        )  # fmt: skip
        assert status == 403 and not [name for name in headers if "access-control" in name]
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1:1"):
        asked = strangers.ask(port, "GET", "/api/health", Host=name, Authorization=basic)
        assert asked[0] == 403
    own = f"http://127.0.0.1:{port}"
    right = strangers.ask(port, "POST", "/api/flows/filter", Origin=own, Authorization=basic)
    assert right[0] == 200


@pytest.mark.parametrize("protocols", [None, ["prefect"]])
def test_a_socket_without_the_secret_hears_nothing(port, protocols):
    """Catches websockets that the check of HTTP requests does not see."""
    url = f"ws://127.0.0.1:{port}/api/events/in"
    with pytest.raises(WebSocketException), connect(url, subprotocols=protocols) as socket:
        socket.send('{"type": "auth", "token": "cuvee:"}')
        socket.recv(timeout=30)
    with pytest.raises(WebSocketException), connect(url, subprotocols=protocols, origin=EVIL):
        pass


def test_our_own_clients_are_let_in_and_the_secret_stands_in_no_command_line(api):
    """Catches a guard that shuts out our flows or their events, and a secret that `ps` shows."""
    from prefect import flow
    from prefect.events.worker import EventsWorker

    from cuvee.flows.execution.prefect_session import prefect_session

    EventsWorker._instances.clear()  # that of an earlier file sends to that file's API
    with prefect_session(api):
        assert flow(lambda: 41 + 1, name="guarded", persist_result=False)() == 42
        for worker in tuple(EventsWorker._instances.values()):
            worker.wait_until_empty()
    own = httpx.BasicAuth(*api.secret.split(":"))
    wanted = {"flows": {"name": {"any_": ["guarded"]}}}  # other tests of this process ran others
    runs = httpx.post(f"{api.url}/flow_runs/filter", json=wanted, auth=own).json()
    assert [run["state"]["type"] for run in runs] == ["COMPLETED"]
    server = psutil.Process(api._process.pid)
    assert api.secret in server.environ().values()
    assert not any(api.secret.split(":")[1] in word for word in server.cmdline())
    assert api.secret not in os.environ.values()


PAGE = """<!doctype html><body><pre id=o>start</pre><script>
(async () => {
  const o = document.getElementById('o'), u = 'http://127.0.0.1:PORT/api';
  const j = {'content-type': 'application/json'};
  const hear = text => { o.textContent += '; ' + text; };
  for (const [name, how] of [['read', {method: 'POST', headers: j, body: '{}'}], ['blind',
      {method: 'POST', mode: 'no-cors', headers: {'content-type': 'text/plain'}, body: '{}'}]])
    try { const r = await fetch(u + '/flows/filter', how); hear(name + ' ' + r.status); }
    catch (e) { hear(name + ' refused'); }
  const s = new WebSocket('ws://127.0.0.1:PORT/api/events/in', ['prefect']);
  s.onopen = () => hear('socket open');
  s.onerror = () => hear('socket refused');
})()</script></body>"""


@pytest.mark.slow
def test_a_browser_shows_a_page_of_another_site_nothing(port, tmp_path):
    """Catches what only a real browser does: preflights, opaque answers, sockets of a page."""
    shown = strangers.visit(tmp_path, PAGE.replace("PORT", str(port)))
    assert "read refused" in shown and "socket refused" in shown
    assert "blind 0" in shown  # sent, as any page may, and refused: its answer is opaque


def test_the_working_folder_runs_nothing(tmp_path, monkeypatch):
    """Catches `python -m` of a server's program: a `uvicorn.py` beside the recipe would be run."""
    for name in ("uvicorn", "httpx", "prefect", "secrets"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    with PrefectApi(tmp_path / "api") as server:
        server.wait()
    assert not (tmp_path / "ran").exists()


def test_a_link_signs_a_browser_in_once_and_only_its_own():
    """Catches a link that is taken without its password, and a cookie that any path can set."""
    import asyncio

    from cuvee.tasks.tracking.guard import Guard

    async def inner(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def ask(query: bytes = b"", path: str = "/", **headers: str) -> tuple[int, dict]:
        told = []

        async def send(message):
            told.append(message)

        named = [(b"host", b"127.0.0.1:7")] + [(n.encode(), v.encode()) for n, v in headers.items()]
        scope = {"type": "http", "method": "GET", "path": path, "query_string": query}
        asyncio.run(
            Guard(inner, port=7, secret="cuvee:pass")({**scope, "headers": named}, None, send)
        )
        return told[0]["status"], dict(told[0]["headers"])

    status, headers = ask(b"sign-in=pass")
    cookie = headers[b"set-cookie"].decode()
    assert status == 303 and headers[b"location"] == b"/"
    assert cookie == "cuvee-7=pass; Path=/; HttpOnly; SameSite=Strict"
    assert ask(cookie="a=b; cuvee-7=pass")[0] == 200
    refused = [
        ask(b"sign-in="),
        ask(b"sign-in=x"),
        ask(cookie="cuvee-7="),
        ask(cookie="cuvee-8=pass"),
    ]
    assert [status for status, _ in refused] == [401] * 4
    assert ask(b"sign-in=pass", origin="http://127.0.0.1:8")[0] == 403


@pytest.fixture(scope="module")
def review(tmp_path_factory):
    """The record of one version, served by `cuvee review`'s own server: port and password."""
    from cuvee.tasks.tracking.mlflow import local_uri, open_backend

    folder = tmp_path_factory.mktemp("home") / "mlflow"
    backend = open_backend(folder)
    run = backend.create_run("study", {})
    backend.register_version("study", run, {"cuvee.recommendation": "f" * 64}, "a recommendation")
    code = (
        "import sys; from pathlib import Path; from cuvee.tasks.tracking.ui import serve_review\n"
        "serve_review(Path(sys.argv[1]), lambda s: print(s, flush=True), port=int(sys.argv[2]))"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, "-c", code, str(folder), str(port)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        said = process.stdout.readline()
        assert local_uri(folder) and "The record is at" in said, said
        yield port, said.split("sign-in=")[1].split("#")[0]
        process.send_signal(signal.SIGINT)


@pytest.mark.slow
def test_another_user_can_neither_read_nor_approve_in_the_record(review):
    """Catches pages without sign-in, through which anybody on the machine approves as anybody."""
    port, password = review
    alias = "/api/2.0/mlflow/registered-models/alias"
    body = '{"name": "study", "alias": "approved", "version": "1"}'
    paths = [
        ("POST", alias, body),
        ("GET", "/", ""),
        ("GET", "/graphql", ""),
        ("POST", "/graphql", "{}"),
    ]
    paths += [("GET", "/get-artifact?path=x&run_uuid=y", ""), ("GET", "/version", "")]
    told = strangers.as_nobody(lambda: [strangers.ask(port, *one)[0] for one in paths])
    assert told == [401] * len(paths)
    assert strangers.ask(port, "POST", alias, body, Host="evil.example")[0] == 403
    own = httpx.BasicAuth("cuvee", password)._auth_header
    foreign = strangers.ask(port, "POST", alias, body, Authorization=own, Origin=EVIL)
    assert foreign[0] == 403
    assert strangers.ask(port, "POST", alias, body, Authorization=own)[0] == 200


@pytest.mark.slow
def test_the_printed_link_opens_the_pages_in_a_browser(review, tmp_path):
    """Catches a sign-in that the pages' own requests do not carry."""
    port, password = review
    shown = strangers.visit(
        tmp_path, "", at=f"http://127.0.0.1:{port}/?sign-in={password}#/experiments"
    )
    assert "<title>MLflow" in shown and ">cuvee<" in shown
    without = strangers.visit(tmp_path, "", at=f"http://127.0.0.1:{port}/#/experiments")
    assert "MLflow" not in without and ">cuvee<" not in without


@pytest.mark.parametrize(
    ("status", "believed"), [(401, True), (403, True), (200, False), (302, False), (404, False)]
)
def test_a_servers_word_counts_only_if_it_asks_who_speaks(status, believed, tmp_path, monkeypatch):
    """Catches approvals adopted from a server where anybody can set an alias.

    And one that is asked with our own credentials, to which every server answers.
    """
    heard = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            heard.append(dict(self.headers))
            moved = status == 302 and self.path != "/login"
            self.send_response(302 if moved else 200 if status == 302 else status)
            self.send_header("Location", "/login")
            self.end_headers()

        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        where = f"me:pw@127.0.0.1:{server.server_port}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{where}")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        assert (unsafe_approvals(tmp_path / "mlflow") == "") is believed
        server.shutdown()
    assert not any("Authorization" in one for one in heard)


def test_a_server_that_speaks_no_http_is_told_in_a_sentence(tmp_path, monkeypatch):
    """Catches BadStatusLine, and the ValueError of an address that is none."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            with server.accept()[0] as reached:
                reached.recv(1000)
                reached.sendall(b"220 mail\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert "cannot be seen" in unsafe_approvals(tmp_path / "mlflow")
        thread.join()
    for address in ("http://[::1", "http://127.0.0.1:x"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        assert "cannot be seen" in unsafe_approvals(tmp_path / "mlflow")


def test_a_file_counts_only_where_nobody_else_can_reach_it(tmp_path, monkeypatch):
    """Catches a record in a folder that others enter, and a database that others may write."""
    tmp_path.chmod(0o755)
    assert "chmod 700" in unsafe_approvals(tmp_path / "mlflow")
    tmp_path.chmod(0o700)
    assert unsafe_approvals(tmp_path / "mlflow") == ""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://db/mlflow")
    assert unsafe_approvals(tmp_path / "mlflow")
