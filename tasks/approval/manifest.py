"""The manifest of an export: what was exported, on whose word, and how to tell if it was changed.

It lies beside the exported files and is written last. It holds their hashes and its own, no time of
writing and no place, so that the same export is the same bytes wherever and whenever it is made.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Mapping
from typing import Any

from cuvee.mixtures import registry
from cuvee.mixtures.errors import CuveeError, ExportError, StorageError
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.tasks.approval import approve
from cuvee.tasks.approval.approve import Approval
from cuvee.tasks.export import ExportFormat, ExportSpec
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.finished import FinishedStudy

FILE = "manifest.json"
MANIFESTS = "manifests"  # folder of the store: every manifest that was written, by its hash
APPROVED, DRAFT = "approved", "draft"
HASH = re.compile(r"[0-9a-f]{64}")


def export_manifest(
    card: FinishedStudy,
    form: ExportFormat,
    blend: ExportSpec,
    files: Mapping[str, str],
    *,
    approval: Approval | None,
    stage: int | None = None,
) -> dict[str, Any]:
    """The manifest of an export, as plain values.

    Args:
        card: of the recommendation.
        form: the trainer's format.
        blend: what was exported; of a single stage if one was chosen.
        files: what was written, by name.
        approval: None makes a draft.
        stage: the one that was exported (from 1), or None for all.
    """
    described = registry.describe(form)
    content: dict[str, Any] = {
        "manifest": 1,
        "study": card.name,
        "recommendation": card.fingerprint,
        "card": card.identity,
        "status": APPROVED if approval else DRAFT,
        "approval": _said(approval),
        "verdict": card.verdict,
        "recipe": card.recipe,
        "code": card.code,
        "cuvee": importlib.metadata.version("cuvee"),
        "format": described.pop("name"),
        "options": described,
        "unit": form.unit,
        "stage": stage,
        "stages": len(blend.stages),
        "target_tokens": blend.tokens or None,
        "domains": _domains(card, blend, form.delivered(blend) if blend.tokens else {}),
        "files": {name: _sha256(text.encode()) for name, text in sorted(files.items())},
    }
    if blend.validation:
        bare = dataclasses.replace(blend, validation={})
        content["validation"] = {
            "paths": {name: list(paths) for name, paths in blend.validation.items()},
            "in_files": form.files(bare) != dict(files),  # else the format has no place for them
        }
    return content | {"sha256": _sha256(canonical_json(content).encode())}


def _said(approval: Approval | None) -> dict[str, str] | None:
    if approval is None:
        return None
    return {"by": approval.by, "at": approval.at, "note": approval.note, "via": approval.via}


def _domains(
    card: FinishedStudy, blend: ExportSpec, delivered: Mapping[str, float]
) -> list[dict[str, Any]]:
    shares, epochs = blend.shares, blend.epochs
    identity = {domain.name: domain.identity for domain in card.domains}
    return [
        {
            "name": domain.name,
            "identity": identity[domain.name],
            "weight": shares.get(domain.name, 0.0),
            "tokens": round(shares.get(domain.name, 0.0) * blend.tokens) if blend.tokens else None,
            "delivered_tokens": round(delivered.get(domain.name, 0.0)) if blend.tokens else None,
            "epochs": epochs.get(domain.name, 0.0) if epochs else None,
            "available_tokens": domain.tokens if blend.counted else None,
            "paths": list(blend.paths.get(domain.name, ())),
        }
        for domain in blend.domains
    ]


def write_export(
    target: str, files: Mapping[str, str], content: Mapping[str, Any], store: Store
) -> str:
    """Write an export and, last, its manifest; the store remembers that it was written.

    Of an export of the store that was there before, nothing is left beside it.

    Args:
        target: folder, a path or any fsspec URL; credentials come from the environment.
        files: name -> text.
        content: of `manifest`.
        store: of results.

    Returns:
        The manifest's place; of a path, the whole one.

    Raises:
        StorageError: the target cannot be written.
    """
    place = ObjectFolder(target)
    place.make()
    for name, text in files.items():
        place.replace(name, text.encode())
    for name in _earlier(target, store).keys() - files.keys():
        with contextlib.suppress(FileNotFoundError):
            place.files.rm_file(place.path(name))
    store.remember(MANIFESTS, str(content["sha256"]), dict(content))
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    place.replace(FILE, text.encode())
    return f"{target.rstrip('/') if '://' in target else place.root}/{FILE}"


def verify_export(target: str, store: Store | None = None) -> tuple[dict[str, Any], list[str]]:
    """Read an export back and tell what is wrong with it.

    Args:
        target: its folder, or its manifest.
        store: if given, the manifest must be one that was written from it, and its approval the
            one that it keeps. Without it, a manifest that was forged whole is not found out.

    Returns:
        The manifest, and what is wrong, in words; empty if all is as it was written.

    Raises:
        ExportError: there is no manifest.
    """
    folder = target.removesuffix(FILE).rstrip("/") or "."
    content = _read(folder)
    wrong = []
    stated = content.get("sha256")
    plain = {name: value for name, value in content.items() if name != "sha256"}
    if stated != _sha256(canonical_json(plain).encode()):
        wrong.append("the manifest is not what was written: its hash does not match")
    place = ObjectFolder(folder)
    for name, digest in _mapping(content.get("files")).items():
        path = place.path(name)
        if "/" in name or not place.files.isfile(path):
            wrong.append(f"{name} is missing")
        elif _sha256(place.files.cat_file(path)) != digest:
            wrong.append(f"{name} is not what was written: its hash does not match")
    if not _mapping(content.get("files")):
        wrong.append("the manifest names no file")
    if store is not None:
        wrong += _unknown(content, store)
    return content, wrong


def _earlier(target: str, store: Store) -> dict[str, Any]:
    """The files of an export in a folder, if it was written from the store, with their hashes."""
    with contextlib.suppress(CuveeError):
        content = _read(target)
        if _written(content, store):
            return _mapping(content.get("files"))
    return {}


def _written(content: Mapping[str, Any], store: Store) -> bool:
    name = str(content.get("sha256"))  # names a file of the store: a stranger's may name any other
    return bool(HASH.fullmatch(name)) and store.recall(MANIFESTS, name) == dict(content)


def _unknown(content: Mapping[str, Any], store: Store) -> list[str]:
    if not _written(content, store):
        return ["no such export was written from this store: it was forged, or comes from another"]
    if content.get("status") != APPROVED:
        return []
    if not content.get("card"):
        return [
            "it was approved by an older version, which bound no approval to recipe, data and "
            "budget: `cuvee approve` and export it anew"
        ]
    card = str(content["card"])
    given = (*approve.approvals_of(store, card), *approve.replaced_approvals(store, card))
    same = [approval for approval in given if _said(approval) == content.get("approval")]
    if any(not approval.withdrawn for approval in same):
        return []
    return [f"its approval was {same[0].withdrawn}" if same else "the store holds no such approval"]


def _read(folder: str) -> dict[str, Any]:
    try:
        place = ObjectFolder(folder)
        raw = place.files.cat_file(place.path(FILE))
    except FileNotFoundError as error:
        raise ExportError(
            f"there is no {FILE} in {folder}: give the folder that an export was written to"
        ) from error
    except (OSError, ValueError, ImportError) as error:
        raise StorageError(f"cannot read {folder}: {error}") from error
    try:
        content = dict(json.loads(raw))
        canonical_json(content)  # refuses NaN
        return content
    except (ValueError, TypeError, RecursionError) as error:
        raise ExportError(f"{folder}/{FILE} is not the manifest of an export: {error}") from error


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()
