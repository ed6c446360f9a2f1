"""The longest match of benchmark items with a corpus, against a search that tries every run."""

import tracemalloc

import numpy as np
import pytest

from cuvee.evaluation.longest_match import END, ItemIndex, item_words
from cuvee.evaluation.ngrams import normalize_words
from cuvee.mixtures.errors import DataError


def found_by(items, documents):
    """(words, places, first document) of every item, by a suffix array of the corpus: the oracle.

    All suffixes of all documents are sorted as lists of words; runs are looked for by bisection.
    """
    suffixes = sorted(
        (words[i:], number, i)
        for number, text in enumerate(documents)
        for words in [[w for w in normalize_words(text).split(b"\0") if w]]
        for i in range(len(words))
    )
    answers = []
    for text in items:
        runs = {}
        words = [word for word in normalize_words(text).split(b"\0") if word]
        for i in range(len(words)):
            for n in range(1, len(words) - i + 1):
                run = words[i : i + n]
                hits = [(number, at) for suffix, number, at in suffixes if suffix[:n] == run]
                if hits:
                    runs.setdefault(n, {})[tuple(run)] = hits
        longest = max(runs, default=0)
        hits = [hit for one in runs.get(longest, {}).values() for hit in one]
        answers.append((longest, len(hits), min(hits)[0] if hits else -1))
    return answers


def found_here(index, texts):
    found = index.match(texts)
    columns = found.words, found.counts, found.documents
    return list(zip(*(column.tolist() for column in columns), strict=True))


def stretches(documents, words):
    """The documents as a stream of so many words at a time."""
    every = "".join(f"{text} {END} " for text in documents).split()
    return [" ".join(every[i : i + words]) for i in range(0, len(every), words)]


def drawn_text(rng, alphabet, length):
    return " ".join(rng.choice(list(alphabet), length)) if length else ""


@pytest.mark.parametrize("alphabet", ["ab", "abcdef"])
@pytest.mark.parametrize("words", [1, 3, 1000])
def test_every_item_has_the_longest_run_that_the_corpus_holds(alphabet, words):
    """Catches a run that is cut where a stretch ends, one that spans two documents or two items, a
    place that is counted twice, a document that is not the first, and a wrong step of a bisection:
    runs of up to 30 words are shared."""
    rng = np.random.default_rng(len(alphabet))
    for case in range(15):
        items = [drawn_text(rng, alphabet, rng.integers(0, 14)) for _ in range(rng.integers(1, 9))]
        items.append(items[0])  # two tasks may ask the same
        documents = [drawn_text(rng, alphabet + "xy", rng.integers(0, 14)) for _ in range(5)]
        if case < 5:
            items.append(drawn_text(rng, alphabet, 32))
            begin = rng.integers(0, 30)
            documents.append(" ".join(["x", *items[-1].split()[begin : rng.integers(begin, 33)]]))
        index = ItemIndex.build(items)
        assert found_here(index, stretches(documents, words)) == found_by(items, documents)


def test_marks_and_capital_letters_part_no_run():
    """Catches words that are compared as they are written, and the wrong place in the item."""
    text = "Never mind. Three, FOUR-five; six seven! A b"
    index = ItemIndex.build(["other", text])
    found = index.match(stretches(["zero", "two three (four) 'FIVE' six eight"], 2), first=7)
    assert found_here(index, []) == [(0, 0, -1)] * 2
    assert (found.words[1], found.counts[1], found.documents[1]) == (4, 1, 8)
    begin = found.starts[1]
    assert item_words(text)[begin : begin + 4] == ["three", "four", "five", "six"]


def test_a_clause_without_blanks_is_many_words():
    """Catches a Chinese or Japanese sentence that is one word, and is found only as a whole."""
    question = "\u4e2d\u56fd\u6700\u957f\u7684\u6cb3\u662f\u54ea\u4e00\u6761\uff1f"
    index = ItemIndex.build([f"\u95ee {question}", "\u3059\u3057"])
    documents = [f"\u6211\u8bf4{question[:-1]}\u3002", "\u5bff\u3059\u3057\u5c4b x"]
    assert found_here(index, stretches(documents, 9)) == [(10, 1, 0), (2, 1, 1)]
    assert item_words(question) == list(question[:-1])


def test_matches_of_parts_of_a_corpus_add_up():
    """Catches counts that are added where the runs differ in length, and a first document that is
    lost where a later part is done first."""
    documents = ["a b", "q a b c", "a b c x", "y", "b c d"]
    index = ItemIndex.build(["a b c d", "x y", "never"])
    every = index.match(stretches(documents, 4))
    parts = index.match([])
    for number, text in reversed(list(enumerate(documents))):
        parts = parts.joined(index.match(stretches([text], 4), first=number))
    assert [column.tolist() for column in parts] == [column.tolist() for column in every]
    assert every.words.tolist() == [3, 1, 0]
    assert every.counts.tolist() == [3, 2, 0]
    assert every.documents.tolist() == [1, 2, -1]


def test_a_long_match_takes_no_more_memory_than_a_short_one():
    """Catches arrays that are kept for every length of a run: of 3,000 words that were 170 MB, of
    400 equal words in 100,000 of them 600 MB."""
    leaked = " ".join(str(i % 1777) for i in range(3000))
    index = ItemIndex.build([leaked, " ".join(["0"] * 400), "none"])
    tracemalloc.start()
    found = found_here(index, [f"a {leaked} {END} ", f"{'0 ' * 100_000} {END}"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == [(3000, 1, 0), (400, 100_000 - 399, 1), (0, 0, -1)]
    assert peak < 60e6


def test_nothing_to_look_for_and_nothing_to_look_in():
    """Catches an empty item, an empty corpus, a text of marks or one with the end of a document in
    it that breaks the search or shifts the items."""
    index = ItemIndex.build(["?!", f"a {END} b", "one", ""])
    none = (0, 0, -1)
    assert found_here(index, []) == [none] * 4
    assert found_here(index, stretches(["", "...", "one", "b"], 9)) == [
        none,
        (1, 1, 3),
        (1, 1, 2),
        none,
    ]
    with pytest.raises(DataError, match="no benchmark items"):
        ItemIndex.build([])
