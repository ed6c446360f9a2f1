"""The scheduled sweep: looks first, then searches; what `cuvee schedule` has Prefect run.

The flow is named by its module, `flows.scheduling.schedule.scheduled_sweep`, so that any process
in which Cuvee is installed can run it. Its heavy parts are imported inside, after the home is
settled.
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.blocks.core import Block
from prefect.blocks.notifications import NotificationBlock
from prefect.blocks.webhook import Webhook
from prefect.states import Completed, Failed

from cuvee.flows.recipe.load import apply_changes, parse, recipe_text, recorded_recipe
from cuvee.flows.recipe.parts import SchedulePart
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.workspace import Workspace, open_workspace
from cuvee.mixtures.errors import CuveeError, RecipeError, ServiceError, StorageError, TrainingError
from cuvee.tasks import strict_yaml

PASSING = (ServiceError, StorageError, TrainingError)  # what another try may overcome
RETRIES, RETRY_SECONDS = 2, 60


def notify(flow: Any, flow_run: Any, state: Any) -> None:  # noqa: ARG001 Prefect names them
    """Tell the block that the recipe names of a sweep that failed or crashed."""
    given = flow_run.parameters
    recipe = recipe_with_changes(*map(given.get, ("recipe", "changes", "folder")))[0]
    if recipe.schedule and recipe.schedule.notify:
        block = notifier_block(recipe.schedule.notify)
        subject = f"Cuvee: the scheduled sweep {recipe.name} {state.name.lower()}"
        body = f"Flow run {flow_run.name}: {state.message or 'no message'}"
        if isinstance(block, Webhook):
            block.call(payload={"subject": subject, "body": body})
        else:
            block.notify(body=body, subject=subject)


def notifier_block(name: str) -> Any:
    """The block of Prefect that is told of failures.

    Raises:
        RecipeError: there is none of this name, or it notifies nobody.
    """
    try:
        block = Block.load(name)
    except ValueError as error:
        raise RecipeError(
            f"schedule.notify names the Prefect block {name!r}, which cannot be loaded "
            f"({' '.join(str(error).split())[:200]}): create it in the Prefect UI under Blocks"
        ) from error
    if not isinstance(block, NotificationBlock | Webhook):
        raise RecipeError(f"the Prefect block {name!r} is no notification block and no webhook")
    return block


@flow(
    name="scheduled-sweep",
    persist_result=False,
    on_failure=[notify],
    on_crashed=[notify],
)
def scheduled_sweep(
    recipe: str, home: str = ".cuvee", changes: dict[str, Any] | None = None, folder: str = ""
) -> Any:
    """Search for a mixture if anything changed since the last study.

    Args:
        recipe: the recipe's YAML, or its path where the sweep runs.
        home: directory of the embedded default.
        changes: fields of the recipe that this run has otherwise, by dotted name.
        folder: beside which relative paths of the recipe are looked for too.

    Returns:
        A state of Prefect whose message says what was done and why.
    """
    left = RETRIES  # not Prefect's own, which would also try what was returned as failed
    while True:
        try:
            given, text = recipe_with_changes(recipe, changes, folder)
            return _sweep(given, text, open_workspace(Path(home), hub=given.hub))
        except PASSING as error:
            if not left:
                return Failed(message=str(error))
            left -= 1
            time.sleep(RETRY_SECONDS)
        except CuveeError as error:  # wrong input stays wrong, so it is not tried again
            return Failed(message=str(error))


def _sweep(recipe: Recipe, text: str, workspace: Workspace) -> Any:
    from cuvee.flows.execution.prefect_session import prefect_step, stoppable
    from cuvee.flows.execution.ray_executor import RayExecutor
    from cuvee.flows.study import prepare as preparing
    from cuvee.flows.study.finished import present_state
    from cuvee.flows.study.study import search_mixture
    from cuvee.tasks.store.results import Store
    from cuvee.tasks.study.finished import latest_complete
    from cuvee.tasks.study.validity import changes_since, lost_runs, unchanged_ratios

    place = dataclasses.replace(workspace, step=prefect_step)
    store = Store(place.store)
    now = present_state(recipe, place, preparing.prepare(recipe, place, planned=True))
    before, date = latest_complete(store, recipe.name), now.snapshot.date if now.snapshot else ""
    found = changes_since(before, now) or (lost_runs(before, store) if before else ())
    if before and before.snapshot and not found:
        message = f"Nothing changed since the study of {before.snapshot.date}: no work."
        _log(place.study(recipe.name), date, message)
        return Completed(message=message, name="Unchanged")
    given, note = recipe, ""
    kept = unchanged_ratios(before, now)
    if kept and before and before.snapshot and (recipe.schedule or SchedulePart()).reuse:
        text, note = hold_ratios(recipe, text, kept, before.snapshot.date)
        given = parse(text).located(recipe.folder)
    executor = RayExecutor(place.root, device=recipe.proxy.device)

    def search() -> Any:
        return search_mixture(given, executor, place, text=text, asked=recipe, note=note)

    digest = stoppable(search, executor)
    if not isinstance(digest, Mapping):
        return digest  # a state: it was cancelled
    message = (
        f"Changed: {', '.join(found)}. {note + ' ' if note else ''}Trained "
        f"{digest['trained_now']}, reused {digest['reused']} proxies; {digest['verdict']}"
    )
    _log(place.study(recipe.name), date, message)
    return Completed(message=message)


def hold_ratios(recipe: Recipe, text: str, kept: Mapping[str, float], date: str) -> tuple[str, str]:
    """The recipe with the ratios of unchanged domains held, and what that saves, in words.

    A method that draws no design of its own size is left as it is.
    """
    from cuvee.proxies import ladder
    from cuvee.tasks.study.validity import runs_over_groups

    method = recipe.build_method().method
    runs, names = method.runs, recipe.corpus.domains if recipe.corpus else {}
    if not runs or method.design is None or recipe.constraints.ratios:
        return text, ""
    less = runs_over_groups(runs, len(names), len(names) - len(kept) + 1)
    values = strict_yaml.load_yaml(text)
    before = recipe.method.get("design", "dirichlet")
    design = {"name": "reuse", "frozen": [dict(kept)], "design": before}
    values["method"] = {**recipe.method, "runs": less, "design": design}
    values["constraints"] = {**(values.get("constraints") or {}), "ratios": [dict(kept)]}
    flops = ""
    if recipe.corpus and not recipe.corpus.tokenizer:  # whose vocabulary nobody has looked at yet
        plan = ladder.training_plan(
            recipe.proxy.size, recipe.proxy.tokens, recipe.corpus.vocabulary
        )
        flops = f"{(runs - less) * plan.flops:.2e} FLOPs, "
    note = (
        f"Reused from the study of {date}: the ratios among {', '.join(kept)}, whose text is "
        f"unchanged. {less} runs were drawn in place of {runs}, which saved "
        f"{flops}{1 - less / runs:.0%} of the design. Not "
        "searched: other ratios among these domains."
    )
    return strict_yaml.dump_yaml(values), note


def recipe_with_changes(
    given: str, changes: Mapping[str, Any] | None, folder: str | None = None
) -> tuple[Recipe, str]:
    """A recipe and its text, from its text or its path, with changes."""
    place, text, where = Path(folder) if folder else None, given, "the recipe"
    if "\n" not in given:
        place, text, where = place or Path(given).parent, recipe_text(Path(given)), given
    recipe, text = recorded_recipe(text, where, place)
    if changes:
        recipe, text = apply_changes(text, changes, place)
    return recipe.located(place) if place else recipe, text


def _log(folder: Path, date: str, message: str) -> None:
    """Add a line to the study's log of looks."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "looks.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"date": date, "message": message}) + "\n")
