"""A real study whose domains are renamed, moved, joined by another or grow: what is trained."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_study

import cuvee
from cuvee.flows.workspace import Workspace
from cuvee.tasks.store.results import Store

pytestmark = pytest.mark.slow  # train some twenty proxies each by the real command


def ran(folder: Path, text: str, command: str = "run") -> tuple[dict, str]:
    """The summary of a study by the real command, in a process of its own, and what it said.

    In this one, what Prefect still tells a server that is gone would wait for minutes at its end.
    """
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    words = (Path(sys.executable).parent / "cuvee", command, "recipe.yaml", "--home", "home")
    done = subprocess.run(words, check=False, cwd=folder, capture_output=True, text=True)
    said = re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert done.returncode == 0, said
    path = folder / "home/studies/tiny/summary.json"
    return json.loads(path.read_text()), said


def test_a_renamed_and_moved_domain_trains_nothing_and_a_new_one_is_told(tmp_path):
    """Catches a design, a window, a score, a recommendation or a fresh run that follows names or
    the order of the recipe, and an added domain that voids runs without a word."""
    tiny_study.write_corpus(tmp_path / "corpus")
    text = tiny_study.recipe(tmp_path / "corpus")
    before, _ = ran(tmp_path, text)
    assert before["trained_now"] >= 18
    rows = cuvee.open_study("tiny", home=tmp_path / "home").tables
    lines = [line for line in text.splitlines() if ".jsonl" in line]
    moved = [lines[2].replace("tables:", "figures:"), lines[1], lines[0]]
    other = text.replace("\n".join(lines), "\n".join(moved))
    after, _ = ran(tmp_path, other)
    assert (after["trained_now"], after["reused"]) == (0, before["trained_now"])
    names = {"tables": "figures"}
    assert {names.get(n, n): w for n, w in before["weights"].items()} == after["weights"]
    read = cuvee.open_study("tiny", home=tmp_path / "home").tables  # runs that had other names
    assert read.domains == tuple(names.get(name, name) for name in rows.domains)
    assert np.array_equal(read.weights, rows.weights)
    assert np.array_equal(read.scores, rows.scores)
    jokes = tmp_path / "corpus/jokes.jsonl"
    rows = (json.dumps({"text": f"{i} a joke of {i * 7} words and {i}"}) for i in range(3000))
    jokes.write_text("\n".join(rows))
    more = other.replace(lines[0], f"{lines[0]}\n    jokes: {{path: {jokes}}}")
    _, said = ran(tmp_path, more, "plan")
    kept = re.findall(r"(\d+) earlier runs stay evidence: [^0-9]*they have no share of jokes", said)
    assert sum(map(int, kept)) == before["trained_now"]
    assert "do not count" not in said


def mixtures(folder: Path, smallest: str) -> dict[str, tuple[tuple[float, ...], float]]:
    """Of each run of the store by fingerprint: seed and shares, and that of the smallest domain."""
    runs = [run.spec for run in Store(Workspace(folder / "home").store).outcomes()]
    return {
        spec.fingerprint: (
            (spec.seed, *spec.weights.tolist()),
            float(spec.weights[spec.domains.index(smallest)]),
        )
        for spec in runs
    }


def test_22_bytes_ask_for_no_other_mixture(tmp_path):
    """Catches a design that follows natural shares which moved by a millionth, held-out text that
    moves with what is added, a study that is changed by what is only planned, and growth that is
    tolerated or voids runs without a word."""
    tiny_study.write_corpus(tmp_path / "corpus")
    text = tiny_study.recipe(tmp_path / "corpus", confirm="null")
    before, _ = ran(tmp_path, text)
    smallest = min((tmp_path / "corpus").iterdir(), key=lambda path: path.stat().st_size)
    first = mixtures(tmp_path, smallest.stem)
    added = '{"text": "some word"}\n'
    assert len(added) == 22 and len(first) == before["trained_now"] > 8
    with smallest.open("a") as file:
        file.write(added)
    mild, said = ran(tmp_path, text.replace("vocabulary:", "tolerance: 0.01\n  vocabulary:"))
    assert (mild["trained_now"], mild["weights"]) == (0, before["weights"])
    assert re.search(rf"{smallest.stem} has grown by 0\.\d%.*its earlier text stays in use", said)
    kept = {
        path: path.read_bytes() for path in (tmp_path / "home/store").glob("[cdht]*-*/**/*.json")
    }
    _, said = ran(tmp_path, text, "plan")
    assert {path: path.read_bytes() for path in kept} == kept and len(kept) == 2
    lost = sum(part > 0 for _, part in first.values())
    assert re.search(
        rf"{lost} earlier runs do not count: the text of {smallest.stem} changed "
        r"\((\d+) documents before, (\d+) now\)",
        said,
    )
    after, said = ran(tmp_path, text)
    assert (after["trained_now"], after["reused"]) == (lost, len(first) - lost)
    assert 0 < lost < len(first)
    now = mixtures(tmp_path, smallest.stem)
    assert {now[name][0] for name in now if name not in first} == {
        shares for shares, part in first.values() if part > 0
    }
    assert re.search(rf"since then {smallest.stem} went from [0-9,]+ to [0-9,]+ tokens", said)
    report = (tmp_path / "home/studies/tiny/report.md").read_text()
    assert "Natural shares are those that the study's mixtures were drawn at" in report
