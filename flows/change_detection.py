"""Looks before a scheduled sweep works: what changed since the last study, and what still stands.

A study that is complete leaves a picture of what determined it in the store: its recipe, the text
of every domain, what proxies are scored on, and the code. Equal pictures mean that there is no
work. Where the text of some domains changed and nothing else did, the ratios that were found among
the others still stand (Olmix's mixture reuse): they are frozen, and fewer runs are asked for.
"""

import datetime
import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cuvee.flows.prepare import Prepared
from cuvee.flows.recipe.schema import Recipe
from cuvee.mixtures.runs import canonical_json, revive
from cuvee.tasks.store.provenance import study_version
from cuvee.tasks.store.results import Store

LEAST_RUNS = 8  # of a design over groups, unless the whole design has fewer (assumption)


@dataclass(frozen=True)
class Picture:
    """What determined a study, and what came of it.

    Attributes:
        recipe: hash of the recipe but its sources and what changes no recommendation; with the
            weights of the checkpoint that it starts from, if any.
        confirm: hash of what the recipe wants confirmed.
        texts: hash of the text by domain.
        data: hash of tokenizer and shards by domain.
        scoring: hash of what proxies are scored on.
        code: hash of the sources and packages that train, score and fit.
        weights: recommended shares by domain; empty before the study.
        date: when it was completed, UTC.
    """

    recipe: str
    confirm: str
    texts: Mapping[str, str]
    data: Mapping[str, str]
    scoring: str
    code: str
    weights: Mapping[str, float]
    date: str = ""


def picture(recipe: Recipe, prepared: Prepared, weights: Mapping[str, float]) -> Picture:
    """The picture of a study, taken now."""
    values = {name: part for name, part in recipe.determining().items() if name != "corpus"}
    settings = recipe.corpus.model_dump(mode="json", exclude={"domains"}) if recipe.corpus else {}
    domains = prepared.domains
    data = dict(zip(domains.names, domains.identities, strict=True))
    confirm = recipe.confirm.model_dump(mode="json") if recipe.confirm else None
    return Picture(
        recipe=_hash([values, settings, *([prepared.start.content] if prepared.start else [])]),
        confirm=_hash(confirm),
        texts=prepared.texts or data,
        data=data,
        scoring=prepared.scoring,
        code=study_version(),
        weights=dict(weights),
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def keep(store: Store, name: str, seen: Picture) -> None:
    """Leave the picture of a study that is complete."""
    store.remember("latest", _hash(name), asdict(seen))


def latest(store: Store, name: str) -> Picture | None:
    """The picture of the last study of this name that was completed, if any."""
    known = store.recall("latest", _hash(name))
    try:
        return revive(Picture, known) if known else None
    except TypeError:
        return None  # of an older version: the study is looked at as if it were new


def changes(before: Picture | None, now: Picture) -> tuple[str, ...]:
    """What is not as it was, in words; empty where nothing changed."""
    if before is None:
        return ("no earlier study",)
    found = [
        name
        for name, same in (
            ("the recipe", before.recipe == now.recipe),
            ("what is confirmed", before.confirm == now.confirm),
            ("what proxies are scored on", before.scoring == now.scoring),
            ("the code", before.code == now.code),
        )
        if not same
    ]
    if before.data == now.data:  # files that were touched or moved hold the text they held
        return tuple(found)
    gone = sorted(before.texts.keys() - now.texts.keys())
    moved = sorted(name for name in now.texts if before.texts.get(name) != now.texts[name])
    if not moved and not gone:
        found.append("the tokens")
    return (*found, *(f"domain {name}" for name in moved), *(f"domain {n} (gone)" for n in gone))


def standing(before: Picture | None, now: Picture) -> dict[str, float]:
    """Ratios among the domains whose text is as it was, by name; empty where none can be kept.

    They stand if some domain changed, two or more did not, and all else is as it was.
    """
    if before is None or (before.recipe, before.scoring) != (now.recipe, now.scoring):
        return {}
    same = [name for name, text in now.texts.items() if before.texts.get(name) == text]
    if before.code != now.code or len(same) == len(now.texts) == len(before.texts):
        return {}
    shares = {name: before.weights.get(name, 0.0) for name in same}
    total = math.fsum(shares.values())
    kept = {name: share / total for name, share in shares.items() if share > 0} if total else {}
    return kept if len(kept) >= 2 else {}


def fewer(runs: int, domains: int, groups: int) -> int:
    """Runs of a design over groups, in place of `runs` over all domains.

    Linear in what is drawn, as Olmix found the size of a swarm to be.
    """
    return min(runs, max(math.ceil(runs * groups / domains), min(LEAST_RUNS, runs)))


def _hash(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()
