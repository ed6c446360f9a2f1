"""The finished study of a recipe, from the store, and how things stand for it now.

`confirm`, `approve`, `export`, `handoff`, `schedule` and `checkpoint` all start here, and hold what
they find against the present by `cuvee.tasks.study.validity`.
"""

import contextlib
import dataclasses
import datetime
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cuvee.flows.console import Say, silent
from cuvee.flows.recipe.load import parse
from cuvee.flows.recipe.schema import FREE, Recipe
from cuvee.flows.study.prepare import prepare
from cuvee.flows.study.table_problem import from_tables
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import ApprovalError, CuveeError, EvidenceError, StorageError
from cuvee.mixtures.runs.run_spec import VERSION, canonical_json
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.tasks import strict_yaml
from cuvee.tasks.store.provenance import code_version, study_version
from cuvee.tasks.store.results import Store
from cuvee.tasks.study import finished
from cuvee.tasks.study.finished import FILE, FinishedStudy, Snapshot
from cuvee.tasks.study.prepared import Prepared
from cuvee.tasks.study.validity import Present

SHOWN = 3  # of what differs
EARLIER = "earlier"  # folder of a study's: what other recipes of its name left
SHARED = ("fit", "exports", "looks.jsonl")  # what each looks after itself
# Settings of a corpus that were there before any was added: in a snapshot whatever they are.
FIRST_SETTINGS = {"quickstart", "vocabulary", "heldout_bytes", "min_tokens", "on_error"}
PLANNED = {"wanted_gain"}  # what a confirmation's plan reads, and its runs do not depend on


def finished_study(recipe: Recipe, home: Workspace) -> FinishedStudy:
    """The latest finished study of a recipe; of several states of its data, today's.

    Raises:
        EvidenceError: nothing has been run under its name.
        ApprovalError: something has, and the recipe has changed since.
    """
    store = Store(home.store)
    known = finished.answers_of_recipe(store, recipe.digest)
    if len(known) > 1:
        now = present_state(recipe, home)
        known = tuple(study for study in known if study.data == now.data) or known
    if known:
        return _with_text(known[0], recipe, home)
    other = finished.latest_of_name(store, recipe.name)
    if other is None:
        raise EvidenceError(
            f"there is no finished study {recipe.name!r}: the store {home.store} holds no "
            f"recommendation of the study {recipe.name!r}; `cuvee run` makes one (or `cuvee fit`)"
        )
    if other.recipe == recipe.digest:
        return _with_text(other, recipe, home)  # of an older version
    raise ApprovalError(
        f"the store {home.store} holds recommendations of the study {recipe.name!r}, but none of "
        f"this recipe: the recipe has changed since{_changed_fields(recipe, other)}. `cuvee run` "
        "makes one (or `cuvee fit`), and keeps the others"
    )


def latest_study(store: Store, recipe: Recipe) -> FinishedStudy | None:
    """The latest finished study of a recipe, else of its name."""
    known = finished.answers_of_recipe(store, recipe.digest)
    return known[0] if known else finished.latest_of_name(store, recipe.name)


def prepare_as_studied(recipe: Recipe, home: Workspace, study: FinishedStudy | None) -> Prepared:
    """What a study goes on with: the text as it is now, or the corpus of an earlier version.

    Runs of version 1 went by names and by text of both splits, which no corpus made now is like. A
    study of them is read, tested and handed on over its own corpus, as long as that lies there.
    """
    if study and not study.tables and not study.domains.heldout and _same_text(study, recipe):
        data = dict(zip(study.domains.names, study.domains.identities, strict=True))
        for corpus in _corpora(home):
            if {domain.name: domain.identity for domain in corpus.domains} == data:
                home.display.say(
                    f"The study {study.name} has runs of version 1: it goes on with its own corpus "
                    f"in {corpus.root}, whatever became of its files. `cuvee run` makes one of the "
                    f"text as it is now, with runs of version {VERSION}"
                )
                return prepare(recipe, home, corpus)
    return prepare(recipe, home)


def _same_text(study: FinishedStudy, recipe: Recipe) -> bool:
    """Whether a recipe asks for the text of a study, by its own words or by the same ones."""
    if study.recipe == recipe.digest:
        return True
    try:
        before = parse(study.recipe_text)
    except CuveeError:
        return False
    return (before.corpus, before.proxy.start) == (recipe.corpus, recipe.proxy.start)


def _corpora(home: Workspace) -> Iterator[Corpus]:
    """The corpora of a home that earlier versions made, whole ones."""
    for manifest in sorted((home.root / "corpora").glob("*/manifest.json")):
        with contextlib.suppress(CuveeError):
            found = Corpus.open(manifest.parent, verify=False)
            if not found.domain_set().heldout:
                yield Corpus.open(manifest.parent)


def present_state(
    recipe: Recipe,
    home: Workspace,
    prepared: Prepared | None = None,
    *,
    study: FinishedStudy | None = None,
) -> Present:
    """How recipe, data and code stand now, for a study; trains nothing.

    The data are read unless given: those that the study goes on with (`prepare_as_studied`).
    """
    if recipe.tables is not None:
        problem, history = from_tables(recipe, home.display.say)
        data = finished.evidence_basis(problem.domains, problem.scoring, history)
        return Present(recipe.digest, data, code_version(), recipe.purpose)
    prepared = prepared or prepare_as_studied(recipe, home, study)
    start = prepared.start.content if prepared.start else ""
    data = finished.evidence_basis(prepared.domains, prepared.scoring, start=start)
    seen = snapshot(recipe, prepared)
    return Present(recipe.digest, data, code_version(), recipe.purpose, seen)


def snapshot(recipe: Recipe, prepared: Prepared) -> Snapshot:
    """What determines a study, as it is now."""
    values = {name: part for name, part in recipe.determining().items() if name != "corpus"}
    settings = {}
    if part := recipe.corpus:
        settings = part.model_dump(mode="json", include=FIRST_SETTINGS)
        settings |= part.model_dump(mode="json", exclude={"domains"}, exclude_defaults=True)
    domains, start = prepared.domains, [prepared.start.content] if prepared.start else []
    return Snapshot(
        recipe=_hash([values, settings, *start]),
        confirm=_hash(recipe.confirm and recipe.confirm.model_dump(mode="json", exclude=PLANNED)),
        texts=prepared.texts or dict(zip(domains.names, domains.identities, strict=True)),
        code=study_version(),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _hash(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def _with_text(study: FinishedStudy, recipe: Recipe, home: Workspace) -> FinishedStudy:
    """A study with the text of its recipe, which earlier versions kept in a folder of the home."""
    text = study.recipe_text
    with contextlib.suppress(OSError, ValueError, CuveeError):
        there = "" if text else (home.study(study.name) / "recipe.yaml").read_text("utf-8")
        text = text or (there if parse(there).digest == study.recipe else "")
    if not text:  # a colleague's, in a home that is not here
        text = strict_yaml.dump_yaml(recipe.model_dump(mode="json", exclude_defaults=True))
    return dataclasses.replace(study, recipe_text=text)


def _changed_fields(recipe: Recipe, study: FinishedStudy) -> str:
    """What is otherwise in a recipe than in a study's, in words; "" where it is not known."""
    try:
        before = dict(_leaves(parse(study.recipe_text).model_dump()))
    except CuveeError:
        return ""
    now = dict(_leaves(recipe.model_dump()))
    moved = [
        f"{name}: {before.get(name, 'absent')!r} before, {now.get(name, 'absent')!r} now"
        for name in sorted(before.keys() | now.keys())
        if before.get(name, "absent") != now.get(name, "absent")
        and not any(name == free or name.startswith(f"{free}.") for free in FREE)
    ]
    return f" ({'; '.join(moved[:SHOWN])}{' and others' if moved[SHOWN:] else ''})" if moved else ""


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def set_aside(folder: Path, digest: str, say: Say = silent) -> None:
    """Keep what another recipe of the same name left in a study's folder, in a folder of its own.

    Args:
        folder: that a study is about to write to.
        digest: of its recipe.
        say: is told where it is now.

    Raises:
        StorageError: it cannot be moved.
    """
    before = _digest(folder)
    if before in ("", digest):
        return
    place = folder / EARLIER / before[:12]
    try:
        if place.exists():
            shutil.rmtree(place)  # what the same recipe left there before
        place.mkdir(parents=True)
        for entry in sorted(folder.iterdir()):
            if entry.name not in (EARLIER, *SHARED):
                entry.rename(place / entry.name)
    except OSError as error:
        raise StorageError(
            f"cannot move the study of another recipe from {folder} to {place} ({error.strerror}): "
            "change the permissions, or give this recipe another name"
        ) from error
    say(f"{folder} held the study of another recipe of this name; it is now in {place}")


def _digest(folder: Path) -> str:
    """Digest of the recipe whose study lies in a folder; "" if none does."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads((folder / FILE).read_text(encoding="utf-8"))["recipe"])
    try:
        text = (folder / "recipe.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    try:
        return parse(text).digest
    except CuveeError:
        return hashlib.sha256(text.encode()).hexdigest()
