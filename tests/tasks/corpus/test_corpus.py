"""Preparing a corpus: what is kept, what is held out, and that nothing is in both."""

import hashlib
import json
import os
import re
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from corpus_texts import SMALL, OnePart, Texts, document, files, texts

from cuvee.mixtures.errors import CorruptError, DataError, StorageError
from cuvee.proxies.data import tokenizer as tokenizers
from cuvee.proxies.data.prepared_corpus import Corpus, read_manifest, write_manifest
from cuvee.proxies.data.shards import folder_names
from cuvee.proxies.data.sources.documents import TextDocument
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks.corpus.corpus_settings import CorpusSettings
from cuvee.tasks.corpus.prepare import prepare_corpus

QUESTION = "which of these planets in our solar system has the largest number of known moons today"


def sources(first=0, count=40):
    return {
        "weather": Texts(tuple(document(i) for i in range(first, first + count))),
        "kitchen": Texts(tuple(document(1000 + i, 30) for i in range(count))),
    }


def key(text, seed):
    return hashlib.blake2b(text.encode(), digest_size=16, key=b"%d" % seed).digest()


def held(corpus, name="weather"):
    return set(texts(corpus, name, "valid"))


def test_every_document_is_in_one_split_and_unchanged(tmp_path):
    """Catches lost, doubled or cut documents, byte counts that are not theirs, and documents in
    the order of their file: they stand in that of a hash of their text, which is a shuffle."""
    given = sources()
    corpus = prepare_corpus(given, tmp_path, benchmarks={}, settings=SMALL)
    for name, source in given.items():
        train, valid = texts(corpus, name, "train"), texts(corpus, name, "valid")
        assert len(valid) >= 1 and len(train) >= 1
        assert not set(train) & set(valid)
        assert sorted(train + valid) == sorted(source.texts)
        assert train == sorted(train, key=lambda text: key(text, SMALL.seed))
        assert train != [text for text in source.texts if text in set(train)]
        sizes = [len(text.encode()) for text in train]
        assert corpus.train(name).bytes.tolist() == sizes
    assert [domain.name for domain in corpus.domains] == list(given)


def test_doubled_documents_are_kept_once_over_all_domains(tmp_path):
    """Catches deduplication per domain, by which a document is trained on and held out, and a copy
    that stays in the larger of two domains, or in the one that is named first."""
    shared = tuple(document(i) for i in range(10))
    given = {
        "a": Texts(shared + tuple(document(100 + i) for i in range(20)) + shared[:3]),
        "b": Texts(tuple(document(200 + i) for i in range(20)) + shared),
    }
    corpus = prepare_corpus(given, tmp_path, benchmarks={}, settings=SMALL)
    everything = [
        text for n in given for split in ("train", "valid") for text in texts(corpus, n, split)
    ]
    assert len(everything) == len(set(everything)) == 50
    for corpus_ in (corpus, prepare_corpus(dict([*given.items()][::-1]), tmp_path, benchmarks={},
                                           settings=SMALL)):  # fmt: skip
        entries = {entry["name"]: entry["counts"] for entry in corpus_.manifest["domains"]}
        a, b = entries["a"], entries["b"]
        assert (a["duplicates"], a["duplicates_elsewhere"]) == (0, 13)
        assert (b["duplicates"], b["duplicates_elsewhere"]) == (0, 0)


def test_two_preparations_agree_byte_for_byte(tmp_path):
    """Catches hidden randomness: thread order in the tokenizer, time stamps in an index."""
    one = prepare_corpus(sources(), tmp_path / "one", benchmarks={"b": [QUESTION]}, settings=SMALL)
    two = prepare_corpus(sources(), tmp_path / "two", benchmarks={"b": [QUESTION]}, settings=SMALL)
    assert files(one.root) == files(two.root)
    assert one.root.name == two.root.name


def test_long_documents_in_stretches_give_the_same_shards(tmp_path, monkeypatch):
    """Catches tokens, counts or hashes that depend on how much text is held in memory."""
    long = "\n\n".join(
        QUESTION + " 中文，字符é" if i % 20 == 7 else document(9000 + i, 100) for i in range(60)
    )
    given = sources()
    given["weather"] = Texts((*given["weather"].texts, long, long[:20_000], "w" * 3000))
    whole = prepare_corpus(given, tmp_path / "one", benchmarks={"b": [QUESTION]}, settings=SMALL)
    monkeypatch.setattr("cuvee.tasks.corpus.pipeline.tokenize_partitions.STRETCH", 700)
    monkeypatch.setattr("cuvee.tasks.corpus.pipeline.spooled_text.PIECE", 900)
    monkeypatch.setattr("cuvee.evaluation.decontamination.BATCH", 3000)
    for module in ("read_parts", "spooled_text"):
        monkeypatch.setattr(f"cuvee.tasks.corpus.pipeline.{module}.GROUP", 2000)
        monkeypatch.setattr(f"cuvee.tasks.corpus.pipeline.{module}.LONG", 2500)
    monkeypatch.setattr("cuvee.tasks.corpus.pipeline.read_parts.RUN", 5000)
    monkeypatch.setattr("cuvee.tasks.corpus.pipeline.deduplicate_split.PARTITION", 9000)
    parts = prepare_corpus(given, tmp_path / "two", benchmarks={"b": [QUESTION]}, settings=SMALL)
    assert files(whole.root) == files(parts.root)
    assert whole.manifest["domains"][0]["counts"]["documents_cut"] == 2


GROWTH = """
import re, sys
from pathlib import Path
from cuvee.proxies.data.sources.text_files import Files
from cuvee.tasks.corpus.corpus_settings import CorpusSettings
from cuvee.tasks.corpus.prepare import prepare_corpus

settings = CorpusSettings(vocabulary=512, valid_bytes=20_000)
prepare_corpus(
    {"a": Files(sys.argv[1]), "b": Files(sys.argv[2])}, Path(sys.argv[3]),
    benchmarks={"q": ["one two three four five six seven eight nine ten eleven twelve last"]},
    settings=settings,
)
status = Path("/proc/self/status").read_text()
print(1024 * int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]))  # ru_maxrss counts the parent's
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_memory_hardly_grows_with_the_largest_document(tmp_path, kind):
    """Catches lists and arrays over all words of a document: 28 bytes for each byte of it."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghij"), 6)) for _ in range(5000)]
    other = tmp_path / "b.jsonl"
    other.write_text("".join(json.dumps({"text": document(i)}) + "\n" for i in range(400)))
    most = []
    for millions in (4, 24):
        text = " ".join(rng.choice(words, millions * 1_000_000 // 7))
        folder = tmp_path / f"{millions}"
        folder.mkdir()
        (folder / f"small.{kind}").write_text(
            json.dumps({"text": document(1, 500)}) if kind == "jsonl" else document(1, 500)
        )
        (folder / f"large.{kind}").write_text(
            json.dumps({"text": text}) if kind == "jsonl" else text
        )
        command = [sys.executable, "-c", GROWTH, str(folder), str(other), str(tmp_path / "out")]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        most.append(int(ran.stdout.split()[-1]))
    assert (most[1] - most[0]) / 20_000_000 < 5


def test_new_documents_do_not_move_the_old_ones(tmp_path):
    """Catches a split drawn by position or by a shuffle of everything."""
    before = prepare_corpus(sources(count=200), tmp_path, benchmarks={}, settings=SMALL)
    after = prepare_corpus(sources(count=210), tmp_path, benchmarks={}, settings=SMALL)
    moved = held(before) ^ {
        text for text in held(after) if text in set(sources(count=200)["weather"].texts)
    }
    assert len(held(before)) >= 15
    assert len(moved) <= 3


def test_the_order_of_documents_does_not_decide_the_split(tmp_path):
    """Catches holding out the first or the last documents."""
    forward = sources()
    backward = {n: Texts(s.texts[::-1]) for n, s in forward.items()}
    one = prepare_corpus(forward, tmp_path, benchmarks={}, settings=SMALL)
    two = prepare_corpus(backward, tmp_path, benchmarks={}, settings=SMALL)
    assert held(one) == held(two)
    other = CorpusSettings(**{**vars(SMALL), "seed": 1})
    assert held(prepare_corpus(forward, tmp_path, benchmarks={}, settings=other)) != held(one)


def test_the_share_and_the_bound_of_held_out_text_are_kept(tmp_path):
    """Catches a share of documents instead of bytes, and a bound that is not applied."""
    given = sources(count=400)
    corpus = prepare_corpus(given, tmp_path, benchmarks={}, settings=SMALL)
    total = sum(len(t.encode()) for t in given["weather"].texts)
    assert corpus.valid("weather").bytes.sum() == pytest.approx(min(0.1 * total, 20_000), rel=0.1)
    bounded = CorpusSettings(**{**vars(SMALL), "valid_bytes": 2000})
    corpus = prepare_corpus(given, tmp_path, benchmarks={}, settings=bounded)
    assert corpus.valid("weather").bytes.sum() == pytest.approx(2000, rel=0.25)


def test_a_huge_document_is_not_held_out(tmp_path):
    """Catches holding out most of a domain because its largest document came up."""
    given = {
        "a": Texts((document(1, 30_000), document(2), document(3))),
        "b": Texts((document(4, 20_000), document(5))),
    }
    corpus = prepare_corpus(given, tmp_path, benchmarks={}, settings=SMALL)
    assert max(corpus.valid("a").bytes.max(), corpus.valid("b").bytes.max()) < 1000


def test_benchmark_text_is_gone_and_counted(tmp_path):
    """Catches decontamination that is computed and not applied, and wrong counts."""
    given = sources()
    dirty = list(given["weather"].texts)
    dirty[5] += " " + QUESTION
    dirty[6] = QUESTION.upper()
    long = "\n\n".join([document(5000 + i, 100) for i in range(40)] + [QUESTION])
    given["weather"] = Texts((*dirty, long))
    benchmarks = {"moons": [QUESTION], "other": [document(77, 20) + " never seen"], "tiny": ["a b"]}
    corpus = prepare_corpus(given, tmp_path, benchmarks=benchmarks, settings=SMALL)
    kept = texts(corpus, "weather", "train") + texts(corpus, "weather", "valid")
    assert not any("known moons" in text.lower() for text in kept)
    assert len(kept) == 39
    entry = corpus.manifest["domains"][0]
    assert entry["contaminated_documents"] == {"moons": 3}
    assert entry["counts"]["documents_dropped"] == 2
    assert entry["counts"]["documents_cut"] == 1
    assert corpus.manifest["benchmarks"]["tiny"] == {"texts": 1, "too_short": 1}
    read = entry["counts"]["bytes_read"]
    assert (
        read
        == sum(corpus.manifest["domains"][0][s]["bytes"] for s in ("train", "valid"))
        + (entry["counts"]["bytes_dropped"])
    )


def test_the_tokenizer_never_sees_held_out_text(tmp_path):
    """Catches training the tokenizer before the split."""
    marked = {"a": Texts(tuple(f"{i:04d}" * 40 for i in range(60)))}
    marked["b"] = sources()["kitchen"]
    corpus = prepare_corpus(marked, tmp_path, benchmarks={}, settings=SMALL)
    sample = texts(corpus, "a", "train") + texts(corpus, "b", "train")
    expected = tokenizers.train_tokenizer(sample, 300).to_str()
    assert json.loads(corpus.tokenizer_path.read_text()) == json.loads(expected)
    leaky = tokenizers.train_tokenizer([*sample, *texts(corpus, "a", "valid")], 300).to_str()
    assert json.loads(leaky) != json.loads(expected)


class Counting(OnePart):
    """A source that counts how often it is read."""

    def __init__(self, texts, identity="one"):
        self.texts, self.identity, self.reads = texts, identity, 0

    def read(self, part):
        self.reads += 1
        return map(TextDocument, self.texts)


def test_a_second_call_reads_nothing_and_a_changed_question_reads_again(tmp_path):
    """Catches a cache that is not used, and one that ignores a source, a benchmark, a setting."""
    given = {n: Counting(s.texts, n) for n, s in sources().items()}
    benchmarks = {"moons": [QUESTION]}
    one = prepare_corpus(given, tmp_path, benchmarks=benchmarks, settings=SMALL)
    again = prepare_corpus(given, tmp_path, benchmarks=benchmarks, settings=SMALL)
    assert again == one and given["weather"].reads == 1
    given["weather"].identity = "changed"
    roots = {one.root}
    roots.add(prepare_corpus(given, tmp_path, benchmarks=benchmarks, settings=SMALL).root)
    roots.add(prepare_corpus(given, tmp_path, benchmarks={}, settings=SMALL).root)
    wider = CorpusSettings(**{**vars(SMALL), "vocabulary": 310})
    roots.add(prepare_corpus(given, tmp_path, benchmarks={}, settings=wider).root)
    assert len(roots) == 4 and given["weather"].reads == 4


def test_a_corrupt_corpus_is_prepared_again(tmp_path):
    """Catches an error that says "prepare again" when preparing again does not help."""
    one = prepare_corpus(sources(), tmp_path, benchmarks={}, settings=SMALL)
    whole = files(one.root)
    shard = one.root / "kitchen" / "train.bin"
    data = bytearray(shard.read_bytes())
    data[10] ^= 4
    shard.write_bytes(bytes(data))
    with pytest.raises(CorruptError, match=r"kitchen/train\.bin.*prepare the corpus again"):
        Corpus.open(one.root)
    seen = []
    prepare_corpus(
        sources(), tmp_path, benchmarks={}, settings=SMALL, progress=lambda m, f: seen.append(m)
    )
    assert files(one.root) == whole
    assert any("kitchen/train.bin is corrupt" in message for message in seen)


class Breaking(OnePart):
    """A source that fails half-way, as a killed process would leave it."""

    identity = "x"

    def read(self, part):
        yield TextDocument(document(0))
        raise KeyboardInterrupt


def test_a_preparation_that_breaks_off_leaves_no_corpus(tmp_path):
    """Catches a half-written folder that a later call takes for a corpus."""
    given = {**sources(), "last": Breaking()}
    with pytest.raises(KeyboardInterrupt):
        prepare_corpus(given, tmp_path, benchmarks={}, settings=SMALL)
    assert [p for p in tmp_path.iterdir() if p.is_dir() and not p.name.startswith(".")] == []


def test_leftovers_of_a_killed_preparation_are_replaced(tmp_path):
    """Catches stale shards of a killed process that end up in the corpus."""
    one = prepare_corpus(sources(), tmp_path / "a", benchmarks={}, settings=SMALL)
    stale = tmp_path / "b" / f".{one.root.name}.partial"
    (stale / "weather").mkdir(parents=True)
    (stale / "weather" / "train.bin").write_bytes(b"half")
    (stale / "stray").write_text("left by a kill")
    two = prepare_corpus(sources(), tmp_path / "b", benchmarks={}, settings=SMALL)
    assert files(two.root) == files(one.root)


def test_too_little_text_is_named_with_what_there_is(tmp_path):
    """Catches a domain that trains on nothing, or a division by zero."""
    given = {**sources(), "tiny": Texts(("only one document",))}
    with pytest.raises(DataError, match=r"'tiny' has 1 usable documents of 1 read"):
        prepare_corpus(given, tmp_path, benchmarks={}, settings=SMALL)
    given["tiny"] = Texts(("one two", "three four", "  \n"))
    with pytest.raises(DataError, match=r"'tiny' has \d+ training tokens in 1 documents"):
        prepare_corpus(given, tmp_path, benchmarks={}, settings=SMALL)
    with pytest.raises(DataError, match="at least one domain"):
        prepare_corpus({}, tmp_path, benchmarks={}, settings=SMALL)


def test_domains_that_are_too_small_are_told_before_the_large_are_encoded(tmp_path):
    """Catches hours of tokenizing that are thrown away for one small domain, and then once more for
    the next: the small ones come first, and all of them are named."""
    given = {**sources(), "tiny": Texts(("one two", "three four"))}
    given["small"] = Texts(("five six", "seven"))
    said = []
    with pytest.raises(
        DataError, match="'small' has .*; .*'tiny' has|'tiny' has .*; .*'small' has"
    ):
        prepare_corpus(
            given,
            tmp_path,
            benchmarks={},
            settings=SMALL,
            progress=lambda text, _: said.append(text),
        )
    encoded = [text.removeprefix("tokenizing ") for text in said if text.startswith("tokenizing")]
    assert set(encoded) == {"tiny", "small"}


def test_the_order_of_encoding_changes_no_corpus(tmp_path):
    """Catches domains that are written in the order of their size: runs are tied to the order."""
    made = prepare_corpus(sources(), tmp_path, benchmarks={}, settings=SMALL)
    assert [domain.name for domain in made.domains] == list(sources())


def test_text_that_another_domain_holds_is_named_as_such(tmp_path):
    """Catches the wrong domain accused: "b has 0 usable documents; add text". Of equal domains the
    first keeps the copies, else the smaller."""
    a = Texts(tuple(document(i) for i in range(23)))
    with pytest.raises(DataError, match="all 23 documents of b are also in a"):
        prepare_corpus({"a": a, "b": a}, tmp_path, benchmarks={}, settings=SMALL)
    given = {"a": a, "b": Texts((*a.texts[:10], *(document(100 + i) for i in range(10))))}
    corpus = prepare_corpus(given, tmp_path, benchmarks={}, settings=SMALL)
    notices = [entry["notices"] for entry in corpus.manifest["domains"]]
    assert notices == [["10 of 23 documents of a are also in b, and count there"], []]


def test_skipped_rows_are_counted_and_the_first_is_named(tmp_path):
    """Catches rows that are dropped in silence, and a share of all that counts documents only."""
    rows = [json.dumps({"text": document(i)}) for i in range(20)]
    rows[3], rows[7] = '{"text": null}', "{"
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    source = Files(str(tmp_path / "a.jsonl"), skip=True)
    given = {"a": source, "b": sources()["kitchen"]}
    entry = prepare_corpus(given, tmp_path / "out", benchmarks={}, settings=SMALL).manifest[
        "domains"
    ][0]
    assert entry["counts"]["skipped"] == 2 and entry["counts"]["documents_read"] == 18
    assert entry["notices"] == [
        f"2 of 20 rows of a were skipped, the first: {tmp_path}/a.jsonl, line 4: field 'text' is "
        "null"
    ]
    with pytest.raises(DataError, match=r"0 usable documents of 0 read.*20 of 20 rows of x were"):
        wrong = {"x": Files(str(tmp_path / "a.jsonl"), field="body", skip=True)}
        prepare_corpus(wrong, tmp_path / "out", benchmarks={}, settings=SMALL)
    refused = {**given, "a": Files(str(tmp_path / "a.jsonl"))}
    with pytest.raises(DataError, match="line 4: field 'text' is null"):
        prepare_corpus(refused, tmp_path / "out", benchmarks={}, settings=SMALL)


class Changing(Counting):
    """A source whose files change while they are read."""

    def read(self, part):
        self.identity = "other"
        return super().read(part)


def test_text_that_changes_while_it_is_read_is_refused(tmp_path):
    """Catches text kept under the hash of what it was before."""
    given = {**sources(), "moving": Changing(tuple(document(500 + i) for i in range(20)))}
    with pytest.raises(DataError, match="'moving' changed while it was read"):
        prepare_corpus(given, tmp_path, benchmarks={}, settings=SMALL)
    assert [p for p in tmp_path.iterdir() if p.is_dir() and not p.name.startswith(".")] == []
    given["moving"] = Texts(tuple(document(500 + i) for i in range(20)))
    prepare_corpus(given, tmp_path, benchmarks={}, settings=SMALL)


@pytest.mark.parametrize("name", ["", " a", "a\n", "a\u202eb"])
def test_names_that_no_line_can_hold_are_refused(tmp_path, name):
    """Catches a name that breaks tables and logs, or looks like another."""
    with pytest.raises(DataError, match="cannot be a name"):
        prepare_corpus({name: Texts(("a", "b"))}, tmp_path, benchmarks={}, settings=SMALL)


NAMES = (
    "dclm:law", "stack-edu:C", "stack-edu:c", "C++", "C#", "a/b", "a%2Fb", "../up", ".hidden",
    "tokenizer.json", "Manifest.json", "caf\u00e9", "cafe\u0301", "x" * 300, "x" * 299 + "y", "web",
)  # fmt: skip


def test_any_printable_name_has_a_folder_of_its_own(tmp_path):
    """Catches names with a colon refused, two names in one folder, and shards outside it."""
    folders = folder_names(NAMES)
    assert folders["web"] == "web" and folders["dclm:law"] == "dclm%3Alaw"
    folded = {unicodedata.normalize("NFC", name).casefold() for name in folders.values()}
    assert len(folded) == len(NAMES) and not folded & {"tokenizer.json", "manifest.json"}
    assert all(not re.search(r'^\.|[/\\:*?"<>|]', name) for name in folders.values())
    assert all(len(name.encode()) <= 255 for name in folders.values())
    given = {
        name: Texts(tuple(document(100 * i + j) for j in range(4))) for i, name in enumerate(NAMES)
    }
    made = prepare_corpus(given, tmp_path, benchmarks={}, settings=SMALL)
    assert tuple(domain.name for domain in made.domains) == NAMES
    corpus = Corpus.open(made.root)  # where they stand by their contents
    assert sorted(domain.name for domain in corpus.domains) == sorted(NAMES)
    for name, source in given.items():
        kept = texts(corpus, name, "train") + texts(corpus, name, "valid")
        assert sorted(kept) == sorted(source.texts)


def test_a_corpus_of_earlier_days_is_opened(tmp_path):
    """Catches folders looked for only where manifests name them."""
    root = prepare_corpus(sources(), tmp_path, benchmarks={}, settings=SMALL).root
    body = read_manifest(root)
    for entry in body["domains"]:
        del entry["folder"]
    write_manifest(root, {key: value for key, value in body.items() if key != "digest"})
    assert len(Corpus.open(root).train("weather")) > 0


@pytest.mark.parametrize(
    "setting", [{"vocabulary": 256}, {"valid_share": 0.0}, {"valid_share": 0.9}, {"min_tokens": 0}]
)
def test_settings_without_sense_are_refused(setting):
    """Catches a split with nothing on one side."""
    with pytest.raises(DataError, match=next(iter(setting))):
        CorpusSettings(**setting)


def test_progress_rises_from_start_to_end(tmp_path):
    """Catches a bar that jumps back or stops before the end."""
    seen = []
    prepare_corpus(
        sources(), tmp_path, benchmarks={}, settings=SMALL, progress=lambda m, f: seen.append(f)
    )
    assert seen == sorted(seen) and seen[0] == 0.0 and seen[-1] == 1.0 and len(seen) >= 8


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    """Catches an OSError reaching a person."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="file"):
        prepare_corpus(sources(), tmp_path / "file" / "x", benchmarks={}, settings=SMALL)
    if os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(StorageError, match="locked"):
            prepare_corpus(sources(), tmp_path / "locked", benchmarks={}, settings=SMALL)
