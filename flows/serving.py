"""Serves a scheduled sweep: registers it with Prefect, and runs it here or leaves it to a pool.

`prefect deploy` reads the same deployment from infra/prefect.yaml, for recipes that lie in a
repository.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import serve as prefect_serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.recipe import Recipe
from flows.schedule import notifier, read
from flows.server import PrefectApi
from flows.standing import SchedulePart
from mixtures.errors import RecipeError

ENTRYPOINT = "flows.schedule.scheduled_sweep"


def deployment(
    recipe: Recipe, text: str, home: Path, *, cron: str, parameters: str
) -> RunnerDeployment:
    """The deployment of a recipe's scheduled sweep.

    Raises:
        RecipeError: no schedule, one that cannot be read, or changes that make no recipe.
    """
    changes = fields(parameters)
    part = read(text, changes)[0].schedule or SchedulePart()
    when = cron or part.cron
    if not when:
        raise RecipeError('no schedule: give --cron "0 3 * * 1" or `schedule: {cron: ...}`')
    try:
        schedule = CronSchedule(cron=when, timezone=part.timezone)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise RecipeError(f"the schedule {when!r} in {part.timezone!r}: {reason}") from error
    return RunnerDeployment.from_entrypoint(
        entrypoint=ENTRYPOINT,
        name=recipe.name,
        schedule=schedule,
        parameters={"recipe": text, "home": str(home), "changes": changes},
        concurrency_limit=ConcurrencyLimitConfig(
            limit=part.limit, collision_strategy=ConcurrencyLimitStrategy.ENQUEUE
        ),
        description="A mixture study that looks first whether anything changed.",
        tags=["cuvee"],
        work_pool_name=part.pool or None,
    )


def fields(text: str) -> dict[str, Any]:
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
    url = api.wait()
    os.environ["PREFECT_API_URL"] = url  # for the processes that sweeps run in
    with temporary_settings(updates={PREFECT_API_URL: url}):
        told = (read(made.parameters["recipe"], made.parameters["changes"])[0].schedule) or None
        if told and told.notify:
            notifier(told.notify)
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
        say(f"Run it now: PREFECT_API_URL={url} prefect deployment run scheduled-sweep/{made.name}")
        prefect_serve(made, print_starting_message=False)
