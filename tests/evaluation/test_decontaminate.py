"""Decontamination against a slow reference that works with sets of tuples of words."""

import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.evaluation import decontamination
from cuvee.evaluation.decontamination import NGramIndex, text_blocks, texts_fingerprint
from cuvee.evaluation.ngrams import normalize_words
from cuvee.mixtures.errors import DataError

MARKED = ["a", "b", "c", "dd", "Ee", "f,", "9"]
PLAIN = ["a", "b", "c", "dd", "ee", "f", "9"]
QUESTION = "which of these planets in our solar system has the largest number of known moons today"


def words(count: int, seed: int) -> list[str]:
    rng = np.random.default_rng(seed)
    letters = np.array(list(string.ascii_lowercase))
    return ["".join(rng.choice(letters, 6)) for _ in range(count)]


def reference(document: str, texts: list[str], n: int) -> bool:
    def runs(text):
        found = re.findall(r"[a-z0-9]+", text.lower())
        return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}

    return bool(runs(document) & set().union(*map(runs, texts)))


def test_thirteen_words_collide_and_twelve_do_not():
    """Catches an n that is off by one in either direction."""
    index = NGramIndex.build({"planets": [QUESTION]})
    run = QUESTION.split()
    thirteen = "Filler. " + " ".join(run[1:14]) + " filler"
    twelve = "Filler. " + " ".join(run[1:13]) + " filler"
    assert index.clean(thirteen) == (None, {"planets": 1})
    assert index.clean(twelve) == (twelve, {})


def test_case_and_punctuation_do_not_hide_a_collision():
    """Catches hashing raw text; the quotes and dashes outside ASCII are marks, not letters."""
    index = NGramIndex.build({"planets": [QUESTION]})
    disguised = "“" + "… — ".join(word.upper() for word in QUESTION.split()) + "”"
    assert index.clean(disguised) == (None, {"planets": 1})


def test_word_borders_count():
    """Catches hashing the letters without the borders between words."""
    index = NGramIndex.build({"b": ["ab " * 13]})
    assert index.clean("a b" * 30)[0] is not None
    assert index.clean("ab " * 14)[0] is None


def test_order_of_words_counts():
    """Catches a bag of words: the run's words in another order are another text."""
    index = NGramIndex.build({"planets": [QUESTION]})
    turned = " ".join(reversed(QUESTION.split()))
    assert index.clean(turned) == (turned, {})


def test_runs_do_not_cross_documents_or_benchmark_texts():
    """Catches looking at the texts laid end to end without their borders."""
    run = QUESTION.split()
    halves = [" ".join(run[:8]), " ".join(run[8:])]
    whole = NGramIndex.build({"planets": [QUESTION]})
    assert [cleaned.text for cleaned in whole.clean_all(halves)] == halves
    halved = NGramIndex.build({"planets": halves})
    assert halved.clean(QUESTION) == (QUESTION, {})
    assert halved.short == {"planets": 2}


def test_only_the_touched_block_of_a_long_document_goes():
    """Catches dropping a whole play for one quotation, and dropping the wrong block."""
    paragraphs = [" ".join(words(100, seed)) for seed in range(60)]
    paragraphs[30] = QUESTION
    document = "\n\n".join(paragraphs)
    index = NGramIndex.build({"planets": [QUESTION], "other": [" ".join(words(20, 99))]})
    [cleaned] = index.clean_all([document])
    assert cleaned.hits == {"planets": 1}
    assert cleaned.dropped == 1 and cleaned.blocks > 5
    assert QUESTION not in cleaned.text
    assert paragraphs[0] in cleaned.text and paragraphs[59] in cleaned.text
    assert len(cleaned.text) > 0.8 * len(document)


def test_a_run_over_the_border_of_two_blocks_takes_both():
    """Catches looking blocks up one by one, which misses a run that spans two of them."""
    document = " ".join(words(3000, 1))
    parts = list(text_blocks(document))
    left, right = parts[0].split(), parts[1].split()
    index = NGramIndex.build({"b": [" ".join(left[-7:] + right[:7])]})
    [cleaned] = index.clean_all([document])
    assert cleaned.dropped == 2
    assert cleaned.text == "".join(parts[2:])


def test_each_benchmark_that_holds_a_run_is_named():
    """Catches an index that keeps one owner per run."""
    index = NGramIndex.build({"a": [QUESTION], "b": ["x " + QUESTION], "c": ["y " * 20]})
    assert index.clean(QUESTION)[1] == {"a": 1, "b": 1}


@given(st.text(alphabet="ab \n", min_size=0, max_size=30_000))
@settings(max_examples=40, deadline=None)
def test_blocks_join_to_the_text(text):
    """Catches a cut that loses or doubles characters."""
    assert "".join(text_blocks(text, 512)) == text


@given(
    st.lists(
        st.lists(st.sampled_from(["a", "b", "c", "dd", "Ee", "f,", "9"]), max_size=12), max_size=6
    ),
    st.lists(
        st.lists(st.sampled_from(["a", "b", "c", "dd", "ee", "f", "9"]), max_size=9), min_size=1
    ),
)
@settings(max_examples=150, deadline=None)
def test_agrees_with_sets_of_tuples(documents, texts):
    """Catches any error in the arithmetic: few words and n = 3 make collisions frequent."""
    documents = [" ".join(d) for d in documents]
    texts = [" ".join(t) for t in texts]
    index = NGramIndex.build({"b": texts}, n=3)
    kept = [cleaned.text for cleaned in index.clean_all(documents)]
    wanted = [None if reference(d, texts, 3) else d for d in documents]
    assert [k for k, d in zip(kept, documents, strict=True) if d.strip()] == [
        w for w, d in zip(wanted, documents, strict=True) if d.strip()
    ]


def test_many_documents_at_once_give_what_one_at_a_time_gives(monkeypatch):
    """Catches state that leaks between sweeps: block numbers, powers, batch borders."""
    monkeypatch.setattr("cuvee.evaluation.decontamination.BATCH", 20_000)
    texts = [" ".join(words(15, seed)) for seed in range(20)]
    documents = [" ".join(words(50 + 40 * seed, 1000 + seed)) for seed in range(60)]
    for i in range(0, 60, 7):
        documents[i] += "\n\n" + texts[i % 20]
    index = NGramIndex.build({"b": texts})
    together = index.clean_all(documents)
    assert together == [index.clean_all([d])[0] for d in documents]
    assert [i for i, cleaned in enumerate(together) if cleaned.dropped] == list(range(0, 60, 7))


@given(
    st.lists(st.sampled_from(["a", "b", "c", "dd", "f,", ". . -", "x" * 90, "\n\n"]), max_size=150),
    st.lists(st.lists(st.sampled_from(["a", "b", "c", "dd", "f"]), min_size=3, max_size=9)),
    st.integers(1, 200),
)
@settings(max_examples=300, deadline=None)
def test_a_long_document_a_stretch_at_a_time_gives_what_it_gives_whole(parts, texts, batch):
    """Catches a run or a word lost, cut or counted twice where two stretches meet."""
    document = " ".join(parts)
    index = NGramIndex.build({"b": [" ".join(t) for t in texts]} if texts else {}, n=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decontamination, "text_blocks", lambda text: text_blocks(text, 8))
        patch.setattr(decontamination, "LONGEST_WORD", 80)
        whole = index._sweep([document])[0]
        patch.setattr(decontamination, "BATCH", batch)
        assert index._stretched(document) == whole
        if len(document) > batch:
            assert index.clean_all(["a b", document, "c dd"])[1] == whole


def test_the_fingerprint_follows_every_text_and_its_borders():
    """Catches hashing the joined texts, which cannot tell ["ab"] from ["a", "b"]."""
    prints = {
        texts_fingerprint({"a": ["ab"]}),
        texts_fingerprint({"a": ["a", "b"]}),
        texts_fingerprint({"b": ["ab"]}),
        texts_fingerprint({"a": ["ab"]}, n=5),
        texts_fingerprint({}),
    }
    assert len(prints) == 5


def test_no_benchmarks_drop_nothing_and_empty_ones_are_refused():
    """Catches a silent pass over a benchmark whose texts could not be read."""
    assert NGramIndex.build({}).clean(QUESTION) == (QUESTION, {})
    with pytest.raises(DataError, match="'piqa' has no texts"):
        NGramIndex.build({"piqa": []})


def test_letters_outside_ascii_are_letters():
    """Catches a table that turns every byte above 127 into a border."""
    assert normalize_words("Élan—vital").split(b"\0")[0] == "élan".encode()
