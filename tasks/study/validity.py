"""The check of a finished study: how things stand now, and why its evidence no longer does.

`validity` gives the reasons for which a recommendation may not be confirmed, approved or handed on.
`changes` says what a scheduled sweep finds otherwise than the last study did, and
`unchanged_ratios` what of that study still stands: where the text of some domains changed and
nothing else did, the ratios among the others do (Olmix's mixture reuse). They are frozen, and
fewer runs are asked for.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from cuvee.mixtures.errors import ApprovalError
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.finished import NOTHING, SCORING, START, FinishedStudy, Purpose, Snapshot

LEAST_RUNS = 8  # of a design over groups, unless the whole design has fewer (assumption)
SHOWN = 3  # of a long list


@dataclass(frozen=True)
class Present:
    """How things stand now, for comparison with a finished study.

    Attributes:
        recipe: digest of the recipe as it is now.
        data: domain -> identity as it is now, or the tables' hash.
        code: version of the mathematics that runs now.
        purpose: what the recipe asks a recommendation for now.
        snapshot: what a study would be determined by now; None for tables.
    """

    recipe: str
    data: Mapping[str, str]
    code: str
    purpose: Purpose = NOTHING
    snapshot: Snapshot | None = None


def validity(
    study: FinishedStudy, now: Present, store: Store, *, code: bool = True
) -> tuple[str, ...]:
    """Why a study's evidence is void; empty if it stands.

    Args:
        study: whose recommendation is to be used.
        now: how things stand.
        store: holds the runs.
        code: whether code that has changed makes it void: before an approval it does, after it the
            recommendation is what was approved, whichever code writes it down.
    """
    found = []
    if now.recipe != study.recipe:
        found.append("the recipe has changed since the study")
    if now.data != study.data:
        found.append(f"the data has changed since the study: {_differing(study.data, now.data)}")
    if code and now.code != study.code:
        found.append("the code that fits and recommends has changed since the study")
    return (*found, *lost_runs(study, store))


def lost_runs(study: FinishedStudy, store: Store) -> tuple[str, ...]:
    """What is wrong with the runs that a study rests on, in words; empty if nothing is."""
    runs = study.answer.evidence
    if not runs:
        return ("it rests on no run at all",)
    missing = [] if study.tables else [r for r in runs if not isinstance(store.get(r), RunResult)]
    if not missing:
        return ()
    shown = ", ".join(run[:12] for run in missing[:SHOWN])
    return (
        f"{len(missing)} of the {len(runs)} runs that it rests on are missing in the store or "
        f"damaged ({shown}{', ...' if missing[SHOWN:] else ''})",
    )


def refuse_void(
    study: FinishedStudy, reasons: tuple[str, ...], act: str = "approved or handed on"
) -> None:
    """Refuse a recommendation whose evidence is void.

    Raises:
        ApprovalError: says why, and what to do.
    """
    if reasons:
        again = "`cuvee fit`" if study.tables else "`cuvee run`, which trains only what is missing"
        raise ApprovalError(
            f"the recommendation {study.fingerprint[:12]} of {study.name} cannot be {act}, its "
            f"evidence is void: {'; '.join(reasons)}. Make it again with {again}"
        )


def changes_since(before: FinishedStudy | None, now: Present) -> tuple[str, ...]:
    """What is not as the last study of a schedule had it, in words; empty where nothing changed."""
    if before is None or before.snapshot is None or now.snapshot is None:
        return ("no earlier study",)
    then, here = before.snapshot, now.snapshot
    found = [
        name
        for name, same in (
            ("the recipe", then.recipe == here.recipe),
            ("what is confirmed", then.confirm == here.confirm),
            ("what proxies are scored on", before.data.get(SCORING) == now.data.get(SCORING)),
            ("the code", then.code == here.code),
        )
        if not same
    ]
    if _tokens(before.data) == _tokens(now.data):  # files that moved hold the text they held
        return tuple(found)
    called = renamed_domains(_tokens(before.data), _tokens(now.data))
    texts = {called.get(name, name): text for name, text in then.texts.items()}
    gone = sorted(texts.keys() - here.texts.keys())
    moved = sorted(name for name in here.texts if texts.get(name) != here.texts[name])
    if not moved and not gone and not called:
        found.append("the tokens")
    return (
        *found,
        *(f"domain {a} is called {b} now" for a, b in called.items()),
        *(f"domain {name}" for name in moved),
        *(f"domain {name} (gone)" for name in gone),
    )


def renamed_domains(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Names of domains whose content goes by another name now: old -> new."""
    free = [name for name, content in after.items() if before.get(name) != content]
    found: dict[str, str] = {}
    for name, content in before.items():
        now = next((other for other in free if after[other] == content), None)
        if after.get(name) != content and now is not None:
            found[name] = now
            free.remove(now)
    return found


def unchanged_ratios(before: FinishedStudy | None, now: Present) -> dict[str, float]:
    """Ratios among the domains whose text is as it was, by name; empty where none can be kept.

    They stand if some domain changed, two or more did not, and all else is as it was.
    """
    if before is None or before.snapshot is None or now.snapshot is None:
        return {}
    then, here = before.snapshot, now.snapshot
    called = renamed_domains(_tokens(before.data), _tokens(now.data))
    texts = {called.get(name, name): text for name, text in then.texts.items()}
    same = [name for name, text in here.texts.items() if texts.get(name) == text]
    if (then.recipe, then.code) != (here.recipe, here.code) or (
        before.data.get(SCORING) != now.data.get(SCORING)
        or len(same) == len(here.texts) == len(then.texts)
    ):
        return {}
    names = [called.get(name, name) for name in before.answer.domains]
    weights = dict(zip(names, before.answer.weights, strict=True))
    shares = {name: float(weights.get(name, 0.0)) for name in same}
    total = math.fsum(shares.values())
    kept = {name: share / total for name, share in shares.items() if share > 0} if total else {}
    return kept if len(kept) >= 2 else {}


def runs_over_groups(runs: int, domains: int, groups: int) -> int:
    """Runs of a design over groups, in place of `runs` over all domains.

    Linear in what is drawn, as Olmix found the size of a swarm to be.
    """
    return min(runs, max(math.ceil(runs * groups / domains), min(LEAST_RUNS, runs)))


def _tokens(data: Mapping[str, str]) -> dict[str, str]:
    return {name: mark for name, mark in data.items() if name not in (SCORING, START)}


def _differing(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    called = renamed_domains(_tokens(before), _tokens(after))
    known = {*called, *called.values()}
    names = [f"{a} is called {b} now" for a, b in called.items()]
    every = (before.keys() | after.keys()) - known
    names += sorted(n for n in every if before.get(n) != after.get(n))
    return ", ".join(names[:SHOWN]) + (", ..." if names[SHOWN:] else "")
