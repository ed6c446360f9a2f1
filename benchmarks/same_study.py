"""Whether two homes hold the same study: what two versions of the code made of one recipe.

    python benchmarks/same_study.py HOME OTHER

Compared are every result of the store by its fingerprint, `recommendation.json`, `summary.json` and
the words of what was made beside them, and the whole record: parameters, tags and every point of
every metric of the study and its proxies. Numbers are compared to the last bit. What may differ is
listed in `MASKED`, with the reason; whatever else differs, or is in one home alone, is printed, and
the exit status is 1. Files are read as they lie, with none of the product's code; the record is the
SQLite of an embedded home.
"""

import argparse
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MASKED = {  # places that may differ, as patterns of whole names, and why
    r"runs/\w+/(seconds|scoring_seconds)": "clock",
    r"summary/(minutes|tokens_per_second|cost/.*)": "clock and cost",
    r"summary/answers/cost|record/study/tags/cuvee\.cost": "words, which tell minutes and cost",
    r"summary/next_steps/.*": "words, which tell what more would cost",
    r"record/\w+/metrics/(seconds|minutes|tokens_per_second|cost/.*)@.*": "clock and cost",
    r"record/study/tags/mlflow\.note\.content": "words, which tell minutes and cost",
    r"record/study/tags/cuvee\.sweep": "which sweep",
    r"record/\w+/tags/mlflow\.(parentRunId|user|source\..*)": "numbers of runs, and host",
}
SHOWN = 40  # places that are printed one by one


def leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Every value inside a JSON value, with the keys that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{place}/{key}")
    elif isinstance(value, list):
        yield f"{place}/length", len(value)
        for number, inner in enumerate(value):
            yield from leaves(inner, f"{place}/{number}")
    else:
        yield place, value


def store_and_folder(home: Path) -> dict[str, Any]:
    """Results by fingerprint, and what the one study's folder says."""
    found: dict[str, Any] = {}
    for file in sorted(home.glob("store/runs/*/*.json")):
        content = json.loads(file.read_bytes())["content"]
        found |= leaves(content, f"runs/{file.parent.name}")
    (folder,) = {file.parent for file in home.glob("studies/*/summary.json")}
    for name in ("recommendation", "summary"):
        found |= leaves(json.loads((folder / f"{name}.json").read_bytes()), name)
    found |= {f"files/{file.relative_to(folder)}": True for file in folder.rglob("*.json")}
    return found


def record(home: Path) -> dict[str, Any]:
    """Parameters, tags and points of metrics of the study and, by fingerprint, of its proxies."""
    found: dict[str, Any] = {}
    with sqlite3.connect(f"file:{home}/mlflow/mlflow.db?mode=ro", uri=True) as base:
        tags: dict[str, dict[str, str]] = {}
        for run, key, value in base.execute("select run_uuid, key, value from tags"):
            tags.setdefault(run, {})[key] = value
        names = {run: kept.get("cuvee.fingerprint", "study") for run, kept in tags.items()}
        found["record/runs"] = len(tags)
        assert len(set(names.values())) == len(names), "a proxy or a study stands there twice"
        for run, name in names.items():
            found |= {f"record/{name}/tags/{key}": value for key, value in tags[run].items()}
        for run, key, value in base.execute("select run_uuid, key, value from params"):
            found[f"record/{names[run]}/params/{key}"] = value
        points: Counter[str] = Counter()
        for run, key, value, step, nan in base.execute(
            "select run_uuid, key, value, step, is_nan from metrics order by step, timestamp"
        ):
            place = f"record/{names[run]}/metrics/{key}@{step}"
            points[place] += 1  # a metric that was logged anew at one step
            found[f"{place}.{points[place]}"] = "nan" if nan else value
        for run, status in base.execute("select run_uuid, status from runs"):
            found[f"record/{names[run]}/status"] = status
    return found


def masked(place: str) -> str:
    """Why a place may differ, or nothing."""
    return next((why for pattern, why in MASKED.items() if re.fullmatch(pattern, place)), "")


def compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Print what differs where it must not, and return the places."""
    places = sorted(one.keys() | other.keys())
    excused = [place for place in places if masked(place)]
    wrong = [
        place
        for place in places
        if not masked(place)
        and (place in one, one.get(place)) != (place in other, other.get(place))
    ]
    for place in wrong[:SHOWN]:
        values = (repr(values.get(place, "not there"))[:70] for values in (one, other))
        print(f"{place}: {' | '.join(values)}")
    kinds = Counter(re.sub(r"[0-9a-f]{64}|\d+", "*", place) for place in wrong)
    for kind, count in kinds.most_common() if len(wrong) > SHOWN else ():
        print(f"{count} x {kind}")
    differ = sum(one.get(place) != other.get(place) for place in excused)
    print(f"{len(places) - len(excused)} values compared, {len(wrong)} differ;")
    print(f"{len(excused)} may differ ({', '.join(sorted(set(MASKED.values())))}), {differ} do")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("homes", nargs=2, type=Path)
    one, other = parser.parse_args().homes
    raise SystemExit(
        bool(compare(store_and_folder(one) | record(one), store_and_folder(other) | record(other)))
    )


if __name__ == "__main__":
    main()
