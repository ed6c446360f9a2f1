"""Earlier runs that no longer count, those that stay, and why: told before anything is trained.

A run is evidence for the text that it read, whatever its domains are called, in whatever order they
stand, and whichever others there are. So what voids it is text that changed or is gone, another
tokenizer, other scoring, another checkpoint to begin with. What moved is found by what the prepared
corpora of the home hold: documents and bytes of a domain do not depend on the tokenizer.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cuvee.flows.study.confirm import FRESH
from cuvee.mixtures.domains import Domain
from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs.run_results import RunResult
from cuvee.mixtures.runs.run_spec import BY_NAMES, RunSpec
from cuvee.tasks.store.results import Store
from cuvee.tasks.study.validity import renamed_domains

EARLIER = (
    "they are of version 1, known by the names and the order of their domains. Their study still "
    "opens, and `cuvee fit`, `confirm`, `approve` and `export` go on with it on its own corpus"
)
Sizes = Mapping[str, tuple[int, int]]  # documents and bytes of training text, by identity


def superseded_sentences(
    store: Store, problem: Problem, corpora: Path, asked: Sequence[RunSpec] = ()
) -> list[str]:
    """A sentence for each reason for which runs of the store count no more, or stay, with numbers.

    Args:
        store: of results.
        problem: what is to be chosen now.
        corpora: folder of the prepared corpora.
        asked: the first runs that the study asks for.
    """
    sizes, wanted = _sizes(corpora), {spec.fingerprint: spec for spec in asked}
    lost: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    for run in store.outcomes():
        if not isinstance(run, RunResult) or not _akin(run.spec, problem):
            continue
        if why := _why(run.spec, problem, sizes):
            lost[why] += 1
        elif how := _how(run, problem, wanted.get(run.spec.fingerprint)):
            kept[how] += 1
    return [
        *(f"{n} earlier runs do not count: {why}" for why, n in lost.most_common()),
        *(f"{n} earlier runs stay evidence: {how}" for how, n in kept.most_common()),
    ]


def _akin(spec: RunSpec, problem: Problem) -> bool:
    """Whether a run may have been this study's: half of its domains are, by name or content."""
    names = set(spec.domains) & set(problem.domains.names)
    content = set(spec.identities) & set(problem.domains.identities)
    return 2 * max(len(names), len(content)) >= len(spec.domains)


def _why(spec: RunSpec, problem: Problem, sizes: Sizes) -> str:
    """Why a run does not count; empty where nothing speaks against it."""
    if spec.version != problem.version:
        return EARLIER if spec.version == BY_NAMES else "they are of a later version"
    reasons = []
    read = [i for i in spec.order if spec.identities[i] not in problem.domains.identities]
    now = {domain.name: domain for domain in problem.domains}
    there = [i for i in read if spec.domains[i] in now]
    same = [i for i in there if _size(spec, i, sizes) == sizes.get(now[spec.domains[i]].identity)]
    if read and len(same) == len(read) == len(spec.order):
        reasons.append("the tokenizer changed")
    else:
        words = [_changed(spec.domains[i], spec.identities[i], now, sizes) for i in read]
        reasons += sorted(words)
    if spec.scoring != problem.scoring:
        reasons.append("they were scored on other benchmarks, or on other amounts of text")
    if spec.start != problem.proxy.start:
        reasons.append("they did not begin with this checkpoint")
    return "; ".join(reasons)


def _size(spec: RunSpec, i: int, sizes: Sizes) -> tuple[int, int] | None:
    return sizes.get(spec.identities[i], (0, 0))


def _changed(name: str, identity: str, now: Mapping[str, Domain], sizes: Sizes) -> str:
    """What became of the text of a domain that a run has read."""
    if name not in now:
        return f"domain {name} is gone"
    before, after = sizes.get(identity), sizes.get(now[name].identity)
    if before is None or after is None:
        return f"the text of {name}, or the tokenizer, changed"
    if before == after:
        return f"the text of {name} changed"
    return f"the text of {name} changed ({before[0]:,} documents before, {after[0]:,} now)"


def _how(run: RunResult, problem: Problem, asked: RunSpec | None) -> str:
    """What a run stays evidence in spite of; empty where nothing happened to it."""
    spec = run.spec
    before, after = (
        dict(zip(names, contents, strict=True))
        for names, contents in (
            (spec.domains, spec.identities),
            (problem.domains.names, problem.domains.identities),
        )
    )
    called = renamed_domains(before, after)
    added = [name for name, content in after.items() if content not in before.values()]
    parts = []
    if called:
        parts.append("domains renamed: " + ", ".join(f"{a} to {b}" for a, b in called.items()))
    if added:
        mixes = "the design asks for other mixtures"
        if asked is not None:
            mixes = "the design asks for them again"
        elif spec.seed >= FRESH:
            mixes = "they tested a recommendation, which no design asks for"
        parts.append(f"they have no share of {', '.join(added)}, and {mixes}")
    if asked is not None and (lacking := run.seen_as(asked).lacking):
        parts.append(f"trained again, to be scored on {', '.join(lacking)} too")
    return "; ".join(parts)


def _sizes(corpora: Path) -> dict[str, tuple[int, int]]:
    """Documents and bytes of every domain's training text in the prepared corpora, by identity."""
    found: dict[str, tuple[int, int]] = {}
    for path in corpora.glob("*/manifest.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            for entry in json.loads(path.read_bytes())["domains"]:
                found[entry["identity"]] = (entry["train"]["documents"], entry["train"]["bytes"])
    return found
