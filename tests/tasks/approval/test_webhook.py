"""A call is made at most once, whatever is killed, and what is not known is said to be unknown."""

import concurrent.futures
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import receiver

from cuvee.mixtures.errors import HandoffError, RecipeError
from cuvee.tasks.approval import webhook as handoff_call
from cuvee.tasks.approval.webhook import HandoffCall, call_once
from cuvee.tasks.store.results import Store

KEY = "k" * 64


@pytest.fixture
def server():
    with receiver.receiving() as kept:
        yield kept


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "store"))


def process(store: Store, url: str, before: str = "") -> subprocess.Popen[str]:
    """Another process that makes the call; `before` runs in it first."""
    program = (
        "import os, signal, sys\n"
        "from cuvee.tasks.approval import webhook as handoff_call\n"
        "from cuvee.tasks.store.results import Store\n"
        f"{before}\n"
        "try:\n"
        f"    call, store = handoff_call.HandoffCall({url!r}), Store({store.url!r})\n"
        f"    found = handoff_call.call_once(call, store, {KEY!r}, {{'pid': os.getpid()}})\n"
        "    print(found.state)\n"
        "except handoff_call.HandoffError as error:\n"
        "    print('refused:', error)\n"
    )
    return subprocess.Popen([sys.executable, "-c", program], text=True, stdout=subprocess.PIPE)


def test_a_call_that_was_done_is_not_made_again(store, server):
    """Catches a repeat by a rerun, and by --again, of what the receiver has acted on."""
    call = HandoffCall(server.url + "/hook?x=1")
    first = call_once(call, store, KEY, {"event": "approved"})
    assert first.state == "done" and first.attempt == 1 and "200" in first.said
    assert call_once(call, store, KEY, {"event": "approved"}) == first
    assert call_once(call, store, KEY, {"event": "approved"}, again=True) == first
    assert server.messages == [{"event": "approved"}]
    assert server.headers[0]["Idempotency-Key"] == KEY
    assert call_once(call, store, "other", {}).state == "done" and len(server.messages) == 2


def test_of_many_handoffs_at_once_one_calls(store, server):
    """Catches a look-then-claim: all look before any has claimed."""
    server.before = lambda message: time.sleep(0.2)
    start = threading.Barrier(8)

    def attempt(_):
        start.wait()
        try:
            return call_once(HandoffCall(server.url), Store(store.url), KEY, {}).state
        except HandoffError as error:
            return "unknown" if "under way, or was cut off" in str(error) else str(error)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(attempt, range(8)))
    assert len(server.messages) == 1
    assert found.count("done") >= 1 and set(found) <= {"done", "unknown"}


def test_two_processes_at_once_call_once(store, server):
    """Catches a claim that holds between threads only."""
    server.before = lambda message: time.sleep(0.2)
    both = [process(store, server.url) for _ in range(2)]
    said = [p.communicate(timeout=120)[0] for p in both]
    assert len(server.messages) == 1 and any("done" in words for words in said)


def test_a_handoff_killed_during_its_call_leaves_an_unknown_outcome(store, server):
    """Catches a repeat after a crash, of a call that the receiver has already acted on."""
    server.before = lambda message: os.kill(message["pid"], signal.SIGKILL)
    killed = process(store, server.url)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL and len(server.messages) == 1
    server.before = lambda message: None
    for _ in range(2):
        with pytest.raises(HandoffError, match=rf"begun by process {killed.pid}.*unknown.*--again"):
            call_once(HandoffCall(server.url), store, KEY, {})
    assert len(server.messages) == 1
    assert call_once(HandoffCall(server.url), store, KEY, {}, again=True).attempt == 2
    keys = [headers["Idempotency-Key"] for headers in server.headers]
    assert keys == [KEY, KEY]  # the receiver can drop the repeat
    assert call_once(HandoffCall(server.url), store, KEY, {}, again=True).attempt == 2


def test_a_handoff_killed_before_its_call_does_not_claim_to_have_called(store, server):
    """Catches an outcome that is written with the claim."""
    end = "handoff_call._send_webhook = lambda *_: os.kill(os.getpid(), signal.SIGKILL)"
    killed = process(store, server.url, end)
    killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL and server.messages == []
    with pytest.raises(HandoffError, match="unknown"):
        call_once(HandoffCall(server.url), store, KEY, {})
    assert call_once(HandoffCall(server.url), store, KEY, {}, again=True).state == "done"
    assert len(server.messages) == 1


def test_a_receiver_that_was_not_reached_is_tried_again(store, server):
    """Catches at-most-once turned into never: nothing was sent, so nothing can be doubled."""
    with pytest.raises(HandoffError, match=r"not reached: 127.0.0.1 does not answer"):
        call_once(HandoffCall("http://127.0.0.1:9/"), store, KEY, {})
    assert call_once(HandoffCall(server.url), store, KEY, {}).attempt == 2


@pytest.mark.parametrize("status", [302, 409, 500])
def test_a_receiver_that_says_no_is_not_asked_again(store, server, status):
    """Catches a retry of an error after which the receiver may have acted; a followed redirect."""
    server.status = status
    for _ in range(2):
        with pytest.raises(HandoffError, match=rf"refused: 127.0.0.1 answered {status}.*--again"):
            call_once(HandoffCall(server.url), store, KEY, {})
    assert len(server.messages) == 1
    server.status = 204
    assert call_once(HandoffCall(server.url), store, KEY, {}, again=True).state == "done"


def test_an_answer_that_does_not_come_is_unknown(store, server):
    """Catches a timeout that counts as a failure to reach, and is repeated."""
    server.before = lambda message: time.sleep(1.5)
    with pytest.raises(HandoffError, match=r"receiver acted is unknown.*gave no answer"):
        call_once(HandoffCall(server.url, timeout=0.3), store, KEY, {})
    with pytest.raises(HandoffError, match="unknown"):
        call_once(HandoffCall(server.url), store, KEY, {})
    assert len(server.messages) == 1


def test_a_token_goes_out_of_the_environment_and_not_in_the_clear(store, server, monkeypatch):
    """Catches a secret in the store, and one sent without encryption to another machine."""
    monkeypatch.setenv("CUVEE_WEBHOOK_TOKEN", "s3cret")
    monkeypatch.setenv("CUVEE_HANDOFF_HOSTS", "example.org, 127.0.0.1")
    call_once(HandoffCall(server.url), store, KEY, {})
    assert server.headers[0]["Authorization"] == "Bearer s3cret"
    with pytest.raises(HandoffError, match="not sent to example.org without https"):
        call_once(HandoffCall("http://example.org/"), store, "other", {})
    assert not any(b"s3cret" in p.read_bytes() for p in Path(store.url).rglob("*") if p.is_file())


@pytest.mark.parametrize("hosts", ["", "example.org", "127.0.0.1:1", "127.0.0.1.example.org"])
def test_a_token_goes_to_no_host_that_the_operator_does_not_name(store, server, monkeypatch, hosts):
    """Catches a token for whoever a recipe names, on this machine too, and a name that is alike."""
    monkeypatch.setenv("CUVEE_WEBHOOK_TOKEN", "s3cret")
    monkeypatch.setenv("CUVEE_HANDOFF_HOSTS", hosts)
    said = call_once(HandoffCall(server.url), store, KEY, {}).said
    assert "Authorization" not in server.headers[0] and "CUVEE_HANDOFF_HOSTS" in said


@pytest.mark.parametrize(("url", "port"), [("http://[::1]/hook", 80), ("https://[::1]/", 443)])
def test_an_address_of_numbers_needs_no_port(store, monkeypatch, url, port):
    """Catches a bare IPv6 address that is taken for a name and a port."""
    asked = []

    def refuse(address, *_words):
        asked.append(address)
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(HandoffError, match="not reached"):
        call_once(HandoffCall(url), store, KEY, {})
    assert asked == [("::1", port)]


def test_a_secret_url_is_read_from_the_environment_and_told_to_nobody(store, server, monkeypatch):
    """Catches a variable that is kept by its value, and one that is not set called all the same."""
    call = HandoffCall("$CUVEE_WEBHOOK_URL")
    with pytest.raises(HandoffError, match="not reached: CUVEE_WEBHOOK_URL .* is not set"):
        call_once(call, store, KEY, {})
    monkeypatch.setenv("CUVEE_WEBHOOK_URL", f"{server.url}/services/T0/SECRET?token=SECRET")
    server.status = 500
    with pytest.raises(HandoffError, match="127.0.0.1 answered 500") as refused:
        call_once(call, store, KEY, {})
    assert "SECRET" not in str(refused.value) and "SECRET" in server.paths[0]
    server.status = 200
    assert "SECRET" not in call_once(call, store, KEY, {}, again=True).said
    assert not any(b"SECRET" in p.read_bytes() for p in Path(store.url).rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "webhook",
    [
        "https://hooks.example.com/services/T0000/B0000/SECRET",
        "https://hooks.example.com/hook?token=SECRET",
        "https://hooks.example.com/#SECRET",
        "https://hooks.example.com/hook;SECRET",
        "https://SECRET@hooks.example.com/",
        "https://hooks.example.com/bot123:SECRET/sendMessage",
        "https://hooks.example.com/hooks/opensesamesecret",
        "https://hooks.example.com/9f8e7d6c5b4aSECRET",
        "ftp://hooks.example.com/SECRET",
        "https://hooks.example.com:port/SECRET",
        "$OTHER_SECRET",
        "$CUVEE_WEBHOOK_TOKEN",
    ],
)
def test_a_recipe_holds_no_secret_of_a_webhook(webhook):
    """Catches a look at user names alone; a refusal that repeats the secret; any variable read."""
    with pytest.raises(RecipeError, match=r"\$CUVEE_WEBHOOK_URL") as refused:
        handoff_call.check_handoff(webhook, ())
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    "webhook", ["https://cluster", "http://h:80/hook", "$CUVEE_WEBHOOK_URL", "${CUVEE_WEBHOOK_A2}"]
)
def test_a_plain_webhook_stands_in_a_recipe(webhook):
    """Catches a rule that leaves no address, or no name of a variable, to write."""
    handoff_call.check_handoff(webhook, (), "abfs://container@account.example.org/mixtures")


@pytest.mark.parametrize("to", ["s3://key:SECRET@bucket/x", "https://h/x?sig=SECRET"])
def test_a_place_holds_no_secret_either(to):
    """Catches credentials of a bucket that are written to manifests and records."""
    with pytest.raises(RecipeError, match=r"handoff.to .*environment") as refused:
        handoff_call.check_handoff(None, (), to)
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (b"", "unknown"),
        (b"HTTP/1.1 200 OK\r\nX: ", "unknown"),
        (b"220 internal-mail\r\n", "unknown"),
    ],
)
def test_one_deadline_holds_for_the_whole_call(store, answer, state):
    """Catches a timeout per read, which a byte now and then puts off, and an answer's text kept."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip():
            connection, _ = listening.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(answer)
                while not over.wait(0.05):
                    connection.sendall(b"x")

        dripping = threading.Thread(target=drip, daemon=True)
        dripping.start()
        call = HandoffCall(f"http://127.0.0.1:{listening.getsockname()[1]}/", timeout=0.5)
        with (
            concurrent.futures.ThreadPoolExecutor(1) as pool,
            pytest.raises(HandoffError, match=state) as told,
        ):
            try:
                pool.submit(call_once, call, store, KEY, {}).result(timeout=60)
            finally:
                over.set()
        dripping.join(60)
    assert "gave no answer" in str(told.value) and "internal" not in str(told.value)


def test_an_answer_is_kept_by_its_status_alone(store, server):
    """Catches words of an internal service that are copied to store, log and record."""
    assert call_once(HandoffCall(server.url), store, KEY, {}).said == "127.0.0.1 answered 200"


def script(folder: Path, body: str) -> str:
    path = folder / "tell"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_command_of_a_recipe_runs_only_if_the_operator_allows_it(store, tmp_path, monkeypatch):
    """Catches a recipe from elsewhere that runs what it names, by path or by a shell."""
    program = script(
        tmp_path, f'cat > {tmp_path}/got; echo "$1 $CUVEE_HANDOFF_KEY" >> {tmp_path}/ran'
    )
    call = HandoffCall(command=(program, "; touch /tmp/never"))
    with pytest.raises(HandoffError, match="may not be run: a recipe alone runs nothing"):
        call_once(call, store, KEY, {"a": 1})
    assert not (tmp_path / "ran").exists()
    monkeypatch.setenv("CUVEE_HANDOFF_COMMANDS", os.pathsep.join(["/usr/bin/none", program]))
    assert call_once(call, store, KEY, {"a": 1}).state == "done"
    call_once(call, store, KEY, {"a": 1})
    assert (tmp_path / "ran").read_text() == f"; touch /tmp/never {KEY}\n"
    assert json.loads((tmp_path / "got").read_text()) == {"a": 1}
    assert not Path("/tmp/never").exists()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("echo no room >&2; exit 3", "refused: .*ended with 3: no room"),
        ("kill -9 $$", "unknown: .*killed by signal 9"),
        ("sleep 30; echo late", "unknown: .*ended after 0.5 s"),
    ],
)
def test_a_command_that_goes_wrong_is_told(store, tmp_path, monkeypatch, body, words):
    """Catches a failure that passes for done, and one of which nobody knows that is repeated."""
    program = script(tmp_path, f"echo x >> {tmp_path}/ran; {body}")
    monkeypatch.setenv("CUVEE_HANDOFF_COMMANDS", program)
    for _ in range(2):
        with pytest.raises(HandoffError, match=words):
            call_once(HandoffCall(command=(program,), timeout=0.5), store, KEY, {})
    assert (tmp_path / "ran").read_text() == "x\n"


def test_a_damaged_outcome_is_unknown(store, server):
    """Catches a record that was cut off, read as no call at all."""
    call_once(HandoffCall(server.url), store, KEY, {})
    [path] = Path(store.url, "handoffs", KEY).glob("*.outcome.json")
    path.write_text(path.read_text()[:20])
    with pytest.raises(HandoffError, match="unknown"):
        call_once(HandoffCall(server.url), store, KEY, {})
    assert len(server.messages) == 1


@pytest.mark.parametrize(
    ("changes", "state"),
    [({"novel": 1}, "done"), ({"state": "queued"}, None), ({"state": None}, None)],
)
def test_an_outcome_of_another_version_is_read_or_unknown(store, server, changes, state):
    """Catches a TypeError for a field more, and a state that is not known taken for a refusal."""
    call_once(HandoffCall(server.url), store, KEY, {})
    kept = store.recall(f"handoffs/{KEY}", "1.outcome")
    store.remember(f"handoffs/{KEY}", "1.outcome", {**kept, **changes})
    found = handoff_call.last_call(store, KEY)[1]
    assert (found and found.state) == state


def test_claims_hold_on_another_file_system(server):
    """Catches a claim by the file system of this machine alone."""
    store = Store("memory://handoff-calls")
    assert call_once(HandoffCall(server.url), store, KEY, {}).state == "done"
    assert handoff_call.last_call(store, KEY)[0] == 1
    assert not store.objects.create(f"handoffs/{KEY}/1.claim", b"x")
