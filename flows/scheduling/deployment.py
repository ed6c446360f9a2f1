"""Serves a scheduled sweep: registers it with Prefect, and runs it here or leaves it to a pool.

`prefect deploy` reads the same deployment from infra/prefect.yaml, for recipes that lie in a
repository.
"""

import contextlib
import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefect import serve as prefect_serve
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment

from cuvee.flows.execution.prefect_server import PrefectApi
from cuvee.flows.execution.prefect_session import prefect_session
from cuvee.flows.recipe.parts import SchedulePart
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.scheduling.schedule import notifier_block, recipe_with_changes
from cuvee.mixtures.errors import RecipeError

SIGN_IN = "sign-in"  # the file that holds the secret while sweeps are served
ENTRYPOINT = "cuvee.flows.scheduling.schedule.scheduled_sweep"
OLD_ENTRYPOINTS = (  # before the package `cuvee`, and before its chapters
    "flows.schedule.scheduled_sweep",
    "cuvee.flows.schedule.scheduled_sweep",
)


def sweep_deployment(
    recipe: Recipe, text: str, home: Path, *, cron: str, parameters: str
) -> RunnerDeployment:
    """The deployment of a recipe's scheduled sweep.

    Raises:
        RecipeError: no schedule, one that cannot be read, or changes that make no recipe.
    """
    changes = parse_changes(parameters)
    part = recipe_with_changes(text, changes)[0].schedule or SchedulePart()
    when = cron or part.cron
    if not when:
        raise RecipeError('no schedule: give --cron "0 3 * * 1" or `schedule: {cron: ...}`')
    try:
        schedule = CronSchedule(cron=when, timezone=part.timezone)
    except ValueError as error:
        raise RecipeError(
            f"the schedule {when!r} in {part.timezone!r} is none: give five fields (minute, hour, "
            'day, month, weekday), such as "0 3 * * 1", and a zone such as Europe/Paris'
        ) from error
    elsewhere = recipe.folder is not None and recipe.folder != Path.cwd()
    beside = {"folder": str(recipe.folder)} if elsewhere else {}
    return RunnerDeployment.from_entrypoint(
        entrypoint=ENTRYPOINT,
        name=recipe.name,
        schedule=schedule,
        parameters={"recipe": text, "home": str(home), "changes": changes, **beside},
        concurrency_limit=ConcurrencyLimitConfig(
            limit=part.limit, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
        ),
        description="A mixture study that looks first whether anything changed.",
        tags=["cuvee"],
        work_pool_name=part.pool or None,
    )


def parse_changes(text: str) -> dict[str, Any]:
    """What `--parameters` says: a JSON object of recipe fields by dotted name.

    Raises:
        RecipeError: it is none.
    """
    try:
        values = json.loads(text or "{}")
    except ValueError as error:
        raise RecipeError(f"--parameters is not JSON ({error}); got {text!r}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"--parameters is a JSON object such as '{{\"seed\": 7}}'; got {text!r}")
    return values


def serve(made: RunnerDeployment, api: PrefectApi, say: Callable[[str], None]) -> None:
    """Register a deployment; run its sweeps here until Ctrl-C, or leave them to its work pool.

    Raises:
        RecipeError: the block that is to be told of failures cannot be loaded.
        ServiceError: the API does not answer.
    """
    with prefect_session(api) as url:
        os.environ["PREFECT_API_URL"] = url  # for the processes that sweeps run in
        told = (
            recipe_with_changes(made.parameters["recipe"], made.parameters["changes"])[0].schedule
        ) or None
        if told and told.notify:
            notifier_block(told.notify)
        if renewed := replace_old_entrypoints():
            say(f"Renewed for this version of Cuvee: {', '.join(renewed)}")
        cron = made.schedules[0].schedule.cron if made.schedules else ""
        where = url.removesuffix("/api")
        if made.work_pool_name:
            made.apply()
            say(
                f"Registered scheduled-sweep/{made.name} ({cron}) at {where}, for the workers of "
                f"the pool {made.work_pool_name!r}"
            )
            return
        say(f"Serving scheduled-sweep/{made.name} ({cron}) at {where} until Ctrl-C")
        with _signing_in(api, Path(made.parameters["home"]), url) as secret:
            word = f"PREFECT_API_URL={url} {secret}prefect deployment run"
            say(f"Run it now: {word} scheduled-sweep/{made.name}")
            prefect_serve(made, print_starting_message=False)


def replace_old_entrypoints() -> list[str]:
    """Point deployments of earlier versions, whose module has moved, at the flow of this one.

    Returns:
        The names of those that were changed, sorted; their schedules and parameters stay.
    """
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=["cuvee"]))
    renewed, page, size = [], 0, 200
    with get_client(sync_client=True) as client:
        while found := client.read_deployments(
            deployment_filter=ours, limit=size, offset=page * size
        ):
            page += 1
            for old in found:
                if old.entrypoint in OLD_ENTRYPOINTS:
                    client.update_deployment(old.id, DeploymentUpdate(entrypoint=ENTRYPOINT))
                    renewed.append(f"scheduled-sweep/{old.name}")
    return sorted(renewed)


@contextlib.contextmanager
def _signing_in(api: PrefectApi, home: Path, url: str) -> Iterator[str]:
    """How a person's own shell gives an embedded server's secret: from a file only they can read.

    It is neither printed, for output is kept in logs, nor an argument, which every user can see.
    """
    if not api.secret:
        yield ""
        return
    file = home / "prefect-api" / f"{SIGN_IN}-{urlsplit(url).port}"  # others may serve here too
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as private:
        private.write(api.secret)
    try:
        yield f'PREFECT_API_AUTH_STRING="$(cat {shlex.quote(str(file))})" '
    finally:
        file.unlink(missing_ok=True)
