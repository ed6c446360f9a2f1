"""What became of predictions: cards against what was observed, and calibration over a store."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cuvee.mixtures.runs.run_records import revive
from cuvee.tasks.store.results import Store
from cuvee.tasks.validation.hypothesis_tests import SizeClaim
from cuvee.tasks.validation.paired import PairedGain
from cuvee.tasks.validation.preregistration import Card, Promise, promise_from_json, read_cards

SCORES = "prediction-scores"


@dataclass(frozen=True)
class PredictionOutcome:
    """A promise, and what came of it."""

    promise: Promise
    observed: PairedGain

    @property
    def counts(self) -> bool:
        """Whether it was a prediction: a gain was stated, and none of its runs had been trained."""
        return self.promise.predicted is not None and self.promise.before == 0

    @property
    def inside(self) -> bool:
        """Whether the observed gain lies within the predicted interval."""
        found = self.promise.predicted
        return found is not None and found.low <= self.observed.gain <= found.high

    @property
    def sign(self) -> bool:
        """Whether the observed gain has the sign of the predicted one."""
        found = self.promise.predicted
        return found is not None and bool(np.sign(found.mean) == np.sign(self.observed.gain))

    @property
    def error(self) -> float:
        """Observed minus predicted gain, bits per byte; NaN where nothing was predicted."""
        found = self.promise.predicted
        return float("nan") if found is None else self.observed.gain - found.mean


@dataclass(frozen=True)
class Calibration:
    """How the predictions of a store's cards have fared.

    Attributes:
        cards: that have predictions with an outcome.
        predictions: of them, each size and baseline of a recommendation once, the earliest.
        inside: share of observed gains within their predicted interval.
        sign: share of gains with the predicted sign.
        error: mean absolute error of the gain, bits per byte.
        bias: mean of observed minus predicted gain, bits per byte.
    """

    cards: int
    predictions: int
    inside: float
    sign: float
    error: float
    bias: float


@dataclass(frozen=True)
class ScoredPredictions:
    """A card with its outcome.

    Attributes:
        card: as it was written.
        outcomes: every promise whose gain was observed.
        calibration: over all cards of the store; None without a prediction that has an outcome.
        wrong: a sentence for each card of the store that was changed.
    """

    card: Card
    outcomes: tuple[PredictionOutcome, ...]
    calibration: Calibration | None = None
    wrong: tuple[str, ...] = ()


def score_predictions(store: Store, card: Card, claims: Sequence[SizeClaim]) -> ScoredPredictions:
    """Hold a card against what was observed, keep the outcome, and sum up all cards of a store."""
    gains = {(c.size, c.tokens, c.baseline): c.gain for c in claims}
    kept = tuple(
        PredictionOutcome(promise, gains[place])
        for promise in card.promises
        if (place := (promise.size, promise.tokens, promise.baseline)) in gains
    )
    store.remember(SCORES, card.sha256, [_plain(one) for one in kept])
    cards, wrong = read_cards(store)
    return ScoredPredictions(card, kept, calibration_of_cards(store, cards), tuple(wrong.values()))


def calibration_of_cards(store: Store, cards: Sequence[Card]) -> Calibration | None:
    """How the predictions of cards have fared, from the outcomes that a store keeps."""
    first: dict[tuple[str, str, int, str], tuple[Card, PredictionOutcome]] = {}
    for card in cards:
        for values in store.recall(SCORES, card.sha256) or ():
            one = _kept(values)
            promise = one.promise
            place = card.recommendation, promise.size, promise.tokens, promise.baseline
            first.setdefault(place, (card, one))
    counted = [(card, one) for card, one in first.values() if one.counts]
    if not counted:
        return None
    errors = np.array([one.error for _, one in counted])
    return Calibration(
        cards=len({card.sha256 for card, _ in counted}),
        predictions=len(counted),
        inside=float(np.mean([one.inside for _, one in counted])),
        sign=float(np.mean([one.sign for _, one in counted])),
        error=float(np.abs(errors).mean()),
        bias=float(errors.mean()),
    )


def _plain(one: PredictionOutcome) -> dict[str, Any]:
    return {
        "promise": dataclasses.asdict(one.promise),
        "observed": dataclasses.asdict(one.observed),
    }


def _kept(values: Mapping[str, Any]) -> PredictionOutcome:
    return PredictionOutcome(
        promise_from_json(values["promise"]), revive(PairedGain, values["observed"])
    )
