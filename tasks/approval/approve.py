"""Approval: a person's word that a recommendation may be handed on, and what it was given for.

It holds for one card (a study's answer to one recipe on its data) and one purpose: a budget, and
whom a handoff calls. The store keeps it under these: the record may be lost, an approval may not.
Nothing is approved whose evidence is void; the reasons are told. An approval can be withdrawn, and
stays then as what was withdrawn.
"""

import dataclasses
import datetime
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cuvee.mixtures.errors import ApprovalError
from cuvee.mixtures.runs.run_records import revive
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.finished import FORMAT, FinishedStudy, Purpose
from cuvee.tasks.study.validity import Present, refuse_void, validity

APPROVALS = "approvals"
RECORD = "MLflow"  # where a person said it, if not at the command line
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
        code: version of the mathematics.
        runs: fingerprints of the runs that it rests on.
        study: its name.
        card: identity of the card.
        purpose: what it was approved for.
        format: of what it is bound to.
        withdrawn: by whom, when and why it was withdrawn; "" while it stands.
        withdrawn_via: where that was said.
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
    study: str
    card: str
    purpose: Purpose
    format: int
    withdrawn: str = ""
    withdrawn_via: str = ""

    @property
    def key(self) -> str:
        """Its name in a store."""
        bound = hashlib.sha256(canonical_json(dataclasses.asdict(self.purpose)).encode())
        return f"{self.card}-{bound.hexdigest()[:16]}"

    def serves(self, purpose: Purpose, *, call: bool) -> bool:
        """Whether it is for a purpose; whom a handoff calls matters where there is a call."""
        ours, theirs = self.purpose, purpose
        same = (ours.tokens, ours.parameters) == (theirs.tokens, theirs.parameters)
        return same and (not call or ours.target == theirs.target)


def approve(
    card: FinishedStudy,
    now: Present,
    store: Store,
    *,
    by: str,
    note: str = "",
    via: str = "command line",
) -> Approval:
    """Approve a recommendation for the purpose that its recipe has now; who was first stays.

    Raises:
        ApprovalError: its evidence is void, with the reasons; or nobody is named.
    """
    refuse_void(card, validity(card, now, store))
    if not by.strip():
        raise ApprovalError("an approval needs a name: --by NAME")
    made = Approval(
        fingerprint=card.fingerprint,
        by=by.strip(),
        at=utc_now(),
        note=note.strip(),
        via=via,
        recipe=now.recipe,
        data=dict(now.data),
        code=now.code,
        runs=card.answer.evidence,
        study=card.name,
        card=card.identity,
        purpose=card.whole(now.purpose),
        format=FORMAT,
    )
    before = store.recall(APPROVALS, made.key) or {}
    known = _read(before)
    if known is not None and not known.withdrawn:
        return known
    earlier = [*before.pop("earlier", []), before] if before else []
    store.remember(APPROVALS, made.key, {**dataclasses.asdict(made), "earlier": earlier})
    return made


def withdraw_approval(
    store: Store, given: Approval, *, by: str, note: str = "", via: str
) -> Approval:
    """Withdraw an approval, which then stands no more."""
    why = f": {note.strip()}" if note.strip() else ""
    said = f"withdrawn by {by.strip()} at {utc_now()}{why}"
    taken = dataclasses.replace(given, withdrawn=said, withdrawn_via=via)
    store.renew(APPROVALS, taken.key, dataclasses.asdict(taken), "purpose")
    return taken


def utc_now() -> str:
    """The time, ISO 8601, UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def approvals_of(store: Store, card: str) -> tuple[Approval, ...]:
    """The approvals of a card by its identity, the newest first; withdrawn ones too."""
    mine = [one for values in _kept(store, card) if (one := _read(values)) and one.card == card]
    return tuple(sorted(mine, key=lambda approval: approval.at, reverse=True))


def approvals_of_recipe(store: Store, recipe: str) -> tuple[Approval, ...]:
    """The approvals of a recipe by its digest, whatever was recommended; withdrawn ones too."""
    found = (_read(values) for values in _kept(store))
    return tuple(approval for approval in found if approval and approval.recipe == recipe)


def replaced_approvals(store: Store, card: str) -> tuple[Approval, ...]:
    """The approvals of a card that were withdrawn, and then given anew."""
    found = (_read(one) for values in _kept(store, card) for one in values.get("earlier", []))
    return tuple(approval for approval in found if approval)


def _kept(store: Store, card: str = "") -> Iterator[Mapping[str, Any]]:
    for key in store.keys(APPROVALS):
        values = store.recall(APPROVALS, key) if key.startswith(card) else None
        if isinstance(values, Mapping):
            yield values


def standing_approval(
    store: Store, card: str, purpose: Purpose | None = None, *, call: bool = False
) -> Approval | None:
    """The approval of a card that stands, for a purpose if one is given; None if none does."""
    for given in approvals_of(store, card):
        if not given.withdrawn and (purpose is None or given.serves(purpose, call=call)):
            return given
    return None


def unbound_approver(store: Store, card: FinishedStudy) -> str:
    """Who approved a recommendation by an older version, which bound it to nothing more; or ""."""
    values = store.recall(APPROVALS, card.fingerprint)
    return str(values.get("by", "")) if isinstance(values, Mapping) else ""


def _read(values: object) -> Approval | None:
    """An approval; None for one of an older version, which does not say what it was given for."""
    if not isinstance(values, Mapping) or values.get("format") != FORMAT:
        return None
    try:
        parts = {"runs": tuple(values["runs"]), "purpose": revive(Purpose, values["purpose"])}
        return revive(Approval, {**values, **parts})
    except (KeyError, TypeError):
        return None
