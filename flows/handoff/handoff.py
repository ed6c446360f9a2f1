"""From a recommendation to the files of a trainer: approve it, export it, verify an export.

`export` writes files for a trainer with a manifest beside them. `approve` records a person's word,
in the store and in the record; a person can also give it in the record, as the alias `approved`.
What an approval sets off is in `flows.handoff.delivery`.
"""

import contextlib
import dataclasses
import getpass
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuvee.flows.handoff import recorded_approvals
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study.finished import finished_study, present_state
from cuvee.flows.study.recipe_sources import domain_files
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.domains import DomainSet
from cuvee.mixtures.errors import (
    ApprovalError,
    CuveeError,
    ExportError,
    MissingExtra,
    RecipeError,
    ServiceError,
)
from cuvee.mixtures.runs.run_spec import Stage
from cuvee.tasks import export as exports
from cuvee.tasks.approval import approve as approvals
from cuvee.tasks.approval import manifest
from cuvee.tasks.approval.approve import Approval
from cuvee.tasks.export import ExportSpec
from cuvee.tasks.export.delivery import MORE
from cuvee.tasks.export.documents import same_text
from cuvee.tasks.export.specification import StudiedText
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.study.finished import FinishedStudy, Purpose
from cuvee.tasks.study.validity import refuse_void, validity
from cuvee.tasks.tracking.ui import unsafe_approvals

COMMAND = "command line"


def approve(
    recipe: Recipe, home: Workspace, *, by: str = "", note: str = ""
) -> tuple[FinishedStudy, Approval]:
    """Approve a recipe's latest recommendation; the record is told, as far as it answers.

    Raises:
        ApprovalError: its evidence is void, with the reasons.
    """
    card = finished_study(recipe, home)
    now = present_state(recipe, home, study=card)
    approval = approvals.approve(
        card, now, Store(home.store), by=by or getpass.getuser(), note=note
    )
    tags = {"approved_by": approval.by, "approved_at": approval.at, "approval_note": approval.note}
    recorded_approvals.record_outcome(home, card, tags, approval.purpose, recorded_approvals.ALIAS)
    return card, approval


def withdraw(recipe: Recipe, home: Workspace, *, by: str = "", note: str = "") -> list[Approval]:
    """Withdraw every approval of a recipe's recommendations; the record is told.

    Raises:
        ApprovalError: there is none.
    """
    store, taken = Store(home.store), []
    for given in approvals.approvals_of_recipe(store, recipe.digest):
        if not given.withdrawn:
            who = by or getpass.getuser()
            taken.append(approvals.withdraw_approval(store, given, by=who, note=note, via=COMMAND))
            card = finished.finished_by_identity(store, given.card)
            if card is not None:
                tags = {"withdrawn": taken[-1].withdrawn}
                recorded_approvals.record_outcome(home, card, tags, given.purpose, alias="")
    if not taken:
        raise ApprovalError(f"no approval of {recipe.name} stands that could be withdrawn")
    return taken


def warnings(card: FinishedStudy) -> list[str]:
    """What whoever approves a recommendation must know first."""
    found = []
    if card.confirmed is None:
        found.append(
            "no fresh run has confirmed this recommendation: "
            + (
                "train it beside the natural mixture"
                if card.tables
                else "`confirm` has them trained"
            )
        )
    elif not card.confirmed:
        found.append("fresh runs did not confirm what this recommendation claims")
    return found + list(card.answer.warnings)


def adopt_approval(
    recipe: Recipe, home: Workspace, card: FinishedStudy, *, call: bool = False
) -> Approval:
    """The approval of a recommendation: the store's, else one given in the record, adopted.

    In the record a version is approved by the alias `approved`, or by a tag of that name. Tags
    `approved_by` and `approval_note` say who and why; MLflow itself does not. What was approved
    there is withdrawn when both are gone; what was withdrawn at the command line is approved anew
    at the command line alone.

    Args:
        recipe: says what for.
        home: of the study.
        card: of the recommendation.
        call: whether it must be approved for the call of the recipe's handoff as well.

    Raises:
        ApprovalError: nobody approved it for this, or its evidence is void.
    """
    store, purpose = Store(home.store), card.whole(recipe.purpose)
    known = approvals.standing_approval(store, card.identity, purpose, call=call)
    if known and known.via != approvals.RECORD:
        return known
    try:
        version, alias = recorded_approvals.registered_version(home, card, purpose, call=call)
    except (MissingExtra, ServiceError) as error:
        if known is None and isinstance(error, ServiceError):
            raise
        if known is None:
            raise ApprovalError(unapproved(card, purpose, store)) from error
        home.display.say(f"the record was not asked whether the approval stands: {error}")
        return known
    said = recorded_approvals.recorded_word(version) if version else None
    if known and (version is None or said or not recorded_approvals.taken_back(version, alias)):
        return known
    if known:
        approvals.withdraw_approval(store, known, by="the record", via=approvals.RECORD)
    barred = any(
        given.withdrawn_via == COMMAND and given.serves(purpose, call=call)
        for given in approvals.approvals_of(store, card.identity)
    )
    if version is None or said is None or barred:
        raise ApprovalError(unapproved(card, purpose, store))
    by, note = said
    if doubt := unsafe_approvals(home.record):
        raise ApprovalError(
            f"the record says that {by} approved {card.fingerprint[:12]} of {card.name}, which is "
            f"not believed: {doubt}. Approve it with `cuvee approve`"
        )
    registered = recorded_approvals.registered_purpose(version)
    now = dataclasses.replace(present_state(recipe, home, study=card), purpose=registered)
    try:
        approval = approvals.approve(card, now, store, by=by, note=note, via=approvals.RECORD)
    except ApprovalError as error:
        recorded_approvals.record_outcome(home, card, {"refused": str(error)[:2000]})
        raise
    outcome = {"approved_by": by, "approved_at": approval.at}
    recorded_approvals.record_outcome(home, card, outcome, registered)
    return approval


def unapproved(card: FinishedStudy, purpose: Purpose, store: Store) -> str:
    """Why a recommendation may not go out for a purpose, and what lets it."""
    why = ""
    for given in approvals.approvals_of(store, card.identity):
        if given.withdrawn:
            why = f" (the approval by {given.by} was {given.withdrawn})"
        elif not given.serves(purpose, call=False):
            why = f" ({given.by} approved it for {given.purpose.budget})"
        else:
            why = f" ({given.by} approved it for another place or receiver of the handoff, or none)"
    if not why and (by := approvals.unbound_approver(store, card)):
        why = f" ({by} did with an older version, which bound it to no recipe, data or budget)"
    return (
        f"the recommendation {card.fingerprint[:12]} of {card.name} is not approved for "
        f"{purpose.budget}{why}: `cuvee approve` it, or set the alias "
        f"`{recorded_approvals.ALIAS}` in MLflow, or export it with --draft"
    )


def export(
    recipe: Recipe,
    home: Workspace,
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
    made = exports.build_format(_named(form), recipe.export.formats.get(form))
    card, store = finished_study(recipe, home), Store(home.store)
    approval = None if draft else adopt_approval(recipe, home, card)
    reasons = validity(card, present_state(recipe, home, study=card), store, code=False)
    if not draft:
        refuse_void(card, reasons)
    target = to or _target(home, card, form)
    whole = export_spec(recipe, card)
    part = whole.alone(stage) if stage else whole
    files = exports.render_export(made, part)
    content = manifest.export_manifest(card, made, part, files, approval=approval, stage=stage)
    if not content.get("validation", {"in_files": True})["in_files"]:
        home.display.say(f"{form} has no place for validation sets: the manifest alone has them")
    return manifest.write_export(target, files, content, store), content


def _target(home: Workspace, card: FinishedStudy, form: str) -> str:
    """Where an export goes if nobody says; not over that of another recipe of the same name."""
    place = home.study(card.name) / "exports" / form
    with contextlib.suppress(CuveeError):
        if manifest.verify_export(str(place))[0].get("recipe") != card.recipe:
            return f"{place}-{card.recipe[:8]}"
    return str(place)


def _named(form: str) -> str:
    if not form:
        raise RecipeError(
            "export needs a format: --format, or handoff.format in the recipe; known: "
            f"{', '.join(exports.format_names())}"
        )
    return form


def export_spec(recipe: Recipe, card: FinishedStudy) -> ExportSpec:
    """What a trainer is told of a card, by a recipe's `export`.

    Raises:
        ExportError: at this budget a domain would repeat more often than the recipe allows.
    """
    made = dataclasses.replace(
        spec_of_stages(recipe, card.domains, card.answer.stages),
        name=card.name,
        tokens=card.whole(recipe.purpose).tokens,
        counted=card.counted,
        documented=not card.tables,
        caps=_caps(recipe.constraints.epochs, card.domains),
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


def spec_of_stages(recipe: Recipe, domains: DomainSet, stages: tuple[Stage, ...]) -> ExportSpec:
    """What a recipe's `export` says to a trainer of shares, of a run whose length is not told."""
    part = recipe.export
    return ExportSpec(
        name=recipe.name,
        domains=domains,
        stages=stages,
        tokens=0,
        paths={name: _listed(path) for name, path in part.paths.items()},
        seed=part.seed,
        sequence=part.sequence_length,
        batch=part.batch,
        sources=_sources(recipe),
        validation={name: _listed(path) for name, path in part.validation.items()},
    )


def _sources(recipe: Recipe) -> dict[str, StudiedText]:
    """How the study read its domains: for a trainer that may read them."""
    found = {}
    for name, part in recipe.corpus.domains.items() if recipe.corpus else ():
        given, hub = _listed(recipe.export.paths.get(name, ())), part.dataset
        files = domain_files(recipe, part, tuple(map(recipe.source_path, part.paths)))
        keywords = {"name": hub.config, "revision": hub.revision, "split": hub.split} if hub else {}
        left_out = {"split": "train", "name": None, "revision": None}
        found[name] = StudiedText(
            files,
            own=given == (hub.name,) if hub else same_text(given, (*part.paths, *files.path)),
            dataset={
                "path": hub.name, **{k: v for k, v in keywords.items() if v != left_out[k]}
            } if hub else {},
            tokens=part.token_format,
            sample=part.tokens is not None and part.take is None,
        )  # fmt: skip
    return found


def _listed(path: str | Sequence[str]) -> tuple[str, ...]:
    return (path,) if isinstance(path, str) else tuple(path)


def _caps(epochs: float | Mapping[str, float] | None, domains: DomainSet) -> dict[str, float]:
    if epochs is None:
        return {}
    return dict(epochs) if isinstance(epochs, Mapping) else dict.fromkeys(domains.names, epochs)


def verify(target: str, home: Workspace) -> dict[str, Any]:
    """Check an export against its manifest and the store; returns the manifest.

    Raises:
        ExportError: something was changed; says what.
    """
    known = Store(home.store) if "://" in home.store or Path(home.store).is_dir() else None
    content, wrong = manifest.verify_export(target, known)
    if wrong:
        raise ExportError(f"the export in {target} is not as it was written: {'; '.join(wrong)}")
    return content
