"""Watches a flow's own run in Prefect, so that cancelling or pausing it stops the Ray work.

A runner or worker of Prefect kills the process of a run that it started itself. A run that a person
started with `cuvee run` against a server has no such guard, and a paused one is not killed at all:
both are seen here, in the run's own state, within seconds.
"""

import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.states import Cancelled

from cuvee.flows.execution.ray_executor import Interrupted

LOOK_SECONDS = 1.0
KEPT = "Finished proxies are kept; a new run goes on from there."


class Watch:
    """A context that calls `stop` when the run it is in was cancelled or paused.

    Args:
        stop: ends what is under way; safe to call from a thread.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop, self._over = stop, threading.Event()
        self._seen: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Watch":
        context = FlowRunContext.get()
        if context is not None and context.flow_run is not None:
            within = contextvars.copy_context()  # Prefect's settings do not cross to a new thread
            self._thread = threading.Thread(
                target=lambda run=context.flow_run.id: within.run(self._look, run),
                name="watch",
                daemon=True,
            )
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def ending(self) -> Any:
        """The state that a flow returns after `Interrupted`.

        Raises:
            Pause: the run is paused; Prefect takes it up again when it is resumed.
            Interrupted: Prefect did not ask for the stop.
        """
        if self._seen is None:
            raise Interrupted
        if self._seen.is_paused():
            raise Pause(state=self._seen)
        return Cancelled(message=f"Cancelled: all training was stopped. {KEPT}")

    def _look(self, run: Any) -> None:
        with get_client(sync_client=True) as client:
            while not self._over.wait(LOOK_SECONDS):
                with contextlib.suppress(Exception):  # a server that is away now may come back
                    state = client.read_flow_run(run).state
                    asked = state is not None and (
                        state.is_cancelling() or state.is_cancelled() or state.is_paused()
                    )
                    if asked:
                        self._seen = state
                        self._stop()
                        return
