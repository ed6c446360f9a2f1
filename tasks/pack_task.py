"""The step that Prefect sees for each pack: submit, wait, keep."""

from collections.abc import Callable, Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from cuvee.mixtures.errors import CuveeError, TrainingError
from cuvee.mixtures.runs import Outcome
from cuvee.tasks.job import PackJob


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


@task(
    name="train-pack",
    task_run_name="pack-{job.name}",
    retries=1,
    retry_delay_seconds=1,
    retry_condition_fn=_worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def train_pack(
    job: PackJob,
    run: Callable[[PackJob], Sequence[Outcome]],
    keep: Callable[[PackJob, Sequence[Outcome]], None],
) -> None:
    """Train a pack where `run` places it, and hand its outcomes to `keep` at once."""
    keep(job, run(job))
