"""Approval: a person's word that a recommendation may be handed on, and what it was given for.

The store keeps it, under the recommendation's fingerprint: the record may be lost, an approval may
not. Nothing is approved whose evidence is void; the reasons are told.
"""

import dataclasses
import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixtures.errors import ApprovalError
from mixtures.history import RunResult
from tasks.handoff_card import Card
from tasks.store import Store

APPROVALS = "approvals"
SHOWN = 3  # of a long list


@dataclass(frozen=True)
class Approval:
    """Who approved which recommendation, when, and on what grounds it stood.

    Attributes:
        fingerprint: of the recommendation.
        by: who.
        at: when, ISO 8601, UTC.
        note: why, in their words.
        via: where it was said: "command line" or "MLflow".
        recipe: digest of the recipe.
        data: what the evidence was tied to.
        code: hash of the code.
        runs: fingerprints of the runs that it rests on.
    """

    fingerprint: str
    by: str
    at: str
    note: str
    via: str
    recipe: str
    data: Mapping[str, str]
    code: str
    runs: tuple[str, ...]


@dataclass(frozen=True)
class Grounds:
    """How things stand now, for comparison with a card.

    Attributes:
        recipe: digest of the recipe as it is now.
        data: domain -> identity as it is now, or the tables' hash.
        code: hash of the code that runs now.
    """

    recipe: str
    data: Mapping[str, str]
    code: str


def objections(card: Card, now: Grounds, store: Store, *, code: bool = True) -> list[str]:
    """Why a recommendation's evidence is void; empty if it stands.

    Args:
        card: of the recommendation.
        now: how things stand.
        store: holds the runs.
        code: whether code that has changed makes it void: before an approval it does, after it the
            recommendation is what was approved, whichever code writes it down.
    """
    found = []
    if now.recipe != card.recipe:
        found.append("the recipe has changed since the study")
    if now.data != card.data:
        found.append(f"the data has changed since the study: {_differing(card.data, now.data)}")
    if code and now.code != card.code:
        found.append("the code that fits and recommends has changed since the study")
    if not card.tables:
        missing = [run for run in card.answer.evidence if not _holds(store, run)]
        if missing:
            shown = ", ".join(run[:12] for run in missing[:SHOWN])
            found.append(
                f"{len(missing)} of the {len(card.answer.evidence)} runs that it rests on are "
                f"missing in the store or damaged ({shown}{', ...' if missing[SHOWN:] else ''})"
            )
    if not card.answer.evidence:
        found.append("it rests on no run at all")
    return found


def approve(
    card: Card, now: Grounds, store: Store, *, by: str, note: str = "", via: str = "command line"
) -> Approval:
    """Approve a recommendation; who was first stays.

    Raises:
        ApprovalError: its evidence is void, with the reasons; or nobody is named.
    """
    refuse_void(card, objections(card, now, store))
    known = get(store, card.fingerprint)
    if known is not None:
        return known
    if not by.strip():
        raise ApprovalError("an approval needs a name: --by NAME")
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    runs = card.answer.evidence
    made = Approval(
        card.fingerprint,
        by.strip(),
        at,
        note.strip(),
        via,
        now.recipe,
        dict(now.data),
        now.code,
        runs,
    )
    store.remember(APPROVALS, card.fingerprint, dataclasses.asdict(made))
    return made


def refuse_void(card: Card, reasons: list[str]) -> None:
    """Refuse a recommendation whose evidence is void.

    Raises:
        ApprovalError: says why, and what to do.
    """
    if reasons:
        raise ApprovalError(
            f"the recommendation {card.fingerprint[:12]} of {card.name} cannot be approved or "
            f"handed on, its evidence is void: {'; '.join(reasons)}. Run the study again with "
            "`cuvee run`, which trains only what is missing"
        )


def get(store: Store, fingerprint: str) -> Approval | None:
    """The approval of a recommendation, if there is one."""
    values: dict[str, Any] | None = store.recall(APPROVALS, fingerprint)
    if values is None or values.get("fingerprint") != fingerprint:
        return None
    return Approval(**{**values, "runs": tuple(values["runs"])})


def _holds(store: Store, run: str) -> bool:
    return isinstance(store.get(run), RunResult)


def _differing(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    names = sorted(n for n in before.keys() | after.keys() if before.get(n) != after.get(n))
    return ", ".join(names[:SHOWN]) + (", ..." if names[SHOWN:] else "")
