"""A node's copies: fetched once, verified, the least recently used out first, never one in use."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cuvee.mixtures.errors import CorruptError, DataError, RecipeError, StorageError
from cuvee.proxies.data import node_cache
from cuvee.proxies.data.node_cache import NodeCache
from cuvee.proxies.data.objects import ObjectFolder

SIZE = 1000
USER = """
import sys, hashlib
from pathlib import Path
from cuvee.proxies.data.node_cache import NodeCache
from cuvee.proxies.data.objects import ObjectFolder
root, limit, url, key, *files = sys.argv[1:]
digests = dict(file.split("=") for file in files)
print("ready", flush=True)
sys.stdin.readline()
print(NodeCache(Path(root), int(limit)).folder(key, ObjectFolder(url), digests), flush=True)
sys.stdin.readline()
"""


class Watched(ObjectFolder):
    """Counts what is fetched."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.fetched: list[str] = []

    def download(self, name: str, target: Path, size: int) -> str:
        self.fetched.append(name)
        return super().download(name, target, size)


@pytest.fixture
def source(tmp_path) -> Watched:
    return Watched(str(tmp_path / "source"))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> NodeCache:
    monkeypatch.setattr(node_cache, "_in_use", {})
    return NodeCache(tmp_path / "cache", 5 * SIZE)


def fill(source: ObjectFolder, *names: str) -> dict[str, str]:
    digests = {}
    for name in names:
        raw = random.Random(name).randbytes(SIZE)
        source.replace(name, raw)
        digests[name] = hashlib.sha256(raw).hexdigest()
    return digests


def let_go() -> None:
    """As if the process that used the copies had ended."""
    for lock in node_cache._in_use.values():
        lock.close()
    node_cache._in_use.clear()


def test_a_copy_is_fetched_once_and_again_where_it_was_touched(source, cache):
    """Catches a fetch for each pack, and a copy that is trusted whatever became of it."""
    files = fill(source, "a", "b/c")
    folder = cache.folder("one", source, files)
    assert cache.folder("one", source, files) == folder and sorted(source.fetched) == ["a", "b/c"]
    (folder / "b/c").write_bytes(b"x" * SIZE)
    cache.folder("one", source, files)
    assert source.fetched[2:] == ["b/c"]  # the other file was still what it was
    assert hashlib.sha256((folder / "b/c").read_bytes()).hexdigest() == files["b/c"]


@pytest.mark.parametrize("harm", [lambda raw: raw[:-1], lambda raw: b"x" + raw[1:]])
def test_a_damaged_object_is_named_and_leaves_no_copy(source, cache, harm):
    """Catches a truncated or flipped object that is trained on."""
    files = fill(source, "a", "b")
    source.replace("b", harm(source.read("b")))
    with pytest.raises(CorruptError, match=rf"source/b is damaged.*{files['b']}"):
        cache.folder("one", source, files)
    assert not (cache.root / "one").exists()
    source.remove("b")
    with pytest.raises(DataError, match="source/b is missing"):
        cache.folder("one", source, files)


def test_a_killed_fetch_goes_on_and_is_no_copy(source, cache, monkeypatch):
    """Catches half a corpus under its name, and hours of fetching that are done anew."""
    files = fill(source, "a", "b", "c")
    monkeypatch.setattr(node_cache, "AT_ONCE", 1)

    def die(name: str, target: Path, size: int) -> str:
        if name == "c":
            target.write_bytes(b"half")
            raise KeyboardInterrupt
        return Watched.download(source, name, target, size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(source, "download", die)
        cache.folder("one", source, files)
    assert not (cache.root / "one").exists()
    before = len(source.fetched)
    folder = cache.folder("one", source, files)
    assert source.fetched[before:] == ["c"]
    assert {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in files} == files


def test_the_least_recently_used_goes_first_and_what_is_in_use_never(source, cache):
    """Catches a cache that grows for ever, one that drops the newest, and a shard that vanishes
    under a live process."""
    files = {name: fill(source, name) for name in ("a", "b", "c", "d", "e", "f", "g")}
    for age, name in enumerate("abcde"):
        os.utime(cache.folder(name, source, files[name]), (age, age))
    let_go()
    cache.folder("a", source, files["a"])  # used now, and by this process from now on
    cache.folder("f", source, files["f"])
    assert {copy.path.name for copy in cache.copies()} == set("acdef")  # "b" was the oldest
    small = NodeCache(cache.root, 2 * SIZE)
    with pytest.raises(StorageError, match="in use by running processes: raise CUVEE_CACHE_LIMIT"):
        small.folder("g", source, files["g"])
    assert {copy.path.name for copy in cache.copies()} == set("af")
    let_go()
    small.folder("g", source, files["g"])
    assert {copy.path.name for copy in cache.copies()} == set("fg")
    with pytest.raises(StorageError, match="needs 0.00 GB"):
        NodeCache(cache.root, SIZE - 1).folder("c", source, files["c"])


def test_of_processes_that_want_one_copy_one_fetches_and_its_users_keep_it(s3, s3_server, tmp_path):
    """Catches two fetches into one folder, and locks that only the threads of a process see."""
    source = ObjectFolder(f"{s3}/source")
    files = fill(source, "a", "b")
    root, arguments = tmp_path / "cache", [f"{name}={digest}" for name, digest in files.items()]
    before = len(s3_server.asked)
    users = [
        subprocess.Popen(
            [sys.executable, "-c", USER, root, f"{3 * SIZE}", source.url, "one", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for user in users:
        assert user.stdout.readline() == "ready\n"
    for user in users:
        user.stdin.write("go\n")
        user.stdin.flush()
    assert {user.stdout.readline().strip() for user in users} == {str(root / "one")}
    read = [path for method, path in s3_server.asked[before:] if method == "GET"]
    assert sum("/source/" in path for path in read) == 2
    cache, other = NodeCache(root, 3 * SIZE), fill(source, "c", "d")
    with pytest.raises(StorageError, match="in use"):
        cache.folder("two", source, other)
    for user in users:
        user.kill()
        user.wait()
    cache.folder("two", source, other)
    assert [copy.path.name for copy in cache.copies()] == ["two"]
    let_go()


@pytest.mark.parametrize(("given", "limit"), [("2GB", 2e9), ("1.5T", 1.5e12), ("700", 700)])
def test_the_limit_is_bytes_in_the_environment(given, limit, monkeypatch, tmp_path):
    """Catches GB read as bytes."""
    monkeypatch.setenv("CUVEE_CACHE", str(tmp_path / "none" / "yet"))
    monkeypatch.setenv("CUVEE_CACHE_LIMIT", given)
    assert NodeCache.of_environment() == NodeCache(tmp_path / "none" / "yet", int(limit))
    monkeypatch.setenv("CUVEE_CACHE_LIMIT", "much")
    with pytest.raises(RecipeError, match="such as 500GB or 2TB; got 'much'"):
        NodeCache.of_environment()
    monkeypatch.delenv("CUVEE_CACHE_LIMIT")
    assert NodeCache.of_environment().limit == shutil.disk_usage(tmp_path).total // 2
