"""What is kept beside documents: in their order, in columns of one type, verified with the rest."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from cuvee.mixtures.errors import CorruptError
from cuvee.proxies.data import tokenizer as tokenizers
from cuvee.proxies.data.prepared_corpus import Corpus
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks.corpus.corpus_settings import CorpusSettings
from cuvee.tasks.corpus.pipeline import deduplicate_split, document_attributes, near_bands
from cuvee.tasks.corpus.pipeline.document_attributes import write_attributes
from cuvee.tasks.corpus.prepare import prepare_corpus

WORDS = [f"w{i}" for i in range(2000)]
SIZES = {"vocabulary": 300, "valid_share": 0.1, "min_tokens": 50, "tokenizer_bytes": 20_000}
NEAR = CorpusSettings(**SIZES, deduplicate="near")


def rows_of(seed, more):
    """Sixty rows of text, each with an id that its text alone knows."""
    rng = np.random.default_rng(seed)
    texts = [" ".join(rng.choice(WORDS, 60)) for _ in range(60)]
    return [{"text": text, "url": f"id of {text[:40]}", **more(i)} for i, text in enumerate(texts)]


def prepared(folder, domains, settings, **fields) -> Corpus:
    sources = {}
    for name, rows in domains.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        sources[name] = Files(str(path), **fields if "url" in rows[0] else {})
    return prepare_corpus(sources, folder / "corpora", benchmarks={}, settings=settings)


def documents(corpus, name, split):
    tokenizer = tokenizers.load_tokenizer(corpus.tokenizer_path)
    shard = getattr(corpus, split)(name)
    rows = (shard.document(i).tolist()[:-1] for i in range(len(shard)))
    return [tokenizer.decode(row, skip_special_tokens=False) for row in rows]


@pytest.fixture
def domains():
    web = rows_of(1, lambda i: {"score": i / 2, "meta": {"lang": "en", "n": i}} if i % 3 else {})
    web += [{**web[0], "text": web[0]["text"] + " again"}, web[5], web[5]]
    return {"web": web, "plain": [{"text": row["text"]} for row in rows_of(2, lambda i: {})]}


def test_a_row_stands_for_each_document_in_the_order_of_the_shard(tmp_path, domains, monkeypatch):
    """Catches rows in the order of files, those of another split or partition, and rows that are
    left out where a document has no attributes, so that all after it are shifted."""
    monkeypatch.setattr(deduplicate_split, "PARTITION", 5000)
    monkeypatch.setattr(near_bands, "PARTITION", 20_000)
    kept = {"id": "url", "attributes": ("score", "meta")}
    corpus = prepared(tmp_path, domains, NEAR, **kept)
    known = {row["url"]: row for row in domains["web"][:60]}
    seen = 0
    for split in ("train", "valid"):
        table = pq.read_table(corpus.attributes("web", split))
        assert table.column_names == ["id", "meta", "score", "cluster_size"]
        texts = documents(corpus, "web", split)
        for row, text in zip(table.to_pylist(), texts, strict=True):
            assert row["id"] == f"id of {text[:40]}"
            assert row["score"] == known[row["id"]].get("score")
            assert row["meta"] == known[row["id"]].get("meta")
            stands_for = {domains["web"][0]["url"]: 2, domains["web"][5]["url"]: 3}
            assert row["cluster_size"] == stands_for.get(row["id"], 1)
        seen += len(texts)
    assert seen == 60
    plain = pq.read_table(corpus.attributes("plain"))
    assert plain.column_names == ["cluster_size"] and set(plain[0].to_pylist()) == {1}


def test_attributes_are_no_part_of_an_identity_but_are_verified(tmp_path, domains):
    """Catches a score that voids every run, a corpus without attributes that has files of them,
    and a damaged byte that nobody sees."""
    exact = CorpusSettings(**SIZES)
    bare = prepared(tmp_path / "bare", domains, exact)
    assert bare.attributes("web") is None
    corpus = prepared(tmp_path / "kept", domains, exact, id="url", attributes=("score",))
    assert pq.read_table(corpus.attributes("web")).column_names == ["id", "score"]
    assert corpus.attributes("plain") is None
    for one, other in zip(bare.domains, corpus.domains, strict=True):
        assert (one.identity, one.heldout) == (other.identity, other.heldout)
    path = corpus.attributes("web")
    path.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:])
    with pytest.raises(CorruptError, match=r"train\.attributes\.parquet"):
        Corpus.open(corpus.root)


@pytest.mark.parametrize(
    ("groups", "kind", "values"),
    [
        ([[1], [2.5]], "double", [1.0, 2.5]),
        ([[None], [3]], "int64", [None, 3]),
        ([[1], ["a"], [{"b": 1}]], "string", ["1", "a", '{"b": 1}']),
        ([[1, "a"], ["c"]], "string", ["1", "a", "c"]),
        ([[{"a": 1}], [{"b": "x"}]], "struct", [{"a": 1, "b": None}, {"a": None, "b": "x"}]),
        ([[[1]], [["x"]]], "string", ["[1]", '["x"]']),
        ([[2**70], [1]], "string", [str(2**70), "1"]),
    ],
)
def test_a_column_has_one_type_whatever_its_groups_hold(tmp_path, groups, kind, values):
    """Catches a file that breaks off at the first value of another type, and text with quotes in
    one group and without in the next."""
    rows = [[{"x": value} for value in group] for group in groups]
    written = write_attributes(tmp_path / "a.parquet", lambda: iter(rows))
    assert list(written) == ["a.parquet"]
    column = pq.read_table(tmp_path / "a.parquet")["x"]
    assert str(column.type).startswith(kind) and column.to_pylist() == values
    assert write_attributes(tmp_path / "b.parquet", lambda: iter([[{}, {}]])) == {}
    assert document_attributes.CLUSTER == "cluster_size"
