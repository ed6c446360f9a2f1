"""Rows, sheets and columns: the fields that are kept, and what is wrong with a file, by its row."""

import csv
import gzip
import json
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from cuvee.mixtures.errors import CorruptError, DataError
from cuvee.proxies.data.sources import readers
from cuvee.proxies.data.sources.documents import TextDocument
from cuvee.proxies.data.sources.text_files import Files

ROWS = [
    {"doc": {"body": "one", "url": "x/1"}, "lang": "en", "score": 3, "tags": ["a"]},
    {"doc": {"body": "two", "url": "x/2"}, "lang": None, "score": 2.5, "tags": []},
    {"doc": {"body": "three", "url": None}, "score": 4},
]
KEPT = {"field": "doc.body", "id": "doc.url", "attributes": ("lang", "score", "tags")}


def bad_rows(path, **how):
    """The places and reasons of what is skipped, and the text of what is not."""
    found = list(Files(str(path), skip=True, **how).documents())
    why = [x.why.removeprefix(str(path)) for x in found if not isinstance(x, TextDocument)]
    return why, [x.text for x in found if isinstance(x, TextDocument)]


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet", "arrow"])
def test_nested_text_its_id_and_what_is_kept_beside_it(tmp_path, form):
    """Catches text within a group that is not found, an id that is the text "None", whole numbers
    that lose their value, and attributes of the row before."""
    path = tmp_path / f"a.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif form == "arrow":
        table = pa.Table.from_pylist(ROWS)
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    elif form == "json":
        path.write_text(json.dumps(ROWS))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    found = list(Files(str(path), **KEPT).documents())
    assert [x.text for x in found] == ["one", "two", "three"]
    assert [x.id for x in found] == ["x/1", "x/2", ""]
    assert [x.attributes["score"] for x in found] == [3, 2.5, 4]
    assert [x.attributes["lang"] for x in found] == ["en", None, None]
    assert [x.attributes["tags"] for x in found] == [["a"], [], None]
    assert next(Files(str(path), field="doc.body").documents()).attributes == {}
    for wrong in ({**KEPT, "id": "doc.uri"}, {**KEPT, "attributes": ("lagn",)}):
        with pytest.raises(DataError, match=r"(doc\.uri|lagn).*(they have|it has): .*lang"):
            list(Files(str(path), **wrong).documents())


def test_null_groups_hold_null_text(tmp_path):
    """Catches what lies under a group that is null, which arrow leaves in place, read as text."""
    under = pa.array(["seen", "not seen"])
    column = pa.StructArray.from_arrays([under], ["body"], mask=pa.array([False, True]))
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), pa.schema({"doc": column.type})) as writer:
        writer.write_batch(pa.record_batch([column], ["doc"]))
    why, texts = bad_rows(tmp_path / "a.arrow", field="doc.body")
    assert texts == ["seen"] and why == [", row 2: column 'doc.body' is null"]


@pytest.mark.parametrize(("end", "mark"), [("csv", ","), ("tsv", "\t"), ("csv.gz", ",")])
def test_sheets_are_read_with_quotes_and_ends_of_lines(tmp_path, end, mark):
    """Catches a cell that ends at an end of line within its quotes, and marks left in the text."""
    text = f'\ufeffid{mark}text{mark}lang\r\n7{mark}"two\nlines, {mark} and ""quotes"""{mark}en'
    text += f"\r\n\r\n8{mark}plain ünï{mark}\n"
    path = tmp_path / f"a.{end}"
    path.write_bytes(gzip.compress(text.encode()) if end.endswith("gz") else text.encode())
    one, two = Files(str(path), id="id", attributes=("lang",)).documents()
    assert one.text == f'two\nlines, {mark} and "quotes"' and (one.id, two.id) == ("7", "8")
    assert two.text == "plain ünï" and [x.attributes["lang"] for x in (one, two)] == ["en", ""]
    with pytest.raises(DataError, match="no column 'body'; it has: id, text, lang"):
        list(Files(str(path), field="body").documents())


def test_a_bad_row_of_a_sheet_is_named_and_costs_no_other(tmp_path):
    """Catches cells moved into other columns, a row lost without a word, and lines miscounted."""
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'text,n\n"a\nb",1\nshort\nx,y,z\n"broken"quote,2\n\xe9 bytes,3\n"n\0ul",4\n"whole",5\n'
    )
    why, texts = bad_rows(path)
    assert texts == ["a\nb", "whole"]
    assert [re.search(r"line (\d+)", one)[1] for one in why] == ["4", "5", "6", "7", "8"]
    assert "1 cells under 2 names" in why[0] and "0xe9" in why[3] and "NUL" in why[4]


def test_quotes_that_never_close_do_not_take_the_rest_of_a_sheet_in_silence(tmp_path):
    """Catches all rows after a lone quote read as one text."""
    (tmp_path / "a.csv").write_text('text,n\n"never closed,1\nb,2\nc,3\n')
    with pytest.raises(DataError, match=r"a\.csv, line 2: unexpected end of data"):
        list(Files(str(tmp_path / "a.csv")).documents())


@pytest.mark.parametrize("end", ["jsonl", "jsonl.gz", "txt", "csv", "parquet"])
def test_nul_is_named_by_its_row_and_costs_no_other(tmp_path, end):
    """Catches files of 16-bit characters, or of none, taken for text with bytes of 0 in it."""
    path = tmp_path / f"a.{end}"
    texts = ["before", "a\0b", "after"]
    data = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    if end == "parquet":
        pq.write_table(pa.table({"text": texts}), path)
    elif end == "csv":
        path.write_text("text\n" + "\n".join(texts))
    else:
        data = "\n%\n".join(texts).encode() if end == "txt" else data
        path.write_bytes(gzip.compress(data) if end.endswith("gz") else data)
    why, kept = bad_rows(path, separator="\n%\n" if end == "txt" else None)
    assert kept == ["before", "after"] and len(why) == 1
    line = {"txt": "line 3", "csv": "line 3", "parquet": "row 2"}.get(end, "line 2")
    assert why[0].startswith(f", {line}: ") and "NUL" in why[0]


def test_one_bad_part_of_a_text_costs_no_other(tmp_path, monkeypatch):
    """Catches the rest of a file lost without a count after a part that is damaged or too long."""
    monkeypatch.setattr("cuvee.proxies.data.sources.readers.CHUNK", 7)
    monkeypatch.setattr("cuvee.proxies.data.sources.readers.LONGEST", 40)
    path = tmp_path / "a.txt"
    path.write_bytes(b"one\n%\n\xe9\xe9\n%\ntwo\n%\n" + b"long\n" * 30 + b"\n%\nthree\n%\n")
    why, texts = bad_rows(path, separator="\n%\n")
    assert texts == ["one", "two", "three"] and len(why) == 2
    assert why[0].startswith(", line 3: byte 0xe9") and why[1].startswith(", line 7: a document of")


def test_mixed_types_and_missing_fields_are_named(tmp_path):
    """Catches a number turned into text, and an attribute of two types that no column can hold."""
    rows = [{"text": "a", "n": 1}, {"text": 5}, {"n": 2}, {"text": "b", "n": "two"}, {"text": "c"}]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    why, texts = bad_rows(path, attributes=("n",))
    assert texts == ["a", "c"]
    assert why == [
        ", line 2: field 'text' is int, not text",
        ", line 3: no field 'text'; the row has: n",
        f", line 4: field 'n' is text, and a number in {path}, line 1",
    ]


@pytest.mark.parametrize("end", ["jsonl.gz", "jsonl.zst", "txt.zst", "csv.gz"])
def test_what_was_made_to_burst_is_refused(tmp_path, monkeypatch, end):
    """Catches a file of a few kilobytes that is read for days, or into all memory."""
    monkeypatch.setattr("cuvee.proxies.data.sources.compression.MOST", 1 << 20)
    content = b"text\n" + b'{"text": " "}\n' * (1 << 19)
    packed = gzip.compress(content * 4, 9) if end.endswith("gz") else None
    path = tmp_path / f"a.{end}"
    path.write_bytes(packed or zstandard.ZstdCompressor(level=9).compress(content * 4))
    assert path.stat().st_size < 200_000
    monkeypatch.setattr("cuvee.proxies.data.sources.compression.RATIO", 100)
    with pytest.raises(DataError, match=rf"a\.{end} unpacks to more than 100 times its size"):
        list(Files(str(path), skip=True, separator="%%" if "txt" in end else None).documents())


def test_a_truncated_table_or_sheet_is_refused_whole(tmp_path):
    """Catches the first half of a file read as if it were all of it."""
    pq.write_table(pa.table({"text": [f"{i * 7919}" for i in range(5000)]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text\n" + b"row,\n" * 5000))
    for name in ("a.parquet", "a.csv.gz"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(CorruptError, match=name):
            list(Files(str(path), skip=True).documents())


LONG_LINE = """
import resource, sys
from cuvee.proxies.data.sources.documents import TextDocument
from cuvee.proxies.data.sources.text_files import Files
import cuvee.proxies.data.sources.readers
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    found = list(Files(path, skip=True).documents())
    assert [x.text for x in found if isinstance(x, TextDocument)] == ["a", "b"], found
    assert "line 2: more than" in found[1].why
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1e3)
"""


@pytest.mark.slow
def test_a_line_of_500_mb_is_named_and_takes_bounded_memory(tmp_path):
    """Catches memory that follows the longest line of a file, and the rows after it lost."""
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "a"}\n')
        file.seek(500_000_000, 1)
        file.write(b'\n{"text": "b"}\n')
    ran = subprocess.run(
        [sys.executable, "-c", LONG_LINE, str(path)], capture_output=True, text=True, check=True
    )
    assert float(ran.stdout) < 600, "MB: one line of at most 268 MB, and no copy of it"


def test_programs_are_read_by_patterns(tmp_path):
    """Catches files of an ending that is not known left out, hidden folders and others read."""
    for name in ("src/a.rs", "src/deep/b.py", "c.toml", ".git/d.rs", "rows.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"text": name}))
    texts = [x.text for x in Files(str(tmp_path), glob=("*.rs", "*.py")).documents()]
    assert texts == [json.dumps({"text": name}) for name in ("src/a.rs", "src/deep/b.py")]
    assert [x.text for x in Files(str(tmp_path), glob=("*.jsonl",)).documents()] == ["rows.jsonl"]
    with pytest.raises(DataError, match=r"no file that matches \*\.go"):
        list(Files(str(tmp_path), glob=("*.go",)).documents())


def test_patterns_descend_to_any_depth(tmp_path):
    """Catches a "**" that stands for one folder."""
    for name in ("src/a.py", "src/one/b.py", "src/one/two/c.py", "d.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    texts = [x.text for x in Files(str(tmp_path), glob=("src/**/*.py",)).documents()]
    assert texts == ["src/a.py", "src/one/b.py", "src/one/two/c.py"]
    assert [x.text for x in Files(str(tmp_path), glob=("one/*.py",)).documents()] == [
        "src/one/b.py"
    ]


def test_markers_are_no_rows_whatever_the_format_says(tmp_path):
    """Catches checksums and markers of Spark read as rows."""
    (tmp_path / "part-00000").write_text('{"text": "a"}\n')
    (tmp_path / ".part-00000.crc").write_bytes(b"crc\0")
    (tmp_path / "_SUCCESS").touch()
    files = Files(str(tmp_path), format="jsonl")
    assert [x.text for x in files.documents()] == ["a"]
    assert "_SUCCESS" in files.notice


def test_text_may_be_called_as_markers_are(tmp_path):
    """Catches `format: text` that passes over _intro.txt as if it were a marker of Spark."""
    for name in ("_intro.rst", "__init__.py", "body.tex"):
        (tmp_path / name).write_text(name)
    (tmp_path / "_SUCCESS").touch()
    files = Files(str(tmp_path), format="text")
    assert {x.text for x in files.documents()} == {"_intro.rst", "__init__.py", "body.tex"}
    assert "_SUCCESS" in files.notice


def test_patterns_beside_what_is_no_folder_are_refused(tmp_path):
    """Catches a `glob` that is ignored beside a file, whose owner believes it to choose."""
    (tmp_path / "a.py").write_text("x = 1")
    for path in ("a.py", "*.py"):
        with pytest.raises(DataError, match=r"`glob` says .* is no folder: leave it out"):
            list(Files(str(tmp_path / path), glob=("*.py",)).documents())


def test_a_part_of_a_file_may_lack_a_field(tmp_path):
    """Catches a large file refused because a field stands in some of its parts alone."""
    path = tmp_path / "lang.jsonl"
    path.write_text('{"text": "a"}\n' * 9 + '{"text": "b", "lang": "fr"}\n')
    files = Files(str(path), attributes=("lang",), part_bytes=40)
    found = [x for part in files.parts() for x in files.read(part)]
    assert len(files.parts()) > 2 and len(found) == 10
    assert [x.attributes["lang"] for x in found] == [None] * 9 + ["fr"]
    path.write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match="no row of .* has a field 'lang'"):
        list(files.documents())


def test_an_endless_line_of_a_packed_sheet_is_named(tmp_path, monkeypatch, request):
    """Catches an AttributeError, since what is unpacked has no name."""
    request.addfinalizer(lambda: csv.field_size_limit(1 << 28))  # which a short bound lowers
    monkeypatch.setattr(readers, "LONGEST", 100)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text\n" + b"x" * 300))
    with pytest.raises(DataError, match=r"a line of more than 100 bytes in .*a\.csv\.gz"):
        list(Files(str(tmp_path / "a.csv.gz")).documents())


@pytest.mark.parametrize("skip", [True, False])
def test_an_empty_file_among_others_is_a_blank_document(tmp_path, skip):
    """Catches a folder of programs refused for an empty `__init__.py`, and one named alone read."""
    (tmp_path / "__init__.py").touch()
    (tmp_path / "a.py").write_text("x = 1")
    for path, glob in ((tmp_path, ("*.py",)), (tmp_path, ()), (tmp_path / "*.py", ())):
        files = Files(str(path), glob=glob, skip=skip)
        texts = [x.text for part in files.parts() for x in files.read(part)]
        assert texts == ["", "x = 1"]
    alone = Files((str(tmp_path / "__init__.py"), str(tmp_path / "a.py")))
    with pytest.raises(DataError, match=r"__init__\.py is empty; remove it or fill it"):
        list(alone.documents())


def test_files_without_an_ending_are_read_as_the_recipe_says(tmp_path):
    """Catches files that are called as Spark and others call them, which no reading could name."""
    (tmp_path / "part-00000").write_text('{"text": "a"}\n')
    (tmp_path / "part-00001.gz").write_bytes(gzip.compress(b'{"text": "b"}\n'))
    assert [x.text for x in Files(str(tmp_path), format="jsonl").documents()] == ["a", "b"]
    with pytest.raises(DataError, match="holds no file of a kind that is read"):
        list(Files(str(tmp_path)).documents())
    with pytest.raises(DataError, match="say which in `format`"):
        list(Files(str(tmp_path / "part-00000")).documents())
