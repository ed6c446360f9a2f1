"""The embedded Prefect API: its own processes get in, another user and a web page do not."""

import os
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
import strangers
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from flows.server import PrefectApi

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

    with api.session():
        assert flow(lambda: 41 + 1, name="guarded", persist_result=False)() == 42
        for worker in tuple(EventsWorker._instances.values()):
            worker.wait_until_empty()
    own = httpx.BasicAuth(*api.secret.split(":"))
    runs = httpx.post(f"{api.url}/flow_runs/filter", json={}, auth=own).json()
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
