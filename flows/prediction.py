"""The prediction card of a confirmation, drawn up before anything of it is trained."""

import dataclasses
import importlib.metadata
import json
from collections.abc import Sequence
from pathlib import Path

from flows.confirm import Schedules, Sized, compared, enlarge, fresh_seeds, sized
from flows.display import current
from flows.recipe import ConfirmPart
from flows.shelf import Shelf
from mixtures.errors import EvidenceError, StorageError
from mixtures.recommendation import LEVEL, Estimate, Recommendation
from tasks.calibration import score
from tasks.confirmation import AVERAGE, BEST, RECOMMENDED
from tasks.predictions import Card, Promise, read
from tasks.provenance import study_version
from tasks.store import Store
from tasks.study import Study, fingerprint
from tasks.transfer import transfer

FOLDER = "predictions"  # of a study, for copies that people and the record take


def draw_up(study: Study, schedules: Schedules, runs: Sized, store: Store, *, written: str) -> Card:
    """What a confirmation will find, from what a finished study says.

    Args:
        study: whose recommendation is tested.
        schedules: what will be trained, by name.
        runs: of every size.
        store: says which of them have been trained already.
        written: ISO 8601 time.
    """
    answer, domains = study.recommendation, study.problem.domains
    trained = {
        spec.fingerprint: store.get(spec.fingerprint) is not None
        for _, specs in runs
        for spec in specs.values()
    }
    promises = []
    for place, specs in runs:
        for baseline in schedules:
            if baseline == RECOMMENDED:
                continue
            deciding = tuple(
                spec.fingerprint for (n, _), spec in specs.items() if n in (RECOMMENDED, baseline)
            )
            promises.append(
                Promise(
                    place.proxy.size,
                    place.proxy.tokens,
                    baseline,
                    *predicted(answer, baseline, place.proxy.size, place.proxy.tokens),
                    runs=deciding,
                    before=sum(trained[name] for name in deciding),
                )
            )
    return Card(
        study=study.name,
        recommendation=fingerprint(answer),
        method=answer.method,
        claim=_claim(list(schedules), runs),
        objective=repr(study.problem.objective),
        domains=domains.names,
        identities=domains.identities,
        schedules=dict(schedules),
        seeds=tuple(dict.fromkeys(seed for _, specs in runs for _, seed in specs)),
        level=LEVEL,
        promises=tuple(promises),
        code=f"cuvee {importlib.metadata.version('cuvee')}, sources {study_version()[:16]}",
        written=written,
    )


def predicted(
    answer: Recommendation, baseline: str, size: str, tokens: int
) -> tuple[Estimate | None, str]:
    """The gain over a baseline that a recommendation predicts at a size, and from what.

    A recommendation without evidence from several sizes predicts the gain of its own size at every
    other: that is the assumption a confirmation puts to the test.
    """
    found = dict(answer.gains).get(baseline)
    if found is None:
        return None, "nothing predicts this one"
    law = next((law.law for law in answer.laws if law.chosen), "")
    source = f"the law {law}" if law else "paired runs"
    return found, f"{source} at the study's own size, taken to be the same at {size}, {tokens:,}"


def _claim(names: Sequence[str], runs: Sized) -> str:
    beaten = [name for name in names if name not in (RECOMMENDED, BEST, AVERAGE)]
    places = [f"{place.proxy.size} with {place.proxy.tokens:,} tokens" for place, _ in runs]
    return (
        f"The recommended mixture has a lower objective than {', '.join(beaten)}, on average over "
        f"seeds, at {'; '.join(places)}."
    )


def write_copy(card: Card, folder: Path) -> Path:
    """A copy of a card in the folder of a study; returns its path.

    Raises:
        StorageError: the folder cannot be written.
    """
    path = folder / FOLDER / f"{card.key}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(card.record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"cannot write a copy of the prediction card to {path} ({error.strerror}); free some "
            "space or change the permissions, and run again"
        ) from error
    return path


def remembered(study: Study, part: ConfirmPart | None, store: Store) -> Study:
    """A study with what an earlier `cuvee confirm` found of the same recommendation.

    Nothing is trained: unless every run that the recipe asks for is in the store, the study is
    returned as it is.
    """
    if part is None or not part.sizes:
        return study
    schedules = compared(study.problem, study.recommendation, part)
    runs = sized(study.problem, schedules, part, fresh_seeds(study.seed, part.seeds))
    every = tuple(spec for _, specs in runs for spec in specs.values())
    if store.missing(every):
        return study
    try:
        steps, lost = enlarge(runs, Shelf(store))
    except EvidenceError:
        return study
    found = transfer(steps, study.confirmation, lost)
    promised = draw_up(study, schedules, runs, store, written="").identity
    cards, wrong = read(store)
    for sentence in wrong.values():
        current().say(f"changed: {sentence}")
    scored = [score(store, c, found.claims) for c in cards if c.identity == promised]
    return dataclasses.replace(
        study,
        transfer=found,
        card=scored[0] if scored else None,
        reused=study.reused + len({spec.fingerprint for spec in every}),
    )
