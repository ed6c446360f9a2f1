"""From a recommendation to the trainer that uses it: approve, export, hand off.

`export` writes files for a trainer with a manifest beside them. `approve` records a person's word.
`handoff_mixture` is the flow that an approval sets off: it exports to the place that the recipe
names, and calls a webhook or a command once.
"""

import getpass
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows import prepare as preparing
from flows.home import Home
from flows.recipe import Recipe
from flows.refit import from_tables
from mixtures.domains import DomainSet
from mixtures.errors import ApprovalError, EvidenceError, ExportError
from tasks import exports, handoff_approval, handoff_card, handoff_manifest
from tasks.exports import Blend
from tasks.handoff_approval import Approval, Grounds
from tasks.handoff_card import Card
from tasks.provenance import code_version
from tasks.store import Store

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
    """Approve a recipe's latest recommendation.

    Raises:
        ApprovalError: its evidence is void, with the reasons.
    """
    card = latest(recipe, home)
    now = grounds(recipe, home)
    approval = handoff_approval.approve(
        card, now, Store(home.store), by=by or getpass.getuser(), note=note
    )
    return card, approval


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
        raise ApprovalError(
            f"the recommendation {card.fingerprint[:12]} of {card.name} is not approved: "
            "`cuvee approve` it, or set the alias `approved` in MLflow, or export it with --draft"
        )
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
    )
    caps = _caps(recipe.constraints.epochs, card.domains)
    over = [f"{n} {x:.2f}" for n, x in made.epochs.items() if x > MORE * caps.get(n, float("inf"))]
    if over:
        raise ExportError(
            f"with {made.tokens:,} tokens these would be repeated more often than the recipe's "
            f"constraints.epochs allows: {', '.join(over)} epochs. Set full_scale.tokens to this "
            "budget and run the study again, or lower export.tokens"
        )
    return made


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
