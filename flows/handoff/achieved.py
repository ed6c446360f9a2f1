"""The full run against the recommendation that it was given: what `cuvee achieved` says."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from cuvee.flows.handoff.handoff import export_spec
from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.study.finished import finished_study
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import ExportError
from cuvee.tasks.approval import manifest
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.finished import FinishedStudy
from cuvee.tasks.trainer.achieved_shares import AchievedDomain, AchievedShares, compare_drawn
from cuvee.tasks.trainer.drawn_tokens import read_drawn_tokens


def achieved_shares(
    recipe: Recipe, home: Workspace, logs: Sequence[Path], export: str = ""
) -> tuple[FinishedStudy, AchievedShares, list[str]]:
    """Hold a full run to the recommendation of a recipe.

    Args:
        recipe: of the study.
        home: of the study.
        logs: of the trainer; see `read_drawn_tokens`.
        export: folder of the export that it was given; the only one of the recommendation if "".

    Returns:
        The study, the comparison, and where its numbers come from.

    Raises:
        ExportError: the export is none, or of other domains.
    """
    card, store = finished_study(recipe, home), Store(home.store)
    spec, wrong = export_spec(recipe, card), list[str]()
    kept = (store.recall(manifest.MANIFESTS, key) for key in store.keys(manifest.MANIFESTS))
    known = [dict(one) for one in kept if one]
    own = [one for one in known if one.get("card") == card.identity]
    given = own[0] if len(own) == 1 else None
    said = f"exported: {len(own)} times; name the run's own with --export FOLDER"
    if export:
        given, wrong = manifest.verify_export(export, store)
    exported = None
    if given is not None:
        try:
            spec = spec.alone(given["stage"]) if given.get("stage") else spec
            spec = dataclasses.replace(spec, tokens=int(given.get("target_tokens") or spec.tokens))
            exported = _given(given)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            of = export or "what the store keeps"
            raise ExportError(f"{of} is not the manifest of an export: {error!r}") from error
        for name in exported:
            spec.domains.index(name)  # an unknown name is refused, with those that exist
        changed = f", and changed since: {'; '.join(wrong)}" if wrong else ""
        said = f"exported: {_called(given)}{changed}"
    drawn = read_drawn_tokens(logs, spec)
    others = {
        f"the mixture {one.name!r}": dict(zip(card.answer.domains, one.weights, strict=True))
        for one in card.answer.candidates[1:]
    }
    apart = (one for one in known if one.get("stage") or one not in own)
    others |= {f"the export {_called(one)}": _given(one) for one in apart}
    found = compare_drawn(spec, drawn, exported, others)
    if wrong and found.differences:
        why = f"the export is not as it was written: {'; '.join(wrong)}"
        found = dataclasses.replace(found, causes=(why, *found.causes))
    return card, found, [f"drawn: {drawn.said}", said]


def _called(content: Mapping[str, Any]) -> str:
    stage = f"stage {content['stage']} of " if content.get("stage") else ""
    of = str(content.get("recommendation"))[:12]
    return f"to {content.get('format')} of {stage}the recommendation {of}"


def _given(content: Mapping[str, Any]) -> dict[str, float]:
    rows = content.get("domains") or ()
    found = {row["name"]: float(row.get("delivered_tokens") or row["weight"]) for row in rows}
    if wrong := [name for name, amount in found.items() if not amount >= 0]:
        raise ValueError(f"what it gives of {wrong[0]} is no amount")
    return found


def achieved_table(rows: Sequence[AchievedDomain], title: str) -> Table:
    """What a person sees of a run or a stage."""
    table = Table(title=title)
    table.add_column("domain", overflow="fold")
    for column in ("recommended", "exported", "drawn", "tokens drawn", "passes", ""):
        table.add_column(column, justify="right", no_wrap=True)
    whole = [sum(getattr(row, name) or 0.0 for row in rows) for name in ("recommended", "drawn")]
    for row in rows:
        table.add_row(
            Text(row.name),
            f"{row.recommended / whole[0]:.2%}",
            "" if row.exported is None else f"{row.exported / whole[1]:.2%}",
            f"{row.drawn / whole[1]:.2%}",
            f"{row.drawn:,.0f}",
            "" if row.epochs is None else f"{row.epochs:.2f}",
            Text("off", style="bold red") if row.off else "",
        )
    return table
