"""From a recipe's sources to a corpus: what is told before anything is read, and what is kept."""

import contextlib
import io
import json
import os
import time

import numpy as np
import pytest
from rich.console import Console

from cuvee.flows.console import Display
from cuvee.flows.recipe.load import build_recipe
from cuvee.flows.study.prepare import corpus_parts, prepare
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import DataError, RecipeError
from cuvee.proxies.data import files


def text(path, seed, documents=60):
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefgh"), 5)) for _ in range(300)]
    rows = (json.dumps({"text": " ".join(rng.choice(words, 60))}) for _ in range(documents))
    path.write_text("\n".join(rows))
    return str(path)


def recipe(domains, **corpus):
    return build_recipe(
        {
            "name": "own",
            "corpus": {"domains": domains, "vocabulary": 300, "min_tokens": 2000, **corpus},
            "evaluation": {"suite": None},
            "objective": {"name": "mean", "weights": {f"domain/{name}": 1 for name in domains}},
            "full_scale": {"tokens": "1M"},
            "method": {"name": "regmix", "runs": 8},
        },
        "the recipe",
    )


def prepared(given, home):
    """What is prepared, and what a person reads meanwhile."""
    said = io.StringIO()
    display = Display(Console(file=said, soft_wrap=True))
    with contextlib.redirect_stdout(said):
        return prepare(given, Workspace(home, display)), said.getvalue()


def test_touched_and_copied_files_make_no_new_corpus(tmp_path, monkeypatch):
    """Catches a corpus for every touch and every copy, and text hashed at every command."""
    domains = {n: {"path": text(tmp_path / f"{n}.jsonl", i)} for i, n in enumerate("ab")}
    given, home = recipe(domains), tmp_path / "home"
    first, _ = prepared(given, home)
    for n in "ab":
        os.utime(tmp_path / f"{n}.jsonl", (1, 1))
    assert prepared(given, home)[0].corpus == first.corpus
    (tmp_path / "c.jsonl").write_bytes((tmp_path / "a.jsonl").read_bytes())
    moved = recipe({"a": {"path": str(tmp_path / "c.jsonl")}, "b": domains["b"]})
    assert prepared(moved, home)[0].corpus == first.corpus
    assert len([p for p in (home / "corpora").iterdir() if p.is_dir()]) == 1
    monkeypatch.setattr(files.Digests, "SETTLED", -1.0)
    prepared(given, home)
    kept = (home / "digests.json").read_text()
    hashed = []
    monkeypatch.setattr(files, "file_digest", hashed.append)
    prepared(given, home)
    assert not hashed and (home / "digests.json").read_text() == kept


def test_the_age_of_a_corpus_is_since_it_was_used(tmp_path):
    """Catches a corpus that is used every day removed because it was made long ago."""
    domains = {n: {"path": text(tmp_path / f"{n}.jsonl", i)} for i, n in enumerate("ab")}
    root = prepared(recipe(domains), tmp_path / "home")[0].corpus.root
    os.utime(root, (1, 1))
    prepared(recipe(domains), tmp_path / "home")
    assert root.stat().st_mtime > time.time() - 100


def test_all_that_names_and_sizes_show_is_told_at_once_before_anything_is_read(tmp_path):
    """Catches one missing path at a time, and a small domain told after hours of tokenizing."""
    domains = {
        "fine": {"path": text(tmp_path / "a.jsonl", 1)},
        "gone": {"path": str(tmp_path / "none.txt")},
        "lost": {"path": [str(tmp_path / "nor/*.md")]},
        "tiny": {"path": text(tmp_path / "t.jsonl", 2, documents=3)},
    }
    with pytest.raises(DataError) as caught:
        prepared(recipe(domains), tmp_path / "home")
    said = str(caught.value)
    assert "'gone'" in said and "'lost'" in said and "'fine'" not in said
    assert "domain 'tiny' has at most" in said and "lower corpus.min_tokens" in said
    assert not (tmp_path / "home" / "corpora").exists()


def test_what_is_not_read_is_said_and_stands_among_the_domains_notices(tmp_path):
    """Catches files passed over and rows skipped without a word to the person."""
    (tmp_path / "web").mkdir()
    path = text(tmp_path / "web" / "x.jsonl", 1)
    with open(path, "a") as file:
        file.write("\n{broken\n")
    (tmp_path / "web" / "photo.png").write_text("x")
    domains = {
        "web:law": {"path": str(tmp_path / "web")},
        "C++": {"path": text(tmp_path / "b.jsonl", 2)},
    }
    with pytest.raises(DataError, match="line 61: malformed JSON"):
        prepared(recipe(domains), tmp_path / "home")
    found, said = prepared(recipe(domains, on_error="skip"), tmp_path / "home")
    parts = corpus_parts(found)
    assert parts["web:law"].skipped == 1 and parts["C++"].notices == ()
    unread, skipped = parts["web:law"].notices
    assert unread == "web:law: 1 file is not read beside 1 that are: photo.png"
    assert skipped.startswith("1 of 61 rows of web:law were skipped, the first: ")
    assert f"Note: {unread}" in said and f"Note: {skipped}" in said


def test_separators_reach_the_reader(tmp_path):
    """Catches a message that asks for a field which no recipe can give."""
    stories = "\n<|endoftext|>\n".join(f"once {i} " + "there was a king " * 30 for i in range(60))
    (tmp_path / "s.txt").write_text(stories)
    domains = {
        "stories": {"path": str(tmp_path / "s.txt"), "separator": "<|endoftext|>"},
        "b": {"path": text(tmp_path / "b.jsonl", 2)},
    }
    parts = corpus_parts(prepared(recipe(domains, min_tokens=500), tmp_path / "home")[0])
    assert 50 < parts["stories"].documents < 60
    with pytest.raises(RecipeError, match="separator"):
        recipe({"stories": {"path": "s.txt", "separator": ""}})
    with pytest.raises(DataError, match="say in `separator`"):
        del domains["stories"]["separator"]
        prepared(recipe(domains, min_tokens=500), tmp_path / "home")


def test_domains_come_from_where_teams_keep_them(tmp_path, s3):
    """Catches a recipe's field that does not reach the reader: URLs taken for paths, a split or a
    format that is ignored, and domains that another place of the same text makes new ones."""
    from s3fs import S3FileSystem

    local = tmp_path / "web.jsonl"
    text(local, 1)
    S3FileSystem().put_file(str(local), f"{s3}/web/0.jsonl")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "test.jsonl").write_text('{"body": "not this one"}\n')
    (tmp_path / "set" / "train.jsonl").write_text(
        local.read_text().replace('"text"', '"body"')[::1]
    )
    text(tmp_path / "rows.jsonl", 3)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    sheet = ["page,n", *(f'"{row["text"]}\n",{i}' for i, row in enumerate(rows))]
    (tmp_path / "part-0").write_text("\n".join(sheet))
    domains = {
        "web": {"path": f"{s3}/web/"},
        "sheet": {"path": str(tmp_path / "part-0"), "format": "csv", "field": "page", "id": "n"},
    }
    found, _ = prepared(recipe(domains), tmp_path / "home")
    parts = corpus_parts(found)
    assert (parts["web"].documents, parts["sheet"].documents) == (57, 57)
    given = {"name": str(tmp_path / "set"), "split": "train"}
    moved = {**domains, "web": {"dataset": given, "field": "body"}}
    again, _ = prepared(recipe(moved), tmp_path / "home")
    assert {d.identity for d in again.domains} == {d.identity for d in found.domains}
