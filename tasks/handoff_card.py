"""The card of a recommendation: all that is needed to judge it, approve it and hand it on.

A study writes its card beside its report and into the store, under the recommendation's
fingerprint; a pointer by the study's name says which is the latest. A card says what the
recommendation rests on, so that it can be told later whether that still stands.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixtures import recommendation
from mixtures.domains import Domain, DomainSet
from mixtures.errors import CuveeError, EvidenceError
from mixtures.history import History, canonical, finished
from mixtures.recommendation import Recommendation
from tasks.provenance import code_version
from tasks.store import Store
from tasks.study import Study

FILE = "card.json"
CARDS, LATEST = "cards", "latest"  # folders of the store
SCORING = "benchmarks and held-out text"
TABLE = "table:"  # how identities of domains begin that are known from tables alone


@dataclass(frozen=True)
class Card:
    """A recommendation and what it rests on.

    Attributes:
        name: of the study.
        fingerprint: of the recommendation.
        answer: the recommendation.
        domains: tokens, bytes, documents and identities as the study used them.
        counted: whether the domains' tokens are counts, not relative sizes.
        tables: whether its runs were trained elsewhere and came in tables.
        full_tokens: of the run for which it was chosen; 0 where unknown.
        recipe: digest of the recipe's parts that a recommendation depends on.
        data: what the evidence is tied to: domain -> identity, or the tables' hash.
        code: hash of the code that computed it.
        version: of the package.
        verdict: what may be said of it, in words.
    """

    name: str
    fingerprint: str
    answer: Recommendation
    domains: DomainSet
    counted: bool
    tables: bool
    full_tokens: int
    recipe: str
    data: Mapping[str, str]
    code: str
    version: str
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives the card back."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["answer"] = json.loads(json.dumps(self.answer.to_json()))
        plain["domains"] = [dataclasses.asdict(domain) for domain in self.domains]
        return plain | {"data": dict(self.data)}


def from_json(values: Mapping[str, Any]) -> Card:
    """A card from what `to_json` made of it.

    Raises:
        EvidenceError: the values are not those of a card.
    """
    try:
        domains = DomainSet(tuple(Domain(**domain) for domain in values["domains"]))
        answer = recommendation.from_json(values["answer"])
        return Card(**{**values, "domains": domains, "answer": answer})
    except (KeyError, TypeError) as error:
        raise EvidenceError(f"this is not the card of a recommendation: {error!r}") from error


def card(study: Study, recipe: str) -> Card:
    """The card of a study whose recipe has a digest."""
    domains, tables = study.problem.domains, _from_tables(study.problem.domains)
    if study.available:
        sizes = study.available
        domains = DomainSet(
            tuple(dataclasses.replace(domain, tokens=sizes[domain.name]) for domain in domains)
        )
    return Card(
        name=study.name,
        fingerprint=study.fingerprint,
        answer=study.recommendation,
        domains=domains,
        counted=study.available is None or bool(study.available),
        tables=tables,
        full_tokens=study.problem.full_tokens,
        recipe=recipe,
        data=data(study.problem.domains, study.problem.scoring, study.history),
        code=code_version(),
        version=importlib.metadata.version("cuvee"),
        verdict=study.verdict,
    )


def data(domains: DomainSet, scoring: str, history: History = ()) -> dict[str, str]:
    """What evidence is tied to: domains and what proxies are scored on, or the tables' content."""
    if not _from_tables(domains):
        return {**dict(zip(domains.names, domains.identities, strict=True)), SCORING: scoring}
    rows = [
        [run.spec.domains, run.spec.stages[0].weights, {n: s.value for n, s in run.scores.items()}]
        for run in finished(history)
    ]
    return {"tables": hashlib.sha256(canonical(rows).encode()).hexdigest()}


def keep(store: Store, found: Card, folder: Path | None = None) -> None:
    """Keep a card, as the latest of its study.

    Args:
        store: of results.
        found: the card.
        folder: of the study's files, for a copy that goes into the record.

    Raises:
        StorageError: store or folder cannot be written.
    """
    store.remember(CARDS, found.fingerprint, found.to_json())
    store.remember(LATEST, found.name, {"fingerprint": found.fingerprint})
    if folder is not None:
        beside = Store(str(folder))
        text = json.dumps(found.to_json(), indent=1) + "\n"
        beside.replace(f"{beside.root}/{FILE}", text.encode())


def reword(store: Store, study: Study) -> None:
    """Let a card say what a later test showed; what it rests on stays as it was."""
    known = get(store, study.fingerprint)
    if known is not None:
        changed = dataclasses.replace(known, verdict=study.verdict)
        store.remember(CARDS, known.fingerprint, changed.to_json())


def get(store: Store, fingerprint: str) -> Card | None:
    """The card of a recommendation, if the store has it."""
    values = store.recall(CARDS, fingerprint)
    return None if values is None else _read(values, fingerprint)


def latest(store: Store, name: str) -> Card | None:
    """The card of a study's latest recommendation, if the store has it."""
    pointer = store.recall(LATEST, name)
    return get(store, str(pointer["fingerprint"])) if pointer else None


def every(store: Store) -> tuple[Card, ...]:
    """The latest cards of all studies that the store knows, by the studies' names."""
    cards = (get(store, key) for key in store.keys(CARDS))
    names = {card.name for card in cards if card}
    found = (latest(store, name) for name in names)
    return tuple(sorted((card for card in found if card), key=lambda card: card.name))


def _read(values: Mapping[str, Any], fingerprint: str) -> Card | None:
    try:
        found = from_json(values)
    except CuveeError:
        return None  # of an older version, which is made anew by the next run of the study
    return found if found.fingerprint == fingerprint else None


def _from_tables(domains: DomainSet) -> bool:
    return all(identity.startswith(TABLE) for identity in domains.identities)
