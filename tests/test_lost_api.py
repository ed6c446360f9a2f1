"""An API of Prefect that goes away under a flow is told in words, and our own mistakes are not."""

import httpx
import pytest

from flows.server import reached
from mixtures.errors import ServiceError

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
    with pytest.raises(ServiceError, match=words) as told, reached("http://127.0.0.1:1/api"):
        raise error
    assert "\n" not in str(told.value) and "http://127.0.0.1:1/api" in str(told.value)


def test_our_own_mistakes_stay_mistakes():
    """Catches a net so wide that every bug is blamed on the server."""
    with pytest.raises(RuntimeError, match="ours"), reached("http://127.0.0.1:1/api"):
        raise RuntimeError("ours")
