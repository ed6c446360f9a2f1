"""Recipes with a team's own tokenizer and token files, from the corpus to a checkpoint."""

import json

import numpy as np
import pytest
import tiny_study

from cuvee.flows.handoff.checkpoint import write_checkpoint
from cuvee.flows.recipe.load import load_recipe, parse
from cuvee.flows.study.prepare import prepare
from cuvee.flows.study.recipe_sources import reading_sentence, recipe_files, recipe_tokenizer
from cuvee.flows.workspace import Workspace
from cuvee.mixtures.errors import DataError, RecipeError
from cuvee.proxies.data.files import Digests
from tests.proxies.test_tokenizers import LLAMA, byte_level


def megatron_pair(place, documents, kind="<u2"):
    """A pair as megatron-core writes it (`test_token_files` reads one that it wrote)."""
    lengths = [len(ids) for ids in documents]
    code = {"<u2": 8, "<i4": 4}[kind]
    places = np.cumsum([0, *lengths[:-1]]) * np.dtype(kind).itemsize
    marks = np.arange(len(documents) + 1)
    place.with_suffix(".bin").write_bytes(np.concatenate(documents).astype(kind).tobytes())
    head = b"MMIDIDX\x00\x00" + (1).to_bytes(8, "little") + bytes([code])
    counts = np.array([len(lengths), len(marks)], "<u8").tobytes()
    arrays = (np.array(lengths, "<i4"), places.astype("<i8"), marks.astype("<i8"))
    place.with_suffix(".idx").write_bytes(
        head + counts + b"".join(array.tobytes() for array in arrays)
    )


def encoded(folder, name, tokenizer):
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    end = tokenizer.token_to_id("</s>")
    tokenizer.encode_special_tokens = True
    return [
        np.array([*tokenizer.encode(json.loads(line)["text"], add_special_tokens=False).ids, end])
        for line in lines
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus as text, the tokenizer of a team, and two domains in its tokens and another's."""
    folder = tmp_path_factory.mktemp("own")
    tiny_study.write_corpus(folder)
    ours, theirs = byte_level(LLAMA), byte_level()
    for name, one in (("ours", ours), ("theirs", theirs)):
        (folder / name).mkdir()
        one.save(str(folder / name / "tokenizer.json"))
        (folder / name / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    megatron_pair(folder / "prose", encoded(folder, "prose", ours))
    megatron_pair(folder / "tables", encoded(folder, "tables", theirs), "<i4")
    return folder


def own_recipe(place, prose, tables, tokenizer="ours"):
    corpus = (
        f"{{heldout_bytes: 20000, tokenizer: {place}/{tokenizer}, domains: {{"
        f"code: {{path: {place}/code.jsonl}}, prose: {{path: {place}/{prose}}}, "
        f"tables: {{path: {place}/{tables}}}}}}}"
    )
    return tiny_study.recipe(place, corpus=corpus)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Workspace(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def from_text(place, home):
    return prepare(parse(own_recipe(place, "prose.jsonl", "tables.jsonl")), home)


def test_token_files_are_the_same_evidence_as_their_text(place, home, from_text):
    """A domain is what it holds: catches documents in another order or of other tokens, tokens of
    another tokenizer that are taken for the corpus's, and end-of-text tokens that are doubled."""
    text = own_recipe(place, "prose.bin", f"tables.bin, tokens_of: {place}/theirs")
    prepared = prepare(parse(text), home)
    wanted = {d.name: (d.identity, d.heldout, d.tokens) for d in from_text.corpus.domains}
    assert {d.name: (d.identity, d.heldout, d.tokens) for d in prepared.corpus.domains} == wanted
    assert prepared.corpus.root != from_text.corpus.root
    stored = {path.name for path in prepared.corpus.root.glob("prose/*")}
    assert "train.spans" in stored and "train.bin" not in stored
    assert (prepared.corpus.root / "tables" / "train.bin").exists()  # of another tokenizer
    files = recipe_files(
        parse(text), home, Digests(home.digests), recipe_tokenizer(parse(text), home)
    )
    assert reading_sentence(files, {}).count("decoded once to be compared, and used where") == 1
    assert "copied into the store" in reading_sentence(files, {}, "s3://bucket")


def test_token_files_need_what_made_them(place, home):
    """Catches ids that are read by whichever tokenizer the corpus happens to have."""
    text = own_recipe(place, "prose.bin", "tables.jsonl").replace(f"tokenizer: {place}/ours, ", "")
    with pytest.raises(DataError, match=r"'prose' holds token files.*tokens_of: FOLDER"):
        prepare(parse(text), home)
    wrong = own_recipe(place, "prose.jsonl", "tables.jsonl").replace("heldout_bytes", "vocabulary")
    with pytest.raises(RecipeError, match=r"corpus.vocabulary has no effect with corpus.tokenizer"):
        parse(wrong)
    for prose, message in (
        ("prose.bin, field: body", "token files hold no field"),
        ("prose.jsonl, tokens_of: ours", r"`tokens_of` is of token files \(.bin, .npy, .ds\)"),
    ):
        with pytest.raises(RecipeError, match=message):
            parse(own_recipe(place, prose, "tables.jsonl"))


def test_a_checkpoint_carries_the_teams_tokenizer(place, home, from_text, tmp_path):
    """Catches an export whose documents end with a token that no text ended with."""
    path = place / "recipe.yaml"
    path.write_text(own_recipe(place, "prose.jsonl", "tables.jsonl"))
    recipe, _ = load_recipe(path)
    folder, spec = write_checkpoint(recipe, home, "natural", tmp_path / "out")
    given = (place / "ours" / "tokenizer.json").read_bytes()
    assert (folder / "tokenizer.json").read_bytes() == given
    config = json.loads((folder / "config.json").read_text())
    corpus = from_text.corpus
    assert (config["vocab_size"], config["eos_token_id"]) == (corpus.vocabulary, corpus.eot)
    assert json.loads((folder / "tokenizer_config.json").read_text())["eos_token"] == "</s>"
    assert spec.size == "0.3M"
