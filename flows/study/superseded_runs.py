"""Earlier runs that no longer count, and why: told before anything is trained in their place.

A run is evidence for the text that it read, under the names and in the order of its domains. So a
document that is added, or a domain that is renamed, leaves every run behind. What moved is found by
what the prepared corpora of the home hold: documents and bytes of a domain do not depend on the
tokenizer, which is trained on all of them, while every identity does.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuvee.mixtures.problem import Problem
from cuvee.mixtures.runs import RunResult, RunSpec
from cuvee.tasks.store.results import Store

ALL = "the tokenizer is trained on all domains"


def superseded_sentences(store: Store, problem: Problem, corpora: Path) -> list[str]:
    """A sentence for each reason for which runs of the store do not count, with their number.

    Args:
        store: of results.
        problem: what is to be chosen now.
        corpora: folder of the prepared corpora.
    """
    sizes = _sizes(corpora)
    reasons = Counter(
        _why(run.spec, problem, sizes)
        for run in store.outcomes()
        if isinstance(run, RunResult) and _akin(run.spec, problem)
    )
    del reasons[""]
    return [f"{n} earlier runs do not count: {why}" for why, n in reasons.most_common()]


def _akin(spec: RunSpec, problem: Problem) -> bool:
    """Whether a run may have been this study's: half of its domains are, by name or content."""
    names = set(spec.domains) & set(problem.domains.names)
    content = set(spec.identities) & set(problem.domains.identities)
    return 2 * max(len(names), len(content)) >= len(spec.domains)


def _why(spec: RunSpec, problem: Problem, sizes: Mapping[str, Any]) -> str:
    """Why a run does not count; empty where nothing speaks against it."""
    then = dict(zip(spec.domains, spec.identities, strict=True))
    now = dict(zip(problem.domains.names, problem.domains.identities, strict=True))
    reasons = []
    if then == now:
        if spec.domains != problem.domains.names:
            reasons.append("the domains stand in another order")
    elif sorted(then.values()) == sorted(now.values()):
        called = {identity: name for name, identity in now.items()}
        pairs = [(name, called[i]) for name, i in then.items() if name != called[i]]
        reasons.append("domains renamed: " + ", ".join(f"{a} to {b}" for a, b in pairs))
    else:
        reasons += _moved(then, now, sizes)
    if spec.scoring != problem.scoring:
        reasons.append("they were scored on other benchmarks, or on other amounts of text")
    if spec.start != problem.proxy.start:
        reasons.append("they did not begin with this checkpoint")
    return "; ".join(reasons)


def _moved(then: Mapping[str, str], now: Mapping[str, str], sizes: Mapping[str, Any]) -> list[str]:
    """What became of domains that are not all what they were."""
    groups = {
        "added": sorted(now.keys() - then.keys()),
        "gone": sorted(then.keys() - now.keys()),
    }
    reasons = [f"domain {', '.join(names)} {how}" for how, names in groups.items() if names]
    differ = sorted(name for name in then.keys() & now.keys() if then[name] != now[name])
    text = [name for name in differ if sizes.get(then[name]) != sizes.get(now[name])]
    if not all(then[name] in sizes for name in differ):
        return [*reasons, f"the text of {', '.join(differ)}, or the tokenizer, changed"]
    if text:
        reasons.append(f"text of {', '.join(text)} changed")
    if len(differ) > len(text):
        said = f"{', and '.join(reasons)} ({ALL})" if reasons else "the tokenizer changed"
        return [said]
    return reasons


def _sizes(corpora: Path) -> dict[str, Any]:
    """Documents and bytes of every domain of the prepared corpora, by identity."""
    found: dict[str, Any] = {}
    for path in corpora.glob("*/manifest.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            for entry in json.loads(path.read_bytes())["domains"]:
                parts = (entry["train"], entry["valid"])
                found[entry["identity"]] = [(p["documents"], p["bytes"]) for p in parts]
    return found
