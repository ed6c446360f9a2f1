"""The store on a real S3 API: conditional writes, throttling, lost answers, large objects."""

import hashlib
import pickle
import random

import pytest
from s3_server import RESET
from s3fs import S3FileSystem

from cuvee.mixtures.errors import StorageError
from cuvee.proxies.data import objects, storage_errors
from cuvee.proxies.data.objects import ObjectFolder
from cuvee.tasks.store.leases import LeaseStore
from cuvee.tasks.store.results import Store
from cuvee.tasks.store.shared_inputs import corpus_problems


@pytest.fixture
def quick(monkeypatch):
    """Tries again at once."""
    monkeypatch.setattr(storage_errors, "REMOTE_PAUSES", (0.0, 0.0, 0.0))


def failing_first(count, status):
    """Faults of the first requests."""
    left = iter(range(count))
    return lambda method, path: status if next(left, None) is not None else None


@pytest.mark.parametrize("status", [503, 429, RESET, 409])
def test_a_create_whose_answer_was_lost_is_ours_and_nobody_elses(
    s3, s3_server, quick, status, monkeypatch
):
    """Catches a sweep that takes its own lease for another's, and waits for itself for ever."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")  # so that the client tries again unseen
    S3FileSystem.clear_instance_cache()
    folder = ObjectFolder(f"{s3}/store")
    with s3_server.failing(failing_first(2, status), after=True):
        assert folder.create("lease", b"mine")
    assert not folder.create("lease", b"theirs") and folder.read("lease") == b"mine"


def test_a_store_that_asks_for_patience_gets_it(s3, s3_server, quick):
    """Catches a first 503 that ends a study, and a store that is asked for ever."""
    folder = ObjectFolder(f"{s3}/store")
    folder.replace("one", b"1")
    for status in (503, 429, RESET):
        with s3_server.failing(failing_first(3, status)):
            assert folder.read("one") == b"1"
    asked = len(s3_server.asked)
    with (
        s3_server.failing(lambda method, path: 503),
        pytest.raises(StorageError, match="asks for fewer requests .status 503.*run again later"),
    ):
        folder.read("one")
    assert 4 <= len(s3_server.asked) - asked <= 16


def test_a_streamed_file_and_what_is_read_from_within_it_get_patience_too(
    s3, s3_server, quick, monkeypatch
):
    """Catches files of a preparation that one throttled request loses, and a sentence that blames
    the local folder for what the store refuses."""
    monkeypatch.setattr(objects, "PART", 5 << 20)
    folder = pickle.loads(pickle.dumps(ObjectFolder(f"{s3}/store").within("work")))
    text = random.Random(0).randbytes(11 << 20)
    for status in (503, RESET):
        name = f"large-{status}"
        with s3_server.failing(failing_first(3, status)), folder.writing(name) as file:
            file.write(text)
        with folder.open(name) as file, s3_server.failing(failing_first(3, status)):
            assert file.seek(9 << 20) and file.read(100) == text[9 << 20 :][:100]
            assert file.seek(-5, 2) and file.read() == text[-5:]
    with (
        s3_server.failing(lambda method, path: 503),
        pytest.raises(StorageError, match=r"store of bucket.*/work/lost asks for fewer"),
        folder.writing("lost") as file,
    ):
        file.write(b"1")
    with pytest.raises(FileNotFoundError):
        folder.open("lost")


def test_pauses_grow_and_differ(monkeypatch, s3, s3_server):
    """Catches workers that were throttled together and all come back together."""
    waited: list[float] = []
    monkeypatch.setattr(storage_errors.time, "sleep", waited.append)
    for _ in range(2):
        with s3_server.failing(lambda method, path: 503), pytest.raises(StorageError):
            ObjectFolder(f"{s3}/store").read("one")
    half = len(waited) // 2
    assert waited[half - 1] > waited[0] and waited[:half] != waited[half:]


def test_what_is_refused_for_good_is_not_asked_again(s3, s3_server):
    """Catches a minute of patience with a bucket that is not there."""
    asked = len(s3_server.asked)
    with pytest.raises(StorageError, match="bucket"):
        ObjectFolder(f"{s3}-none/store").replace("one", b"1")
    assert len(s3_server.asked) - asked <= 2


def test_a_large_object_goes_up_in_parts_and_comes_down_by_ranges(
    s3, s3_server, tmp_path, monkeypatch
):
    """Catches one request for a whole shard, which fails as a whole and must fit into memory."""
    monkeypatch.setattr(objects, "RANGE", 5 << 20)
    monkeypatch.setattr(objects, "PART", 5 << 20)
    text = random.Random(0).randbytes(21 << 20)
    (tmp_path / "up").write_bytes(text)
    folder, before = ObjectFolder(f"{s3}/store"), len(s3_server.asked)
    folder.upload(tmp_path / "up", "large")
    asked = s3_server.asked[before:]
    assert sum("partNumber" in path for method, path in asked if method == "PUT") == 5
    before = len(s3_server.asked)
    digest = folder.download("large", tmp_path / "down", len(text))
    assert digest == hashlib.sha256(text).hexdigest()
    assert (tmp_path / "down").read_bytes() == text
    assert sum(method == "GET" for method, _ in s3_server.asked[before:]) == 5


def test_conditional_writes_are_tried_once_for_a_store(s3, s3_server):
    """Catches a probe before every sweep."""
    assert ObjectFolder(f"{s3}/store").creates_once()
    before = len(s3_server.asked)
    assert ObjectFolder(f"{s3}/store").creates_once()
    assert not any(method == "PUT" for method, _ in s3_server.asked[before:])


def test_a_probe_that_was_throttled_says_nothing_of_the_store(s3, s3_server, quick):
    """Catches one busy minute that makes a store one that is never shared again."""
    folder = ObjectFolder(f"{s3}/store")
    busy = lambda method, path: 503 if method == "PUT" else None  # noqa: E731
    with s3_server.failing(busy), pytest.raises(StorageError, match="asks for fewer"):
        folder.creates_once()
    with s3_server.failing(busy), pytest.raises(StorageError), LeaseStore(Store(f"{s3}/store")):
        pass
    assert folder.creates_once() and not folder.names("sweeps")


def test_a_preparation_under_way_is_no_damaged_corpus(s3):
    """Catches a doctor that takes the files of a running preparation for corpora."""
    folder = ObjectFolder(f"{s3}/store")
    folder.replace("corpora/.parts.partial/0.texts", b"1")
    assert corpus_problems(f"{s3}/store") == ([], 0)
    folder.replace("corpora/torn/train.bin", b"1")
    problems, count = corpus_problems(f"{s3}/store")
    assert count == len(problems) == 1
