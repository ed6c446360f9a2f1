"""What an approval sets off: an export to the place that the recipe names, and one call.

`hand_off` is what the flow does. Each of its steps can be repeated: the export is the same bytes,
and the call is made once for a recommendation, a format and a target (`tasks.approval.webhook`).
`watch` looks for approvals, in the store and in the record, and runs the flow for each.
"""

import dataclasses
import hashlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cuvee.flows.console import Say
from cuvee.flows.execution.prefect_server import PrefectApi
from cuvee.flows.execution.prefect_session import prefect_step, run_as_flow
from cuvee.flows.handoff import handoff, recorded_approvals
from cuvee.flows.recipe.parts import HandoffPart
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study.finished import finished_study
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import (
    CuveeError,
    EvidenceError,
    HandoffError,
    RecipeError,
)
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.tasks.approval import webhook
from cuvee.tasks.approval.webhook import CallOutcome, HandoffCall
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.finished import FinishedStudy, Purpose

EXPORTED = "exported"  # the state of a handoff that calls nothing


def handoff_part(recipe: Recipe) -> HandoffPart:
    """The part of a recipe that says where a recommendation goes.

    Raises:
        RecipeError: it has none.
    """
    if recipe.handoff is None:
        raise RecipeError(
            "the recipe does not say where its recommendation goes: add "
            "`handoff: {format: megatron, to: s3://bucket/mixtures/next}`, with `webhook: URL` or "
            "`command: [/full/path, ...]` if somebody is to be told"
        )
    return recipe.handoff


def handoff_key(card: FinishedStudy, purpose: Purpose, given: HandoffPart) -> str:
    """What a handoff is known by: a recommendation for a purpose, a format and a place."""
    place = absolute_place(given.to)
    content = [card.identity, asdict(purpose), given.format, place, given.stage]
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def absolute_place(place: str) -> str:
    """A path or an URL as somebody elsewhere can find it."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


def hand_off(recipe: Recipe, place: Workspace, *, again: bool = False) -> dict[str, Any]:
    """Export an approved recommendation and call whom the recipe names, once.

    Args:
        recipe: says what goes where.
        place: of its study.
        again: repeat a call that failed or whose outcome is not known.

    Returns:
        "state" ("done", or "exported" where nothing is called), "said", "manifest" (its place),
        "recommendation" and "key".

    Raises:
        ApprovalError: it is not approved, or no longer stands.
        HandoffError: the call failed, or its outcome is not known.
    """
    given, card = handoff_part(recipe), finished_study(recipe, place)
    call = bool(given.webhook or given.command)
    place.step("approval", handoff.adopt_approval)(recipe, place, card, call=call)
    export = place.step("export", handoff.export)
    where, manifest = export(recipe, place, form=given.format, to=given.to, stage=given.stage)
    told = absolute_place(where)
    mark = handoff_key(card, card.whole(recipe.purpose), given)
    outcome = CallOutcome(EXPORTED, "the recipe names neither webhook nor command")
    if call:
        message = {"event": "mixture.approved", "key": mark, "place": told, "manifest": manifest}
        receiver = HandoffCall(given.webhook or "", tuple(given.command), given.timeout)
        try:
            outcome = place.step("call", webhook.call_once)(
                receiver, Store(place.store), mark, message, again=again
            )
        except HandoffError as error:
            recorded_approvals.record_outcome(place, card, {"handoff": f"not done: {error}"})
            raise
    recorded_approvals.record_outcome(place, card, {"handoff": f"{outcome.state}: {where}"})
    return {
        "state": outcome.state,
        "said": outcome.said,
        "manifest": where,
        "recommendation": card.fingerprint,
        "key": mark,
    }


def run_handoff(
    recipe: Recipe, text: str, home: Workspace, api: PrefectApi, *, again: bool = False
) -> dict[str, Any]:
    """Hand off as a flow of Prefect: what the command line calls."""
    within = dataclasses.replace(home, step=prefect_step)
    result: dict[str, Any] = run_as_flow(
        "handoff-mixture",
        lambda: hand_off(recipe, within, again=again),
        api,
        recipe_text=text,
        home=home.root,
    )
    return result


def watch(recipe: Recipe, recipe_text: str, home: Workspace, api: PrefectApi) -> None:
    """Hand off each recommendation of a recipe as it is approved, until the process is ended.

    A failure is told once for each recommendation and reason; the watch goes on.
    """
    given, handled, told = handoff_part(recipe), set[str](), set[tuple[str, str]]()
    call = bool(given.webhook or given.command)
    home.display.say(f"watching for approvals of {recipe.name}, every {given.every:g} s")
    while True:
        fingerprint = ""
        try:
            card = finished_study(recipe, home)
            fingerprint = card.identity
            if fingerprint not in handled and handoff.adopt_approval(recipe, home, card, call=call):
                result = run_handoff(recipe, recipe_text, home, api)
                handled.add(fingerprint)
                home.display.say(
                    f"{card.name}: {card.fingerprint[:12]} {result['state']}, {result['said']}"
                )
        except EvidenceError as error:
            _tell(home.display.say, told, fingerprint, error, quiet="is not approved" in str(error))
        except CuveeError as error:
            _tell(home.display.say, told, fingerprint, error)
        time.sleep(given.every)


def _tell(
    say: Say,
    told: set[tuple[str, str]],
    fingerprint: str,
    error: CuveeError,
    *,
    quiet: bool = False,
) -> None:
    mark = (fingerprint, str(error))
    if mark not in told and not quiet:
        say(f"not handed off: {error}")
    told.add(mark)
