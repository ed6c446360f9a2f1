"""The card of a recommendation: all that is needed to judge it, approve it and hand it on.

A study writes its card beside its report and into the store, under its identity: a hash of study,
recipe, data and answer, so that no study takes the place of another one's, equal answers included.
Pointers say which is the latest of a recipe on its data, and of a study's name. A card says what
the recommendation rests on, so that it can be told later whether that still stands.
"""

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuvee.mixtures import recommendation
from cuvee.mixtures.domains import Domain, DomainSet
from cuvee.mixtures.errors import CuveeError, EvidenceError
from cuvee.mixtures.recommendation import Recommendation
from cuvee.mixtures.runs import History, canonical_json, finished_runs, revive
from cuvee.tasks.store.objects import ObjectFolder
from cuvee.tasks.store.provenance import code_version
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.study import Study

FILE = "card.json"
FORMAT = 2  # of what cards and approvals are bound to; raised whenever that is more
CARDS, LATEST, ANSWERS = "cards", "latest", "answers"  # folders of the store
SCORING, START = "benchmarks and held-out text", "start checkpoint"
TABLE = "table:"  # how identities of domains begin that are known from tables alone


@dataclass(frozen=True)
class Purpose:
    """What a recommendation is for, beside what its recipe's digest says.

    Attributes:
        tokens: of the run; 0 where unknown.
        parameters: of the model; 0 where unknown.
        target: hash of whom a handoff calls with it, and how; "" where it calls nobody.
    """

    tokens: int = 0
    parameters: int = 0
    target: str = ""

    @property
    def budget(self) -> str:
        """The run, in words."""
        model = f" and {self.parameters:,} parameters" if self.parameters else ""
        return (f"{self.tokens:,} tokens" if self.tokens else "an unknown budget") + model


NOTHING = Purpose()


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
        confirmed: whether fresh runs bore its claim out; None where none tested it.
        tests: confirmations that it has, at its own size and at larger ones.
        purpose: what its recipe asked it for, when it was made.
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
    confirmed: bool | None = None
    tests: int = 0
    purpose: Purpose = NOTHING

    @property
    def identity(self) -> str:
        """sha256 of study, recipe, data and answer: what an approval is given for."""
        bound = [self.name, self.recipe, dict(self.data), self.fingerprint, self.full_tokens]
        return hashlib.sha256(canonical_json([FORMAT, *bound]).encode()).hexdigest()

    def whole(self, purpose: Purpose) -> Purpose:
        """A purpose with the study's own budget, where it names none."""
        return dataclasses.replace(purpose, tokens=purpose.tokens or self.full_tokens)

    def told(self, other: "Card") -> "Card":
        """The card with what another one of its identity says of confirmations."""
        return dataclasses.replace(
            self, verdict=other.verdict, confirmed=other.confirmed, tests=other.tests
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives the card back."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["answer"] = json.loads(json.dumps(self.answer.to_json()))
        plain["domains"] = [dataclasses.asdict(domain) for domain in self.domains]
        return plain | {"data": dict(self.data), "purpose": dataclasses.asdict(self.purpose)}


def from_json(values: Mapping[str, Any]) -> Card:
    """A card from what `to_json` made of it.

    Raises:
        EvidenceError: the values are not those of a card.
    """
    try:
        parts = {
            "domains": DomainSet(tuple(revive(Domain, domain) for domain in values["domains"])),
            "answer": recommendation.from_json(values["answer"]),
            "purpose": revive(Purpose, values.get("purpose") or {}),
        }
        return revive(Card, {**values, **parts})
    except (KeyError, TypeError) as error:
        raise EvidenceError(f"this is not the card of a recommendation: {error!r}") from error


def card(study: Study, recipe: str, purpose: Purpose = NOTHING) -> Card:
    """The card of a study whose recipe has a digest, and asks it for a purpose."""
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
        data=data(
            study.problem.domains, study.problem.scoring, study.history, study.problem.proxy.start
        ),
        code=code_version(),
        version=importlib.metadata.version("cuvee"),
        verdict=study.verdict,
        confirmed=study.confirmed,
        tests=len(study.confirmations),
        purpose=dataclasses.replace(purpose, tokens=purpose.tokens or study.problem.full_tokens),
    )


def data(
    domains: DomainSet, scoring: str, history: History = (), start: str = ""
) -> dict[str, str]:
    """What evidence is tied to: domains, a checkpoint, what is scored, or the tables' content."""
    if not _from_tables(domains):
        text = dict(zip(domains.names, domains.identities, strict=True))
        return {**text, SCORING: scoring, **({START: start} if start else {})}
    rows = [
        [run.spec.domains, run.spec.stages[0].weights, {n: s.value for n, s in run.scores.items()}]
        for run in finished_runs(history)
    ]
    return {"tables": hashlib.sha256(canonical_json(rows).encode()).hexdigest()}


def keep(store: Store, found: Card, folder: Path | None = None) -> None:
    """Keep a card, as the latest of its recipe and of its study's name.

    What more confirmations said of the same recommendation stays: a fit alone tests nothing.

    Args:
        store: of results.
        found: the card.
        folder: of the study's files, for a copy that goes into the record.

    Raises:
        StorageError: store or folder cannot be written.
    """
    before = get(store, found.identity)
    if before is not None and before.tests > found.tests:
        found = found.told(before)
    store.renew(CARDS, found.identity, found.to_json(), "answer")
    at = datetime.datetime.now(datetime.UTC).isoformat()
    pointer = {"card": found.identity, "fingerprint": found.fingerprint, "at": at}
    text = hashlib.sha256(canonical_json(dict(found.data)).encode()).hexdigest()
    store.remember(ANSWERS, f"{found.recipe}-{text}", pointer)
    store.remember(LATEST, found.name, pointer)
    if folder is not None:
        text = json.dumps(found.to_json(), indent=1) + "\n"
        ObjectFolder(str(folder)).replace(FILE, text.encode())


def reword(store: Store, found: Card) -> None:
    """Let a card say what a later test showed; what it rests on stays as it was."""
    before = get(store, found.identity)
    if before is not None:
        store.renew(CARDS, found.identity, before.told(found).to_json(), "answer")


def get(store: Store, identity: str) -> Card | None:
    """A card by its identity, if the store has it."""
    values = store.recall(CARDS, identity)
    return None if values is None else _read(values, identity)


def latest(store: Store, name: str) -> Card | None:
    """The card of a study's latest recommendation, whatever its recipe, if the store has it."""
    pointer = store.recall(LATEST, name)
    return get(store, str(pointer.get("card") or pointer["fingerprint"])) if pointer else None


def answers(store: Store, recipe: str) -> tuple[Card, ...]:
    """The latest cards of a recipe by its digest, one for each state of its data; newest first."""
    keys = [key for key in store.keys(ANSWERS) if key.startswith(f"{recipe}-")]
    pointers = [pointer for key in keys if (pointer := store.recall(ANSWERS, key))]
    newest = sorted(pointers, key=lambda pointer: str(pointer.get("at")), reverse=True)
    return tuple(card for p in newest if (card := get(store, str(p.get("card")))))


def every(store: Store) -> tuple[Card, ...]:
    """The latest cards of all studies that the store knows, by the studies' names."""
    cards = (get(store, key) for key in store.keys(CARDS))
    names = {card.name for card in cards if card}
    found = (latest(store, name) for name in names)
    return tuple(sorted((card for card in found if card), key=lambda card: card.name))


def _read(values: Mapping[str, Any], key: str) -> Card | None:
    try:
        found = from_json(values)
    except CuveeError:
        return None  # of an older version, which is made anew by the next run of the study
    return found if key in (found.identity, found.fingerprint) else None  # older: the latter


def _from_tables(domains: DomainSet) -> bool:
    return all(identity.startswith(TABLE) for identity in domains.identities)
