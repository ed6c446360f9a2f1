"""Prediction cards: what a confirmation will find, written down and hashed before it is trained.

A card states the claim, what will be trained, and the gain that is predicted over each baseline at
each size, with its interval. It is named by the sha256 of its canonical JSON, written once, and
never replaced: a confirmation that differs writes a card of its own, and both stay. Scores of cards
are kept beside them, so that over the cards of a store predictions can be held to their promise.

What a card cannot do: hinder somebody who may write the store from removing it. So each card counts
the runs that were there when it was written, and what had been trained before is no prediction.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cuvee.mixtures.errors import CorruptError, EvidenceError
from cuvee.mixtures.recommendation import Estimate
from cuvee.mixtures.runs.run_records import revive
from cuvee.mixtures.runs.run_spec import Stage, canonical_json
from cuvee.tasks.store.results import Store

SHELF = "predictions"
CIRCUMSTANCE = ("written", "version", "code")  # of a card; what it promises is the rest
SHORT = 16  # hexadecimal digits of a hash in a name


@dataclass(frozen=True)
class Promise:
    """A gain that is predicted.

    Attributes:
        size: of the proxies.
        tokens: of each training.
        baseline: the mixture that the recommended one is to beat.
        predicted: gain in the objective, bits per byte; None where nothing predicts it.
        source: what predicts it, in words.
        runs: fingerprints of the runs that will decide it.
        before: how many of them had been trained when the card was written.
    """

    size: str
    tokens: int
    baseline: str
    predicted: Estimate | None
    source: str
    runs: tuple[str, ...]
    before: int = 0


@dataclass(frozen=True)
class Card:
    """What a confirmation will find.

    Attributes:
        study: its name.
        recommendation: fingerprint of what is tested.
        method: canonical JSON of the method that recommended it.
        claim: in words.
        objective: in words; lower is better.
        domains: names, in the order of every weight vector.
        identities: content hashes of the domains.
        schedules: name -> stages of shares, of everything that will be trained.
        seeds: of each.
        level: coverage of the predicted intervals.
        promises: one per size and baseline.
        code: version of the code that wrote it.
        written: ISO 8601 time.
        version: counts the cards of one recommendation, from 1.
        stored: the content as it was read; empty for a card that was not.
    """

    study: str
    recommendation: str
    method: str
    claim: str
    objective: str
    domains: tuple[str, ...]
    identities: tuple[str, ...]
    schedules: Mapping[str, tuple[Stage, ...]]
    seeds: tuple[int, ...]
    level: float
    promises: tuple[Promise, ...]
    code: str = ""
    written: str = ""
    version: int = 1
    stored: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def content(self) -> dict[str, Any]:
        """Plain JSON values: what is hashed, with what a later version wrote beside."""
        values = dict(self.stored) or dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name != "stored"}

    @property
    def sha256(self) -> str:
        """Of the canonical JSON of the content."""
        return hashlib.sha256(canonical_json(self.content).encode()).hexdigest()

    @property
    def identity(self) -> str:
        """sha256 of what is promised: equal for two writings of one card."""
        values = {name: v for name, v in self.content.items() if name not in CIRCUMSTANCE}
        values["promises"] = [{**p, "before": 0} for p in values["promises"]]
        return hashlib.sha256(canonical_json(values).encode()).hexdigest()

    @property
    def key(self) -> str:
        """Its name in a store: whose it is, which one, and the hash of its content."""
        return f"{self.recommendation[:SHORT]}-{self.version:03d}-{self.sha256[:SHORT]}"

    @property
    def record(self) -> dict[str, Any]:
        """The card as a file: its hash, and what is hashed."""
        return {"sha256": self.sha256, "content": self.content}


def from_json(values: Mapping[str, Any]) -> Card:
    """A card from its content, as read back from JSON.

    Raises:
        EvidenceError: the values are not those of a card.
    """
    try:
        parts: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        parts["schedules"] = {
            name: tuple(Stage(tuple(map(float, s["weights"])), float(s["share"])) for s in stages)
            for name, stages in values["schedules"].items()
        }
        parts["promises"] = tuple(promise_from_json(promise) for promise in values["promises"])
        return revive(Card, {**parts, "stored": dict(values)})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EvidenceError(f"this is not a prediction card: {error!r}") from error


def promise_from_json(values: Mapping[str, Any]) -> Promise:
    """A promise from its JSON values."""
    found = values["predicted"]
    predicted = revive(Estimate, found) if found else None
    return revive(Promise, {**values, "runs": tuple(values["runs"]), "predicted": predicted})


def read_cards(store: Store) -> tuple[tuple[Card, ...], dict[str, str]]:
    """Every card of a store, by the time it was written, and what is wrong with others.

    Returns:
        The cards that are what was written, and key -> a sentence for each that is not.
    """
    cards, wrong = [], {}
    for key in store.keys(SHELF):
        try:
            card = from_json(store.sealed(SHELF, key))
            if card.key != key:
                raise CorruptError(
                    f"its content has the hash {card.sha256[:SHORT]} and belongs under another name"
                )
            cards.append(card)
        except (CorruptError, EvidenceError) as error:
            wrong[key] = (
                f"the prediction card {key} is not what was written: {error}. The record has a "
                "copy of the card as it was, under the artifacts of its study"
            )
    return tuple(sorted(cards, key=lambda card: (card.written, card.version))), wrong


def save_card(store: Store, card: Card) -> Card:
    """Keep a card for good, unless one with the same promises is there.

    Returns:
        The card that stands: the one that was there, or this one with its version.

    Raises:
        CorruptError: a card of the same recommendation was changed after it was written.
    """
    cards, wrong = read_cards(store)
    mine = card.recommendation[:SHORT]
    for key, sentence in wrong.items():
        if key.startswith(mine):
            raise CorruptError(f"{sentence}. Restore it in {store.url}/{SHELF}, or move it away")
    own = [other for other in cards if other.recommendation == card.recommendation]
    for other in own:
        if other.identity == card.identity:
            return other
    fresh = dataclasses.replace(card, version=1 + max((o.version for o in own), default=0))
    store.seal(SHELF, fresh.key, fresh.content)
    return fresh
