"""Filters on rows: Python's own answers where it has one, refusals where it guesses."""

import datetime
import json
import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as sheets
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.mixtures.errors import DataError, RecipeError
from cuvee.proxies.data.sources.documents import FILTERED, TextDocument, UnusableDocument
from cuvee.proxies.data.sources.row_filter import FilterError, RowFilter
from cuvee.proxies.data.sources.text_files import Files

NUMBERS = st.integers(-5, 5) | st.floats(-5, 5)
WORDS = st.sampled_from(["en", "de", 'a"b', ""])
ROWS = st.fixed_dictionaries(
    {"n": NUMBERS, "m": NUMBERS, "s": WORDS, "t": WORDS, "flag": st.booleans()}
)


def _side(kind: Any, names: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(names) | kind.map(repr)


def _atoms() -> st.SearchStrategy[str]:
    order = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
    numbers, words = _side(NUMBERS, ["n", "m"]), _side(WORDS, ["s", "t"])
    return (
        st.tuples(numbers, order, numbers, order, numbers).map(" ".join)
        | st.tuples(words, order, words).map(" ".join)
        | st.tuples(words, st.sampled_from(["in", "not in"]), st.lists(WORDS, max_size=3)).map(
            lambda x: f"{x[0]} {x[1]} {x[2]!r}"
        )
        | st.just("flag")
    )


def _joined(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, st.sampled_from(["and", "or"]), inner)
    return pair.map(lambda x: f"({x[0]} {x[1]} {x[2]})") | inner.map(lambda x: f"(not {x})")


@given(st.recursive(_atoms(), _joined, max_leaves=6), ROWS)
def test_says_what_python_says_where_values_are_alike(text: str, row: dict[str, Any]) -> None:
    """Against Python itself; catches a wrong precedence, a chain that is read as two comparisons of
    the first value, `or` that does not stop, and a filter that changes on its way to a worker."""
    text = f"n == n and {text}"
    made = RowFilter(text)
    expected = eval(text, {"__builtins__": {}}, row)  # of the strategies above alone
    assert made.keeps(row) is expected
    assert pickle.loads(pickle.dumps(made)).keeps(row) is expected
    assert RowFilter(made.canonical).keeps(row) is expected


@pytest.mark.parametrize(
    ("text", "row", "kept"),
    [
        ("meta.score >= 3", {"meta": {"score": 3}}, True),
        ("meta.score >= 3", {"meta.score": 1, "meta": {"score": 5}}, False),
        ('row["lang-id"] == "en"', {"lang-id": "en"}, True),
        ('meta["lang id"] == "en"', {"meta": {"lang id": "de"}}, False),
        ("score != null and score > 1", {"score": None}, False),
        ("score is None or score > 1", {"score": None}, True),
        ('"math" in tags', {"tags": ["math", "web"]}, True),
        ('"wiki" in url', {"url": "https://en.wikipedia.org"}, True),
        ("source in [null, 'a']", {"source": None}, True),
        ("not toxic", {"toxic": False}, True),
        ("toxic == false", {"toxic": True}, False),
        ("-1 < n <= 2", {"n": 2}, True),
    ],
)
def test_fields_lists_and_nulls(text: str, row: dict[str, Any], kept: bool) -> None:
    """Catches a nested field that hides one whose name has a dot, and null taken for false."""
    assert RowFilter(text).keeps(row) is kept


@pytest.mark.parametrize(
    ("text", "row", "why"),
    [
        ("score >= 3", {"sore": 3, "text": "x"}, "asks for 'score', and the row has: sore, text"),
        ("meta.score >= 3", {"meta": 3}, "asks for 'meta.score'"),
        ("score >= 3", {"score": "3"}, "text cannot be compared with a number"),
        ("score >= 3", {"score": None}, "null cannot be compared with a number"),
        ("score == 1", {"score": True}, "true or false cannot be compared with a number"),
        ('language == "en"', {"language": None}, "null cannot be compared with text"),
        ("source in ['a']", {"source": 1}, "a number cannot be compared with text"),
        ("not toxic", {"toxic": 0}, "toxic is a number, neither true nor false"),
        ("toxic or n", {"toxic": False, "n": 1}, "n is a number, neither true nor false"),
        ("a < b", {"a": True, "b": False}, "neither more nor less"),
        ("a in b", {"a": 1, "b": 2}, "nothing is in a number"),
    ],
)
def test_unlike_values_are_told(text: str, row: dict[str, Any], why: str) -> None:
    """Catches a filter that guesses: Python itself takes null for unequal and 1 for true."""
    with pytest.raises(FilterError, match=why):
        RowFilter(text).keeps(row)


@pytest.mark.parametrize(
    "text",
    [
        "", "1 == 1", "language = 'en'", "f(x) == 1", "x.lower() == 'a'", "x + 1 > 2", "x in [y]",
        "[y for y in x]", "x == b'a'", "x if y else z", "lambda: x", "x[0] == 1", "(x := 1) == 1",
        "x == f'{y}'", "x == 1j",
        "not " * 500 + "x", "(" * 3000 + "x" + ")" * 3000, "x == '" + "a" * 5000 + "'", "x == '\0'",
        "__import__('os').system('true')", "().__class__ == x", "x == ...", "x; y", "x and",
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused_with_an_example(text: str) -> None:
    """Catches an expression that would fail, or run something, only when rows are read."""
    with pytest.raises(RecipeError, match="a filter is made of fields"):
        RowFilter(text)


def test_names_the_fields_that_it_asks_for() -> None:
    """Catches literals and words taken for columns, and dots that are lost."""
    made = RowFilter(
        'meta.score >= 3 and lang in ["en", "de"] and other and not row["a b"] and z != null'
    )
    assert made.names == ("a b", "lang", "meta.score", "other", "z")


LANGUAGES = [("one", "en", 3), ("two", "de", 5), ("three", "en", 1), (None, "de", 2)]


def _written(folder: Path, ending: str) -> Path:
    path = folder / f"rows{ending}"
    rows = [{"text": t, "language": lang, "score": score} for t, lang, score in LANGUAGES]
    if ending == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif ending == ".csv":
        sheets.write_csv(pa.Table.from_pylist(rows), path)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_every_kind_of_rows_is_filtered_as_it_is_read(tmp_path: Path, ending: str) -> None:
    """Catches a kind that forgets the filter or does not read its column, numbers of a sheet taken
    for text, and a row without text that is unusable although nobody asked for it."""
    source = Files(str(_written(tmp_path, ending)), filter='language == "en" and score >= 2')
    assert list(source.documents()) == [TextDocument("one"), *[FILTERED] * 3]
    assert Files(source.path).identity != source.identity
    spaced = Files(source.path, filter="language == 'en'   and score>=2")
    assert spaced.identity == source.identity


def test_what_a_filter_cannot_say_is_refused_or_skipped_with_its_row(tmp_path: Path) -> None:
    """Catches a row that is dropped in silence since its score is null, and a name that is
    misspelled taken for a filter that wants nothing."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "score": 1}\n{"text": "b", "score": null}\n')
    with pytest.raises(DataError, match="line 2: score > 0: null cannot be compared.*on_error"):
        list(Files(str(path), filter="score > 0").documents())
    good, bad = Files(str(path), filter="score > 0", skip=True).documents()
    assert good == TextDocument("a") and isinstance(bad, UnusableDocument)
    with pytest.raises(DataError, match="line 1: the filter asks for 'sore', and the row has: te"):
        list(Files(str(path), filter="sore > 0").documents())
    with pytest.raises(DataError, match="no column 'sore'; it has: text"):
        list(Files(str(_written(tmp_path, ".parquet")), filter="sore > 0").documents())
    (tmp_path / "plain.txt").write_text("text")
    with pytest.raises(DataError, match="plain text, which has no fields"):
        _ = Files(str(tmp_path / "plain.txt"), filter="score > 0").files


def test_a_time_is_compared_as_it_is_written() -> None:
    """Catches dates of a table that no filter can be written for."""
    row = {"day": datetime.date(2024, 5, 1)}
    assert RowFilter('day >= "2024-01-01"').keeps(row)
