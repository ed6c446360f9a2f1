"""Token files that a corpus uses where they lie: what it shows, what is refused, what is copied."""

import os
from dataclasses import replace

import fsspec
import numpy as np
import pytest
from corpus_texts import SMALL, Texts, document
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.proxies.data.prepared_corpus import Corpus, publish_corpus
from cuvee.proxies.data.sources.token_files import TokenFiles
from cuvee.proxies.data.token_views import SPANS, TokenView, ViewedFile
from cuvee.proxies.data.tokenizer import TokenizerFile
from cuvee.tasks.corpus.prepare import prepare_corpus
from tests.proxies.test_tokenizers import LLAMA, byte_level

OTHER = Texts(tuple(document(i) for i in range(500, 560)))
LONG = "\n\n".join(document(i, 900) for i in range(600, 603))
QUESTION = LONG[:100]
OURS = [*(document(i) for i in range(80)), document(7), document(501), LONG, " "]


@pytest.fixture
def place(tmp_path):
    """Documents in two token files of the corpus's tokenizer: one doubled, one that another domain
    has, one that shares words with a benchmark, one blank; with a token before each and after."""
    made = byte_level(LLAMA)
    made.save(str(tmp_path / "tokenizer.json"))
    rows = [made.encode(text).ids for text in OURS]
    ids = [[1, *row, 0] for row in rows]
    np.save(tmp_path / "a.npy", np.concatenate([np.array(one, "<u4") for one in ids[:50]]))
    np.array([token for one in ids[50:] for token in one], "<u2").tofile(tmp_path / "b.npy")
    return tmp_path


def prepared(place, out, tokens, view=True, texts=None):
    tokenizer = TokenizerFile(place / "tokenizer.json")
    source = TokenFiles(tokens, "olmo", tokenizer, view=view, part_bytes=2000)
    sources = {"other": OTHER, "ours": texts or source}
    benchmarks = {"quiz": [QUESTION]}
    return prepare_corpus(sources, out, benchmarks=benchmarks, settings=SMALL, tokenizer=tokenizer)


def paths(place):
    return str(place / "a.npy"), str(place / "b.npy")


def shown(corpus):
    found = [getattr(corpus, split)("ours") for split in ("train", "valid")]
    return [(np.asarray(one.tokens).tolist(), one.offsets.tolist(), one.bytes.tolist())
            for one in found]  # fmt: skip


def test_a_view_is_what_the_same_text_is_and_nothing_of_it_is_written(place):
    """Catches documents in the order of the file, ends that are doubled or missing, special tokens
    taken for text, a document kept in part, another split, and tokens that are copied after all."""
    corpus = prepared(place, place / "views", paths(place))
    wanted = prepared(
        place, place / "text", (), texts=Texts(tuple(one for one in OURS if one is not LONG))
    )
    ours, text = ({d.name: d for d in one.domains} for one in (corpus, wanted))
    assert ours == text and shown(corpus) == shown(wanted)
    assert not list((corpus.root / "ours").glob("*.bin"))
    stored = sum(file.stat().st_size for file in (corpus.root / "ours").glob("*.spans"))
    assert stored == SPANS.itemsize * sum(len(one[2]) for one in shown(corpus))
    entry = corpus.manifest["domains"][1]
    assert entry["counts"]["documents_dropped"] == 1 and entry["counts"]["documents_cut"] == 0
    assert entry["counts"]["duplicates"] == entry["counts"]["duplicates_elsewhere"] == 1
    assert "the tokens of ours are used where they lie" in entry["notices"]
    assert prepared(place, place / "views", paths(place)).root == corpus.root
    again = corpus.renamed({"other": "ours", "ours": "books"})
    assert np.array_equal(again.train("books").tokens, corpus.train("ours").tokens)


def test_files_that_change_after_the_corpus_was_prepared_are_named(place):
    """Catches training on other tokens than those of the study, a file that is condemned since it
    was touched, and a corpus that notices nothing while it is trained on."""
    root = prepared(place, place / "out", paths(place)).root
    before = shown(Corpus.open(root))
    os.utime(place / "b.npy", (1, 1))
    corpus = Corpus.open(root)
    assert shown(corpus) == before
    raw = bytearray((place / "b.npy").read_bytes())
    raw[40] ^= 1
    (place / "b.npy").write_bytes(raw)
    with pytest.raises(CorruptError, match=r"b\.npy was changed while it was trained on"):
        corpus.check()
    with pytest.raises(CorruptError, match=r"b\.npy was changed after the corpus was prepared"):
        Corpus.open(root)
    (place / "b.npy").unlink()
    with pytest.raises(DataError, match=r"b\.npy is missing on this machine"):
        Corpus.open(root)


def test_a_view_of_a_local_file_is_copied_into_a_store(place, s3, monkeypatch):
    """Catches a corpus that other nodes find no tokens for, and one that is another there."""
    monkeypatch.setenv("CUVEE_CACHE", str(place / "cache"))
    corpus = prepared(place, place / "out", paths(place))
    before = shown(corpus)
    for _ in range(2):
        publish_corpus(corpus.root, f"{s3}/corpora/x")
    for path in paths(place):
        os.unlink(path)
    there = Corpus.open(f"{s3}/corpora/x")
    assert shown(there) == before and set(there.domains) == set(corpus.domains)
    assert (there.root / "ours" / "train.bin").stat().st_size == 2 * len(before[0][0])


def test_a_view_of_an_object_is_fetched_once_into_the_cache_of_a_node(place, s3, monkeypatch):
    """Catches an object that is copied into the store of the corpus, that is fetched anew for every
    pack, and one that changed since the corpus was prepared."""
    monkeypatch.setenv("CUVEE_CACHE", str(place / "cache"))
    system, root = fsspec.core.url_to_fs(s3)
    for name in ("a.npy", "b.npy"):
        system.pipe_file(f"{root}/{name}", (place / name).read_bytes())
    corpus = prepared(place, place / "out", (f"{s3}/a.npy", f"{s3}/b.npy"))
    assert shown(corpus) == shown(prepared(place, place / "local", paths(place)))
    publish_corpus(corpus.root, f"{s3}/corpora/x")
    there = Corpus.open(f"{s3}/corpora/x")
    assert shown(there) == shown(corpus)
    assert not list((there.root / "ours").glob("*.bin"))
    system.pipe_file(f"{root}/b.npy", b"12" * 40)
    assert shown(Corpus.open(f"{s3}/corpora/x")) == shown(corpus)  # of the node's own copy
    monkeypatch.setenv("CUVEE_CACHE", str(place / "another node"))
    with pytest.raises((CorruptError, DataError), match=r"b\.npy.* changed"):
        shown(Corpus.open(f"{s3}/corpora/x"))


@settings(max_examples=50, deadline=None, database=None, derandomize=True)
@given(st.data())
def test_a_view_is_cut_as_an_array_is(tmp_path_factory, data):
    """Against the array: catches a cut that loses or doubles what stands where documents meet,
    ids of another type, and a place that is no multiple of an id's size."""
    folder = tmp_path_factory.mktemp("view")
    numbers = st.lists(st.integers(1, 200), max_size=6)
    rows, spans, files = data.draw(st.lists(numbers, max_size=6)), [], []
    for number, kind in enumerate(("<u2", "<i4")):
        raw = b"\x07"
        for row in rows[number::2]:
            spans.append((len(raw), len(row), number))
            raw += np.array(row, kind).tobytes()
        (folder / f"{number}").write_bytes(raw)
        files.append(ViewedFile.seen(str(folder / f"{number}"), kind))
    ordered = [row for number in range(2) for row in rows[number::2]]
    wanted = np.array([one for row in ordered for one in [*row, 0]], "<u2")
    view = TokenView(np.array(spans, SPANS), files, eot=0, kind="<u2")
    assert view.size == len(view) == len(wanted)
    a, b = (data.draw(st.integers(-2, len(wanted) + 2)) for _ in range(2))
    step = data.draw(st.sampled_from([None, 1, 2, -1]))
    assert view[a:b:step].tolist() == wanted[a:b:step].tolist()
    assert b"".join(view.blocks(4)) == wanted.tobytes()
    assert np.asarray(view, dtype=np.int32).tolist() == wanted.tolist()
    if 0 <= a < len(wanted):
        assert view[a] == wanted[a] and view[a - len(wanted)] == wanted[a]


def test_a_view_is_asked_for_by_reading_as_well(place):
    """Catches spools of text that are taken for those of places, where both are of one file."""
    source = TokenFiles(paths(place), "olmo", TokenizerFile(place / "tokenizer.json"), view=True)
    assert source.reading != replace(source, view=False).reading
