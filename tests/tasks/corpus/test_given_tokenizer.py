"""A team's own tokenizer: where it is found, what ends a document, and a corpus in its tokens."""

import hashlib
import json
import shutil

import numpy as np
import pytest

from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.proxies.data.tokenizer import EOT, TokenizerFile, train_tokenizer
from cuvee.tasks.corpus.given_tokenizer import find_tokenizer, keep_tokenizer
from cuvee.tasks.corpus.prepare import prepare_corpus
from tests.proxies.test_tokenizers import LLAMA, byte_level, fallback
from tests.tasks.corpus.test_corpus import QUESTION, SMALL, sources


@pytest.fixture
def find(tmp_path):
    store = str(tmp_path / "store")
    return lambda given, **more: find_tokenizer(
        str(given), store=store, cache=tmp_path / "cache", **more
    )


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "llama"
    made.mkdir()
    byte_level(LLAMA).save(str(made / "tokenizer.json"))
    return made


def test_the_files_beside_a_tokenizer_say_what_ends_a_document(find, folder):
    """Catches a known name that is preferred to what the tokenizer's own files say."""
    path = folder / "tokenizer.json"
    assert find(path) == find(folder) == TokenizerFile(path, "")  # one known name: </s>
    (folder / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    (folder / "tokenizer_config.json").write_text('{"eos_token": {"content": "<s>"}}')
    assert find(folder).end_of_text == "<s>"
    assert find(folder, end="</s>").end_of_text == "</s>"
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<fin>"}')
    with pytest.raises(DataError, match="no token <fin>"):
        find(folder)
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(CorruptError, match="tokenizer_config.json cannot be read"):
        find(folder)


def test_a_tokenizer_is_found_by_its_content_in_the_store(find, folder, tmp_path):
    """Catches one that is taken for another: a damaged copy, here or in the store."""
    path = folder / "tokenizer.json"
    content = keep_tokenizer(str(tmp_path / "store"), path)
    assert content == hashlib.sha256(path.read_bytes()).hexdigest()
    found = find(content).path
    assert found.read_bytes() == path.read_bytes()
    found.write_text("{}")
    assert find(content).path.read_bytes() == path.read_bytes()
    with pytest.raises(DataError, match=f"no tokenizer {'0' * 64} in the store"):
        find("0" * 64)
    found.unlink()
    (tmp_path / "store" / "tokenizers" / content).write_text("{}")
    with pytest.raises(CorruptError, match="is not what was kept"):
        find(content)


def test_what_is_no_tokenizer_is_refused_by_what_is_there(find, folder, tmp_path, monkeypatch):
    """Catches a library's error, and a name that nobody could tell from a mistyped path."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("nowhere/at-all", "no such//folder"):
        with pytest.raises(DataError, match=f"{name} is no folder or file.*Give a path, or fetch"):
            find(name)
    slow = tmp_path / "slow"
    slow.mkdir()
    (slow / "tokenizer.model").write_bytes(b"x")
    with pytest.raises(DataError, match=r"tokenizer.model alone cannot be used.*save_pretrained"):
        find(slow)
    body = json.loads(fallback("Unigram").to_str())
    body["model"]["byte_fallback"] = False
    (folder / "tokenizer.json").write_text(json.dumps(body))
    with pytest.raises(DataError, match=r"the tokenizer .*llama \(Unigram\) loses"):
        find(folder)


def test_a_home_is_expanded_and_a_wrong_file_is_told_for_what_it_is(find, folder, monkeypatch):
    """Catches `~` looked for on the Hub, and "prepare the corpus again" for any other file."""
    monkeypatch.setenv("HOME", str(folder.parent))
    path = folder / "tokenizer.json"
    assert find("~/llama") == find("~/llama/tokenizer.json") == TokenizerFile(path, "")
    for name in ("~/none", "./none", "s3://bucket/tokenizer.json", "none/tokenizer.json"):
        with pytest.raises(DataError, match=rf"{name} is no folder or file here") as caught:
            find(name)
        assert "hf download" not in str(caught.value)
    for raw, said in (
        (b"not JSON", r"tokenizer.json is no tokenizer.json, which is JSON: Expecting value"),
        (b"\xff\xfe", r"is no tokenizer.json, which is JSON"),
        (b"[1]", r"is JSON, but no tokenizer: it has no `model` \(it has: a list\)"),
        (
            b'{"eos_token": "x"}',
            r"no `model` \(it has: eos_token\). Name the tokenizer.json",
        ),
        (b'{"model": {"type": "Nope"}}', r"is not a tokenizer: .*; write the fast one"),
    ):
        path.write_bytes(raw)
        with pytest.raises((DataError, CorruptError), match=said):
            find(path)
    path.unlink()
    with pytest.raises(DataError, match=f"no tokenizer.json in {folder}"):
        find("~/llama")


def test_a_corpus_in_the_tokens_of_a_given_tokenizer(find, folder, tmp_path):
    """Catches documents ended by another token than the one that is named, a saved truncation that
    cuts them, and two corpora under one key that differ in it."""
    tokenizer = byte_level(LLAMA)
    tokenizer.enable_truncation(8)
    tokenizer.save(str(folder / "tokenizer.json"))
    made = {}
    for end in ("</s>", "<s>"):
        given = find(folder, end=end)
        made[end] = prepare_corpus(
            sources(), tmp_path, benchmarks={"b": [QUESTION]}, settings=SMALL, tokenizer=given
        )
    corpus, other = made.values()
    assert corpus.tokenizer_path.read_bytes() == (folder / "tokenizer.json").read_bytes()
    assert corpus.eot == tokenizer.token_to_id("</s>") != other.eot and corpus.root != other.root
    tokenizer.no_truncation()
    for domain in corpus.domains:
        shard = corpus.valid(domain.name)
        assert (shard.tokens[shard.offsets[1:] - 1] == corpus.eot).all()
        assert np.count_nonzero(shard.tokens == corpus.eot) == len(shard)
        assert len(tokenizer.decode(shard.document(0)[:-1]).encode()) == shard.bytes[0] > 30


def test_the_trained_tokenizer_passes_the_check_of_given_ones(find, tmp_path):
    """Catches a check that refuses what Cuvee itself would train."""
    path = tmp_path / "own.json"
    train_tokenizer(["one two three"] * 9, 300).save(str(path))
    assert find(path) == TokenizerFile(path, "")
    shutil.copy(path, tmp_path / "copy.json")
    assert find(tmp_path / "copy.json", end=EOT).end_of_text == EOT
