"""Words that people have in files: fields of recipes, keys on disk, keys in MLflow.

`golden/words.json` holds them. A word that is gone or renamed breaks recipes, stores, saved
searches and dashboards of others; one that is new is added here on purpose:

    python tests/test_frozen_words.py   # from the root, with PYTHONPATH=tests
"""

import dataclasses
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import recommended_study
import synthetic_study

from cuvee.flows.recipe.schema import Recipe
from cuvee.flows.workspace import Workspace
from cuvee.mixtures import registry
from cuvee.tasks.tracking import fields
from cuvee.tasks.tracking.study_tracker import StudyTracker
from cuvee.tasks.tracking.tracker import MemoryBackend

GOLDEN = Path(__file__).parent / "golden" / "words.json"
NAMES = {*synthetic_study.NAMES, "prose", "tables", "natural", "uniform"}


def recipe_fields() -> list[str]:
    """Every field of every part, by the name of its part's field; fields of registered parts."""
    parts = {"Recipe": Recipe.model_json_schema()}
    parts |= parts["Recipe"].get("$defs", {})
    found = {f"{part}.{name}" for part, schema in parts.items() for name in schema["properties"]}
    for kind in registry.FOLDERS:
        for name in registry.names(kind):
            found.add(f"{kind}: {name}")
            cls = registry.lookup(kind, name)
            found |= {f"{kind}: {name}.{f.name}" for f in dataclasses.fields(cls) if f.init}
    return sorted(found)


def word(key: str) -> str:
    """A key without what one study calls its domains, targets, mixtures and runs."""
    parts = key.split("/")
    return "/".join("*" if p in NAMES or re.fullmatch(r"[0-9a-f]{12,}", p) else p for p in parts)


def paths(value: Any, place: str = "") -> Iterator[str]:
    """The keys of a JSON value, each with those that lead to it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, f"{place}.{word(key)}")
    elif isinstance(value, list):
        for inner in value:
            yield from paths(inner, f"{place}[]")
    else:
        yield place


def disk_keys(folder: Path) -> list[str]:
    """Keys of every JSON file that a study from a store leaves, by its folder or its name."""
    home = Workspace(folder / "home")
    recommended_study.make(folder / "corpus", home)
    found = set()
    for root in (Path(home.store), home.study("tiny")):
        for file in root.rglob("*.json"):
            *outer, _ = file.relative_to(root).parts
            kind = outer[0] if outer else word(file.stem)
            found |= {f"{kind}{key}" for key in paths(json.loads(file.read_text()))}
    return sorted(found)


def record_keys(folder: Path) -> list[str]:
    """Parameters, metrics and tags of a study, confirmed and with a failed run, and of its runs."""
    backend, study = MemoryBackend(), synthetic_study.synthetic_study(seeds=(101, 102))
    tracker = StudyTracker(backend)
    params = fields.study_params(study.recipe_text, study.problem, study.seed)
    tracker.start_study(study.name, params, {})
    for outcome, tags in fields.study_outcomes(study):
        tracker.start_run(outcome.spec, tags)
        tracker.finish_run(outcome)
    tracker.finish_study(study, folder)
    found = set()
    for run in backend.runs.values():
        role = "run" if run.parent else "study"
        for kind in ("params", "metrics", "tags"):
            found |= {f"{role} {kind} {word(key)}" for key in getattr(run, kind)}
    return sorted(found)


def all_words(folder: Path) -> dict[str, list[str]]:
    return {"recipe": recipe_fields(), "disk": disk_keys(folder), "record": record_keys(folder)}


def test_the_words_of_others_files_are_what_they_were(tmp_path):
    """Catches a field, a key or a tag that is renamed on the way through a refactoring."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for kind, now in all_words(tmp_path).items():
        gone, new = set(golden[kind]) - set(now), set(now) - set(golden[kind])
        assert not gone, f"{kind}: these words are gone, and people have them in files"
        assert not new, f"{kind}: write these new words into the golden file, if they are meant"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        text = json.dumps(all_words(Path(scratch)), indent=0, ensure_ascii=False)
    GOLDEN.write_text(text + "\n", encoding="utf-8")
