"""What of a store cannot be trusted: hashes are computed anew, and equal runs are compared.

Nothing is moved, deleted or trained. A record that is whole can still be wrong, if the proxy was
asked other questions than its fingerprint says. Three things show it: no known benchmark gives its
hash of scoring; it answered another number of questions than its like; or a run of the same
training has other scores where it was asked the same, or the very same for other questions.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cuvee.evaluation import suites
from cuvee.evaluation.suites import short_name
from cuvee.mixtures.errors import CuveeError
from cuvee.mixtures.runs.run_records import outcome_from_json
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.tasks.store.results import Store
from cuvee.tasks.store.unit_files import UNIT_FILE, units_from_bytes

SCORINGS = "scorings"  # folder of a store: by hash of scoring, what it is the hash of
TOLERANCE = 0.01  # of a score; rounding on another processor moves it by less (assumption)
UNITS_TOLERANCE = 1e-5  # of a score or of 1: of the rounding of units to 32 bits
SHOWN = 5  # names in a sentence

Scored = Sequence[Any]  # the arguments of `suites.scoring_identity`
Found = tuple[str, RunResult]  # URL of the store, run


def examine_stores(stores: Sequence[Store], known: Mapping[str, Scored]) -> tuple[list[str], int]:
    """What is wrong with stores, a sentence each, and how many records were read.

    Args:
        stores: that are read; equal runs of them are compared with each other.
        known: by hash of scoring, what it is the hash of; the stores know of others.
    """
    problems: list[str] = []
    runs: list[Found] = []
    scored, count = dict(known), 0
    for store in stores:
        for path, content, wrong in store.records():
            count += 1
            folder, _, name = path.partition("/")
            try:
                if not wrong and folder == "runs":
                    run = outcome_from_json(content)
                    if content["spec"].keys() > dataclasses.asdict(run.spec).keys():
                        continue  # a later version's, of a training that this one does not know
                    if run.spec.fingerprint != name.split("/")[0]:
                        wrong = f"its spec has the fingerprint {run.spec.fingerprint[:12]}"
                    elif isinstance(run, RunResult):
                        runs.append((store.url, run))
                        problems.extend(_units(store, run))
                elif not wrong and folder == SCORINGS:
                    if suites.scoring_identity(*content) != name.removesuffix(".json"):
                        wrong = "it is not what its name is the hash of"
                    else:
                        scored[name.removesuffix(".json")] = content
            except (CuveeError, TypeError, ValueError) as error:
                wrong = f"this version cannot read it ({error})"
            if wrong:
                problems.append(f"{store.url}/{path}: {wrong}")
    for check in (_unknown, _counts, _unlike):
        problems.extend(check(runs, scored))
    return problems, count


def _units(store: Store, run: RunResult) -> Iterator[str]:
    """What is wrong with the scores by document and item that lie beside a run."""
    path = f"runs/{run.spec.fingerprint}/{UNIT_FILE}"
    raw = store.objects.read(path)
    units = {} if raw is None else units_from_bytes(run.spec, raw)
    if units is None:
        yield f"{store.url}/{path}: damaged, so that gains of this run cover new seeds only"
    every = {**run.scores, **run.details}
    for name, part in (units or {}).items():
        value = every[name].value if name in every else part.value
        if abs(part.value - value) > UNITS_TOLERANCE * max(1.0, abs(value)):
            yield f"{store.url}/{path}: {name} is {part.value:.6g}, and {value:.6g} in the result"


def _unknown(runs: Sequence[Found], scored: Mapping[str, Scored]) -> Iterator[str]:
    by: dict[str, list[Found]] = defaultdict(list)
    for found in runs:
        if found[1].spec.scoring and found[1].spec.scoring not in scored:
            by[found[1].spec.scoring].append(found)
    for name, some in by.items():
        yield (
            f"{len(some)} runs are scored as {name[:12]}, which no benchmark known here gives, so "
            f"that nobody can say what they were asked: {_names(some)}"
        )


def _counts(runs: Sequence[Found], _scored: Mapping[str, Scored]) -> Iterator[str]:
    """Runs that answered another number of questions than most others of their scoring."""
    by: dict[Any, list[tuple[int, Found]]] = defaultdict(list)
    for url, run in runs:
        for target, score in run.scores.items():
            key = (run.spec.scoring, run.spec.size, run.spec.identities, target)
            by[key].append((score.n, (url, run)))
    for (scoring, _, _, target), some in by.items():
        usual = Counter(n for n, _ in some).most_common(1)[0][0]
        odd = [found for n, found in some if n != usual]
        if odd:
            yield (
                f"{len(odd)} of {len(some)} runs that are scored as {scoring[:12]} were not asked "
                f"the same for {target} as the others, which answered {usual} items: {_names(odd)}"
            )


def _unlike(runs: Sequence[Found], scored: Mapping[str, Scored]) -> Iterator[str]:
    """Runs of one training that differ where they were asked the same, or do not where not."""
    by: dict[str, list[Found]] = defaultdict(list)
    for url, run in runs:
        by[dataclasses.replace(run.spec, scoring="").fingerprint].append((url, run))
    for some in by.values():
        for i, (url, one) in enumerate(some):
            for place, other in some[i + 1 :]:
                for target in sorted(one.scores.keys() & other.scores.keys()):
                    asked = [_asked(scored, run, target) for run in (one, other)]
                    a, b = one.scores[target].value, other.scores[target].value
                    known = None not in asked
                    equal = one.spec.scoring == other.spec.scoring or (
                        known and asked[0] == asked[1]
                    )
                    if equal and abs(a - b) > TOLERANCE * max(abs(a), abs(b)):
                        why = "though both were asked the same"
                    elif a == b and _other_questions(*asked):
                        why = "though they were asked different things"
                    else:
                        continue
                    yield (
                        f"one training, {target} {a:.6g} in run {one.spec.fingerprint[:12]} of "
                        f"{url} and {b:.6g} in run {other.spec.fingerprint[:12]} of {place}, {why}"
                    )


def _other_questions(one: Any, other: Any) -> bool:
    """Whether two runs answered different questions for sure.

    Another limit may exceed the questions that there are, and a task of lm-eval itself is known by
    a version, so that these may be the same questions.
    """
    hashes = [asked[2] if isinstance(asked, list) else None for asked in (one, other)]
    return hashes[0] != hashes[1] and all(one and "." not in one for one in hashes)


def _asked(scored: Mapping[str, Scored], run: RunResult, target: str) -> Any:
    """What decides a target's score beside the proxy; None where it is not known."""
    if run.spec.scoring not in scored:
        return None
    (version, limit, parts), text, _ = scored[run.spec.scoring]
    kind, _, name = target.partition("/")
    if kind == "domain":
        return text
    hashes = {short_name(task): content for task, content in parts.items()}
    return [version, limit, hashes.get(name)]


def _names(some: Sequence[Found]) -> str:
    shown = ", ".join(f"{run.spec.fingerprint[:12]} of {url}" for url, run in some[:SHOWN])
    return f"{shown} and others" if len(some) > SHOWN else shown
