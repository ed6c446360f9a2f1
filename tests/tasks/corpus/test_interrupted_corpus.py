"""What a crash, a power cut or a second process leaves behind, and that nothing is lost by it."""

import contextlib
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpus_texts import SMALL, Texts, document, files

from cuvee.evaluation.decontamination import NGramIndex
from cuvee.mixtures.errors import CorruptError, DataError, StorageError
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.proxies.data.sources.documents import ReadPart
from cuvee.proxies.data.token_views import ViewMaker
from cuvee.tasks.corpus import prepare
from cuvee.tasks.corpus.corpus_state import StateStore
from cuvee.tasks.corpus.pipeline.corpus_build import CorpusBuild
from cuvee.tasks.corpus.pipeline.deduplicate_split import Deduplicator, read_index, read_kept
from cuvee.tasks.corpus.pipeline.preparation_files import SPOOLS, WEEK, PreparationFiles, home_name
from cuvee.tasks.corpus.pipeline.read_parts import PartReader, ReadTask
from cuvee.tasks.corpus.pipeline.task_pool import InlinePool
from cuvee.tasks.corpus.pipeline.tokenize_partitions import (
    PartitionEncoder,
    Segment,
    join_segments,
)
from cuvee.tasks.store.results import Store

GIVEN = {"weather": Texts(tuple(document(i) for i in range(40)))}


def study(folder, **changes):
    return StateStore(Store(str(folder / "store")), "study", folder / "tokenizers", **changes)


def make(folder, given=GIVEN, **changes):
    changes = {"benchmarks": {}, "settings": SMALL, "states": study(folder)} | changes
    return prepare.prepare_corpus(given, folder / "corpora", **changes)


def test_a_damaged_name_of_a_corpus_removes_nothing(tmp_path):
    """Catches a name that is empty, as a full disk leaves it, or leads elsewhere: it was joined to
    the folder of all corpora, which was then taken for a corrupt corpus and removed."""
    first = make(tmp_path)
    before = files(first.root)
    (same,) = (tmp_path / "corpora").glob(".*.same")
    assert same.read_bytes() == first.root.name.encode()
    (tmp_path / "precious").mkdir()
    for damaged in (b"", b"..", b"../precious", b"\xff\x00", b"/"):
        same.write_bytes(damaged)
        again = make(tmp_path)
        assert again.root.parent == first.root.parent and again.root.name == same.name[1:17]
        assert files(first.root) == before and (tmp_path / "precious").is_dir()


def test_one_lock_guards_a_folder_whatever_key_asks_for_it(tmp_path, monkeypatch):
    """Catches a lock that is named by the key alone: two keys lead to one folder, and two processes
    wrote it; and a place that is not looked up again once the lock is held."""
    first = make(tmp_path)
    out = first.root.parent
    (same,) = out.glob(".*.same")
    taken = []

    @contextlib.contextmanager
    def lock(path, waiting):
        taken.append(path.name)
        if len(taken) == 1:  # another process tells, meanwhile, where it lies
            same.write_text(first.root.name)
        yield

    same.unlink()
    monkeypatch.setattr(prepare, "exclusive_lock", lock)
    assert make(tmp_path).root == first.root
    assert taken == [f".{same.name[1:17]}.lock", f".{first.root.name}.lock"]


def test_a_name_that_cannot_be_written_is_an_error_of_storage(tmp_path, monkeypatch):
    """Catches a bare OSError from the last thing that a preparation writes."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare, "_remember", full)
    with pytest.raises(StorageError, match="No space left"):
        make(tmp_path)


@pytest.mark.parametrize("end", ["texts", "index", "bands", "places"])
def test_a_short_spool_is_read_again(tmp_path, end):
    """Catches a record that is believed while a file of its spool lost its end in a power cut."""
    source = GIVEN["weather"]
    reader = PartReader(ObjectFolder(str(tmp_path)), NGramIndex.build({}), 1, near=True)
    task = ReadTask("part", 0, source, ReadPart("memory"))
    record = reader(task)
    whole = (tmp_path / f"part.{end}").read_bytes()
    (tmp_path / f"part.{end}").write_bytes(whole[:-8])
    if end == "index":
        with pytest.raises(CorruptError, match="Run again"):
            read_index(reader.spools, record)
    assert reader(task) == record
    assert (tmp_path / f"part.{end}").read_bytes() == whole


def test_a_short_segment_ends_and_is_tokenized_again(tmp_path, monkeypatch):
    """Catches joining that waits for ever for the end of a short file, and a next try that takes
    the short file for a finished one; a partition that is lost is no empty one."""
    segments = ObjectFolder(str(tmp_path / "segments"))
    segments.write("0.tokens", b"1234")
    segments.write("0.documents", b"\0" * 12)
    with pytest.raises(CorruptError, match="shorter"):
        views = ViewMaker((), 0, np.dtype("<u2"))
        next(join_segments(segments, [[Segment(0, "train", 1, 4, 0)]], [tmp_path], views))
    with pytest.raises(CorruptError, match="missing"):
        read_kept(segments, 0)
    expected = files(make(tmp_path / "a").root)
    encode = CorpusBuild.encode
    cut = []

    def broken(build, tokenizer):
        entries = encode(build, tokenizer)
        cut.append(Path(build.segments.path("0.tokens")))
        cut[0].write_bytes(cut[0].read_bytes()[:-2])
        raise KeyboardInterrupt(entries)

    with monkeypatch.context() as patch:
        patch.setattr(CorpusBuild, "encode", broken)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "b")
    assert cut[0].exists()
    assert files(make(tmp_path / "b").root) == expected


def test_of_two_preparations_of_a_study_none_loses_what_the_other_held_out(tmp_path):
    """Catches a state that is written over the one of a preparation which ended meanwhile."""
    states = study(tmp_path)
    before = states.load(SMALL)
    other = {"garden": Texts(tuple(document(2000 + i) for i in range(40)))}
    first = make(tmp_path)
    kept = states.load(SMALL)
    (tmp_path / "b").mkdir()
    second = make(tmp_path / "b", other)
    theirs = study(tmp_path / "b").load(SMALL)
    keys = (second.root / "heldout.keys").read_bytes()
    with pytest.raises(DataError, match="ended first.*run again"):
        states.save(SMALL, theirs, second.tokenizer_path, keys, before=before)
    assert states.load(SMALL) == kept != before
    assert states.held_keys(kept) == (first.root / "heldout.keys").read_bytes()
    make(tmp_path, other)
    assert {one.name for one in states.load(SMALL).ranks} == {"weather", "garden"}


def test_what_the_store_lost_is_written_again_or_named(tmp_path):
    """Catches a blob that is not written because the state that names it is unchanged, and an
    answer that does not say how to go on without the tokenizer."""
    first = make(tmp_path)
    states = study(tmp_path)
    state = states.load(SMALL)
    (digest,) = state.tokenizers.values()
    for name in (f"heldout/{state.heldout}", f"tokenizers/{digest}"):
        (tmp_path / "store" / name).unlink()
    with pytest.raises(DataError, match="--new-tokenizer"):
        states.trained_tokenizer(state, SMALL.vocabulary)
    assert make(tmp_path).root == first.root
    assert states.held_keys(state) and states.trained_tokenizer(state, SMALL.vocabulary)


class StepPool(InlinePool):
    """Runs tasks in this process, those of each kind once `step` lets them begin."""

    def __init__(self, shared, step):
        self.shared, self.step = shared, step

    def map(self, work, items):
        self.step(type(work))
        yield from super().map(work, items)


@pytest.mark.parametrize("homes", [1, 2])
def test_preparations_at_once_over_one_store_take_nothing_from_each_other(tmp_path, s3, homes):
    """Catches names in a store that two preparations share (of one corpus, prepared in two homes,
    or of parts that two corpora of one home have) and of which the first to end removes what the
    other has yet to read; and files that the last one leaves in the store."""
    settings = [SMALL, SMALL if homes == 2 else replace(SMALL, valid_bytes=10_000)]
    given = GIVEN | {"garden": Texts(tuple(document(2000 + i) for i in range(40)))}
    both_read, ended = threading.Barrier(2, timeout=60), threading.Event()

    def prepared(number):
        def step(work):
            if work is Deduplicator:
                both_read.wait()
            if work is PartitionEncoder and number:
                assert ended.wait(60)

        try:
            home = tmp_path / ("home", "other")[number if homes == 2 else 0]
            pool = StepPool(f"{s3}/corpora", step)
            return make(home, given, settings=settings[number], states=None, pool=pool)
        finally:
            ended.set()

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(prepared, (0, 1)))
    for corpus, setting in zip(found, settings, strict=True):
        alone = make(tmp_path / "alone", given, settings=setting, states=None)
        assert files(corpus.root) == files(alone.root)
    assert ObjectFolder(f"{s3}/corpora").all_names() == []


def test_a_copy_of_a_home_works_in_a_folder_of_its_own(tmp_path):
    """Catches a name that goes with a home to another machine, and one that changes by itself."""
    (tmp_path / "a").mkdir()
    name = home_name(tmp_path / "a")
    assert home_name(tmp_path / "a") == name
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert home_name(tmp_path / "b") != name


def test_a_spool_goes_with_the_last_preparation_that_uses_it(tmp_path):
    """Catches spools that stay for a week because another preparation had not ended, and one that
    goes while another uses it or may go on with it."""

    def left():
        return sorted(path.name for path in (tmp_path / SPOOLS).glob("*.texts"))

    with PreparationFiles(tmp_path, None) as second:
        with PreparationFiles(tmp_path, None) as first:
            first.use(["one", "both"])
            second.use(["both", "two"])
            for name in ("one", "both", "two"):
                first.spools.write(f"{name}.texts", b"1")
        assert left() == ["both.texts", "two.texts"]
    assert not (tmp_path / SPOOLS).exists()
    with pytest.raises(KeyboardInterrupt), PreparationFiles(tmp_path, None) as failed:
        failed.use(["failed"])
        failed.spools.write("failed.texts", b"1")
        raise KeyboardInterrupt
    with PreparationFiles(tmp_path, None):
        pass
    assert left() == ["failed.texts"]
    (list_of_it,) = (tmp_path / SPOOLS).glob("*.use")
    os.utime(list_of_it, (0, list_of_it.stat().st_mtime - 2 * WEEK))
    with PreparationFiles(tmp_path, None):
        pass
    assert not (tmp_path / SPOOLS).exists()
