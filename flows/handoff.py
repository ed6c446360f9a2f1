"""From a recommendation to the files of a trainer: approve it, export it, verify an export.

`export` writes files for a trainer with a manifest beside them. `approve` records a person's word,
in the store and in the record; a person can also give it in the record, as the alias `approved`.
What an approval sets off is in `flows.delivery`.
"""

import getpass
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows import prepare as preparing
from flows.display import current
from flows.home import Home
from flows.recipe import Recipe
from flows.refit import from_tables
from mixtures.domains import DomainSet
from mixtures.errors import ApprovalError, CuveeError, EvidenceError, ExportError
from proxies.corpus import Files
from tasks import exports, handoff_approval, handoff_card, handoff_manifest
from tasks.exports import Blend
from tasks.exports.documents import endings_of
from tasks.handoff_approval import Approval, Grounds
from tasks.handoff_card import Card
from tasks.ledger import Version
from tasks.provenance import code_version
from tasks.record import PREFIX, prefixed
from tasks.store import Store
from tasks.track import open_ledger

ALIAS = "approved"
YES, NO = ("true", "yes", "1"), ("", "false", "no", "0")
MORE = 1.001  # passes that exceed the recipe's cap by rounding alone


def latest(recipe: Recipe, home: Home) -> Card:
    """The card of a recipe's latest recommendation.

    Raises:
        EvidenceError: the recipe has not been run.
    """
    card = handoff_card.latest(Store(home.store), recipe.name)
    if card is None:
        raise EvidenceError(
            f"the store {home.store} holds no recommendation of the study {recipe.name!r}: "
            "`cuvee run` makes one (or `cuvee fit`)"
        )
    return card


def grounds(recipe: Recipe, home: Home) -> Grounds:
    """How recipe, data and code stand now; reads the data, trains nothing."""
    if recipe.tables is not None:
        problem, history = from_tables(recipe)
        found = handoff_card.data(problem.domains, problem.scoring, history)
    else:
        prepared = preparing.prepare(recipe, home, preparing.plainly)
        found = handoff_card.data(prepared.domains, prepared.scoring)
    return Grounds(recipe.digest, found, code_version())


def approve(recipe: Recipe, home: Home, *, by: str = "", note: str = "") -> tuple[Card, Approval]:
    """Approve a recipe's latest recommendation; the record is told, as far as it answers.

    Raises:
        ApprovalError: its evidence is void, with the reasons.
    """
    card = latest(recipe, home)
    now = grounds(recipe, home)
    approval = handoff_approval.approve(
        card, now, Store(home.store), by=by or getpass.getuser(), note=note
    )
    tags = {"approved_by": approval.by, "approved_at": approval.at, "approval_note": approval.note}
    remark(home, card, tags, alias=ALIAS)
    return card, approval


def adopt(recipe: Recipe, home: Home, card: Card) -> Approval:
    """The approval of a recommendation: the store's, else one given in the record, adopted.

    In the record a version is approved by the alias `approved`, or by a tag of that name. Tags
    `approved_by` and `approval_note` say who and why; MLflow itself does not.

    Raises:
        ApprovalError: nobody approved it, or its evidence is void.
    """
    store = Store(home.store)
    known = handoff_approval.get(store, card.fingerprint)
    if known is not None:
        return known
    version = _version(home, card)
    said = _said(version) if version else None
    if version is None or said is None:
        raise ApprovalError(unapproved(card))
    by, note = said
    now = grounds(recipe, home)
    try:
        approval = handoff_approval.approve(card, now, store, by=by, note=note, via="MLflow")
    except ApprovalError as error:
        remark(home, card, {"refused": str(error)[:2000]})
        raise
    remark(home, card, {"approved_by": by, "approved_at": approval.at}, alias=ALIAS)
    return approval


def unapproved(card: Card) -> str:
    """Why a recommendation may not go out, and what lets it."""
    return (
        f"the recommendation {card.fingerprint[:12]} of {card.name} is not approved: "
        f"`cuvee approve` it, or set the alias `{ALIAS}` in MLflow, or export it with --draft"
    )


def _version(home: Home, card: Card) -> Version | None:
    mark = f"{PREFIX}recommendation"
    for version in open_ledger(home.record).versions(card.name):
        if version.tags.get(mark) == card.fingerprint:
            return version
    return None


def _said(version: Version) -> tuple[str, str] | None:
    """Who approved a version in the record, and why; None if nobody did."""
    tags = {name.removeprefix(PREFIX): value.strip() for name, value in version.tags.items()}
    word = tags.get(ALIAS, "")
    if ALIAS not in version.aliases and word.lower() in NO:
        return None
    named = "" if word.lower() in (*YES, *NO) else word
    return tags.get("approved_by") or named or "somebody in MLflow", tags.get("approval_note", "")


def remark(home: Home, card: Card, tags: Mapping[str, str], alias: str | None = None) -> None:
    """Tell the record what became of a recommendation; the store has it, so nothing is lost."""
    try:
        version = _version(home, card)
        if version is not None:
            open_ledger(home.record).mark(card.name, version.number, prefixed(tags), alias)
    except CuveeError as error:
        current().say(f"the record was not told: {error}")


def export(
    recipe: Recipe,
    home: Home,
    *,
    form: str,
    to: str = "",
    stage: int | None = None,
    draft: bool = False,
) -> tuple[str, dict[str, Any]]:
    """Write a recommendation in a trainer's format, with its manifest.

    Args:
        recipe: of the study.
        home: of the study.
        form: name of the format.
        to: folder, a path or an fsspec URL; by default one in the study's folder.
        stage: the only one to export, from 1; None for all.
        draft: whether it may go out without approval, marked as a draft.

    Returns:
        The manifest's place, and the manifest.

    Raises:
        ApprovalError: it is not approved, or no longer stands.
        ExportError: the trainer cannot express it.
    """
    card, store = latest(recipe, home), Store(home.store)
    approval = handoff_approval.get(store, card.fingerprint)
    if approval is None and not draft:
        approval = adopt(recipe, home, card)
    reasons = handoff_approval.objections(card, grounds(recipe, home), store, code=False)
    if not draft:
        handoff_approval.refuse_void(card, reasons)
    target = to or str(home.study(card.name) / "exports" / form)
    made = exports.build(form, recipe.export.formats.get(form))
    whole = blend(recipe, card)
    part = whole.alone(stage) if stage else whole
    files = exports.render(made, part)
    content = handoff_manifest.manifest(
        card, made, part, files, approval=None if draft else approval, stage=stage
    )
    return handoff_manifest.write(target, files, content, store), content


def blend(recipe: Recipe, card: Card) -> Blend:
    """What a trainer is told of a card, by a recipe's `export`.

    Raises:
        ExportError: at this budget a domain would repeat more often than the recipe allows.
    """
    part = recipe.export
    made = Blend(
        name=card.name,
        domains=card.domains,
        stages=card.answer.stages,
        tokens=part.tokens or recipe.full_scale.tokens or card.full_tokens,
        paths={n: (p,) if isinstance(p, str) else tuple(p) for n, p in part.paths.items()},
        seed=part.seed,
        sequence=part.sequence_length,
        batch=part.batch,
        counted=card.counted,
        documented=not card.tables,
        caps=_caps(recipe.constraints.epochs, card.domains),
        **_reading(recipe),
    )
    caps = made.caps
    over = [f"{n} {x:.2f}" for n, x in made.epochs.items() if x > MORE * caps.get(n, float("inf"))]
    if over:
        raise ExportError(
            f"with {made.tokens:,} tokens these would be repeated more often than the recipe's "
            f"constraints.epochs allows: {', '.join(over)} epochs. Set full_scale.tokens to this "
            "budget and run the study again, or lower export.tokens"
        )
    return made


def _reading(recipe: Recipe) -> dict[str, Mapping[str, Any]]:
    """How the study read its documents, by domain: for a `Blend`, whose trainer may read them."""
    given = recipe.corpus.domains if recipe.corpus else {}
    paths = {n: p.path if isinstance(p.path, str) else tuple(p.path) for n, p in given.items()}
    return {
        "fields": {name: part.field for name, part in given.items()},
        "separators": {n: part.separator for n, part in given.items() if part.separator},
        "endings": {name: endings_of(Files(path)) for name, path in paths.items()},
    }


def _caps(epochs: float | Mapping[str, float] | None, domains: DomainSet) -> dict[str, float]:
    if epochs is None:
        return {}
    return dict(epochs) if isinstance(epochs, Mapping) else dict.fromkeys(domains.names, epochs)


def verify(target: str, home: Home) -> dict[str, Any]:
    """Check an export against its manifest and the store; returns the manifest.

    Raises:
        ExportError: something was changed; says what.
    """
    known = Store(home.store) if "://" in home.store or Path(home.store).is_dir() else None
    content, wrong = handoff_manifest.verify(target, known)
    if wrong:
        raise ExportError(f"the export in {target} is not as it was written: {'; '.join(wrong)}")
    return content
