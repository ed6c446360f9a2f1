"""Lets Prefect's events go when nobody is there to take them.

Every task tells the API of its states. When the server has gone away, Prefect's client tries each
such event for seconds, one after the other, and a program that is done waits for all of them before
it ends: minutes for a sweep. They are for Prefect's pages alone, so they are dropped then.
"""

import contextlib
import queue

import httpx
from prefect.events.worker import EventsWorker

LOOK_SECONDS = 5.0


def let_go(url: str) -> int:
    """Drop what waits to be sent to an API that does not answer; returns how many events."""
    with contextlib.suppress(httpx.HTTPError):
        if httpx.get(f"{url}/health", timeout=LOOK_SECONDS).is_success:
            return 0
    dropped = 0
    for service in tuple(EventsWorker._instances.values()):  # Prefect has no public way to them
        waiting = service._queue
        with contextlib.suppress(queue.Empty):
            while True:
                waiting.get_nowait()
                waiting.task_done()
                dropped += 1
    return dropped
