"""A real study whose domains are renamed, exchanged and joined by another: what is trained."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tiny_study
from command import inside

import cuvee

pytestmark = pytest.mark.slow  # trains twenty proxies by the real command


def ran(folder: Path, text: str, command: str = "run") -> tuple[dict, str]:
    """The summary of a study by the real command, and what it said."""
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    done = inside(command, "recipe.yaml", home=folder / "home", folder=folder)
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
