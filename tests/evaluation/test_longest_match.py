"""The longest match of benchmark items with a corpus, against a search that tries every run."""

import numpy as np
import pytest

from cuvee.evaluation.longest_match import END, ItemIndex, item_words
from cuvee.evaluation.ngrams import normalize_words


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
    for texts in items:
        runs = {}
        for text in texts:
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
    """Catches a run that is cut where a stretch ends, one that spans two documents or two texts of
    an item, a place that is counted twice, and a document that is not the first."""
    rng = np.random.default_rng(len(alphabet))
    for _ in range(15):
        items = [
            [drawn_text(rng, alphabet, rng.integers(0, 9)) for _ in range(rng.integers(1, 4))]
            for _ in range(rng.integers(1, 6))
        ]
        items.append(items[0])  # two tasks may ask the same
        documents = [drawn_text(rng, alphabet + "xy", rng.integers(0, 14)) for _ in range(6)]
        index = ItemIndex.build(items)
        assert found_here(index, stretches(documents, words)) == found_by(items, documents)


def test_marks_and_capital_letters_part_no_run():
    """Catches words that are compared as they are written, and the wrong place in the item."""
    texts = ["Never mind", "Three, FOUR-five; six seven!", "a b"]
    index = ItemIndex.build([["other"], texts])
    found = index.match(stretches(["zero", "two three (four) 'FIVE' six eight"], 2), first=7)
    assert found_here(index, []) == [(0, 0, -1)] * 2
    assert (found.words[1], found.counts[1], found.documents[1]) == (4, 1, 8)
    begin = found.starts[1]
    assert item_words(texts)[begin : begin + 4] == ["three", "four", "five", "six"]


def test_matches_of_parts_of_a_corpus_add_up():
    """Catches counts that are added where the runs differ in length, and a lost first document."""
    documents = ["a b", "q a b c", "a b c x", "y", "b c d"]
    index = ItemIndex.build([["a b c d"], ["x y"], ["never"]])
    every = index.match(stretches(documents, 4))
    parts = index.match([])
    for number, text in enumerate(documents):
        parts = parts.joined(index.match(stretches([text], 4), first=number))
    assert [column.tolist() for column in parts] == [column.tolist() for column in every]
    assert every.words.tolist() == [3, 1, 0]
    assert every.counts.tolist() == [3, 2, 0]
    assert every.documents.tolist() == [1, 2, -1]


def test_nothing_to_look_for_and_nothing_to_look_in():
    """Catches an empty item, an empty corpus or a text of marks that breaks the search."""
    index = ItemIndex.build([["", "?!"], ["one"]])
    assert found_here(index, []) == [(0, 0, -1)] * 2
    assert found_here(index, stretches(["", "...", "one"], 9)) == [(0, 0, -1), (1, 1, 2)]
