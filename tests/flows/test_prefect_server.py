"""An API of Prefect that goes away under a flow is told in words, and our own mistakes are not."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from cuvee.flows.execution.prefect_session import api_errors
from cuvee.mixtures.errors import ServiceError

ROOT = Path(__file__).parent.parent.parent
REQUEST = httpx.Request("POST", "http://127.0.0.1:1/api/task_runs/")


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("All connection attempts failed", request=REQUEST),
        httpx.ReadError("", request=REQUEST),
        httpx.HTTPStatusError(
            "Server error '500'\nfor url", request=REQUEST, response=httpx.Response(500)
        ),
        RuntimeError("Cannot create flow run. Failed to reach API at http://127.0.0.1:1/api."),
    ],
)
def test_what_a_client_meets_becomes_one_sentence(error):
    """Catches a traceback of httpx when somebody restarts the Prefect server."""
    words = "Finished proxies are kept"
    with pytest.raises(ServiceError, match=words) as told, api_errors("http://127.0.0.1:1/api"):
        raise error
    assert "\n" not in str(told.value) and "http://127.0.0.1:1/api" in str(told.value)


PROGRAM = """
import sys, time
from cuvee.flows.workspace import QUIET
import os
os.environ.update(QUIET)
os.environ["PREFECT_HOME"] = sys.argv[1]
os.environ["PREFECT_API_URL"] = sys.argv[2]
from cuvee.flows.execution.prefect_session import api_errors
import prefect  # as it is when a flow has run
from prefect.events import emit_event
began = time.monotonic()
with api_errors(sys.argv[2]):
    for i in range(40):
        emit_event("cuvee.test", {"prefect.resource.id": f"cuvee.{i}"})
print("done", flush=True)
"""


def test_a_program_that_is_done_does_not_wait_for_events_that_nobody_takes(tmp_path):
    """Catches minutes at the end of a sweep whose Prefect server went away: 7 s for every event."""
    with socket.socket() as probe:  # a port at which nobody listens
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/api"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path), url],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout.readline() == "done\n"
    began = time.monotonic()
    said, _ = process.communicate(timeout=120)
    assert time.monotonic() - began < 60  # 40 events would take 280 s
    assert len(said.splitlines()) <= 1 and process.returncode == 0, said


def test_our_own_mistakes_stay_mistakes():
    """Catches a net so wide that every bug is blamed on the server."""
    with pytest.raises(RuntimeError, match="ours"), api_errors("http://127.0.0.1:1/api"):
        raise RuntimeError("ours")
