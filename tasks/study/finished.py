"""The finished study: all that is needed to judge a recommendation, approve it and hand it on.

A study is kept in the store under its identity: a hash of name, recipe, data and answer, so that no
study takes the place of another one's, equal answers included. Pointers say which is the latest of
a recipe on its data, and of a name; a fit alone moves none away from what fresh runs have tested.
It says what the recommendation rests on: `validity` tells whether that still stands. A copy lies
beside the report, for the record.
"""

import contextlib
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
from cuvee.mixtures.runs.run_records import revive
from cuvee.mixtures.runs.run_results import History, finished_runs
from cuvee.mixtures.runs.run_spec import canonical_json
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.tasks.store.provenance import code_version
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.answers import study_answers, study_grade
from cuvee.tasks.study.study import Study, recommendation_fingerprint

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
class Snapshot:
    """What determined a study that is complete, for a schedule that looks whether it still does.

    Attributes:
        recipe: hash of the recipe but its sources and what changes no recommendation; with the
            weights of the checkpoint that it starts from, if any.
        confirm: hash of what the recipe wants confirmed.
        texts: hash of the text by domain.
        code: version of what trains, scores and fits.
        date: when it was taken, UTC.
    """

    recipe: str
    confirm: str
    texts: Mapping[str, str]
    code: str
    date: str = ""


@dataclass(frozen=True)
class FinishedStudy:
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
        code: version of the mathematics that computed it.
        version: of the package.
        verdict: how sure one may be of it, in sentences: the second of the answers.
        confirmed: whether fresh runs bore its claim out; None where none tested it.
        tests: confirmations that it has, at its own size and at larger ones.
        answers: the four answers in sentences; none in studies of earlier versions.
        purpose: what its recipe asked it for, when it was made.
        recipe_text: the YAML that was run; "" in studies of earlier versions.
        snapshot: what determined it; None of a fit, and where a budget ended it early.
        grade: how far its evidence goes; "" in studies of earlier versions.
        next_steps: what mends weak evidence, a sentence each.
        table_files: whole paths of its `mixtures` and `scores`, as they were read; what they held
            is in `data`. None of a study that was trained, nor in studies of earlier versions.
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
    answers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    purpose: Purpose = NOTHING
    recipe_text: str = ""
    snapshot: Snapshot | None = None
    grade: str = ""
    next_steps: tuple[str, ...] = ()
    table_files: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def identity(self) -> str:
        """sha256 of study, recipe, data and answer: what an approval is given for."""
        bound = [self.name, self.recipe, dict(self.data), self.fingerprint, self.full_tokens]
        return hashlib.sha256(canonical_json([FORMAT, *bound]).encode()).hexdigest()

    def whole(self, purpose: Purpose) -> Purpose:
        """A purpose with the study's own budget, where it names none."""
        return dataclasses.replace(purpose, tokens=purpose.tokens or self.full_tokens)

    def told(self, other: "FinishedStudy") -> "FinishedStudy":
        """The study with what another value of its identity says of confirmations."""
        return dataclasses.replace(
            self,
            verdict=other.verdict,
            confirmed=other.confirmed,
            tests=other.tests,
            answers=other.answers,
            grade=other.grade,
            next_steps=other.next_steps,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; `from_json` gives the study back."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["answer"] = json.loads(json.dumps(self.answer.to_json()))
        plain["domains"] = [dataclasses.asdict(domain) for domain in self.domains]
        plain |= {"data": dict(self.data), "answers": dict(self.answers)}
        plain |= {"table_files": dict(self.table_files)}
        plain |= {"purpose": dataclasses.asdict(self.purpose)}
        return plain | {"snapshot": self.snapshot and dataclasses.asdict(self.snapshot)}


def from_json(values: Mapping[str, Any]) -> FinishedStudy:
    """A finished study from what `to_json` made of it.

    Raises:
        EvidenceError: the values are not those of one.
    """
    try:
        parts = {
            "domains": DomainSet(tuple(revive(Domain, domain) for domain in values["domains"])),
            "answer": recommendation.revive_recommendation(values["answer"]),
            "purpose": revive(Purpose, values.get("purpose") or {}),
            "snapshot": (seen := values.get("snapshot")) and revive(Snapshot, seen),
        }
        return revive(FinishedStudy, {**values, **parts})
    except (KeyError, TypeError) as error:
        raise EvidenceError(f"this is not the card of a recommendation: {error!r}") from error


def to_finished_study(
    study: Study, recipe: str, purpose: Purpose = NOTHING, snapshot: Snapshot | None = None
) -> FinishedStudy:
    """A study as it is kept, whose recipe has a digest and asks it for a purpose."""
    problem, domains, sizes = study.problem, study.problem.domains, study.available
    answers = study_answers(study)
    if sizes:
        domains = DomainSet(tuple(dataclasses.replace(d, tokens=sizes[d.name]) for d in domains))
    return FinishedStudy(
        name=study.name,
        fingerprint=study.fingerprint,
        answer=study.recommendation,
        domains=domains,
        counted=study.available is None or bool(study.available),
        tables=_from_tables(domains),
        full_tokens=problem.full_tokens,
        recipe=recipe,
        data=evidence_basis(problem.domains, problem.scoring, study.history, problem.proxy.start),
        code=code_version(),
        version=importlib.metadata.version("cuvee"),
        verdict=answers["sure"],
        confirmed=study.confirmed,
        tests=len(study.confirmations),
        answers=answers,
        purpose=dataclasses.replace(purpose, tokens=purpose.tokens or problem.full_tokens),
        recipe_text=study.recipe_text,
        snapshot=snapshot,
        grade=study_grade(study),
        next_steps=study.next_steps,
    )


def evidence_basis(
    domains: DomainSet, scoring: str, history: History = (), start: str = ""
) -> dict[str, str]:
    """What evidence is tied to: domains, a checkpoint, what is scored, or the tables' content."""
    if not _from_tables(domains):
        text = {d.name: "/".join(filter(None, (d.identity, d.heldout))) for d in domains}
        return {**text, SCORING: scoring, **({START: start} if start else {})}
    rows = [
        [run.spec.domains, run.spec.stages[0].weights, {n: s.value for n, s in run.scores.items()}]
        for run in finished_runs(history)
    ]
    return {"tables": hashlib.sha256(canonical_json(rows).encode()).hexdigest()}


def save_finished(
    store: Store, study: FinishedStudy, folder: Path | None = None, *, fit: bool = False
) -> bool:
    """Keep a finished study, as the latest of its recipe and of its name.

    What more confirmations said of the same recommendation stays: a fit alone tests nothing. Where
    another recommendation of this recipe or name was tested, one that was only fitted is kept
    beside it and not in its place.

    Args:
        store: of results.
        study: what is kept.
        folder: of the study's files, for a copy that goes into the record.
        fit: whether it was fitted to runs that were there, and nothing was trained for it.

    Returns:
        Whether it is the latest of its recipe now.
    """
    before = finished_by_identity(store, study.identity)
    if before is not None:
        study = dataclasses.replace(study, snapshot=study.snapshot or before.snapshot)
        study = study.told(before) if before.tests > study.tests else study
    store.renew(CARDS, study.identity, study.to_json(), "answer")
    at = datetime.datetime.now(datetime.UTC).isoformat()
    pointer = {"card": study.identity, "fingerprint": study.fingerprint, "at": at}
    text = hashlib.sha256(canonical_json(dict(study.data)).encode()).hexdigest()
    moved = []
    for place, key in ((ANSWERS, f"{study.recipe}-{text}"), (LATEST, study.name)):
        known = store.recall(place, key) or {}
        there = _pointed(store, known) if fit and not study.tests else None
        moved.append(not (there and there.tests and there.code == study.code))
        complete = study.identity if study.snapshot and not fit else known.get("complete")
        if place == LATEST and not complete and (old := latest_complete(store, study.name)):
            store.renew(CARDS, old.identity, old.to_json(), "answer")  # 404a3ce kept them apart
            complete = old.identity
        if moved[-1]:
            more = {"complete": complete} if complete and place == LATEST else {}
            store.remember(place, key, pointer | more)
    if folder is not None:
        _write_copy(study, folder)
    return moved[0]


def amend_finished(store: Store, found: FinishedStudy, folder: Path) -> None:
    """Let a finished study say what a later test showed; what it rests on stays as it was.

    Its folder gets the copy that goes into the record, where it has none: on another machine.
    """
    before = finished_by_identity(store, found.identity)
    if before is not None:
        after = before.told(found)
        store.renew(CARDS, found.identity, after.to_json(), "answer")
        if not (folder / FILE).exists():
            _write_copy(after, folder)


def _write_copy(study: FinishedStudy, folder: Path) -> None:
    copy = json.dumps(study.to_json(), indent=1) + "\n"
    ObjectFolder(str(folder)).replace(FILE, copy.encode())


def finished_by_identity(store: Store, identity: str) -> FinishedStudy | None:
    """A finished study by its identity, if the store has it."""
    try:
        found = from_json(store.recall(CARDS, identity) or {})
    except CuveeError:
        return None  # of an older version, which is made anew by the next run of the study
    whole = recommendation_fingerprint(found.answer) == found.fingerprint
    named = identity in (found.identity, found.fingerprint)  # by the latter: an older version's
    return found if whole and named else None


def latest_of_name(store: Store, name: str) -> FinishedStudy | None:
    """The latest finished study of a name, whatever its recipe, if the store has it."""
    return _pointed(store, store.recall(LATEST, name) or {})


def latest_complete(store: Store, name: str) -> FinishedStudy | None:
    """The latest study of a name that trained all it asked for, with what determined it."""
    pointer = store.recall(LATEST, name) or {}
    if "complete" in pointer:
        return finished_by_identity(store, str(pointer["complete"]))
    # 404a3ce and before kept what determined a study apart, under the hash of its name
    mark = hashlib.sha256(canonical_json(name).encode()).hexdigest()
    seen, found = store.recall(LATEST, mark), _pointed(store, pointer)
    with contextlib.suppress(KeyError, TypeError):  # of a version before that one
        if seen and found and seen["data"].items() <= found.data.items():
            return dataclasses.replace(found, snapshot=revive(Snapshot, seen))
    return None


def _pointed(store: Store, pointer: Mapping[str, Any]) -> FinishedStudy | None:
    return (
        finished_by_identity(store, str(pointer.get("card") or pointer["fingerprint"]))
        if pointer
        else None
    )


def answers_of_recipe(store: Store, recipe: str) -> tuple[FinishedStudy, ...]:
    """The latest of a recipe by its digest, one for each state of its data; newest first."""
    keys = [key for key in store.keys(ANSWERS) if key.startswith(f"{recipe}-")]
    pointers = [pointer for key in keys if (pointer := store.recall(ANSWERS, key))]
    newest = sorted(pointers, key=lambda pointer: str(pointer.get("at")), reverse=True)
    return tuple(
        study for p in newest if (study := finished_by_identity(store, str(p.get("card"))))
    )


def latest_studies(store: Store) -> tuple[FinishedStudy, ...]:
    """The latest of all studies that the store knows, by their names."""
    names = {study.name for key in store.keys(CARDS) if (study := finished_by_identity(store, key))}
    return tuple(study for name in sorted(names) if (study := latest_of_name(store, name)))


def _from_tables(domains: DomainSet) -> bool:
    return all(identity.startswith(TABLE) for identity in domains.identities)
