"""The store keeps what was written, and never gives back what was not."""

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import fsspec
import fsspec.implementations.memory
import pytest
from fsspec.registry import _registry as registered

from cuvee.mixtures.errors import NewerError, StorageError
from cuvee.mixtures.runs.run_records import outcome_to_json
from cuvee.mixtures.runs.run_results import Failed, RunResult, Score
from cuvee.mixtures.runs.run_spec import RunSpec, Stage
from cuvee.tasks.approval import manifest
from cuvee.tasks.store.results import FORMAT, Store, _sealed


def spec(seed: int = 0) -> RunSpec:
    return RunSpec(
        domains=("a", "b"),
        identities=("1", "2"),
        stages=(Stage((0.25, 0.75)),),
        size="0.3M",
        tokens=1000,
        seed=seed,
    )


def result(seed: int = 0) -> RunResult:
    return RunResult(
        spec(seed),
        scores={"domain/a": Score(1.0 / 3.0, 0.01, 7)},
        curve=((10, 2.5), (20, 2.25)),
        trajectory=((0, (0.25, 0.75)),),
        tokens=(250, 750),
        epochs=(0.1, 0.2),
        flops=1e9,
        seconds=1.5,
    )


def record(store: Store, seed: int = 0) -> str:
    return f"{store.objects.root}/runs/{spec(seed).fingerprint}/result.json"


@pytest.mark.parametrize(
    ("url", "cure"),
    [
        ("s3://bucket/x", "pip install 'cuvee[s3]'"),
        ("zip://x::s3://bucket/y", "pip install 'cuvee[s3]'"),
        ("gs://bucket/x", "gcsfs"),
        ("foo://bucket/x", "s3://bucket/folder"),
        ("s3:/bucket/x", "s3://bucket/x"),
    ],
)
def test_a_place_that_nothing_here_opens_is_a_sentence(url, cure, monkeypatch):
    """Catches fsspec's ImportError and ValueError, and a folder called "s3:"."""
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)  # not installed
    for protocol in ("s3", "gs"):  # which fsspec keeps, once it was opened
        monkeypatch.delitem(registered, protocol, raising=False)
    for use in (Store, manifest.verify_export):
        with pytest.raises(StorageError, match=re.escape(cure)):
            use(url)


def test_a_place_that_cannot_be_written_is_a_sentence(monkeypatch):
    """Catches what a file system raises that is no OSError: here NotImplementedError."""
    monkeypatch.setattr("cuvee.proxies.data.storage_errors.REMOTE_PAUSES", (0.0,))
    store = Store("http://127.0.0.1:9/x")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1"):
        store.put(result())


def test_an_outcome_comes_back_to_the_last_digit(tmp_path):
    """Catches a store that rounds, drops a field, or turns tuples into lists."""
    store = Store(str(tmp_path))
    store.put(result())
    store.put(Failed(spec(1), "diverged"))
    again = Store(str(tmp_path))
    assert again.get(spec().fingerprint) == result()
    assert again.get(spec(1).fingerprint) == Failed(spec(1), "diverged")
    assert again.get(spec(2).fingerprint) is None


@pytest.mark.parametrize("harm", ["truncate", "flip", "empty", "deep", "other"])
def test_a_damaged_record_is_named_and_never_used(tmp_path, harm):
    """Catches a store that parses what it can: each harm leaves a plausible file."""
    store = Store(str(tmp_path))
    store.put(result())
    path = record(store)
    raw = open(path, "rb").read()
    if harm == "truncate":
        raw = raw[: len(raw) // 2]
    elif harm == "flip":
        raw = raw.replace(b"2.25", b"2.26")  # still valid JSON, still a plausible loss
    elif harm == "empty":
        raw = b""
    elif harm == "deep":
        raw = b"[" * 100_000  # RecursionError
    else:
        store.put(result(1))
        raw = open(record(store, 1), "rb").read()  # a sound record in the wrong place
    open(path, "wb").write(raw)
    assert store.get(spec().fingerprint) is None
    assert len(store.damaged) == 1 and spec().fingerprint in store.damaged[0]
    assert store.missing((spec(),)) == (spec(),)
    store.put(result())
    assert store.get(spec().fingerprint) == result()


def renamed(names, heldout, identities=("2", "1")):
    """The run of `spec` with its domains exchanged, under other names."""
    return replace(
        spec(),
        domains=names,
        identities=identities,
        heldout=heldout,
        stages=(Stage((0.75, 0.25)),),
    )


def test_a_result_is_read_under_the_names_of_whoever_asks(tmp_path):
    """Catches a run that is trained again for a new name, and a score under an old one."""
    store, held = Store(str(tmp_path)), replace(spec(), heldout=("ha", "hb"))
    scores = {"domain/a": Score(1.0, 0.01, 7), "domain/b": Score(2.0, 0.01, 7)}
    store.put(replace(result(), spec=held, scores=scores))
    now = renamed(("a", "z"), ("hb", "ha"))
    assert store.missing((now,)) == () and now.fingerprint == held.fingerprint
    found = Store(str(tmp_path)).outcome_of(now)
    assert found.spec == now and found.tokens == (750, 250)
    assert found.scores == {"domain/a": scores["domain/b"], "domain/z": scores["domain/a"]}


def test_a_score_that_is_wanted_besides_is_added_to_the_record(tmp_path):
    """Catches a result that stands for one that was never scored so, a record that a second scoring
    writes over, and a failure that takes away what a run has given."""
    store, held = Store(str(tmp_path)), replace(spec(), heldout=("ha", "hb"))
    first = {"domain/a": Score(1.0, 0.01, 7), "domain/b": Score(2.0, 0.01, 7)}
    store.put(replace(result(), spec=held, scores=first))
    now = renamed(("b", "a"), ("hb", "new"))
    assert store.outcome_of(now) is None and store.missing((held, now)) == (now,)
    second = {"domain/a": Score(3.0, 0.01, 7), "domain/b": Score(2.0, 0.01, 7)}
    Store(str(tmp_path)).put(
        replace(result(), spec=now, scores=second, tokens=(750, 250), epochs=(0.2, 0.1))
    )
    assert store.outcome_of(now).scores == second
    assert store.outcome_of(held).scores == first
    store.put(Failed(now, "the disk was full"))
    assert store.outcome_of(held).scores == first and store.missing((held, now)) == ()


def test_nothing_half_written_is_visible(tmp_path, monkeypatch):
    """Catches a store that writes in place: a crash before the rename must leave the old record."""
    store = Store(str(tmp_path))
    store.put(result())

    def crash(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        store.put(result())
    monkeypatch.undo()
    assert store.get(spec().fingerprint) == result()
    assert os.listdir(os.path.dirname(record(store))) == ["result.json"]


def test_a_full_disk_and_a_locked_folder_are_said_in_words(tmp_path, monkeypatch):
    """Catches an OSError that reaches the user, and a message without a way out."""
    store = Store(str(tmp_path))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="no space left .* free some space"):
        store.put(result())
    monkeypatch.undo()
    with open(tmp_path / "file", "w") as file:
        file.write("not a folder")
    with pytest.raises(StorageError, match="cannot"):
        Store(str(tmp_path / "file"))


def test_a_read_only_folder_is_said_in_words(tmp_path, monkeypatch):
    """Catches a PermissionError that reaches the user."""

    def locked(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "makedirs", locked)
    with pytest.raises(StorageError, match="permissions"):
        Store(str(tmp_path / "store"))


def test_objects_elsewhere_than_on_a_disk(tmp_path):
    """Catches a store that only works on local paths; memory:// stands for any object store."""
    store = Store("memory://bucket/study")
    store.put(result())
    assert Store("memory://bucket/study").get(spec().fingerprint) == result()
    assert [run.spec.seed for run in store.outcomes()] == [0]


def test_values_are_remembered_by_key(tmp_path):
    """Catches a cache that forgets its key or survives damage."""
    store = Store(str(tmp_path))
    store.remember("things", "k1", {"x": [1, 2.5]})
    assert store.recall("things", "k1") == {"x": [1, 2.5]}
    assert store.recall("things", "k2") is None
    path = tmp_path / "things" / "k1.json"
    content = json.loads(path.read_text())
    content["content"]["x"][1] = 2.6
    path.write_text(json.dumps(content))
    assert store.recall("things", "k1") is None


class Unsure(fsspec.implementations.memory.MemoryFileSystem):
    """Reports that a write failed, after it was done or before."""

    protocol = "unsure"
    store, pseudo_dirs, plan = {}, [""], []

    def pipe_file(self, path, value, mode="overwrite", **kwargs):
        step = self.plan.pop(0) if self.plan else ""
        if step == "before":
            raise OSError(5, "on purpose")
        super().pipe_file(path, value, mode=mode, **kwargs)
        if step == "after":
            raise OSError(5, "on purpose")

    def ls(self, path, detail=True, **kwargs):
        if self.plan and self.plan.pop(0) == "list":
            raise OSError(5, "on purpose")
        return super().ls(path, detail=detail, **kwargs)


@pytest.fixture
def unsure(monkeypatch):
    fsspec.register_implementation("unsure", Unsure, clobber=True)
    monkeypatch.setattr("cuvee.proxies.data.storage_errors.REMOTE_PAUSES", (0.0, 0.0, 0.0))
    for name, value in (("plan", []), ("store", {}), ("pseudo_dirs", [""])):
        monkeypatch.setattr(Unsure, name, value)
    return Store("unsure://place")


@pytest.mark.parametrize("plan", [["after"], ["before"], ["before", "after"], ["after", "after"]])
def test_what_was_made_although_it_was_said_to_have_failed_is_ours(unsure, plan):
    """Catches a sweep that waits for ever for another one, which is itself."""
    Unsure.plan = plan
    assert unsure.objects.create("claims/a/0", b"mine")
    Unsure.plan = list(plan)
    assert not unsure.objects.create("claims/a/0", b"theirs")
    assert unsure.objects.read("claims/a/0") == b"mine"


def test_a_folder_that_cannot_be_listed_now_is_listed_again(unsure):
    """Catches a plan that ends in an OSError because a shared disk had a bad moment."""
    unsure.put(result())
    unsure.remember("things", "k", 1)
    Unsure.plan = ["list", "list"]
    assert [run.spec.seed for run in unsure.outcomes()] == [0]
    Unsure.plan = ["list"]
    assert unsure.keys("things") == ("k",)
    Unsure.plan = ["list"] * 9
    with pytest.raises(StorageError, match="cannot use"):
        unsure.keys("things")


def test_a_result_is_read_once_and_a_failure_until_it_is_one(tmp_path, monkeypatch):
    """Catches a plan that reads a large store four times, and a failure that is remembered."""
    store = Store(str(tmp_path))
    store.put(result(0))
    store.put(Failed(spec(1), "diverged"))
    read = []
    opened = store.objects.files.cat_file
    monkeypatch.setattr(
        store.objects.files, "cat_file", lambda path: read.append(path) or opened(path)
    )
    for _ in range(3):
        assert [
            type(run) for run in map(store.get, (spec(0).fingerprint, spec(1).fingerprint))
        ] == [
            RunResult,
            Failed,
        ]
    assert len(read) == 4
    Store(str(tmp_path)).put(result(1))
    assert store.get(spec(1).fingerprint) == result(1)


def written_later(path: str, **spec) -> None:
    """A record as a later version of the same format would write it, with fields of its own."""
    content = json.loads(json.dumps(outcome_to_json(result())))
    content["spec"] |= spec
    content["scores"]["domain/a"]["novel"] = content["novel"] = 1
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(_sealed(content))


def test_a_field_of_a_later_version_is_no_damage_and_is_not_lost(tmp_path):
    """Catches an old client that quarantines what a newer one wrote, or writes it poorer."""
    store = Store(str(tmp_path))
    written_later(record(store), novel=0.0)
    assert store.get(spec().fingerprint) == result() and store.damaged == []
    Store(str(tmp_path)).put(result())
    content = json.loads(Path(record(store)).read_text())["content"]
    assert content["novel"] == 1 and content["spec"]["novel"] == 0.0
    other = record(store).replace(spec().fingerprint, "f" * 64)  # of another value of the field
    written_later(other, novel=1.0)
    assert store.get("f" * 64) is None and Path(other).exists() and store.damaged == []


@pytest.mark.parametrize("where", ["store", "record", "x", None])
def test_what_a_newer_format_holds_is_refused_and_not_touched(tmp_path, where):
    """Catches a newer record that is moved or trained again over, a store without a number, and a
    number that is none (ValueError, TypeError)."""
    Store(str(tmp_path)).put(result())
    marker, path = tmp_path / "format.json", Path(record(Store(str(tmp_path))))
    assert json.loads(marker.read_text())["content"] == {"format": FORMAT}
    if where == "store":
        marker.write_bytes(_sealed({"format": FORMAT + 1, "novel": 1}))
    elif where != "record":
        marker.write_bytes(_sealed({"format": where}))
    else:
        path.write_text(json.dumps({"format": FORMAT + 1, "body": "of a kind unknown"}))
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for attempt in (
        lambda store: store.get(spec().fingerprint),
        lambda store: store.put(result()),
        lambda store: tuple(store.outcomes()),
    ):
        with pytest.raises(NewerError, match=r"is newer than this program.*Update cuvee"):
            attempt(Store(str(tmp_path)))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_claims_and_records_outlast_a_power_cut(tmp_path, monkeypatch):
    """Catches a claim of a handoff that is not written through, or whose folder is not: after a
    power cut the call would be made twice."""
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: (synced.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle)),
    )
    store = Store(str(tmp_path))
    store.objects.create("handoffs/k/1.claim", b"x")
    folder = f"{tmp_path}/handoffs"
    assert {f"{folder}/k/1.claim", f"{folder}/k", folder} <= set(synced)
    store.remember("things", "a", 1)
    assert f"{tmp_path}/things" in synced and any(".draft" in path for path in synced)
