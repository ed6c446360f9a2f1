"""Runs a study as a flow of Prefect: its steps as tasks, its state watched, its words in ours.

The flow's process alone talks to Prefect. A run that a person started against a server has no guard
of Prefect's that would end it when it is cancelled, and a paused one is not ended at all: both are
seen here, in the run's own state, within seconds.
"""

import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker
from prefect.exceptions import CancelledRun, Pause
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from prefect.states import Cancelled

from cuvee.flows.execution.executor import Executor, Interrupted
from cuvee.flows.execution.prefect_server import PrefectApi
from cuvee.mixtures.errors import CuveeError, ServiceError, TrainingError

LOOK_SECONDS, ANSWER_SECONDS = 1.0, 5.0
KEPT = "Finished proxies are kept; a new run goes on from there."
UNREACHED = "Failed to reach API"  # how a RuntimeError of Prefect begins or ends


def run_as_flow(
    name: str,
    work: Callable[[], Any],
    api: PrefectApi,
    *,
    recipe_text: str,
    home: Path,
    executor: Executor | None = None,
) -> Any:
    """What `work` gives, which is run as a flow.

    Args:
        name: of the flow.
        work: a study, say; its steps are tasks where they are made by `prefect_step`.
        api: to run against.
        recipe_text: YAML, which Prefect shows beside the run.
        home: likewise.
        executor: is cancelled when the run is cancelled or paused in Prefect.

    Raises:
        ServiceError: the run was cancelled or paused in Prefect, or the API went away.
    """

    @flow(name=name, persist_result=False, validate_parameters=False)
    def run(recipe_text: str, home: str) -> Any:  # noqa: ARG001 (Prefect shows them)
        return stoppable(work, executor) if executor else work()

    with prefect_session(api):
        try:
            return run(recipe_text, str(home))
        except (CancelledRun, Pause) as error:
            raise ServiceError(f"this run was cancelled or paused in Prefect. {KEPT}") from error


def prefect_step(
    name: str, work: Callable[..., Any], *, label: str = "", retry: bool = False
) -> Callable[..., Any]:
    """A function as a task, for use within a flow; see `workspace.Step`.

    Prefect looks into every argument of a task, several times; with hundreds of runs that takes
    seconds. So the arguments are bound before it sees them.
    """

    def step(*args: Any, **kwargs: Any) -> Any:
        @task(
            name=name,
            task_run_name=label or None,
            retries=int(retry),
            retry_delay_seconds=1,
            retry_condition_fn=_worth_retrying,
            cache_policy=NO_CACHE,
            persist_result=False,
        )
        def bound() -> Any:
            return work(*args, **kwargs)

        return bound()

    return step


def _worth_retrying(_task: Any, _run: Any, state: Any) -> bool:
    """Retry what may pass by itself; wrong input stays wrong, and a stop is a stop."""
    try:
        state.result(raise_on_failure=True)
    except TrainingError:
        return True
    except CuveeError:
        return False
    except Exception:
        return True
    except BaseException:
        return False
    return False


@contextlib.contextmanager
def prefect_session(api: PrefectApi) -> Iterator[str]:
    """Makes an API the one that flows run against, once it answers; gives its URL.

    Raises:
        ServiceError: it does not answer, or goes away.
    """
    url = api.wait()
    updates = {PREFECT_API_URL: url}
    if api.secret:
        updates[PREFECT_API_AUTH_STRING] = api.secret
    with api_errors(url), temporary_settings(updates=updates):
        yield url


@contextlib.contextmanager
def api_errors(url: str) -> Iterator[None]:
    """Says in words what a flow meets when its API goes away under it.

    Raises:
        ServiceError: the API does not answer any more, or not as it should.
    """
    try:
        yield
    except (httpx.HTTPError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and UNREACHED not in str(error):
            raise
        raise ServiceError(
            f"the Prefect API at {url} does not answer as it should "
            f"({' '.join(str(error).split())[:200] or type(error).__name__}). Finished proxies are "
            "kept: start the server, or unset PREFECT_API_URL to use an embedded one; run again"
        ) from error
    finally:
        drop_events(url)


def drop_events(url: str) -> int:
    """Drop what waits to be sent to an API that does not answer; returns how many events.

    Every task tells the API of its states. When the server has gone away, Prefect's client tries
    each such event for seconds, one after the other, and a program that is done waits for all of
    them before it ends: minutes for a sweep. They are for Prefect's pages alone.
    """
    with contextlib.suppress(httpx.HTTPError):
        if httpx.get(f"{url}/health", timeout=ANSWER_SECONDS).is_success:
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


def stoppable(work: Callable[[], Any], executor: Executor) -> Any:
    """What `work` gives; if the flow's run was cancelled in Prefect meanwhile, the state for that.

    Raises:
        Pause: the run is paused; Prefect takes it up again when it is resumed.
        Interrupted: Prefect did not ask for the stop.
    """
    context, over, seen = FlowRunContext.get(), threading.Event(), []

    def look(run: Any) -> None:
        with get_client(sync_client=True) as client:
            while not over.wait(LOOK_SECONDS):
                with contextlib.suppress(Exception):  # a server that is away now may come back
                    state = client.read_flow_run(run).state
                    if state and (
                        state.is_cancelling() or state.is_cancelled() or state.is_paused()
                    ):
                        seen.append(state)
                        executor.cancel()
                        return

    if context is not None and context.flow_run is not None:
        within = contextvars.copy_context()  # Prefect's settings do not cross to a new thread
        threading.Thread(
            target=within.run, args=(look, context.flow_run.id), name="watch", daemon=True
        ).start()
    try:
        return work()
    except Interrupted:
        if not seen:
            raise
        if seen[0].is_paused():
            raise Pause(state=seen[0]) from None
        return Cancelled(message=f"Cancelled: all training was stopped. {KEPT}")
    finally:
        over.set()
