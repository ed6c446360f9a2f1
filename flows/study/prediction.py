"""The prediction card of a confirmation, drawn up before anything of it is trained."""

import dataclasses
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cuvee.flows.console import Say, silent
from cuvee.flows.execution.evaluator import StoreEvaluator
from cuvee.flows.recipe.aim_parts import ConfirmPart
from cuvee.flows.recipe.load import parse
from cuvee.flows.study.confirm import (
    Schedules,
    Sized,
    compared_schedules,
    fresh_seeds,
    runs_of_sizes,
    train_larger_sizes,
)
from cuvee.mixtures.errors import EvidenceError, StorageError
from cuvee.mixtures.loop import generator
from cuvee.mixtures.multiscale.forecast import gains_at
from cuvee.mixtures.recommendation import LEVEL, Estimate
from cuvee.tasks.store.provenance import study_version
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.study import Study, recommendation_fingerprint
from cuvee.tasks.validation.calibration import score_predictions
from cuvee.tasks.validation.hypothesis_tests import larger_size_tests
from cuvee.tasks.validation.paired import AVERAGE, BEST, RECOMMENDED
from cuvee.tasks.validation.preregistration import Card, Promise, read_cards

FOLDER = "predictions"  # of a study, for copies that people and the record take
OWN = "at the study's own size"

Told = Mapping[str, tuple[Estimate | None, str]]


def write_prediction(
    study: Study, schedules: Schedules, runs: Sized, store: Store, *, written: str
) -> Card:
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
        spec.fingerprint: store.outcome_of(spec) is not None
        for _, specs in runs
        for spec in specs.values()
    }
    told = _told(study, schedules, runs)
    promises = []
    for (place, specs), gains in zip(runs, told, strict=True):
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
                    *gains.get(baseline, (None, "nothing predicts this one")),
                    runs=deciding,
                    before=sum(trained[name] for name in deciding),
                )
            )
    return Card(
        study=study.name,
        recommendation=recommendation_fingerprint(answer),
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


def _told(study: Study, schedules: Schedules, runs: Sized) -> list[Told]:
    """The predicted gains at each size by name of the baseline, and from what.

    A law of scale that beat ranking is asked about each size. Any other recommendation predicts at
    every size the gain that it states: that is the assumption a confirmation puts to the test.
    """
    answer, scale = study.recommendation, study.recommendation.scale
    if scale is None or not scale.beats:
        chose = next((law.law for law in answer.laws if law.chosen), "")
        law = answer.optimism.law if answer.optimism else chose  # whose gains these are
        where = f"for models of {scale.predicted_parameters:,} parameters" if scale else OWN
        source = f"the law {law}" if law else "paired runs"
        return [
            {
                name: (gain, f"{source} {where}, taken to be the same at {at.size}, {at.tokens:,}")
                for name, gain in answer.gains
            }
            for at in (place.proxy for place, _ in runs)
        ]
    method = parse(study.recipe_text).build_method().method
    fixed = {
        name: np.array(stages[0].weights) for name, stages in schedules.items() if len(stages) == 1
    }
    found = gains_at(
        [law for law in method.scaling if law.name == scale.chosen]
        or [law for law in method.scaling if law.name in scale.used],
        method.steps(study.problem),
        study.problem,
        study.history,
        points={RECOMMENDED: fixed.pop(RECOMMENDED), **fixed},
        scales=[(place.parameters(place.proxy.size), place.proxy.tokens) for place, _ in runs],
        rng=generator(study.seed, len(study.history)),
        refits=method.refits,
    )
    source = f"the law {' and '.join(scale.used)}, fitted to {len(answer.evidence)} runs, at"
    return [
        {
            name: (gain, f"{source} {place.proxy.size}, {place.proxy.tokens:,}")
            for name, gain in gains.items()
        }
        for (place, _), gains in zip(runs, found, strict=True)
    ]


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


def with_remembered(
    study: Study, part: ConfirmPart | None, store: Store, say: Say = silent
) -> Study:
    """A study with what an earlier `cuvee confirm` found of the same recommendation.

    Nothing is trained: unless every run that the recipe asks for is in the store, the study is
    returned as it is.
    """
    if part is None or not part.sizes:
        return study
    schedules = compared_schedules(study.problem, study.recommendation, part)
    runs = runs_of_sizes(study.problem, schedules, part, fresh_seeds(study.seed, part.seeds))
    every = tuple(spec for _, specs in runs for spec in specs.values())
    if store.missing(every):
        return study
    try:
        steps, lost = train_larger_sizes(runs, StoreEvaluator(store))
    except EvidenceError:
        return study
    found = larger_size_tests(steps, study.confirmation, lost)
    promised = write_prediction(study, schedules, runs, store, written="").identity
    cards, wrong = read_cards(store)
    for sentence in wrong.values():
        say(f"changed: {sentence}")
    scored = [score_predictions(store, c, found.claims) for c in cards if c.identity == promised]
    return dataclasses.replace(
        study,
        transfer=found,
        card=scored[0] if scored else None,
        reused=study.reused + len({spec.fingerprint for spec in every}),
    )
