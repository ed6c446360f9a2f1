"""What the record says of approvals, and what it is told of them.

A study's recommendations are versions of a registered model that bears its name. A version is
approved by the alias `approved`, or by a tag of that name that says a name or yes.
"""

from collections.abc import Mapping

from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import CuveeError
from cuvee.tasks.study.finished import NOTHING, FinishedStudy, Purpose
from cuvee.tasks.tracking.fields import PREFIX, approvable_tags, cuvee_tags
from cuvee.tasks.tracking.mlflow import open_backend
from cuvee.tasks.tracking.tracker import RegisteredVersion

ALIAS = "approved"
BUDGET = ("tokens", "parameters")
YES, NO = ("true", "yes", "1"), ("false", "no", "0")


def registered_version(
    home: Workspace, card: FinishedStudy, meant: Purpose | None = None, *, call: bool = True
) -> tuple[RegisteredVersion | None, bool]:
    """A card's version in the record, and whether the alias stands for any version of the study.

    Args:
        home: of the study.
        card: of the recommendation.
        meant: what it is registered for; anything if None.
        call: whether it must name the receiver as well.
    """
    wanted = approvable_tags(card.identity, meant or NOTHING)
    for name in () if meant and call else ("target",) if meant else ("target", *BUDGET):
        del wanted[f"{PREFIX}{name}"]
    every = open_backend(home.record).versions(card.name)
    found = [one for one in every if wanted.items() <= one.tags.items()]
    approved = next((one for one in found if recorded_word(one)), found[0] if found else None)
    return approved, any(ALIAS in one.aliases for one in every)


def registered_purpose(found: RegisteredVersion) -> Purpose:
    """What a version is registered for, which is what its approval is for."""
    tags = {name.removeprefix(PREFIX): value for name, value in found.tags.items()}
    target = "" if tags["target"] == "none" else tags["target"]
    return Purpose(int(tags["tokens"]), int(tags["parameters"]), target)


def _word(found: RegisteredVersion) -> str:
    """What a tag says of the approval: a name, yes or no; "" if there is none."""
    tags = (found.tags.get(name, "").strip() for name in (ALIAS, f"{PREFIX}{ALIAS}"))
    return next((word for word in tags if word), "")


def taken_back(found: RegisteredVersion, alias: bool) -> bool:
    """Whether an approval that the record gave is gone from it; an alias that moved on is not."""
    return not alias or _word(found).lower() in NO


def recorded_word(found: RegisteredVersion) -> tuple[str, str] | None:
    """Who approved a version in the record, and why; None if nobody did, or a tag says no."""
    tags = {name.removeprefix(PREFIX): value.strip() for name, value in found.tags.items()}
    word = _word(found)
    if word.lower() in NO or not (word or ALIAS in found.aliases):
        return None
    named = "" if word.lower() in YES else word
    return tags.get("approved_by") or named or "somebody in MLflow", tags.get("approval_note", "")


def record_outcome(
    home: Workspace,
    card: FinishedStudy,
    tags: Mapping[str, str],
    meant: Purpose | None = None,
    alias: str | None = None,
) -> None:
    """Tell the record what became of a recommendation; the store has it, so nothing is lost.

    Args:
        home: of the study.
        card: of the recommendation.
        tags: to set.
        meant: what the version is registered for that is told; any if None.
        alias: to set, which approves; "" takes the approval's away.
    """
    try:
        found, _ = registered_version(home, card, meant)
        if found is not None:
            backend = open_backend(home.record)
            backend.tag_version(card.name, found.number, cuvee_tags(tags), alias or None)
            if alias == "" and ALIAS in found.aliases:
                backend.delete_alias(card.name, ALIAS)
    except CuveeError as error:
        home.display.say(f"the record was not told: {error}")
