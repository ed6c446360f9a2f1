"""What `faults.py` asks of a study after a fault: is anything lost, counted twice, or altered?

The store, the study's folder and the record are read here by themselves, with none of the product's
code, and compared with the undisturbed study's. A result is compared in every bit but the times
that it took; so is the whole recommendation.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMES = ("seconds", "scoring_seconds")
PROXY, PRINT = "proxy", "cuvee.fingerprint"


@dataclass(frozen=True)
class Facts:
    """What there is of a study once a command has ended.

    Attributes:
        results: by fingerprint, what a result says, times left out.
        recommendation: the whole of it.
        summary: of the study.
        records: studies that the record has under this name.
        recorded: fingerprints of the record's proxies, each as often as it stands there.
        finished: by fingerprint, the metrics of the record's proxies that are finished.
    """

    results: Mapping[str, str]
    recommendation: Any = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    records: int = 1
    recorded: tuple[str, ...] = ()
    finished: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def results(store: Path) -> dict[str, str]:
    """What every whole result in a store says, by fingerprint; a damaged one is none."""
    found = {}
    for path in sorted(store.glob("runs/*/result.json")):
        try:
            record = json.loads(path.read_bytes())
            content, digest = record["content"], record["sha256"]
            text = json.dumps(content, sort_keys=True, separators=(",", ":"))
            whole = hashlib.sha256(text.encode()).hexdigest() == digest
        except (ValueError, KeyError, TypeError):
            continue
        if whole:
            found[path.parent.name] = json.dumps(_timeless(content), sort_keys=True)
    return found


def _timeless(content: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name not in TIMES}


def facts(home: Path, store: Path, record: tuple[int, Sequence[Mapping[str, Any]]]) -> Facts:
    """Gather what a study left in its home, in a store and in the record.

    Args:
        home: of the command that ended last.
        store: folder of the results.
        record: how many studies the record has under the name, and all their runs, as MLflow's
            REST interface gives them.
    """
    folders = sorted(home.glob("studies/*/summary.json"))
    summary, recommendation = {}, None
    if folders:
        summary = json.loads(folders[0].read_text(encoding="utf-8"))
        recommendation = json.loads(folders[0].with_name("recommendation.json").read_text())
    recorded, finished = [], {}
    for run in record[1]:
        tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}
        recorded.append(tags.get(PRINT, "no fingerprint"))
        if run["info"]["status"] == "FINISHED":
            metrics = run["data"].get("metrics", [])
            finished[recorded[-1]] = {m["key"]: float(m["value"]) for m in metrics}
    return Facts(results(store), recommendation, summary, record[0], tuple(recorded), finished)


def judge(truth: Facts, before: Mapping[str, str], found: Facts) -> Counter[str]:
    """Compare a study that was disturbed and then run again with the undisturbed one.

    Args:
        truth: the undisturbed study.
        before: the whole results that were in the store before the study was run again.
        found: the study after that.

    Returns:
        `lost`: results that are missing in the store or in the record, or that were there whole
        and yet were trained again. `double_counted`: results or records that there should not be,
        and each proxy of a record beyond the first. `corrupt_used`: results, recorded scores and
        recommendations that differ.
    """
    count: Counter[str] = Counter()
    every = set(truth.results)
    count["lost"] += len(every - set(found.results))
    count["lost"] += len(every - set(found.finished))
    missing = len(every - set(before))
    count["lost"] += max(0, int(found.summary.get("trained_now", 0)) - missing)
    count["double_counted"] += len(set(found.results) - every)
    count["double_counted"] += len(found.recorded) - len(set(found.recorded) & every)
    count["double_counted"] += abs(found.records - 1)
    count["double_counted"] += abs(int(found.summary.get("proxies", 0)) - len(every))
    for name in every & set(found.results):
        count["corrupt_used"] += found.results[name] != truth.results[name]
    for name in every & set(found.finished):
        count["corrupt_used"] += not _scored(json.loads(truth.results[name]), found.finished[name])
    count["corrupt_used"] += found.recommendation != truth.recommendation
    return +count


def _scored(result: Mapping[str, Any], metrics: Mapping[str, float]) -> bool:
    """Whether a record has the scores of a result."""
    return all(
        math.isclose(metrics.get(name, math.nan), score["value"], rel_tol=1e-12)
        for name, score in result["scores"].items()
    )
