"""Shards on disk: what is written is what is read, and damage is named."""

import json
import shutil

import numpy as np
import pytest

from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.proxies.data import tokenizer as tokenizers
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.prepared_corpus import Corpus, publish_corpus, write_manifest
from cuvee.proxies.data.shards import ShardWriter, shard_identity, token_type

DOCUMENTS = {
    "train": [[5, 6, 7], [], [9, 300]],
    "valid": [[8], [1, 2, 3, 4]],
}


def make(root, names=("code", "prose"), vocabulary=4096):
    root.mkdir(exist_ok=True)
    (root / "tokenizer.json").write_text("{}")
    entries = []
    for shift, name in enumerate(names):
        splits = {}
        for split, documents in DOCUMENTS.items():
            writer = ShardWriter(root / name, split)
            for ids in documents:
                data = np.array([*(i + shift for i in ids), 0], dtype=token_type(vocabulary))
                writer.write(data.tobytes())
            lengths = np.array([len(ids) for ids in documents])
            writer.end_documents(lengths + 1, 10 * lengths + 1)
            splits[split] = writer.close()
        digest = file_digest(root / "tokenizer.json")
        identity = shard_identity(digest, splits["train"]["content"])
        entries.append({"name": name, "identity": identity, **splits})
    write_manifest(
        root, {"tokenizer": digest, "vocabulary": vocabulary, "eot": 0, "domains": entries}
    )
    return root


@pytest.mark.parametrize("vocabulary", [4096, 100_000])
def test_what_is_written_is_read(tmp_path, vocabulary):
    """Catches lost ends of documents, shifted offsets and a type too narrow for the ids."""
    corpus = Corpus.open(make(tmp_path / "c", vocabulary=vocabulary))
    shard = corpus.train("code")
    assert shard.tokens.tolist() == [5, 6, 7, 0, 0, 9, 300, 0]
    assert shard.offsets.tolist() == [0, 4, 5, 8]
    assert shard.bytes.tolist() == [31, 1, 21]
    assert shard.document(2).tolist() == [9, 300, 0]
    assert shard.tokens.dtype.itemsize == (2 if vocabulary == 4096 else 4)
    assert corpus.valid("prose").tokens.tolist() == [9, 0, 2, 3, 4, 5, 0]
    domain = corpus.domain_set().domains[0]
    assert (domain.name, domain.tokens, domain.bytes, domain.documents) == ("code", 8, 53, 3)


FILES = [
    f"{domain}/{split}.{end}"
    for domain in ("code", "prose")
    for split in ("train", "valid")
    for end in ("bin", "idx.npz")
]


@pytest.mark.parametrize("name", [*FILES, "tokenizer.json", "manifest.json"])
def test_a_flipped_bit_anywhere_is_found_and_named(tmp_path, name):
    """Catches verification that skips a file or compares sizes only."""
    root = make(tmp_path / "c")
    data = bytearray((root / name).read_bytes())
    data[len(data) // 2] ^= 1
    (root / name).write_bytes(bytes(data))
    with pytest.raises(CorruptError, match=name) as caught:
        Corpus.open(root)
    assert "prepare the corpus again" in str(caught.value)


@pytest.mark.parametrize("harm", ["write", "cut", "replace", "remove"])
def test_a_shard_that_changes_while_it_is_in_use_is_noticed(tmp_path, harm):
    """Catches bytes that were verified once and are believed for ever, though a map shows the new.

    The change is undone before the check: what was read meanwhile is still not what was verified.
    """
    root = make(tmp_path / "c")
    corpus = Corpus.open(root)
    corpus.check()
    path = root / "prose/train.bin"
    raw = path.read_bytes()
    if harm == "write":
        path.write_bytes(b"\x01" + raw[1:])
        path.write_bytes(raw)
    elif harm == "cut":
        with path.open("r+b") as file:
            file.truncate(4)
    elif harm == "replace":
        (root / "other").write_bytes(raw)
        (root / "other").rename(path)
    else:
        path.unlink()
    with pytest.raises(DataError, match="prose/train.bin"):
        corpus.check()


def test_what_this_process_hashed_is_hashed_again_only_if_it_was_touched(tmp_path, monkeypatch):
    """Catches a worker that hashes a corpus for every pack, and one that never looks again."""
    hashed = []

    def digest(path):
        hashed.append(path.name)
        return file_digest(path)

    monkeypatch.setattr("cuvee.proxies.data.prepared_corpus.file_digest", digest)
    root = make(tmp_path / "c")
    hashed.clear()
    Corpus.open(root, again=False)
    assert len(hashed) == 9
    Corpus.open(root, again=False)
    assert len(hashed) == 9
    hashed.clear()
    Corpus.open(root)
    assert len(hashed) == 9
    path = root / "code/valid.bin"
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(CorruptError, match="valid.bin"):
        Corpus.open(root, again=False)


def test_a_shard_cut_short_is_found_without_hashing(tmp_path):
    """Catches reading past the end when verification is switched off."""
    root = make(tmp_path / "c")
    data = (root / "code/train.bin").read_bytes()
    (root / "code/train.bin").write_bytes(data[:-2])
    corpus = Corpus.open(root, verify=False)
    with pytest.raises(CorruptError, match=r"7 tokens, its index says 8"):
        corpus.train("code")


def test_missing_things_are_named(tmp_path):
    """Catches a KeyError or FileNotFoundError reaching a person."""
    with pytest.raises(DataError, match="no prepared corpus"):
        Corpus.open(tmp_path)
    root = make(tmp_path / "c")
    with pytest.raises(DataError, match=r"'math'.*code, prose"):
        Corpus.open(root).train("math")
    (root / "prose/valid.bin").unlink()
    with pytest.raises(DataError, match=r"prose/valid\.bin is missing"):
        Corpus.open(root)


def test_an_edited_manifest_is_refused(tmp_path):
    """Catches trusting counts that were changed by hand."""
    root = make(tmp_path / "c")
    body = json.loads((root / "manifest.json").read_text())
    body["domains"][0]["train"]["tokens"] += 1
    (root / "manifest.json").write_text(json.dumps(body))
    with pytest.raises(CorruptError, match="own digest"):
        Corpus.open(root)


def test_an_identity_is_that_of_a_tokenizer_and_what_a_shard_says(tmp_path):
    """Catches evidence that would be kept although the text behind it changed, and evidence that
    is lost to a folder's name."""

    def content(name, ids, lengths):
        writer = ShardWriter(tmp_path / name, "train")
        writer.write(np.array(ids, dtype="<u2").tobytes())
        writer.end_documents(np.array(lengths), np.array(lengths))
        return writer.close()["content"]

    plain = content("a", [1, 2, 3, 0], [2, 2])
    assert plain == content("b", [1, 2, 3, 0], [2, 2])
    cut, other = content("c", [1, 2, 3, 0], [3, 1]), content("d", [1, 2, 4, 0], [2, 2])
    found = {shard_identity(*pair) for pair in (("t", plain), ("u", plain), ("t", cut),
                                                ("t", other))}  # fmt: skip
    assert len(found) == 4


TEXTS = [
    "It's 12 o'clock;  she'll say:\n\n\tdef f(x):\n        return x  # done \n",
    "tabs\t\tand\u00a0blanks\u2003here \u3000 \n \n end   ",
    "emoji \U0001f600\U0001f600 ünïcödé, 中文字符。 \x1c\x1d odd \x85 controls\x1cx !\x1c! \r\n",
    " leading, <|endoftext|> inside, trailing ",
    "",
    "\n\n\n",
    "x" * 5000,
]


def test_encoding_by_pieces_equals_encoding_whole_documents():
    """Catches a cut inside a token: contractions, runs of blanks, odd white space, controls."""
    tokenizer = tokenizers.train_tokenizer(TEXTS * 3, 600)
    encoder = tokenizers.DocumentEncoder(tokenizer)
    plain = tokenizers.DocumentEncoder(tokenizer)
    plain.separable = False
    assert encoder.separable
    rng = np.random.default_rng(0)
    characters = list(" \n\t\r\x1c\x85\u00a0'.!aZ9é中sdtrevml_\u2028\u200b")
    noise = ["".join(rng.choice(characters, 400)) for _ in range(300)]
    assert encoder.encode(TEXTS + noise) == plain.encode(TEXTS + noise)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_the_tokens_of_a_texts_stretches_are_those_of_the_text(size):
    """Catches a cut inside a token: after a blank, before a contraction's mark, between digits."""
    tokenizer = tokenizers.train_tokenizer(TEXTS * 3, 600)
    encoder, plain = (tokenizers.DocumentEncoder(tokenizer) for _ in range(2))
    plain.separable = False
    rng = np.random.default_rng(1)
    characters = list(" \n\x1c\u00a0'.,!-(aZ90é中²½\u0301sdtrevml_\u2028\u200b😀")
    noise = ["".join(rng.choice(characters, 300)) for _ in range(300)]
    for text in [*TEXTS, *noise, "don't" * 40, "x1y22z,w" * 40, "中文字符" * 40]:
        parts = encoder.stretches(text, size)
        assert "".join(parts) == text
        assert b"".join(plain.encode(parts)) == plain.encode([text])[0], repr(text)
    assert len(encoder.stretches("one two, three(four)five " * 100, size)) > 40 / size


def test_long_pieces_are_not_remembered():
    """Catches a table that keeps every long word of a corpus in memory."""
    encoder = tokenizers.DocumentEncoder(tokenizers.train_tokenizer(TEXTS, 400))
    one = encoder.encode(["y" * 100_000 + " z"])
    assert encoder.encode(["y" * 100_000 + " z"]) == one
    assert max(map(len, encoder._table)) < 1000


def test_text_decodes_to_itself_and_never_holds_the_end_token():
    """Catches a text that reads like the end-of-text token ending its document early."""
    tokenizer = tokenizers.train_tokenizer(TEXTS, 400)
    assert tokenizers.end_of_text(tokenizer) == 0
    for text, data in zip(TEXTS, tokenizers.DocumentEncoder(tokenizer).encode(TEXTS), strict=True):
        ids = np.frombuffer(data, dtype="<u2").tolist()
        assert 0 not in ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_a_tokenizer_of_another_kind_encodes_whole_documents():
    """Catches cutting text for a tokenizer that joins words over white space."""
    tokenizer = tokenizers.train_tokenizer(["a b c d " * 50], 400)
    from tokenizers import normalizers

    tokenizer.normalizer = normalizers.Replace(" ", "_")
    assert not tokenizers.DocumentEncoder(tokenizer).separable


def test_tokenizer_mistakes_are_explained(tmp_path):
    """Catches the library's bare Exception reaching a person."""
    with pytest.raises(DataError, match="257"):
        tokenizers.train_tokenizer(["a"], 100)
    with pytest.raises(DataError, match="prepare the corpus first"):
        tokenizers.load_tokenizer(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(CorruptError, match=r"bad\.json"):
        tokenizers.load_tokenizer(tmp_path / "bad.json")


def test_a_corpus_in_a_store_is_opened_as_one_on_a_disk(s3, tmp_path, monkeypatch):
    """Catches a manifest that is written before its files, and a corpus that is another there."""
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "cache"))
    here, url = make(tmp_path / "corpus"), f"{s3}/store/corpora/c"
    order: list[str] = []
    upload, replace = ObjectFolder.upload, ObjectFolder.replace
    monkeypatch.setattr(
        ObjectFolder,
        "upload",
        lambda self, path, name: order.append(name) or upload(self, path, name),
    )
    monkeypatch.setattr(
        ObjectFolder,
        "replace",
        lambda self, name, raw: order.append(name) or replace(self, name, raw),
    )
    publish_corpus(here, url)
    publish_corpus(here, url)
    assert order[-1] == "manifest.json" and len(order) == 10
    shutil.copytree(here, tmp_path / "kept")
    shutil.rmtree(here)
    there, kept = Corpus.open(url), Corpus.open(tmp_path / "kept")
    assert there.domains == kept.domains and there.root.is_relative_to(tmp_path / "cache")
    for name in ("code", "prose"):
        assert there.train(name).tokens.tolist() == kept.train(name).tokens.tolist()
    there.check()
