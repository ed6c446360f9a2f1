"""Benchmark items looked for in the shards of a prepared corpus, by parts and by stretches."""

import pickle

import pytest
from corpus_texts import SMALL, Texts, document, texts

from cuvee.evaluation.longest_match import END, ItemIndex
from cuvee.tasks.corpus import benchmark_matches
from cuvee.tasks.corpus.benchmark_matches import CorpusMatcher, corpus_matches, token_texts
from cuvee.tasks.corpus.pipeline.task_pool import InlinePool
from cuvee.tasks.corpus.prepare import prepare_corpus


class Apart(InlinePool):
    """Runs tasks on what arrives at another process."""

    def map(self, work, items):
        """As in `TaskPool`; the last part is done first."""
        return reversed(list(super().map(pickle.loads(pickle.dumps(work)), items)))


QUESTION = "Who, in the na\u00efve old story, sold a \u718a\u732b for one gold coin?"
ANSWER = "the miller's youngest daughter"
BOOK = " ".join([document(900, 400), QUESTION, ANSWER, document(901, 400), QUESTION])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Two domains, of which one has a long document that holds a question, its answer, and it
    again."""
    sources = {
        "books": Texts((*(document(i) for i in range(40)), BOOK)),
        "web": Texts(tuple(document(i, 300) for i in range(100, 130))),
    }
    return prepare_corpus(sources, tmp_path_factory.mktemp("c"), benchmarks={}, settings=SMALL)


@pytest.mark.parametrize(("part", "stretch"), [(1 << 23, 1 << 20), (50, 7), (1000, 64)])
def test_an_item_is_found_where_it_stands_however_the_corpus_is_read(
    corpus, part, stretch, monkeypatch
):
    """Catches a character or a run cut where a stretch ends, documents that are read twice or run
    together, numbers that begin anew with each part, and another domain's match."""
    monkeypatch.setattr(benchmark_matches, "PART", part)
    monkeypatch.setattr(benchmark_matches, "STRETCH", stretch)
    index = ItemIndex.build([f"{QUESTION} {ANSWER}", "moon Lamp", "nowhere"])
    work, names = CorpusMatcher(str(corpus.root), index), [d.name for d in corpus.domains]
    found = dict(corpus_matches(corpus, work, names, pool=Apart()))
    documents = {name: texts(corpus, name, "train") for name in names}
    assert BOOK in documents["books"], "held out: nothing of it is trained on"
    book = documents["books"].index(BOOK)
    assert found["books"].words.tolist() == [19, 2, 0]  # miller and s are two, as both signs
    assert found["books"].counts[0] == 1 and found["books"].documents[0] == book
    assert found["web"].words[0] == 0
    for name, own in documents.items():
        pairs = [text.replace(".", "").count("moon lamp") for text in own]
        assert found[name].counts[1] == sum(pairs)
        assert found[name].documents[1] == next(i for i, one in enumerate(pairs) if one)


def test_the_text_of_a_shard_is_that_of_its_documents(corpus, monkeypatch):
    """Catches tokens that are read as another token's text or as the end of a document, and a
    stretch that ends in a word."""
    monkeypatch.setattr(benchmark_matches, "STRETCH", 11)
    shard, vocabulary = corpus.train("books"), token_texts(corpus.tokenizer_path, corpus.eot)
    assert vocabulary[0].tobytes().count(benchmark_matches.RAW_END) == 1
    read = list(benchmark_matches.shard_text(shard, vocabulary, 0, len(shard)))
    assert "".join(read).split(f" {END} ")[:-1] == texts(corpus, "books", "train")
    assert all(one == "" or one[-1].isspace() for one in read)
